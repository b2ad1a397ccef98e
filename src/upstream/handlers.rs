//! Numbers for the handlers that make requests: a handler's address tells protocols apart, but means
//! something in one process only.

#![forbid(unsafe_code)]

/// More than the modules of nginx that use upstreams.
const MOST: usize = 16;

/// The handlers that were seen, each under its number.
#[derive(Default)]
pub struct Handlers {
    addresses: [usize; MOST],
    len: usize,
}

impl Handlers {
    /// The number of a handler; `None` if there are too many, whose connections are not kept.
    pub fn number(&mut self, address: usize) -> Option<u16> {
        let known = self.addresses.iter().take(self.len).position(|&known| known == address);
        let number = match known {
            Some(number) => number,
            None => {
                *self.addresses.get_mut(self.len)? = address;
                self.len = self.len.saturating_add(1);
                self.len.saturating_sub(1)
            }
        };
        u16::try_from(number).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_handler_has_a_number_of_its_own() {
        let mut handlers = Handlers::default();
        let numbers: Vec<_> = (100..116).map(|address| handlers.number(address)).collect();
        let expected: Vec<_> = (0..16).map(Some).collect();
        assert_eq!(numbers, expected);
        assert_eq!(handlers.number(116), None);
        assert_eq!(handlers.number(107), Some(7));
        // No address is that of another one by default.
        assert_eq!(Handlers::default().number(0), Some(0));
    }
}

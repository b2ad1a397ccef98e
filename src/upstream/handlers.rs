//! Numbers for the handlers that create requests: the address of a handler tells protocols apart,
//! but has a meaning in one process only.

#![forbid(unsafe_code)]

/// The most handlers: more than nginx has modules that use upstreams.
const MOST: usize = 16;

/// The known handlers, each under its number.
#[derive(Default)]
pub struct Handlers {
    addresses: [usize; MOST],
    len: usize,
}

impl Handlers {
    /// The number of a handler; `None` if there are too many: its connections are not kept.
    #[inline(always)]
    pub fn number(&mut self, address: usize) -> Option<u16> {
        // Most upstreams have one handler.
        match self.addresses {
            [first, ..] if first == address && self.len != 0 => Some(0),
            _ => self.find_or_add(address),
        }
    }

    fn find_or_add(&mut self, address: usize) -> Option<u16> {
        let mut known = self.addresses.iter().take(self.len);
        let number = known.position(|&known| known == address).unwrap_or(self.len);
        *self.addresses.get_mut(number)? = address;
        self.len = self.len.max(number.saturating_add(1));
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
        // An unused entry does not match any address.
        assert_eq!(Handlers::default().number(0), Some(0));
    }
}

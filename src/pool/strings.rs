//! Byte strings of limited length, each under the index of its node.

use allocator_api2::alloc::Allocator;
use allocator_api2::collections::TryReserveError;
use allocator_api2::vec::Vec;

/// A string's length; [`Strings`] are short.
pub type Length = u16;

/// One place of the same size for each node of a slab.
pub struct Strings<A: Allocator> {
    bytes: Vec<u8, A>,
    size: Length,
}

impl<A: Allocator> Strings<A> {
    /// Reserves memory for `capacity` strings of at most `size` bytes.
    pub fn new_in(capacity: u32, size: Length, allocator: A) -> Result<Self, TryReserveError> {
        let mut bytes = Vec::new_in(allocator);
        bytes.try_reserve_exact((capacity as usize).saturating_mul(size as usize))?;
        Ok(Strings { bytes, size })
    }

    /// The length that a string has if it fits, in bytes.
    pub fn fit(&self, string: &[u8]) -> Option<Length> {
        Length::try_from(string.len()).ok().filter(|&length| length <= self.size)
    }

    /// Whether this is the string of the node `index`, which was set with this length.
    #[inline(always)]
    pub fn is(&self, index: u32, length: Length, string: &[u8]) -> bool {
        let own = self.bytes.get(self.start(index)..).and_then(|own| own.get(..length as usize));
        own.is_some_and(|own| equal(own, string))
    }

    /// The string of the node `index`, which was set with this length.
    pub fn get(&self, index: u32, length: Length) -> Option<&[u8]> {
        self.bytes.get(self.start(index)..)?.get(..length as usize)
    }

    /// Sets the string of the node `index`.
    pub fn set(&mut self, index: u32, string: &[u8]) {
        let start = self.start(index);
        let end = start.saturating_add(self.size as usize);
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        let place = self.bytes.get_mut(start..).and_then(|bytes| bytes.get_mut(..string.len()));
        if let Some(place) = place {
            place.copy_from_slice(string);
        }
    }

    fn start(&self, index: u32) -> usize {
        (index as usize).saturating_mul(self.size as usize)
    }
}

/// Whether two strings are equal. Most are server addresses, of 16 bytes (IPv4): two comparisons
/// instead of a call.
#[inline(always)]
fn equal(a: &[u8], b: &[u8]) -> bool {
    match (<&[u8; 16]>::try_from(a), <&[u8; 16]>::try_from(b)) {
        (Ok(a), Ok(b)) => a == b,
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use allocator_api2::alloc::Global;

    use super::*;

    #[test]
    fn strings_lie_side_by_side() {
        let mut strings = Strings::new_in(3, 4, Global).unwrap();
        strings.set(0, b"aaaa");
        strings.set(1, b"bbbb");
        strings.set(2, b"cccc");
        strings.set(1, b"dd");
        assert!(strings.is(0, 4, b"aaaa"));
        assert!(strings.is(1, 2, b"dd"));
        assert!(strings.is(2, 4, b"cccc"));
        assert!(!strings.is(2, 4, b"cccd"));
        assert!(!strings.is(2, 4, b"ccc"));
    }

    #[test]
    fn strings_of_all_lengths_are_compared() {
        for length in 0..40 {
            let mut strings = Strings::new_in(1, 40, Global).unwrap();
            let mut string = vec![b'a'; length];
            strings.set(0, &string);
            assert!(strings.is(0, length as Length, &string));
            for i in 0..length {
                string[i] = b'b';
                assert!(!strings.is(0, length as Length, &string));
                string[i] = b'a';
            }
        }
    }

    #[test]
    fn the_longest_fits() {
        let strings = Strings::new_in(1, 4, Global).unwrap();
        assert_eq!(strings.fit(b""), Some(0));
        assert_eq!(strings.fit(b"aaaa"), Some(4));
        assert_eq!(strings.fit(b"aaaaa"), None);
        assert_eq!(strings.fit(&[0; 65540]), None);
    }
}

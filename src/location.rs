//! The module's configuration of a location: what its status shows, and its number.

#![forbid(unsafe_code)]

use core::hash::Hasher as _;
use std::collections::HashSet;

use foldhash::fast::FixedState;
use ngx::http::{Merge, MergeConfigError};
use siphasher::sip::SipHasher13;

use crate::status::params::StatusParams;

/// The module's configuration of a location.
#[derive(Debug, Default)]
pub struct LocationConf {
    /// `keepalive_status`.
    pub status: Option<StatusParams>,
    /// Distinguishes it from all other locations: never 0, and the same in all workers and after a
    /// reload.
    pub number: u64,
}

impl Merge for LocationConf {
    /// Inside of an `if`, the status has the same handler, but another configuration.
    fn merge(&mut self, outer: &Self) -> Result<(), MergeConfigError> {
        self.status = self.status.or(outer.status);
        Ok(())
    }
}

/// The numbers that the locations of a configuration have.
#[derive(Debug, Default)]
pub struct Numbers(HashSet<u64, FixedState>);

impl Numbers {
    /// The number of a location inside of another one, by the names of its server and its own. Of
    /// locations with the same names, each has a number of its own, by their order. `None` if there
    /// is no memory.
    pub fn number(&mut self, outer: u64, server: &[u8], location: &[u8]) -> Option<u64> {
        self.0.try_reserve(1).ok()?;
        let mut number = 0;
        while number == 0 || !self.0.insert(number) {
            let mut hasher = SipHasher13::new_with_keys(outer, number);
            hasher.write_usize(server.len());
            hasher.write(server);
            hasher.write(location);
            number = hasher.finish();
        }
        Some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers() -> Vec<u64> {
        let mut numbers = Numbers::default();
        let mut given = vec![];
        for server in ["", "a", "a.b"] {
            // Twice, as of two `server` blocks of the same name.
            for _ in 0..2 {
                let outer = numbers.number(0, server.as_bytes(), b"").unwrap();
                given.push(outer);
                for location in ["/", "/a", "/", ".b/"] {
                    given.push(
                        numbers.number(outer, server.as_bytes(), location.as_bytes()).unwrap(),
                    );
                }
            }
        }
        given
    }

    #[test]
    fn each_location_has_a_number_of_its_own() {
        let given = numbers();
        let different: HashSet<_> = given.iter().collect();
        assert_eq!((given.len(), different.len(), given.contains(&0)), (30, 30, false));
    }

    #[test]
    fn a_reload_does_not_change_the_numbers() {
        assert_eq!(numbers(), numbers());
    }

    #[test]
    fn a_further_location_does_not_change_the_numbers_of_others() {
        let mut numbers = Numbers::default();
        let before = numbers.number(7, b"a", b"/b");
        let mut numbers = Numbers::default();
        numbers.number(7, b"a", b"/a").unwrap();
        assert_eq!(numbers.number(7, b"a", b"/b"), before);
    }
}

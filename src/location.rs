//! The module's configuration of a location: what its status shows, and its number.

#![forbid(unsafe_code)]

use core::hash::Hasher as _;
use std::collections::HashSet;

use foldhash::fast::FixedState;
use ngx::http::{Merge, MergeConfigError};
use siphasher::sip::SipHasher13;

use crate::conf::status::StatusParams;

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
    /// The number of a location inside of another one, by its names. Of locations with the same
    /// names, each has a number of its own, by their order. `None` if there is no memory.
    pub fn number<'a>(
        &mut self,
        outer: u64,
        names: impl Iterator<Item = &'a [u8]> + Clone,
    ) -> Option<u64> {
        self.0.try_reserve(1).ok()?;
        let mut number = 0;
        while number == 0 || !self.0.insert(number) {
            let mut hasher = SipHasher13::new_with_keys(outer, number);
            for name in names.clone() {
                hasher.write_usize(name.len());
                hasher.write(name);
            }
            number = hasher.finish();
        }
        Some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(numbers: &mut Numbers, outer: u64, names: &[&str]) -> u64 {
        numbers.number(outer, names.iter().map(|name| name.as_bytes())).unwrap()
    }

    fn numbers() -> Vec<u64> {
        let mut numbers = Numbers::default();
        let mut given = vec![];
        for server in [&[][..], &["a"], &["a", "b"], &["ab"], &["a.b"]] {
            // Twice, as of two `server` blocks of the same names.
            for _ in 0..2 {
                let outer = number(&mut numbers, 0, server);
                given.push(outer);
                for location in ["/", "/a", "/", ".b/"] {
                    given.push(number(&mut numbers, outer, &[location]));
                }
            }
        }
        given
    }

    #[test]
    fn each_location_has_a_number_of_its_own() {
        let given = numbers();
        let different: HashSet<_> = given.iter().collect();
        assert_eq!((given.len(), different.len(), given.contains(&0)), (50, 50, false));
    }

    #[test]
    fn a_reload_does_not_change_the_numbers() {
        assert_eq!(numbers(), numbers());
    }

    #[test]
    fn a_further_location_does_not_change_the_numbers_of_others() {
        let mut numbers = Numbers::default();
        let before = number(&mut numbers, 7, &["/b"]);
        let mut numbers = Numbers::default();
        number(&mut numbers, 7, &["/a"]);
        assert_eq!(number(&mut numbers, 7, &["/b"]), before);
    }
}

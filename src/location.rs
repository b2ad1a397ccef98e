//! The module's configuration of a location: what its status shows, its number, and those of its TLS
//! settings.

#![forbid(unsafe_code)]

use core::hash::Hasher as _;
use std::collections::{HashMap, HashSet};

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
    /// Its TLS settings.
    pub tls: TlsSettings,
}

/// The number of TLS settings that have none: connections with them are not kept.
pub const UNKNOWN: u16 = u16::MAX;

/// The TLS settings of a location, for each module that passes requests to upstreams: the address of
/// that module's configuration, and a number.
#[derive(Debug, Default)]
pub struct TlsSettings([(usize, u16); 3]);

impl TlsSettings {
    /// Inserts the number of a module's settings. nginx has three such modules; those of a further
    /// one remain unknown.
    pub fn insert(&mut self, conf: usize, number: u16) {
        if let Some(free) = self.0.iter_mut().find(|settings| settings.0 == 0) {
            *free = (conf, number);
        }
    }

    /// The number of the settings that lie at this address.
    pub fn number(&self, conf: usize) -> u16 {
        let found = self.0.iter().find(|settings| settings.0 == conf);
        found.map_or(UNKNOWN, |settings| settings.1)
    }
}

/// The numbers of all TLS settings of a configuration, by their text.
#[derive(Default)]
pub struct TlsNumbers(HashMap<Vec<u8>, u16, FixedState>);

impl TlsNumbers {
    /// The number of settings: the same if they have the same text, and never 0. `None` if there is
    /// no memory.
    pub fn number(&mut self, settings: Vec<u8>) -> Option<u16> {
        self.0.try_reserve(1).ok()?;
        let next = u16::try_from(self.0.len().saturating_add(1)).unwrap_or(UNKNOWN);
        Some(*self.0.entry(settings).or_insert(next))
    }
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
    fn the_same_settings_have_the_same_number() {
        let mut numbers = TlsNumbers::default();
        let mut number = |text: &str| numbers.number(text.into()).unwrap();
        assert_eq!([number("a"), number("b"), number("a"), number("")], [1, 2, 1, 3]);
        for i in 0..u32::from(u16::MAX) {
            number(&i.to_string());
        }
        assert_eq!((number("a"), number("c"), number("d")), (1, UNKNOWN, UNKNOWN));
    }

    #[test]
    fn settings_that_are_not_there_are_unknown() {
        let mut settings = TlsSettings::default();
        for (conf, number) in [(8, 1), (16, 2), (24, 1), (32, 4)] {
            settings.insert(conf, number);
        }
        let numbers = [8, 16, 24, 32, 40].map(|conf| settings.number(conf));
        assert_eq!(numbers, [1, 2, 1, UNKNOWN, UNKNOWN]);
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

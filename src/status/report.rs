//! The content of the status, in any format.

#![forbid(unsafe_code)]

use core::cmp::Reverse;
use core::fmt::{self, Display, Formatter};

use crate::counters::{Pid, Totals};
use crate::pool::UsedSlice;

/// Most slices of one upstream that are listed.
pub const MOST_SLICES: usize = 50;

/// The status of all upstreams.
#[derive(Clone, Copy, Debug)]
pub struct Report<'a> {
    /// The worker that answers.
    pub worker: Pid,
    /// The upstreams that have a `keepalive` of this module.
    pub upstreams: &'a [UpstreamReport<'a>],
    /// The idle timeouts of servers; `None` if no upstream learns them.
    pub idle_timeouts: Option<&'a [ServerReport<'a>]>,
}

/// A server whose idle timeout was learned.
#[derive(Clone, Copy, Debug)]
pub struct ServerReport<'a> {
    /// Its address.
    pub address: Printable<'a>,
    /// The idle timeout.
    pub idle_timeout: Milliseconds,
}

/// A time in milliseconds, which is shown in seconds.
#[derive(Clone, Copy, Debug)]
pub struct Milliseconds(pub u32);

impl Display for Milliseconds {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1000, self.0 % 1000)
    }
}

/// The status of one upstream.
#[derive(Clone, Copy, Debug)]
pub struct UpstreamReport<'a> {
    /// Its name.
    pub name: Printable<'a>,
    /// Of all workers.
    pub totals: Totals,
    /// For each worker, or for all together.
    pub limits: ShownLimits,
    /// The busiest slices of the worker that answers, or of all; `None` if the directive does not
    /// list them.
    pub slices: Option<&'a [UsedSlice<'a>]>,
}

impl UpstreamReport<'_> {
    /// The slices that hold idle connections, if there are any slices.
    pub fn slices_in_use(&self) -> Option<u64> {
        self.limits.slice_poolsize.map(|_| self.totals.slices)
    }
}

/// The limits that are numbers in the configuration. `None`: there is no such limit.
#[derive(Clone, Copy, Debug)]
pub struct ShownLimits {
    /// The most idle connections.
    pub connections: u32,
    /// The most idle connections of one key.
    pub slice_conn: Option<u32>,
    /// The most slices that hold idle connections.
    pub slice_poolsize: Option<u32>,
    /// Whether they hold over all workers together.
    pub shared: bool,
}

/// Bytes that should be UTF-8. A byte that is not is shown as in nginx's logs, `\xFF`, so that two
/// names that differ only in such bytes look different.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Printable<'a>(pub &'a [u8]);

impl Display for Printable<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            f.write_str(chunk.valid())?;
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02X}")?;
            }
        }
        Ok(())
    }
}

/// Puts the busiest slices into a list: those with the most idle connections come first. The answer
/// is their number.
pub fn list_busiest<'a>(
    slices: impl Iterator<Item = UsedSlice<'a>>,
    list: &mut [UsedSlice<'a>],
) -> usize {
    let rank = |slice: &UsedSlice<'a>| (Reverse(slice.idle), Reverse(slice.hits), slice.key);
    let mut count = 0;
    for slice in slices {
        let listed = list.get(..count).unwrap_or_default();
        let place = listed.partition_point(|listed| rank(listed) <= rank(&slice));
        count = count.saturating_add(1).min(list.len());
        if let Some(rest) = list.get_mut(place..count) {
            rest.rotate_right(1.min(rest.len()));
            rest.iter_mut().take(1).for_each(|first| *first = slice);
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_always_utf8() {
        for (bytes, text) in [
            (&b""[..], ""),
            (b"a.example", "a.example"),
            (b"\"<&>\n\0", "\"<&>\n\0"),
            ("gr\u{fc}n".as_bytes(), "gr\u{fc}n"),
            (b"\xff", "\\xFF"),
            (b"a\xc3(b\xff", "a\\xC3(b\\xFF"),
        ] {
            assert_eq!(Printable(bytes).to_string(), text);
        }
    }

    #[test]
    fn times_are_shown_in_seconds() {
        for (time, text) in [(0, "0.000"), (2003, "2.003"), (65_010, "65.010")] {
            assert_eq!(Milliseconds(time).to_string(), text);
        }
    }

    #[test]
    fn the_busiest_slices_come_first() {
        let keys: Vec<String> = (0..200).map(|i| format!("{i:03}")).collect();
        let slices = keys.iter().zip(0..).map(|(key, i)| UsedSlice {
            key: key.as_bytes(),
            idle: i * 7 % 20,
            hits: (i * 11 % 3).into(),
        });
        let mut expected: Vec<_> = slices.clone().collect();
        expected.sort_by_key(|slice| (Reverse(slice.idle), Reverse(slice.hits), slice.key));
        expected.truncate(50);

        let mut list = [UsedSlice { key: &[], idle: 0, hits: 0 }; MOST_SLICES];
        assert_eq!(list_busiest(slices.clone().take(10), &mut list), 10);
        assert_eq!(list_busiest(slices, &mut list), 50);
        assert_eq!(list[..], expected[..]);
    }
}

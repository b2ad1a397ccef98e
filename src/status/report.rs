//! The content of the status, in any format.

#![forbid(unsafe_code)]

use core::cmp::Reverse;
use core::fmt::{self, Display, Formatter};

use allocator_api2::alloc::Allocator;
use allocator_api2::vec::Vec;

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
}

/// The status of one upstream.
#[derive(Clone, Copy, Debug)]
pub struct UpstreamReport<'a> {
    /// Its name.
    pub name: Printable<'a>,
    /// Of all workers.
    pub totals: Totals,
    /// For each worker.
    pub limits: ShownLimits,
    /// The busiest slices of the worker that answers; `None` if the directive does not list them.
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

/// Puts the busiest slices into a list that has room for them: those with the most idle connections
/// come first.
pub fn list_busiest<'a, A: Allocator>(
    slices: impl Iterator<Item = UsedSlice<'a>>,
    list: &mut Vec<UsedSlice<'a>, A>,
) {
    let rank = |slice: &UsedSlice<'a>| (Reverse(slice.idle), Reverse(slice.hits), slice.key);
    for slice in slices {
        let place = list.partition_point(|listed| rank(listed) <= rank(&slice));
        if place < MOST_SLICES {
            list.truncate(MOST_SLICES.saturating_sub(1));
            list.insert(place, slice);
        }
    }
}

#[cfg(test)]
mod tests {
    use allocator_api2::alloc::Global;

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
    fn the_busiest_slices_come_first() {
        let keys: std::vec::Vec<String> = (0..200).map(|i| format!("{i:03}")).collect();
        let slices = keys.iter().zip(0..).map(|(key, i)| UsedSlice {
            key: key.as_bytes(),
            idle: i * 7 % 20,
            hits: (i * 11 % 3).into(),
        });
        let mut expected: std::vec::Vec<_> = slices.clone().collect();
        expected.sort_by_key(|slice| (Reverse(slice.idle), Reverse(slice.hits), slice.key));
        expected.truncate(50);

        let mut list = Vec::new_in(Global);
        list.reserve_exact(MOST_SLICES);
        let capacity = list.capacity();
        list_busiest(slices.clone().take(10), &mut list);
        assert_eq!(list.len(), 10);
        list.clear();
        list_busiest(slices, &mut list);
        assert_eq!((&list[..], list.capacity()), (&expected[..], capacity));
    }
}

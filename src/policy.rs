//! The rules of reuse: whether a connection is kept after a request, and for how long; how many
//! connections of one key are kept; and whether a connection is checked before the next request
//! uses it, and is used.

#![forbid(unsafe_code)]

use crate::counters::{Closed, Refused};

mod idle_timeout;
pub mod idle_timeouts;

/// A point in time, in milliseconds of any clock that does not go back.
pub type Time = u64;

/// A connection that has been idle for this time, in milliseconds, is checked once more before it
/// is used. Servers that close idle connections wait at least this long. A busy site, whose
/// connections are never idle for this time, does not pay for the system call.
const LOOK_AFTER: u32 = 1000;

/// The facts that nginx knows about a connection after a request.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// The server has closed it.
    pub eof: bool,
    /// There was an error or a timeout on it.
    pub failed: bool,
    /// How many requests went through it.
    pub requests: usize,
    /// How long ago it was made, in milliseconds.
    pub age: u64,
    /// The response was read to its end, and the server does not close.
    pub reusable: bool,
    /// The request was sent to its end.
    pub request_sent: bool,
    /// The worker is shutting down.
    pub exiting: bool,
}

/// The limits for the use of one connection.
#[derive(Clone, Copy, Debug)]
pub struct UseLimits {
    /// `keepalive_requests`: most requests through one connection.
    pub requests: usize,
    /// `keepalive_time`: the age up to which a connection is kept, in milliseconds.
    pub time: u64,
}

impl UseLimits {
    /// Whether a connection can carry another request: the built-in module's checks, in its order.
    ///
    /// # Errors
    ///
    /// Why it cannot.
    pub fn check(&self, facts: &Facts) -> Result<(), Refused> {
        let refused = match facts {
            Facts { eof: true, .. } => Refused::Closed,
            Facts { failed: true, .. } => Refused::Failed,
            Facts { requests, .. } if *requests >= self.requests => Refused::Requests,
            Facts { age, .. } if *age > self.time => Refused::Time,
            Facts { reusable: false, .. } | Facts { request_sent: false, .. } => Refused::Closed,
            Facts { exiting: true, .. } => Refused::Exiting,
            _ => return Ok(()),
        };
        Err(refused)
    }
}

/// The origin of a limit of idle time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LimitedBy {
    /// `keepalive_timeout`, or no limit.
    Timeout,
    /// The server's `Keep-Alive` header.
    Hint,
}

impl From<LimitedBy> for Closed {
    fn from(by: LimitedBy) -> Self {
        match by {
            LimitedBy::Timeout => Closed::Timeout,
            LimitedBy::Hint => Closed::Hint,
        }
    }
}

/// How long a connection may be idle.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct IdleLimit {
    /// In milliseconds; `None` if there is no limit.
    time: Option<u64>,
    by: LimitedBy,
}

impl IdleLimit {
    /// The smaller one of `keepalive_timeout` and the server's hint, in milliseconds.
    ///
    /// # Errors
    ///
    /// The connection is not kept, because one of them leaves no time.
    pub fn new(timeout: Option<u64>, hint: Option<u64>) -> Result<Self, Refused> {
        let hinted = hint.is_some_and(|hint| timeout.is_none_or(|timeout| hint < timeout));
        match (hinted, if hinted { hint } else { timeout }) {
            (true, Some(0)) => Err(Refused::Hint),
            (false, Some(0)) => Err(Refused::Disabled),
            (true, time) => Ok(IdleLimit { time, by: LimitedBy::Hint }),
            (false, time) => Ok(IdleLimit { time, by: LimitedBy::Timeout }),
        }
    }

    /// The limit of a connection that may be idle until a deadline.
    pub fn until(deadline: Time, now: Time, by: LimitedBy) -> Self {
        let time = (deadline != Time::MAX).then(|| deadline.saturating_sub(now));
        IdleLimit { time, by }
    }

    /// The time from which a connection, idle from now on, is no longer used.
    pub fn deadline(self, now: Time) -> Time {
        self.time.map_or(Time::MAX, |time| now.saturating_add(time))
    }

    /// The timer after which the connection is closed, in milliseconds of a clock of this number of
    /// bits; `None` without a limit.
    pub fn timer(self, bits: u32) -> Option<u64> {
        self.time.map(|time| time.min(longest_timer(bits)))
    }

    /// Its origin.
    pub fn by(self) -> LimitedBy {
        self.by
    }
}

/// The longest timer of a clock of this number of bits, which may wrap around. nginx's tree of
/// timers compares two entries by the sign of their difference, so an entry that is due in half of
/// the range would be sorted before an expired one.
fn longest_timer(bits: u32) -> u64 {
    u64::MAX.checked_shr(u64::BITS.saturating_sub(bits).saturating_add(2)).unwrap_or(0)
}

/// The time between two points, of which the lower halves are known, in milliseconds. The clock of a
/// worker may be a little behind that of the one that has saved the connection: then it is nothing.
#[inline(always)]
pub fn idle_time(now: u32, since: u32) -> u32 {
    let time = now.wrapping_sub(since);
    if time > u32::MAX / 2 { 0 } else { time }
}

/// Whether a connection is checked before it is used, after it was idle for this number of
/// milliseconds: the server may have closed it just now, and the event may be queued behind the
/// event of the request.
pub fn must_look(idle: u32) -> bool {
    idle >= LOOK_AFTER
}

/// The value of `slice_dyn` for one request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SliceDyn {
    /// There is no such parameter.
    Unset,
    /// It is empty, or not found.
    Empty,
    /// A number; `None` if it is not a number.
    Number(Option<u32>),
}

impl SliceDyn {
    /// The most idle connections of one key; `None` if this one is not kept.
    pub fn limit(self, slice_conn: Option<u32>) -> Option<u32> {
        match self {
            SliceDyn::Unset => Some(slice_conn.unwrap_or(u32::MAX)),
            SliceDyn::Empty => slice_conn,
            SliceDyn::Number(number) => number,
        }
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: Facts = Facts {
        eof: false,
        failed: false,
        requests: 9,
        age: 1000,
        reusable: true,
        request_sent: true,
        exiting: false,
    };
    const LIMITS: UseLimits = UseLimits { requests: 10, time: 1000 };

    #[test]
    fn a_connection_is_refused_for_the_first_reason() {
        assert_eq!(LIMITS.check(&GOOD), Ok(()));
        // Each fact stays set in the following checks.
        let mut facts = Facts { exiting: true, ..GOOD };
        assert_eq!(LIMITS.check(&facts), Err(Refused::Exiting));
        assert_eq!(LIMITS.check(&Facts { reusable: false, ..facts }), Err(Refused::Closed));
        facts.request_sent = false;
        assert_eq!(LIMITS.check(&facts), Err(Refused::Closed));
        facts.age = 1001;
        assert_eq!(LIMITS.check(&facts), Err(Refused::Time));
        facts.requests = 10;
        assert_eq!(LIMITS.check(&facts), Err(Refused::Requests));
        facts.failed = true;
        assert_eq!(LIMITS.check(&facts), Err(Refused::Failed));
        facts.eof = true;
        assert_eq!(LIMITS.check(&facts), Err(Refused::Closed));
    }

    #[test]
    fn the_smaller_limit_counts_and_is_named() {
        use LimitedBy::{Hint, Timeout};
        for (timeout, hint, expected) in [
            (None, None, Ok((None, Timeout))),
            (Some(5), None, Ok((Some(5), Timeout))),
            (None, Some(5), Ok((Some(5), Hint))),
            (Some(5), Some(4), Ok((Some(4), Hint))),
            (Some(5), Some(5), Ok((Some(5), Timeout))),
            (Some(5), Some(6), Ok((Some(5), Timeout))),
            (Some(0), None, Err(Refused::Disabled)),
            (Some(0), Some(0), Err(Refused::Disabled)),
            (Some(0), Some(5), Err(Refused::Disabled)),
            (Some(5), Some(0), Err(Refused::Hint)),
            (None, Some(0), Err(Refused::Hint)),
        ] {
            let limit = IdleLimit::new(timeout, hint).map(|limit| (limit.time, limit.by()));
            assert_eq!(limit, expected, "{timeout:?} {hint:?}");
        }
    }

    #[test]
    fn a_deadline_is_as_far_as_the_limit() {
        let deadline = |time, now| IdleLimit { time, by: LimitedBy::Timeout }.deadline(now);
        assert_eq!(deadline(Some(5), 10), 15);
        assert_eq!(deadline(Some(5), u64::MAX - 1), u64::MAX);
        assert_eq!(deadline(None, 10), u64::MAX);
    }

    #[test]
    fn a_limit_goes_on_elsewhere() {
        for time in [None, Some(0), Some(5)] {
            let limit = IdleLimit { time, by: LimitedBy::Hint };
            let moved = IdleLimit::until(limit.deadline(10), 12, limit.by());
            assert_eq!(moved.time, time.map(|time: u64| time.saturating_sub(2)));
            assert_eq!(moved.by(), LimitedBy::Hint);
        }
    }

    #[test]
    fn timers_have_an_end() {
        let timer = |time, bits| IdleLimit { time, by: LimitedBy::Hint }.timer(bits);
        assert_eq!(timer(None, 64), None);
        assert_eq!(timer(Some(5), 64), Some(5));
        assert_eq!(timer(Some(u64::MAX), 64), Some(u64::MAX / 4));
        assert_eq!(timer(Some(4_294_968_000), 32), Some(u64::from(u32::MAX / 4)));
        assert_eq!(timer(Some(4_294_968_000), 64), Some(4_294_968_000));
    }

    #[test]
    fn a_clock_that_is_behind_is_no_idle_time() {
        assert_eq!(idle_time(7, 5), 2);
        assert_eq!(idle_time(5, 5), 0);
        assert_eq!(idle_time(5, 6), 0);
        assert_eq!(idle_time(3, u32::MAX), 4);
        assert_eq!(idle_time(u32::MAX, 3), 0);
    }

    #[test]
    fn a_connection_is_looked_at_after_a_second() {
        assert!(!must_look(0) && !must_look(999));
        assert!(must_look(1000) && must_look(u32::MAX));
    }

    #[test]
    fn slice_dyn_falls_back_to_slice_conn() {
        for (value, slice_conn, expected) in [
            (SliceDyn::Unset, None, Some(u32::MAX)),
            (SliceDyn::Unset, Some(4), Some(4)),
            (SliceDyn::Empty, None, None),
            (SliceDyn::Empty, Some(4), Some(4)),
            (SliceDyn::Number(Some(7)), Some(4), Some(7)),
            (SliceDyn::Number(Some(0)), None, Some(0)),
            (SliceDyn::Number(None), Some(4), None),
        ] {
            assert_eq!(value.limit(slice_conn), expected, "{value:?} {slice_conn:?}");
        }
    }

    proptest! {
        /// As nginx compares, on 32 bits: an entry that expired long ago, and was not handled yet,
        /// comes before the longest timer that begins now, wherever the clock wraps around.
        #[test]
        fn the_longest_timer_is_later_than_expired_ones(now: u32, late in 0..=u32::MAX / 4) {
            let longest = longest_timer(32) as u32;
            let (expired, due) = (now.wrapping_sub(late), now.wrapping_add(longest));
            prop_assert!((due.wrapping_sub(expired) as i32) > 0);
            prop_assert!((expired.wrapping_sub(due) as i32) < 0);
        }
    }
}

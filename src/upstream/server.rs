//! A server, and what an operation learns about its idle timeout.

use crate::counters::Closed;
use crate::learned::Learned;
use crate::policy::idle_timeouts::Verdict;
use crate::policy::{self, Time};

/// The server of connections that an operation looks at.
pub struct Server<'a> {
    /// `None` if nothing is learned.
    pub learned: Option<&'a Learned>,
    /// Its address.
    pub address: &'a [u8],
    /// The time by which the use of a connection ends before the server's timeout, in milliseconds.
    pub margin: u64,
    /// The time of the operation.
    pub now: Time,
}

impl Server<'_> {
    /// Whether a request uses an open connection that has been idle for this time, in milliseconds;
    /// `oldest` as for [`crate::policy::idle_timeouts::IdleTimeouts::check`].
    #[inline(always)]
    pub fn check(&self, idle: u32, oldest: impl FnOnce() -> Option<u32>) -> Verdict {
        match self.learned {
            Some(learned) if policy::must_look(idle) => self.look(learned, idle, oldest),
            _ => Verdict::Usable,
        }
    }

    #[cold]
    fn look(&self, learned: &Learned, idle: u32, oldest: impl FnOnce() -> Option<u32>) -> Verdict {
        learned.check(self.address, (idle, oldest), (self.now, self.margin))
    }

    /// A connection to it is closed, after it was idle for this time, in milliseconds.
    #[cold]
    pub fn closed(&self, why: Closed, idle: u32) {
        if let (Closed::Peer, Some(learned)) = (why, self.learned) {
            learned.closed(self.address, idle, self.now);
        }
    }
}

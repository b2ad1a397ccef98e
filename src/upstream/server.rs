//! A server, and what an operation learns about its idle timeout.

use crate::counters::Closed;
use crate::learned::Learned;
use crate::policy::Time;
use crate::policy::idle_timeouts::Verdict;

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
    /// Whether a request uses an open connection that has been idle for this time, in milliseconds: a
    /// second at least. `oldest` as for [`crate::policy::idle_timeouts::IdleTimeouts::check`].
    #[cold]
    #[inline(never)]
    pub fn check(&self, idle: u32, oldest: impl FnOnce() -> Option<u32>) -> Verdict {
        let time = (self.now, self.margin);
        match self.learned {
            Some(learned) => learned.check(self.address, (idle, oldest), time),
            None => Verdict::Usable,
        }
    }

    /// A connection to it is closed, after it was idle for this time, in milliseconds.
    #[cold]
    pub fn closed(&self, why: Closed, idle: u32) {
        if let (Closed::Peer, Some(learned)) = (why, self.learned) {
            learned.closed(self.address, idle, self.now);
        }
    }
}

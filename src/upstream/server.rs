//! A server, and what an operation learns about its idle timeout.

use core::cell::Cell;

use crate::counters::Closed;
use crate::learned::Learned;
use crate::policy::Time;

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
    /// The server's timeout, in milliseconds, if the operation is the first one that uses it.
    pub first_use: Cell<Option<u32>>,
}

impl Server<'_> {
    /// Whether the last saved connection is not used, since the server may be about to close it. `idle`
    /// is the time for which it has been idle, and `oldest` that of the one saved first, in
    /// milliseconds.
    #[cold]
    pub fn is_too_old(&self, idle: u32, oldest: impl FnOnce() -> u32) -> bool {
        let Some(learned) = self.learned else { return false };
        let verdict = learned.check(self.address, idle, (self.now, self.margin));
        let Some(timeout) = verdict.too_old else { return false };
        if verdict.is_first_use {
            self.first_use.set(Some(timeout));
        }
        // Nothing but the age of one that is not used shows that there is no such timeout any more.
        let oldest = oldest().max(idle);
        learned.check(self.address, oldest, (self.now, self.margin)).too_old.is_some()
    }

    /// A connection to it is closed, after it was idle for this time, in milliseconds.
    #[cold]
    pub fn closed(&self, why: Closed, idle: u32) {
        if let (Closed::Peer, Some(learned)) = (why, self.learned) {
            learned.closed(self.address, idle, self.now);
        }
    }
}

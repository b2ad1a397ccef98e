//! What the operations of an upstream answer.

use core::ffi::c_void;
use core::ptr::NonNull;

use nginx_sys::ngx_connection_t;

use super::parked::Parked;
use crate::counters::Refused;
use crate::policy::{self, Time};

/// A connection that was parked, and has left the upstream. Its receiver closes it or uses it.
#[must_use]
pub struct Removed {
    connection: NonNull<ngx_connection_t>,
    copies: Copies,
    /// The time when it was parked: the lower half.
    since: u32,
}

/// What other processes may have of a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Copies {
    /// Nothing.
    None,
    /// A descriptor that they do not use.
    Unused,
    /// A descriptor that they do use.
    Used,
}

impl Removed {
    /// One of this worker alone.
    pub fn own(parked: &Parked) -> Self {
        Removed { connection: parked.connection, copies: Copies::None, since: parked.since }
    }

    /// One that other workers do not use, but may have a descriptor of.
    pub fn shared(parked: &Parked) -> Self {
        Removed { copies: Copies::Unused, ..Removed::own(parked) }
    }

    /// One that other workers may use.
    pub fn stale(parked: &Parked) -> Self {
        Removed { copies: Copies::Used, ..Removed::own(parked) }
    }

    /// The time for which it was idle, in milliseconds.
    pub fn idle(&self, now: Time) -> u32 {
        policy::idle_time(now as u32, self.since)
    }

    /// The connection, which now belongs to the caller, and what other processes have of it.
    pub fn into_inner(self) -> (NonNull<ngx_connection_t>, Copies) {
        (self.connection, self.copies)
    }
}

/// The answer of [`super::Upstream::take`].
pub enum Taken {
    /// A connection for the request.
    Hit(Removed),
    /// A connection that has ended: close it, and ask again.
    Ended(Removed),
    /// There are connections, but the server may be about to close them; with its timeout, in
    /// milliseconds, if it is the first time that they are not used for this reason.
    TooOld(Option<u32>),
    /// A connection of another worker, which this one holds from now on: it is the answer of
    /// [`super::Upstream::moved`].
    Moved,
}

/// The answer of [`super::Upstream::keep`].
pub enum Keep {
    /// The connection is kept; with its data, for [`super::find_parked`].
    Kept(*mut c_void),
    /// This other one has left to make room: close it, and ask again.
    Close(Removed),
    /// The connection is not kept.
    Refused(Refused),
}

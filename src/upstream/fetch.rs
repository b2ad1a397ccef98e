//! A connection of another worker: fetched to be used here, or ended.

use std::os::fd::{AsFd, OwnedFd};

use ngx::core::SlabPool;
use rustix::io::Errno;

use crate::counters::Closed;
use crate::handover::{self, Failure};
use crate::nginx;
use crate::policy::Time;
use crate::pool::SlotIndex;
use crate::shared::{Connections, Entry, Holder, Idle, Ticket};

/// The idle connections of all workers.
pub type All = Connections<SlabPool>;

/// A connection that this worker holds, by a descriptor only.
pub struct Moved {
    /// The holding.
    pub ticket: Ticket,
    /// The descriptor.
    pub fd: OwnedFd,
    /// Whether it is of a Unix domain socket.
    pub is_unix: bool,
    /// What is known about the connection.
    pub idle: Idle,
}

impl Moved {
    /// One that this worker has become the holder of.
    pub fn new(all: &All, ticket: Ticket, fd: OwnedFd, idle: Idle) -> Self {
        let address = all.pool().address(ticket.slot).unwrap_or_default();
        Moved { ticket, fd, is_unix: nginx::is_unix(address), idle }
    }
}

/// A connection that this worker has not asked to be its own yet.
pub enum Fetched {
    Fd(OwnedFd),
    Ended(Closed),
    Refused(Errno),
    /// It cannot be moved, now or at all.
    Fixed,
}

/// Fetches another worker's connection, if it can be used.
pub fn fetch(all: &All, entry: &Entry, now: Time) -> Fetched {
    let Holder::Worker(number) = entry.holder else { return Fetched::Fixed };
    if !entry.idle.movable {
        return Fetched::Fixed;
    }
    let fd = match handover::fetch((number, all.process(number).unwrap_or(0)), entry.fd) {
        Ok(fd) => fd,
        Err(Failure::Gone) => return Fetched::Ended(Closed::Shutdown),
        Err(Failure::Refused(error)) => return Fetched::Refused(error),
    };
    let end = if entry.idle.deadline <= now {
        Some(entry.idle.limited_by.into())
    } else {
        // Its holder may be busy, and not have seen the end.
        (!handover::is_quiet(fd.as_fd())).then_some(Closed::Peer)
    };
    match end {
        Some(why) => {
            handover::shut_down(fd.as_fd());
            Fetched::Ended(why)
        }
        None => Fetched::Fd(fd),
    }
}

/// Ends another worker's connection at once, whatever that worker does now.
///
/// # Errors
///
/// Why that cannot be done.
pub fn cut(all: &All, slot: SlotIndex) -> Result<(), Errno> {
    // One that is on its way is closed by its receiver.
    let Some(Entry { holder: Holder::Worker(number), fd, .. }) = all.get(slot) else {
        return Ok(());
    };
    match handover::fetch((*number, all.process(*number).unwrap_or(0)), *fd) {
        Ok(fd) => handover::shut_down(fd.as_fd()),
        Err(Failure::Gone) => {}
        Err(Failure::Refused(error)) => return Err(error),
    }
    Ok(())
}

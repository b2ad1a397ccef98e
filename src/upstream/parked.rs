//! The parked connections of an upstream, each under the number of its slot.

use core::ffi::c_void;
use core::ptr::NonNull;

use allocator_api2::collections::TryReserveError;
use allocator_api2::vec::Vec;
use nginx_sys::ngx_connection_t;
use ngx::core::Pool;

use crate::nginx::Connection;
use crate::policy::{self, IdleLimit, LimitedBy, Time};
use crate::pool::SlotIndex;

/// A parked connection.
#[derive(Clone, Copy)]
pub struct Parked {
    /// The connection.
    pub connection: NonNull<ngx_connection_t>,
    /// The upstream in which it is parked, since an event of the connection does not name it.
    pub upstream: NonNull<c_void>,
    /// The time from which it is no longer used.
    pub deadline: Time,
    /// The time when it was parked: the lower half.
    pub since: u32,
    /// The origin of the deadline.
    pub limited_by: LimitedBy,
}

// The pool's limit of the memory for a connection includes this much for its caller.
const _: () = assert!(size_of::<Parked>() <= 32);

impl Parked {
    /// A connection that is parked in an upstream from now on.
    pub fn new(
        upstream: NonNull<c_void>,
        connection: NonNull<ngx_connection_t>,
        now: Time,
        limit: IdleLimit,
    ) -> Self {
        Parked {
            connection,
            upstream,
            deadline: limit.deadline(now),
            since: now as u32,
            limited_by: limit.by(),
        }
    }

    /// The connection.
    pub fn as_connection(&self) -> Connection {
        // SAFETY: a parked connection is one to an upstream, and open.
        unsafe { Connection::new(self.connection) }
    }

    /// The time for which it has been idle, in milliseconds.
    pub fn idle(&self, now: Time) -> u32 {
        policy::idle_time(now as u32, self.since)
    }
}

/// The connections, in memory that is reserved once, and touched only when no slot that was used
/// before is free.
pub struct Table(Vec<Parked, Pool>);

impl Table {
    /// Reserves memory for as many connections as the pool has slots.
    ///
    /// # Errors
    ///
    /// There is not enough memory.
    pub fn new_in(slots: u32, memory: Pool) -> Result<Self, TryReserveError> {
        let mut table = Vec::new_in(memory);
        table.try_reserve_exact(slots as usize)?;
        Ok(Table(table))
    }

    /// The connection of a slot, or of an empty slot its last one.
    pub fn get(&self, slot: SlotIndex) -> Option<&Parked> {
        self.0.get(slot.get() as usize)
    }

    /// Puts a connection into a slot; the answer is its place in memory. The pool numbers
    /// slots in the order in which it uses them for the first time; of a shared one, this worker may
    /// see some later than others.
    pub fn set(&mut self, slot: SlotIndex, parked: Parked) -> *mut c_void {
        let index = slot.get() as usize;
        match self.0.get_mut(index) {
            Some(place) => *place = parked,
            None => self.grow(index, parked),
        }
        self.0.as_mut_ptr().wrapping_add(index).cast()
    }

    /// Makes the table so long that it has this index, within the memory that is reserved.
    fn grow(&mut self, index: usize, parked: Parked) {
        while self.0.len() <= index && self.0.len() < self.0.capacity() {
            self.0.push(parked);
        }
    }

    /// The slot of a place in memory.
    pub fn slot(&self, place: *const Parked) -> SlotIndex {
        let bytes = (place as usize).wrapping_sub(self.0.as_ptr() as usize);
        SlotIndex::new(bytes.checked_div(size_of::<Parked>()).unwrap_or(0) as u32)
    }
}

//! The memory that all processes share: a slot for each connection, and what they tell each other.

use std::hint;
use std::sync::atomic::{
    AtomicI32, AtomicU8, AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

/// How many connections each way has at a time.
pub const BATCH: u8 = 50;
/// How many slots there are, all ways together.
pub const SLOTS: usize = 3 * BATCH as usize;

/// No connection.
pub const FREE: u8 = 0;
/// A connection that may be claimed.
pub const IDLE: u8 = 1;
/// A connection that one process uses; the holder may still have its descriptor.
pub const CLAIMED: u8 = 2;

/// An idle connection.
pub struct Slot {
    /// Changed only under the lock.
    state: AtomicU8,
    /// The holder's descriptor.
    pub descriptor: AtomicI32,
    /// How long parking took, in nanoseconds.
    pub parking: AtomicU64,
}

/// All of it. Zero is how it begins.
pub struct Shared {
    lock: AtomicU32,
    slots: [Slot; SLOTS],
    /// How many system calls the holder had made when it began to wait.
    pub holder_calls: AtomicU64,
    /// How many connections the server has accepted.
    pub accepted: AtomicU32,
    /// How many connections the server has seen closed.
    pub closed: AtomicU32,
    /// When it saw the last one.
    pub closed_at: AtomicU64,
}

impl Shared {
    /// A slot; numbers come from processes of this program.
    pub fn slot(&self, slot: u8) -> &Slot {
        &self.slots[usize::from(slot)]
    }

    /// Calls `change` under the lock.
    fn locked<T>(&self, change: impl FnOnce() -> T) -> T {
        while self.lock.compare_exchange_weak(0, 1, Acquire, Relaxed).is_err() {
            hint::spin_loop();
        }
        let result = change();
        self.lock.store(0, Release);
        result
    }

    /// Sets the state of a slot.
    pub fn set(&self, slot: u8, state: u8) {
        self.locked(|| self.slot(slot).state.store(state, Relaxed));
    }

    /// The state of a slot.
    pub fn state(&self, slot: u8) -> u8 {
        self.locked(|| self.slot(slot).state.load(Relaxed))
    }

    /// Claims an idle connection, and calls `claimed` before the lock is given back. Nothing, if
    /// somebody else has claimed it.
    pub fn claim<T>(&self, slot: u8, claimed: impl FnOnce(&Slot) -> T) -> Option<T> {
        self.locked(|| {
            let found = self.slot(slot);
            (found.state.load(Relaxed) == IDLE).then(|| {
                found.state.store(CLAIMED, Relaxed);
                claimed(found)
            })
        })
    }
}

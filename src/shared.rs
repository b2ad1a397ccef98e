//! The idle connections of all workers together, in memory that they share.
//!
//! A connection has one holder at a time: the worker whose descriptor it is, which watches it.
//! Another worker that needs the connection gets a copy of the descriptor, and is its holder from
//! then on. The previous holder finds that its own copy is stale, and drops it.
//!
//! Ground rules:
//!
//! - Every change is one operation of [`Guarded::run`], whose caller has locked the memory.
//! - If a worker dies in an operation, the next one forgets all connections: their holders find that
//!   they are stale.
//! - If it dies at any other time, its connections are forgotten as soon as somebody notices.
//! - Everything is numbers and bytes. Memory is allocated by [`Shared::new_in`], and none later.

#![forbid(unsafe_code)]

use allocator_api2::alloc::Allocator;
use allocator_api2::vec::Vec;

use crate::counters::Pid;
use crate::guarded::{Forget, Guarded};
use crate::policy::{self, IdleLimit, LimitedBy, Time};
use crate::pool::{
    Evicted, Identity, Limits, Lookup, NotKept, Pool, Put, Seed, SlotIndex, TryReserveError,
};

/// The number of a worker process among those of its master.
pub type WorkerNumber = u16;

/// The time between two searches for workers that have died, in milliseconds.
const SEARCH: Time = 500;

/// The holder of an idle connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Holder {
    /// A worker.
    Worker(WorkerNumber),
    /// No process: it is on its way from a worker that ends to one that does not.
    InFlight,
}

/// One holding of one connection: no two tickets are equal.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ticket {
    /// The slot of the connection.
    pub slot: SlotIndex,
    /// The number of the holding among all.
    pub generation: u64,
}

/// The facts about a connection that its next holder must know.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Idle {
    /// The number of requests that it has carried.
    pub requests: u32,
    /// The time when it was made.
    pub made: Time,
    /// The time when it was saved.
    pub since: Time,
    /// The time from which it is no longer used.
    pub deadline: Time,
    /// The origin of the deadline.
    pub limited_by: LimitedBy,
    /// Whether another process can use it: nothing else about it is in the memory of its holder.
    pub movable: bool,
}

impl Idle {
    /// The time for which it has been idle, in milliseconds.
    pub fn time(&self, now: Time) -> u32 {
        policy::idle_time(now as u32, self.since as u32)
    }

    /// How long it may be idle, from now on.
    pub fn limit(&self, now: Time) -> IdleLimit {
        IdleLimit::until(self.deadline, now, self.limited_by)
    }
}

/// An idle connection.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// 0 if the slot is empty.
    generation: u64,
    /// Its holder.
    pub holder: Holder,
    /// Its descriptor in the holder.
    pub fd: i32,
    /// Whether another worker wants it closed, and cannot do that itself; if it is on its way,
    /// whether it was at the last search.
    wanted: bool,
    /// What else is known.
    pub idle: Idle,
}

/// How many slots a worker is told of one by one.
const CALLS: usize = 32;

/// A worker.
#[derive(Clone, Copy, Debug)]
struct Worker {
    /// 0 if there is none of this number.
    process: Pid,
    /// Whether it takes no further connections.
    is_ending: bool,
    /// How many of its connections have become stale or are wanted, since it last looked.
    called: u32,
    /// The slots of the first ones.
    calls: [u32; CALLS],
}

impl Worker {
    const NONE: Worker = Worker { process: 0, is_ending: false, called: 0, calls: [0; CALLS] };

    fn call(&mut self, slot: u32) {
        if let Some(call) = self.calls.get_mut(self.called as usize) {
            *call = slot;
        }
        self.called = self.called.saturating_add(1);
    }
}

/// What a worker has to look at.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Calls {
    /// These slots, of which the first so many count.
    Slots([u32; CALLS], usize),
    /// All of its slots from this one on.
    AllFrom(u32),
}

/// The idle connections of all workers.
pub type Shared<A> = Guarded<Connections<A>>;

impl<A: Allocator> Shared<A> {
    /// How much memory is allocated for these limits, in bytes.
    pub fn memory(limits: Limits, workers: WorkerNumber) -> usize {
        let entries = size_of::<Entry>().saturating_mul(limits.connections as usize);
        let workers = size_of::<Worker>().saturating_mul(workers.into());
        Pool::<A>::memory(limits).saturating_add(entries).saturating_add(workers)
    }
}

impl<A: Allocator + Clone> Shared<A> {
    /// No connections. `limits` are those for which there is memory, and `workers` the number of
    /// processes that a master can have.
    ///
    /// # Errors
    ///
    /// The allocator has not enough memory.
    pub fn new_in(
        limits: Limits,
        workers: WorkerNumber,
        seed: &Seed,
        allocator: A,
    ) -> Result<Self, TryReserveError> {
        let mut entries = Vec::new_in(allocator.clone());
        entries.try_reserve_exact(limits.connections as usize)?;
        let mut all = Vec::new_in(allocator.clone());
        all.try_reserve_exact(workers.into())?;
        Ok(Guarded::new(Connections {
            pool: Pool::new_in(limits, seed, allocator)?,
            entries,
            workers: all,
            generation: 0,
            limits: (limits.connections, limits.slices.map(|limits| limits.slices)),
            slice_limit: u32::MAX,
            configuration: 0,
            next_search: 0,
            in_flight: false,
        }))
    }
}

/// The answer of [`Connections::put`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SharedPut {
    /// The connection is kept.
    Kept(Ticket),
    /// The connection of this slot must make room: close and remove it, and put again.
    Close(SlotIndex, Evicted),
    /// The connection is not kept.
    NotKept(NotKept),
}

/// The connections, during an operation.
pub struct Connections<A: Allocator> {
    pool: Pool<A>,
    entries: Vec<Entry, A>,
    workers: Vec<Worker, A>,
    generation: u64,
    /// Of connections and slices.
    limits: (u32, Option<u32>),
    /// Of a slice.
    slice_limit: u32,
    /// The number of the configuration that the limits are from.
    configuration: u64,
    next_search: Time,
    /// Whether connections may be on their way.
    in_flight: bool,
}

impl<A: Allocator> Connections<A> {
    /// The pool, to be read.
    pub fn pool(&self) -> &Pool<A> {
        &self.pool
    }

    /// The most recently saved connection of an identity. `lookup` is new, or of this identity in
    /// this pool.
    pub fn find(&self, identity: &Identity<'_>, lookup: &mut Lookup) -> Option<SlotIndex> {
        self.pool.find(identity, lookup)
    }

    /// The connection of a slot.
    #[inline(always)]
    pub fn get(&self, slot: SlotIndex) -> Option<&Entry> {
        self.entries.get(slot.get() as usize).filter(|entry| entry.generation != 0)
    }

    /// The connection of a ticket, while this holder has it.
    #[inline(always)]
    pub fn held(&self, ticket: Ticket, holder: Holder) -> Option<&Entry> {
        let is_held =
            |entry: &&Entry| entry.generation == ticket.generation && entry.holder == holder;
        self.get(ticket.slot).filter(is_held)
    }

    /// Keeps a connection under an identity, if no limit forbids it: see [`Pool::put`].
    #[inline(always)]
    pub fn put<'a>(
        &mut self,
        identity: impl FnOnce() -> Identity<'a>,
        lookup: &mut Lookup,
        slice_limit: u32,
        (holder, fd, idle): (Holder, i32, &Idle),
    ) -> SharedPut {
        match self.pool.put(identity, lookup, slice_limit) {
            Put::Kept(slot) => {
                self.generation = self.generation.wrapping_add(1);
                let generation = self.generation;
                let entry = Entry { generation, holder, fd, wanted: false, idle: *idle };
                match self.entries.get_mut(slot.get() as usize) {
                    Some(place) => *place = entry,
                    // The pool numbers slots in the order in which it uses them first.
                    None => self.entries.push(entry),
                }
                SharedPut::Kept(Ticket { slot, generation })
            }
            Put::Close(slot, why) => SharedPut::Close(slot, why),
            Put::NotKept(why) => SharedPut::NotKept(why),
        }
    }

    /// Gives a connection to another holder, which has a descriptor of it.
    pub fn pass(&mut self, slot: SlotIndex, holder: Holder, fd: i32) -> Ticket {
        self.call(slot);
        self.in_flight |= holder == Holder::InFlight;
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        if let Some(entry) = self.entries.get_mut(slot.get() as usize) {
            *entry = Entry { generation, holder, fd, wanted: false, ..*entry };
        }
        Ticket { slot, generation }
    }

    /// A request uses a connection, of which the holder knows.
    #[inline(always)]
    pub fn take(&mut self, slot: SlotIndex) {
        self.pool.take(slot);
        self.empty(slot);
    }

    /// A connection leaves, to be closed. Its holder is called if it is not the one who asks.
    pub fn remove(&mut self, slot: SlotIndex, asks: Holder) {
        if self.get(slot).is_some_and(|entry| entry.holder != asks) {
            self.call(slot);
        }
        self.pool.remove(slot);
        self.empty(slot);
    }

    /// Asks the holder of a connection to close it.
    pub fn want(&mut self, slot: SlotIndex) {
        let Some(entry) = self.entries.get_mut(slot.get() as usize) else { return };
        if !core::mem::replace(&mut entry.wanted, true) {
            self.call(slot);
        }
    }

    /// Whether another worker wants the connection of a slot closed.
    pub fn is_wanted(&self, slot: SlotIndex) -> bool {
        self.get(slot).is_some_and(|entry| entry.wanted)
    }

    /// Whether a worker has to look at something.
    pub fn is_called(&self, number: WorkerNumber) -> bool {
        self.workers.get(usize::from(number)).is_some_and(|worker| worker.called != 0)
    }

    /// What a worker has to look at, since it last asked; `None` if there is nothing.
    pub fn calls(&mut self, number: WorkerNumber) -> Option<Calls> {
        let worker = self.workers.get_mut(usize::from(number))?;
        let called = core::mem::take(&mut worker.called) as usize;
        match called {
            0 => None,
            1..=CALLS => Some(Calls::Slots(worker.calls, called)),
            _ => Some(Calls::AllFrom(0)),
        }
    }

    /// The process of a worker.
    pub fn process(&self, number: WorkerNumber) -> Option<Pid> {
        self.workers.get(usize::from(number)).map(|worker| worker.process)
    }

    /// A worker begins. What an earlier one of this number held is forgotten.
    pub fn begin(&mut self, number: WorkerNumber, process: Pid) {
        self.forget(number);
        while self.workers.len() <= usize::from(number) {
            // There is memory for all numbers.
            self.workers.push(Worker::NONE);
        }
        if let Some(worker) = self.workers.get_mut(usize::from(number)) {
            *worker = Worker { process, ..Worker::NONE };
        }
    }

    /// A worker takes no further connections.
    pub fn set_ending(&mut self, number: WorkerNumber) {
        if let Some(worker) = self.workers.get_mut(usize::from(number)) {
            worker.is_ending = true;
        }
    }

    /// Whether there is a worker that takes connections.
    pub fn has_receiver(&self, lives: impl Fn(Pid) -> bool) -> bool {
        let receives = |worker: &Worker| worker.process != 0 && !worker.is_ending;
        self.workers.iter().any(|worker| receives(worker) && lives(worker.process))
    }

    /// A worker has ended: its connections are forgotten.
    pub fn forget(&mut self, number: WorkerNumber) {
        let holder = Holder::Worker(number);
        for index in (0..).take(self.entries.len()) {
            let slot = SlotIndex::new(index);
            if self.get(slot).is_some_and(|entry| entry.holder == holder) {
                self.pool.remove(slot);
                self.empty(slot);
            }
        }
        if let Some(worker) = self.workers.get_mut(usize::from(number)) {
            worker.process = 0;
        }
    }

    /// Forgets the connections of workers that have died, and those that are on their way for
    /// longer than from one search to the next, unless this was done a moment ago.
    pub fn search(&mut self, now: Time, lives: impl Fn(Pid) -> bool) {
        if now < self.next_search {
            return;
        }
        self.next_search = now.saturating_add(SEARCH);
        for number in (0..).take(self.workers.len()) {
            if self.process(number).is_some_and(|process| process != 0 && !lives(process)) {
                self.forget(number);
            }
        }
        if core::mem::take(&mut self.in_flight) {
            self.search_in_flight();
        }
    }

    fn search_in_flight(&mut self) {
        for index in (0..).take(self.entries.len()) {
            let slot = SlotIndex::new(index);
            if self.get(slot).is_some_and(|entry| entry.holder == Holder::InFlight) {
                if self.is_wanted(slot) {
                    self.remove(slot, Holder::InFlight);
                } else {
                    self.want(slot);
                    self.in_flight = true;
                }
            }
        }
    }

    /// Sets the limits, unless those of a later configuration are set.
    pub fn set_limits(&mut self, configuration: u64, connections: u32, slices: Option<u32>) {
        if configuration >= self.configuration {
            self.configuration = configuration;
            self.limits = (connections, slices);
            self.pool.set_limits(connections, slices);
        }
    }

    /// Sets the most connections that a slice may hold, like [`Self::set_limits`].
    pub fn set_slice_limit(&mut self, configuration: u64, limit: u32) {
        if configuration >= self.configuration {
            self.slice_limit = limit;
        }
    }

    /// The most connections that a slice may hold for a worker of this configuration, whose own
    /// limit is `limit`: there may be a later one.
    pub fn slice_limit(&self, configuration: u64, limit: u32) -> u32 {
        if self.is_latest(configuration) { limit } else { limit.min(self.slice_limit) }
    }

    /// Whether the limits are those of this configuration: there is no later one.
    pub fn is_latest(&self, configuration: u64) -> bool {
        configuration == self.configuration
    }

    /// A connection that is too many for the limits, if they are those of this configuration.
    /// `slice_limit` is the most connections that a slice may hold.
    pub fn excess(&self, configuration: u64, slice_limit: u32) -> Option<(SlotIndex, Evicted)> {
        self.pool.excess(slice_limit).filter(|_| configuration == self.configuration)
    }

    #[inline(always)]
    fn empty(&mut self, slot: SlotIndex) {
        if let Some(entry) = self.entries.get_mut(slot.get() as usize) {
            entry.generation = 0;
        }
    }

    /// Has the holder of a connection look at it.
    fn call(&mut self, slot: SlotIndex) {
        let Some(Entry { holder: Holder::Worker(number), .. }) = self.get(slot).copied() else {
            return;
        };
        if let Some(worker) = self.workers.get_mut(usize::from(number)) {
            worker.call(slot.get());
        }
    }
}

impl<A: Allocator> Forget for Connections<A> {
    fn forget_all(&mut self) {
        self.pool.clear();
        self.pool.set_limits(self.limits.0, self.limits.1);
        for entry in &mut self.entries {
            entry.generation = 0;
        }
        for worker in &mut self.workers {
            worker.called = u32::MAX;
        }
    }
}

#[allow(clippy::arithmetic_side_effects)]
#[cfg(test)]
mod tests;

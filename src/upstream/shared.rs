//! The cache of an upstream whose workers share their connections, as one worker sees it.
//!
//! The connections lie in shared memory, see [`crate::shared`]. Beside them, a worker knows which
//! ones it holds itself; the connection of each is in the table, under its slot.

use core::ffi::c_void;
use core::ptr::NonNull;
use std::os::fd::{AsRawFd, OwnedFd};

use ngx::core::Pool as Memory;
use rustix::io::Errno;

use super::answer::{Keep, Removed, Taken};
use super::fetch::{All, Fetched, Moved, cut, fetch};
use super::own::Own;
use super::parked::{Parked, Table};
use super::server::Server;
use crate::counters::{Closed, Pid, Refused, WorkerCounters};
use crate::handover::{self, Letter};
use crate::nginx::Connection;
use crate::policy::idle_timeouts::Verdict;
use crate::policy::{self, IdleLimit, Time};
use crate::pool::{Identity, Lookup, SlotIndex, TryReserveError};
use crate::shared::{Calls, Holder, Idle, SharedPut, Ticket, WorkerNumber};
use crate::zone::{self, SharedZone};

/// The connections in shared memory, and those that this worker holds.
pub struct SharedCache {
    zone: SharedZone,
    number: WorkerNumber,
    /// The number of this worker's configuration.
    configuration: u64,
    own: Own<Memory>,
    /// Slots that this worker has yet to look at.
    calls: Option<Calls>,
    /// Whether there are more.
    called: bool,
    /// Why another worker's connection could not be used.
    refused: Option<Errno>,
    /// A connection that was moved here for a request.
    pub moved: Option<Moved>,
    /// No own connection has a slot before this one: all of them leave, from the first one on.
    popped: u32,
    /// A connection that another worker has taken away, and whose slot is used again.
    stale: Option<Removed>,
}

/// The table of connections, and the counters, of this worker.
pub type Local<'a> = (&'a mut Table, &'a WorkerCounters);

impl SharedCache {
    /// The cache of a worker that begins, for as many slots as there are.
    ///
    /// # Errors
    ///
    /// There is not enough memory.
    pub fn new_in(
        zone: SharedZone,
        configuration: u64,
        slots: u32,
        memory: Memory,
    ) -> Result<Self, TryReserveError> {
        let (number, process) = zone::this_worker();
        zone.run(|all| all.begin(number, process));
        let own = Own::new_in(slots, memory)?;
        Ok(SharedCache {
            zone,
            number,
            configuration,
            own,
            calls: None,
            called: false,
            refused: None,
            moved: None,
            popped: 0,
            stale: None,
        })
    }

    fn me(&self) -> Holder {
        Holder::Worker(self.number)
    }

    /// Takes a connection of an identity: an own one if there is one, otherwise that of another
    /// worker.
    #[cold]
    #[inline(never)]
    pub fn take(
        &mut self,
        identity: &Identity<'_>,
        lookup: &mut Lookup,
        (table, counters): Local<'_>,
        (server, end): (&Server<'_>, impl FnOnce(&Parked) -> Option<Closed>),
    ) -> Option<Taken> {
        let (me, now) = (self.me(), server.now);
        let SharedCache { zone, number, own, called, refused, moved, .. } = self;
        zone.run(|all| {
            let slot = all.find(identity, lookup)?;
            let mut too_old = None;
            if let Some(ticket) = own_of(own, slot, (all, me), counters) {
                match take_own(own, ticket, (all, me), (table, counters), (server, end)) {
                    // That of another worker may not be.
                    Some(old @ Taken::TooOld(_)) if ticket.slot != slot => too_old = Some(old),
                    taken => return taken,
                }
            }
            // A worker that borrows connections is one that others borrow from.
            *called = all.is_called(*number);
            loop {
                let Some(slot) = all.find(identity, lookup) else { return too_old };
                let entry = *all.get(slot)?;
                if entry.holder == me {
                    return too_old;
                }
                let idle = entry.idle.time(now);
                match fetch(all, &entry, now) {
                    Fetched::Fd(fd) => {
                        let oldest = || oldest((all, me), slot, (table, now));
                        if policy::must_look(idle) {
                            if let Verdict::TooOld(first_use) = server.check(idle, oldest) {
                                return Some(Taken::TooOld(first_use));
                            }
                        }
                        let ticket = all.pass(slot, me, fd.as_raw_fd());
                        *moved = Some(Moved::new(all, ticket, fd, entry.idle));
                        return Some(Taken::Moved);
                    }
                    Fetched::Ended(why) => {
                        server.closed(why, idle);
                        all.remove(slot, me);
                        counters.closed(why);
                    }
                    Fetched::Refused(error) => {
                        counters.refused_handover();
                        *refused = Some(error);
                        return too_old;
                    }
                    Fetched::Fixed => return too_old,
                }
            }
        })?
    }

    /// Keeps a connection under an identity, if no limit forbids it.
    #[cold]
    #[inline(never)]
    pub fn keep(
        &mut self,
        (upstream, c): (NonNull<c_void>, Connection),
        (identity, lookup): (&Identity<'_>, &mut Lookup),
        (slice_limit, idle_limit): (u32, IdleLimit),
        now: Time,
        (table, counters): Local<'_>,
    ) -> Keep {
        let me = self.me();
        let idle = Idle::of(c, now, idle_limit);
        let SharedCache { zone, configuration, own, refused, stale, .. } = self;
        let kept = zone.run(|all| {
            let slice_limit = all.slice_limit(*configuration, slice_limit);
            loop {
                let slot = match all.put(|| *identity, lookup, slice_limit, (me, c.fd(), &idle)) {
                    SharedPut::Kept(ticket) => {
                        counters.saved();
                        let peer = all.pool().peer_of(ticket.slot).unwrap_or_default();
                        if own.insert(ticket, peer) {
                            *stale = table.get(ticket.slot).map(Removed::stale);
                        }
                        let parked = Parked::new(upstream, c.as_non_null(), now, idle_limit);
                        return Keep::Kept(table.set(ticket.slot, parked));
                    }
                    SharedPut::NotKept(why) => return Keep::Refused(why.into()),
                    SharedPut::Close(slot, why) => (slot, Closed::from(why)),
                };
                let (slot, why) = slot;
                if own.ticket(slot).is_some_and(|ticket| all.held(ticket, me).is_some()) {
                    own.remove(slot);
                    all.remove(slot, me);
                    counters.closed(why);
                    return match table.get(slot) {
                        Some(parked) => Keep::Close(Removed::shared(parked)),
                        None => Keep::Refused(Refused::Workers),
                    };
                }
                match cut(all, slot) {
                    Ok(()) => {
                        all.remove(slot, me);
                        counters.closed(why);
                    }
                    Err(error) => {
                        all.want(slot);
                        counters.refused_handover();
                        *refused = Some(error);
                        return Keep::Refused(Refused::Workers);
                    }
                }
            }
        });
        kept.unwrap_or(Keep::Refused(Refused::Workers))
    }

    /// Whether this worker still holds the connection of its slot.
    pub fn holds(&self, slot: SlotIndex) -> bool {
        let Some(ticket) = self.own.ticket(slot) else { return false };
        self.zone.run(|all| all.held(ticket, self.me()).is_some()).unwrap_or(false)
    }

    /// Removes an own connection, to be closed. `closed` is called with the address of its server,
    /// unless another worker has taken it away.
    pub fn remove(
        &mut self,
        slot: SlotIndex,
        why: Closed,
        (table, counters): Local<'_>,
        closed: impl FnOnce(&[u8]),
    ) -> Option<Removed> {
        let (ticket, me) = (self.own.remove(slot)?, self.me());
        let is_held = self.zone.run(|all| {
            let is_held = all.held(ticket, me).is_some();
            if is_held {
                all.pool().address(slot).map(closed);
                all.remove(slot, me);
                counters.closed(why);
            }
            is_held
        });
        let removed = if is_held == Some(true) { Removed::shared } else { Removed::stale };
        table.get(slot).map(removed)
    }

    /// Removes any own connection, to be closed; none is kept any more.
    pub fn pop(&mut self, why: Closed, local: Local<'_>) -> Option<Removed> {
        let ticket = self.own.next(self.popped)?;
        self.popped = ticket.slot.get();
        self.remove(ticket.slot, why, local, |_| ())
    }

    /// Sends an own connection to a worker that does not end, or removes it if there is none. In
    /// either case this worker has it no more.
    pub fn hand_over(&mut self, slot: SlotIndex, (table, counters): Local<'_>) -> Option<Removed> {
        let (ticket, me) = (self.own.remove(slot)?, self.me());
        let parked = table.get(slot)?;
        let SharedCache { zone, number, .. } = self;
        let is_held = zone.run(|all| {
            all.set_ending(*number);
            let Some(entry) = all.held(ticket, me).copied() else { return false };
            if !entry.idle.movable || !all.has_receiver(handover::lives) {
                all.remove(slot, me);
                counters.closed(Closed::Shutdown);
                return true;
            }
            let ticket = all.pass(slot, Holder::InFlight, -1);
            let letter = Letter { zone: zone.number(), ticket };
            if handover::send(letter, parked.as_connection().borrow_fd()).is_ok() {
                return false;
            }
            all.remove(slot, me);
            counters.refused_handover();
            counters.closed(Closed::Shutdown);
            true
        });
        let removed = if is_held == Some(true) { Removed::shared } else { Removed::stale };
        Some(removed(parked))
    }

    /// This worker receives no further connections.
    pub fn set_ending(&self) {
        self.zone.run(|all| all.set_ending(self.number));
    }

    /// Whether there is a worker that receives connections.
    pub fn has_receiver(&self, lives: impl Fn(Pid) -> bool) -> bool {
        self.read(|all| all.has_receiver(lives)).unwrap_or(false)
    }

    /// Whether this is the memory that a letter is about.
    pub fn is_in(&self, zone: u64) -> bool {
        self.zone.number() == zone
    }

    /// Becomes the holder of a connection that was sent. Without a descriptor, it is forgotten, as
    /// it is if `is_server` is false for its address.
    pub fn receive(
        &mut self,
        ticket: Ticket,
        fd: Option<OwnedFd>,
        is_server: impl Fn(&[u8]) -> bool,
        counters: &WorkerCounters,
    ) -> Option<Moved> {
        let me = self.me();
        self.zone.run(|all| {
            let idle = all.held(ticket, Holder::InFlight)?.idle;
            let is_known = all.pool().address(ticket.slot).is_some_and(is_server);
            let Some(fd) = fd.filter(|_| is_known) else {
                all.remove(ticket.slot, me);
                counters.closed(Closed::Shutdown);
                return None;
            };
            counters.kept_over_reload();
            let ticket = all.pass(ticket.slot, me, fd.as_raw_fd());
            Some(Moved::new(all, ticket, fd, idle))
        })?
    }

    /// Parks a connection that was moved here. `None` if it was taken away meanwhile.
    pub fn park(
        &mut self,
        ticket: Ticket,
        parked: Parked,
        table: &mut Table,
    ) -> Option<*mut c_void> {
        let me = self.me();
        let peer = self.zone.run(|all| {
            all.held(ticket, me)?;
            all.pool().peer_of(ticket.slot)
        })??;
        if self.own.insert(ticket, peer) {
            self.stale = table.get(ticket.slot).map(Removed::stale);
        }
        Some(table.set(ticket.slot, parked))
    }

    /// A request uses a connection that was moved here; `false` if it was taken away meanwhile.
    pub fn use_moved(&self, ticket: Ticket, counters: &WorkerCounters) -> bool {
        let used = self.zone.run(|all| {
            if all.held(ticket, self.me()).is_none() {
                counters.lost_race();
                return false;
            }
            all.take(ticket.slot);
            counters.hit();
            counters.borrowed();
            true
        });
        used.unwrap_or(false)
    }

    /// Forgets a connection that was moved here, to be closed; `false` if it was taken away meanwhile.
    pub fn forget_moved(&self, ticket: Ticket, counters: &WorkerCounters) -> bool {
        let was_held = self.zone.run(|all| {
            let is_held = all.held(ticket, self.me()).is_some();
            if is_held {
                all.remove(ticket.slot, self.me());
                counters.closed(Closed::WorkerConnections);
            }
            is_held
        });
        was_held.unwrap_or(false)
    }

    /// Whether another worker has taken an own connection away or wants it closed, or a connection
    /// of another one could not be used.
    pub fn is_called(&self) -> bool {
        self.called || self.stale.is_some() || self.refused.is_some()
    }

    /// Removes a connection that another worker has taken away, or wants closed.
    pub fn next_called(&mut self, local: Local<'_>) -> Option<Removed> {
        if self.stale.is_some() {
            return self.stale.take();
        }
        self.called = false;
        loop {
            if self.calls.is_none() {
                self.calls = self.zone.run(|all| all.calls(self.number))?;
            }
            let slot = self.next_call()?;
            let Some(ticket) = self.own.ticket(slot) else { continue };
            let stays = self.zone.run(|all| {
                let held = all.held(ticket, self.me()).is_some();
                held && !all.is_wanted(slot)
            });
            if stays == Some(false) {
                return self.remove(slot, Closed::Connections, local, |_| ());
            }
        }
    }

    /// The next slot to look at.
    fn next_call(&mut self) -> Option<SlotIndex> {
        match &mut self.calls {
            Some(Calls::Slots(slots, count)) if *count != 0 => {
                *count = count.saturating_sub(1);
                slots.get(*count).copied().map(SlotIndex::new)
            }
            Some(Calls::AllFrom(from)) => {
                let Some(ticket) = self.own.next(*from) else {
                    self.calls = None;
                    return None;
                };
                *from = ticket.slot.get().saturating_add(1);
                Some(ticket.slot)
            }
            _ => {
                self.calls = None;
                None
            }
        }
    }

    /// Why another worker's connection could not be used, since the last time.
    pub fn refusal(&mut self) -> Option<Errno> {
        self.refused.take()
    }

    /// Looks for workers that have died, unless that was done a moment ago.
    pub fn search(&mut self, now: Time) {
        self.zone.run(|all| {
            all.search(now, handover::lives);
            self.called = all.is_called(self.number);
        });
    }

    /// Sets the limits, and closes what is too many for them.
    pub fn set_limits(
        &mut self,
        (connections, slices, slice_limit): (u32, Option<u32>, u32),
        counters: &WorkerCounters,
    ) {
        let (me, configuration) = (self.me(), self.configuration);
        self.zone.run(|all| {
            all.set_limits(configuration, connections, slices);
            all.set_slice_limit(configuration, slice_limit);
            while let Some((slot, why)) = all.excess(configuration, slice_limit) {
                if cut(all, slot).is_err() {
                    // Its holder closes it when it looks.
                    counters.refused_handover();
                }
                all.remove(slot, me);
                counters.closed(why.into());
            }
        });
    }

    /// Whether no worker has a later configuration.
    pub fn is_latest(&self) -> bool {
        self.read(|all| all.is_latest(self.configuration)).unwrap_or(true)
    }

    /// This worker is about to end.
    pub fn end(&self) {
        self.zone.run(|all| all.forget(self.number));
    }

    /// Reads from the connections of all workers.
    pub fn read<R>(&self, operation: impl FnOnce(&All) -> R) -> Option<R> {
        self.zone.run(|all| operation(all))
    }
}

/// The own connection of an identity that was saved last, if this one is the last of all.
#[inline(always)]
fn own_of(
    own: &mut Own<Memory>,
    last: SlotIndex,
    (all, me): (&All, Holder),
    counters: &WorkerCounters,
) -> Option<Ticket> {
    if let Some(ticket) = own.ticket(last).filter(|&ticket| all.held(ticket, me).is_some()) {
        return Some(ticket);
    }
    let peer = all.pool().peer_of(last)?;
    while let Some(ticket) = own.first(peer) {
        if all.held(ticket, me).is_some() {
            return Some(ticket);
        }
        own.unlink(ticket.slot);
        counters.lost_race();
    }
    None
}

/// The time for which the connection of the same identity that was saved first has been idle, if
/// this worker holds that one, and it is open.
fn oldest((all, me): (&All, Holder), slot: SlotIndex, (table, now): (&Table, Time)) -> Option<u32> {
    let slot = all.pool().oldest(slot)?;
    let entry = all.get(slot).filter(|entry| entry.holder == me)?;
    table.get(slot)?.as_connection().is_quiet().then(|| entry.idle.time(now))
}

/// Takes an own connection, or removes it if it has ended.
#[inline(always)]
fn take_own(
    own: &mut Own<Memory>,
    Ticket { slot, .. }: Ticket,
    (all, me): (&mut All, Holder),
    (table, counters): Local<'_>,
    (server, end): (&Server<'_>, impl FnOnce(&Parked) -> Option<Closed>),
) -> Option<Taken> {
    let parked = table.get(slot)?;
    let (end, idle) = (end(parked), parked.idle(server.now));
    if end.is_none() && policy::must_look(idle) {
        let oldest = || oldest((all, me), slot, (table, server.now));
        if let Verdict::TooOld(first_use) = server.check(idle, oldest) {
            return Some(Taken::TooOld(first_use));
        }
    }
    own.clear(slot);
    Some(match end {
        Some(why) => {
            server.closed(why, idle);
            all.remove(slot, me);
            counters.closed(why);
            Taken::Ended(Removed::shared(parked))
        }
        None => {
            all.take(slot);
            counters.hit();
            Taken::Hit(Removed::shared(parked))
        }
    })
}

impl Idle {
    /// A connection that is saved now.
    fn of(c: Connection, now: Time, limit: IdleLimit) -> Self {
        Idle {
            requests: u32::try_from(c.requests()).unwrap_or(u32::MAX),
            made: c.made(),
            since: now,
            deadline: limit.deadline(now),
            limited_by: limit.by(),
            movable: c.is_movable(),
        }
    }
}

//! Workers that run at the same time never use one connection at once.
//!
//! Each worker is a thread. The lock is a mutex in place of that in shared memory, and nothing but
//! what is under it is shared, so there are no interleavings of atomic operations to search. What
//! a worker does between two operations, while the others run theirs, is what can go wrong.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::thread;

use allocator_api2::alloc::Global;

use super::short::*;
use crate::pool::{Identity, SlotIndex};
use crate::shared::*;
use crate::upstream::own::Own;

const CONNECTIONS: u32 = 3;
const ROUNDS: u32 = if cfg!(miri) { 40 } else { 5_000 };
const KEYS: [&str; 2] = ["a", "b"];

/// What all workers have in common.
struct Common {
    shared: Mutex<Shared<Global>>,
    /// Whether a connection is in use, for each that there ever is.
    in_use: Vec<AtomicBool>,
    /// How many were used, and how many of them had another holder before.
    used: AtomicU32,
    borrowed: AtomicU32,
}

impl Common {
    fn run<R>(&self, operation: impl FnOnce(&mut Connections<Global>) -> R) -> R {
        self.shared.lock().unwrap().run(operation)
    }
}

struct Worker<'a> {
    common: &'a Common,
    me: Holder,
    number: WorkerNumber,
    own: Own<Global>,
    table: HashMap<SlotIndex, usize>,
    /// Those that were moved here, and are neither used nor parked yet.
    moved: VecDeque<(Ticket, usize)>,
    /// How many connections it has made.
    made: u32,
}

impl Worker<'_> {
    /// A connection that is in use now, which may be a new one.
    fn take(&mut self, round: u32, identity: &Identity<'_>) -> usize {
        let taken = match self.common.run(|all| self.find(all, identity)) {
            Some((_, fd, true)) => Some(fd),
            Some((ticket, fd, false)) => {
                self.moved.push_back((ticket, fd));
                thread::yield_now();
                self.finish(round)
            }
            None => self.finish(round),
        };
        let fd = taken.unwrap_or_else(|| {
            self.made += 1;
            (ROUNDS * u32::from(self.number) + self.made - 1) as usize
        });
        assert!(!self.common.in_use[fd].swap(true, SeqCst), "{fd} is used twice at once");
        self.common.used.fetch_add(1, SeqCst);
        fd
    }

    /// A connection, and whether it is taken already.
    fn find(
        &mut self,
        all: &mut Connections<Global>,
        identity: &Identity<'_>,
    ) -> Option<(Ticket, usize, bool)> {
        let slot = all.find(identity, &mut Lookup::default())?;
        let peer = all.pool().peer_of(slot)?;
        while let Some(ticket) = self.own.first(peer) {
            if all.held(ticket, self.me).is_some() {
                self.own.remove(ticket.slot);
                all.take(ticket.slot);
                return Some((ticket, self.table.remove(&ticket.slot).unwrap(), true));
            }
            self.own.unlink(ticket.slot);
        }
        let fd = all.get(slot)?.fd;
        Some((all.pass(slot, self.me, fd), fd as usize, false))
    }

    /// Uses one that was moved here, or parks it, or does not come to that.
    fn finish(&mut self, round: u32) -> Option<usize> {
        if round % 4 == 0 && self.moved.len() < 3 {
            return None;
        }
        let is_used = round % 4 != 1;
        while let Some((ticket, fd)) = self.moved.pop_front() {
            let peer = self.common.run(|all| {
                all.held(ticket, self.me)?;
                let peer = all.pool().peer_of(ticket.slot);
                if is_used {
                    all.take(ticket.slot);
                }
                peer
            });
            match peer {
                Some(_) if is_used => {
                    self.common.borrowed.fetch_add(1, SeqCst);
                    return Some(fd);
                }
                Some(peer) => self.park(ticket, peer, fd),
                // It was taken away meanwhile.
                None => {}
            }
        }
        None
    }

    fn park(&mut self, ticket: Ticket, peer: u32, fd: usize) {
        self.own.remove(ticket.slot);
        self.own.insert(ticket, peer);
        self.table.insert(ticket.slot, fd);
    }

    fn put(&mut self, identity: &Identity<'_>, fd: usize) {
        assert!(self.common.in_use[fd].swap(false, SeqCst));
        let number = fd as i32;
        self.common.run(|all| {
            let mut lookup = Lookup::default();
            loop {
                match all.put(|| *identity, &mut lookup, 2, (self.me, number, &facts(number))) {
                    SharedPut::Kept(ticket) => {
                        self.park(ticket, all.pool().peer_of(ticket.slot).unwrap(), fd);
                        break;
                    }
                    SharedPut::Close(slot, _) => {
                        let ticket = self.own.ticket(slot);
                        if ticket.is_some_and(|ticket| all.held(ticket, self.me).is_some()) {
                            self.own.remove(slot);
                            self.table.remove(&slot);
                        }
                        all.remove(slot, self.me);
                    }
                    SharedPut::NotKept(why) => panic!("{why:?}"),
                }
            }
            assert!(all.pool().count() <= CONNECTIONS);
            assert!(all.pool().slices().all(|slice| slice.idle <= 2));
        });
    }

    /// Drops what it has no more.
    fn look(&mut self) {
        let slots = match self.common.run(|all| all.calls(self.number)) {
            Some(Calls::Slots(slots, count)) => slots[..count].to_vec(),
            Some(Calls::AllFrom(_)) => (0..CONNECTIONS).collect(),
            None => return,
        };
        for slot in slots.into_iter().map(SlotIndex::new) {
            let Some(ticket) = self.own.ticket(slot) else { continue };
            if self.common.run(|all| all.held(ticket, self.me).is_none()) {
                self.own.remove(slot);
                self.table.remove(&slot);
            }
        }
    }

    /// Mostly, a worker asks for what others have put.
    fn work(&mut self) {
        let other = u32::from(self.number) % 2;
        for round in 0..ROUNDS {
            let key = other + u32::from(round % 5 == 0);
            let identities = [key, key + 1].map(|key| id(KEYS[(key % 2) as usize], "1"));
            let fd = self.take(round, &identities[0]);
            thread::yield_now();
            self.put(&identities[1], fd);
            if round % 3 == 0 {
                self.look();
            }
        }
    }
}

#[test]
fn no_connection_is_used_by_two_workers_at_once() {
    let connections = ROUNDS * u32::from(WORKERS);
    let common = Common {
        shared: Mutex::new(shared(CONNECTIONS, 4)),
        in_use: (0..connections).map(|_| AtomicBool::new(false)).collect(),
        used: AtomicU32::new(0),
        borrowed: AtomicU32::new(0),
    };
    thread::scope(|scope| {
        for number in 0..WORKERS {
            let common = &common;
            scope.spawn(move || {
                let me = Holder::Worker(number);
                let own = Own::new_in(CONNECTIONS, Global).unwrap();
                let (table, moved) = (HashMap::new(), VecDeque::new());
                Worker { common, me, number, own, table, moved, made: 0 }.work();
            });
        }
    });
    assert_eq!(common.used.into_inner(), connections);
    let borrowed = common.borrowed.into_inner();
    assert!(cfg!(miri) || borrowed > 100);
}

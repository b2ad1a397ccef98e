//! The shared connections against naive ones, by random operations of workers that die.
//!
//! A worker does what [`crate::upstream`] does, with a number for each connection in place of
//! descriptors. It may die between two operations, and inside of one.

use std::collections::{HashMap, HashSet, VecDeque};
use std::vec::Vec;

use allocator_api2::alloc::Global;
use proptest::prelude::*;

use super::short::*;
use crate::pool::{Identity, SlotIndex};
use crate::shared::*;
use crate::upstream::own::Own;

const MOST: u32 = 40;
const KEYS: [&str; 4] = ["", "a", "b", "c"];
const ADDRESSES: [&str; 2] = ["1", "2"];

type Server = (&'static str, &'static str);

fn identity(server: Server) -> Identity<'static> {
    id(server.0, server.1)
}

/// An idle connection.
#[derive(Debug)]
struct One {
    fd: i32,
    server: Server,
    holder: Holder,
    ticket: Ticket,
    wanted: bool,
}

/// What the memory knows of a worker.
#[derive(Default)]
struct Known {
    process: Pid,
    is_ending: bool,
    /// What it is called to; `None` is everything.
    called: Option<Vec<u32>>,
}

/// The same rules, written down as simply as possible: a list, the most recently saved first, and
/// the order in which keys were used.
struct Naive {
    limits: (u32, u32),
    configuration: u64,
    next_search: Time,
    idle: Vec<One>,
    used: Vec<&'static str>,
    workers: Vec<Known>,
}

impl Naive {
    fn count(&self, key: &str) -> usize {
        self.idle.iter().filter(|one| one.server.0 == key).count()
    }

    fn keys(&self) -> HashSet<&'static str> {
        self.idle.iter().map(|one| one.server.0).collect()
    }

    fn touch(&mut self, key: &'static str) {
        self.used.retain(|used| *used != key);
        self.used.insert(0, key);
    }

    fn find(&self, server: Server) -> Option<&One> {
        self.idle.iter().find(|one| one.server == server)
    }

    fn get(&self, slot: SlotIndex) -> Option<&One> {
        self.idle.iter().find(|one| one.ticket.slot == slot)
    }

    fn holders(&self, ticket: Ticket) -> Vec<Holder> {
        self.idle.iter().filter(|one| one.ticket == ticket).map(|one| one.holder).collect()
    }

    fn last(&self, which: impl Fn(&One) -> bool) -> SlotIndex {
        self.idle.iter().rfind(|one| which(one)).unwrap().ticket.slot
    }

    fn least_used(&self) -> &'static str {
        self.used.iter().rfind(|key| self.count(key) != 0).unwrap()
    }

    /// What [`Connections::put`] says; `None` if the connection is kept.
    fn put(&self, key: &str, limit: u32) -> Option<SharedPut> {
        let (count, limits) = (self.count(key), self.limits);
        Some(if count > 0 && count >= limit as usize {
            SharedPut::Close(self.last(|one| one.server.0 == key), Evicted::SliceLimit)
        } else if limits.0 == 0 || limits.1 == 0 {
            SharedPut::NotKept(NotKept::Disabled)
        } else if limit == 0 {
            SharedPut::NotKept(NotKept::SliceLimit)
        } else if count == 0 && self.keys().len() >= limits.1 as usize {
            let key = self.least_used();
            SharedPut::Close(self.last(|one| one.server.0 == key), Evicted::Slices)
        } else if self.idle.len() >= limits.0 as usize {
            SharedPut::Close(self.last(|_| true), Evicted::Connections)
        } else {
            return None;
        })
    }

    /// What can make room for lower limits; any slice can be the first.
    fn excess(&self, limit: u32) -> Vec<(SlotIndex, Evicted)> {
        if self.keys().len() > self.limits.1 as usize {
            let key = self.least_used();
            return vec![(self.last(|one| one.server.0 == key), Evicted::Slices)];
        }
        let keys = self.keys().into_iter().filter(|key| self.count(key) > limit as usize);
        let of_slices: Vec<_> =
            keys.map(|key| (self.last(|one| one.server.0 == key), Evicted::SliceLimit)).collect();
        if of_slices.is_empty() && self.idle.len() > self.limits.0 as usize {
            return vec![(self.last(|_| true), Evicted::Connections)];
        }
        of_slices
    }

    fn call(&mut self, slot: SlotIndex) {
        let Some(&One { holder: Holder::Worker(number), .. }) = self.get(slot) else { return };
        let called = &mut self.workers[usize::from(number)].called;
        if let Some(called) = called {
            called.push(slot.get());
        }
    }

    fn calls(&mut self, number: WorkerNumber) -> Option<Option<Vec<u32>>> {
        let called = &mut self.workers[usize::from(number)].called;
        let called = called.replace(Vec::new());
        match called {
            Some(slots) if slots.is_empty() => None,
            Some(slots) if slots.len() <= CALLS => Some(Some(slots)),
            _ => Some(None),
        }
    }

    /// It leaves without a call.
    fn leave(&mut self, slot: SlotIndex) -> One {
        let i = self.idle.iter().position(|one| one.ticket.slot == slot).unwrap();
        self.idle.remove(i)
    }

    fn take(&mut self, slot: SlotIndex) -> One {
        let one = self.leave(slot);
        self.touch(one.server.0);
        one
    }

    fn remove(&mut self, slot: SlotIndex, asks: Holder) {
        if self.get(slot).unwrap().holder != asks {
            self.call(slot);
        }
        self.leave(slot);
    }

    fn pass(&mut self, ticket: Ticket, holder: Holder) {
        self.call(ticket.slot);
        let one = self.idle.iter_mut().find(|one| one.ticket.slot == ticket.slot).unwrap();
        (one.holder, one.ticket, one.wanted) = (holder, ticket, false);
    }

    fn want(&mut self, slot: SlotIndex) {
        let one = self.idle.iter_mut().find(|one| one.ticket.slot == slot).unwrap();
        if !core::mem::replace(&mut one.wanted, true) {
            self.call(slot);
        }
    }

    fn forget(&mut self, number: WorkerNumber) {
        self.idle.retain(|one| one.holder != Holder::Worker(number));
        self.workers[usize::from(number)].process = 0;
    }

    fn begin(&mut self, number: WorkerNumber, process: Pid) {
        self.forget(number);
        let called = Some(Vec::new());
        self.workers[usize::from(number)] = Known { process, is_ending: false, called };
    }

    fn search(&mut self, now: Time, living: &HashSet<Pid>) {
        if now < self.next_search {
            return;
        }
        self.next_search = now + 500;
        for number in 0..WORKERS {
            let process = self.workers[usize::from(number)].process;
            if process != 0 && !living.contains(&process) {
                self.forget(number);
            }
        }
        self.idle.retain(|one| one.holder != Holder::InFlight || !one.wanted);
        for one in &mut self.idle {
            one.wanted |= one.holder == Holder::InFlight;
        }
    }

    fn forget_all(&mut self) {
        self.idle.clear();
        self.used.clear();
        for worker in &mut self.workers {
            worker.called = None;
        }
    }
}

/// A worker that lives.
struct Worker {
    process: Pid,
    own: Own<Global>,
    /// Which connection it has under which slot.
    table: HashMap<SlotIndex, i32>,
    /// Those that were moved here, and are neither used nor parked yet.
    moved: Vec<(Ticket, i32)>,
    /// Those that carry requests.
    in_use: Vec<(Server, i32)>,
}

impl Worker {
    fn tickets(&self) -> Vec<Ticket> {
        let next = |from: u32| self.own.next(from);
        core::iter::successors(next(0), |ticket| next(ticket.slot.get() + 1)).collect()
    }

    fn park(&mut self, ticket: Ticket, peer: u32, fd: i32) {
        self.own.remove(ticket.slot);
        self.own.insert(ticket, peer);
        self.table.insert(ticket.slot, fd);
    }

    fn drop(&mut self, slot: SlotIndex) -> i32 {
        self.own.remove(slot);
        self.table.remove(&slot).unwrap()
    }
}

/// An operation of one worker. Numbers choose among what there is.
#[derive(Clone, Debug)]
enum Operation {
    Take(Server),
    /// What was moved here is used, or parked.
    Finish(bool),
    /// With a limit of its slice.
    Put(Server, u32),
    /// Its server closes an own connection.
    Remove(usize),
    /// Another worker's connection is closed.
    Cut(usize),
    Want(usize),
    Send(usize),
    Receive,
    /// A letter is lost.
    Lose,
    /// The worker looks at what it is called to.
    Look,
    /// After some time.
    Search(Time),
    /// A configuration, limits of connections and slices, and of each slice.
    Limits(u64, (u32, u32), u32),
    Die,
    /// The worker dies in an operation.
    DieInside(Part, usize),
}

/// How far an operation has come.
#[derive(Clone, Copy, Debug)]
enum Part {
    Nothing,
    InPool(Server),
    Numbered,
    OutOfPool,
    Unnumbered,
    Holder,
    Called,
    Forgotten,
    Limits,
}

/// All workers, and the memory that they share.
struct System {
    shared: Shared<Global>,
    naive: Naive,
    workers: Vec<Option<Worker>>,
    living: HashSet<Pid>,
    letters: VecDeque<(Ticket, i32)>,
    tickets: Vec<Ticket>,
    in_use: HashSet<i32>,
    /// The limits for which there is memory.
    most: (u32, u32),
    now: Time,
    last_fd: i32,
    last_process: Pid,
}

impl System {
    fn new(limits: (u32, u32)) -> Self {
        let known = || Known { called: Some(Vec::new()), ..Known::default() };
        let mut system = System {
            shared: shared(limits.0, limits.1),
            naive: Naive {
                limits,
                configuration: 0,
                next_search: 0,
                idle: Vec::new(),
                used: Vec::new(),
                workers: (0..WORKERS).map(|_| known()).collect(),
            },
            workers: (0..WORKERS).map(|_| None).collect(),
            living: HashSet::new(),
            letters: VecDeque::new(),
            tickets: Vec::new(),
            in_use: HashSet::new(),
            most: limits,
            now: 1000,
            last_fd: 0,
            last_process: 1000,
        };
        for number in 0..WORKERS {
            system.begin(number);
        }
        system
    }

    fn begin(&mut self, number: WorkerNumber) {
        self.last_process += 1;
        let process = self.last_process;
        self.shared.run(|all| all.begin(number, process));
        self.naive.begin(number, process);
        self.living.insert(process);
        let own = Own::new_in(MOST, Global).unwrap();
        let (table, moved, in_use) = (HashMap::new(), Vec::new(), Vec::new());
        self.workers[usize::from(number)] = Some(Worker { process, own, table, moved, in_use });
    }

    fn worker(&mut self, number: WorkerNumber) -> &mut Worker {
        self.workers[usize::from(number)].as_mut().unwrap()
    }

    /// A ticket that nobody has had.
    fn note(&mut self, ticket: Ticket) {
        assert!(!self.tickets.contains(&ticket), "{ticket:?} again");
        self.tickets.push(ticket);
    }

    fn run(&mut self, number: WorkerNumber, operation: Operation) {
        let me = Holder::Worker(number);
        if self.workers[usize::from(number)].is_none() {
            self.begin(number);
        }
        match operation {
            Operation::Take(server) => self.take(number, server),
            Operation::Finish(is_used) => self.finish(number, is_used),
            Operation::Put(server, limit) => self.put(number, server, limit),
            Operation::Remove(n) => {
                if let Some(ticket) = choose(&self.worker(number).tickets(), n) {
                    self.close(number, ticket);
                }
            }
            Operation::Cut(n) => {
                if let Some(slot) = self.any(n) {
                    self.make_room(number, slot);
                }
            }
            Operation::Want(n) => {
                if let Some(slot) = self.any(n) {
                    self.shared.run(|all| all.want(slot));
                    self.naive.want(slot);
                }
            }
            Operation::Send(n) => {
                if let Some(ticket) = choose(&self.worker(number).tickets(), n) {
                    self.send(number, ticket);
                }
            }
            Operation::Receive => self.receive(number),
            Operation::Lose => drop(self.letters.pop_front()),
            Operation::Look => self.look(number),
            Operation::Search(time) => {
                self.now += time;
                let (now, living) = (self.now, &self.living);
                self.shared.run(|all| all.search(now, |process| living.contains(&process)));
                self.naive.search(now, living);
            }
            Operation::Limits(configuration, limits, limit) => {
                self.set_limits(number, configuration, limits, limit);
            }
            Operation::Die => self.die(number),
            Operation::DieInside(part, n) => {
                self.die_inside(me, part, n);
                self.die(number);
            }
        }
    }

    fn any(&self, n: usize) -> Option<SlotIndex> {
        let slots: Vec<_> = self.naive.idle.iter().map(|one| one.ticket.slot).collect();
        choose(&slots, n)
    }

    /// A request uses a connection of this server, which nothing else uses.
    fn use_one(&mut self, number: WorkerNumber, server: Server, (slot, fd): (SlotIndex, i32)) {
        let one = self.naive.take(slot);
        assert_eq!((one.fd, one.holder, one.server), (fd, Holder::Worker(number), server));
        assert!(self.in_use.insert(fd), "{fd} is in use twice");
        self.worker(number).in_use.push((server, fd));
    }

    fn take(&mut self, number: WorkerNumber, server: Server) {
        let me = Holder::Worker(number);
        let found = find(&mut self.shared, &identity(server));
        assert_eq!(found, self.naive.find(server).map(|one| one.ticket.slot));
        let Some(slot) = found else { return };

        let peer = self.shared.run(|all| all.pool().peer_of(slot)).unwrap();
        while let Some(ticket) = self.worker(number).own.first(peer) {
            if held(&mut self.shared, ticket, me) {
                let fd = self.worker(number).drop(ticket.slot);
                self.shared.run(|all| all.take(ticket.slot));
                return self.use_one(number, server, (ticket.slot, fd));
            }
            self.worker(number).own.unlink(ticket.slot);
        }
        let moved: Vec<_> = self.worker(number).moved.iter().map(|&(ticket, _)| ticket).collect();
        let is_own = |one: &One| one.server == server && one.holder == me;
        let missed = self.naive.idle.iter().find(|one| is_own(one) && !moved.contains(&one.ticket));
        assert!(missed.is_none(), "{missed:?} is an own one");

        let entry = self.shared.run(|all| *all.get(slot).unwrap());
        let Holder::Worker(from) = entry.holder else { return };
        let process = self.shared.run(|all| all.process(from)).unwrap();
        if !self.living.contains(&process) {
            self.shared.run(|all| all.remove(slot, me));
            return self.naive.remove(slot, me);
        }
        let ticket = self.shared.run(|all| all.pass(slot, me, entry.fd));
        self.note(ticket);
        self.naive.pass(ticket, me);
        self.worker(number).moved.push((ticket, entry.fd));
    }

    fn finish(&mut self, number: WorkerNumber, is_used: bool) {
        let Some((ticket, fd)) = self.worker(number).moved.pop() else { return };
        let me = Holder::Worker(number);
        if !held(&mut self.shared, ticket, me) {
            return;
        }
        if is_used {
            let server = self.naive.get(ticket.slot).unwrap().server;
            self.shared.run(|all| all.take(ticket.slot));
            self.use_one(number, server, (ticket.slot, fd));
        } else {
            let peer = self.shared.run(|all| all.pool().peer_of(ticket.slot)).unwrap();
            self.worker(number).park(ticket, peer, fd);
        }
    }

    /// Keeps a connection that a request has used, or a new one.
    fn put(&mut self, number: WorkerNumber, server: Server, limit: u32) {
        let me = Holder::Worker(number);
        let (server, fd) = match self.worker(number).in_use.pop() {
            Some((server, fd)) => {
                self.in_use.remove(&fd);
                (server, fd)
            }
            None => {
                self.last_fd += 1;
                (server, self.last_fd)
            }
        };
        loop {
            let answer = put(&mut self.shared, &identity(server), (me, fd), limit);
            let SharedPut::Kept(ticket) = answer else {
                assert_eq!(Some(answer), self.naive.put(server.0, limit));
                let SharedPut::Close(slot, _) = answer else { return };
                self.make_room(number, slot);
                continue;
            };
            assert_eq!(None, self.naive.put(server.0, limit));
            self.note(ticket);
            let one = One { fd, server, holder: me, ticket, wanted: false };
            self.naive.idle.insert(0, one);
            self.naive.touch(server.0);
            // Promise 2, over all workers.
            assert!(self.naive.count(server.0) <= limit as usize);
            let peer = self.shared.run(|all| all.pool().peer_of(ticket.slot)).unwrap();
            return self.worker(number).park(ticket, peer, fd);
        }
    }

    fn make_room(&mut self, number: WorkerNumber, slot: SlotIndex) {
        let me = Holder::Worker(number);
        match self.worker(number).own.ticket(slot) {
            Some(ticket) if held(&mut self.shared, ticket, me) => self.close(number, ticket),
            _ => {
                self.shared.run(|all| all.remove(slot, me));
                self.naive.remove(slot, me);
            }
        }
    }

    /// Closes an own connection, which may be stale.
    fn close(&mut self, number: WorkerNumber, ticket: Ticket) {
        let me = Holder::Worker(number);
        self.worker(number).drop(ticket.slot);
        let is_held = held(&mut self.shared, ticket, me);
        assert_eq!(is_held, self.naive.holders(ticket) == [me]);
        if is_held {
            self.shared.run(|all| all.remove(ticket.slot, me));
            self.naive.remove(ticket.slot, me);
        }
    }

    fn send(&mut self, number: WorkerNumber, ticket: Ticket) {
        let me = Holder::Worker(number);
        let fd = self.worker(number).drop(ticket.slot);
        self.shared.run(|all| all.set_ending(number));
        self.naive.workers[usize::from(number)].is_ending = true;
        if held(&mut self.shared, ticket, me) {
            let letter = self.shared.run(|all| all.pass(ticket.slot, Holder::InFlight, -1));
            self.note(letter);
            self.naive.pass(letter, Holder::InFlight);
            self.letters.push_back((letter, fd));
        }
    }

    fn receive(&mut self, number: WorkerNumber) {
        let me = Holder::Worker(number);
        let Some((letter, fd)) = self.letters.pop_front() else { return };
        if held(&mut self.shared, letter, Holder::InFlight) {
            let ticket = self.shared.run(|all| all.pass(letter.slot, me, fd));
            self.note(ticket);
            self.naive.pass(ticket, me);
            self.worker(number).moved.push((ticket, fd));
        }
    }

    fn look(&mut self, number: WorkerNumber) {
        let me = Holder::Worker(number);
        let calls = self.shared.run(|all| all.calls(number));
        let told = match calls {
            Some(Calls::Slots(slots, count)) => Some(Some(slots[..count].to_vec())),
            Some(Calls::AllFrom(from)) => {
                assert_eq!(from, 0);
                Some(None)
            }
            None => None,
        };
        assert_eq!(told, self.naive.calls(number));
        let all = || self.worker(number).tickets().iter().map(|ticket| ticket.slot.get()).collect();
        for slot in told.map(|slots| slots.unwrap_or_else(all)).unwrap_or_default() {
            let slot = SlotIndex::new(slot);
            let Some(ticket) = self.worker(number).own.ticket(slot) else { continue };
            let is_wanted = self.shared.run(|all| all.is_wanted(slot));
            if is_wanted || !held(&mut self.shared, ticket, me) {
                self.close(number, ticket);
            }
        }
        // It has been told of everything.
        for ticket in self.worker(number).tickets() {
            assert_eq!(self.naive.holders(ticket), [me], "{ticket:?}");
            assert!(!self.naive.get(ticket.slot).unwrap().wanted, "{ticket:?} is wanted");
        }
    }

    fn set_limits(
        &mut self,
        number: WorkerNumber,
        configuration: u64,
        limits: (u32, u32),
        limit: u32,
    ) {
        let limits = (limits.0.min(self.most.0), limits.1.min(self.most.1));
        self.shared.run(|all| all.set_limits(configuration, limits.0, Some(limits.1)));
        if configuration >= self.naive.configuration {
            self.naive.configuration = configuration;
            self.naive.limits = limits;
        }
        loop {
            let excess = self.shared.run(|all| all.excess(configuration, limit));
            let mut expected = self.naive.excess(limit);
            if configuration != self.naive.configuration {
                expected.clear();
            }
            let Some((slot, _)) = excess else {
                assert!(expected.is_empty());
                return;
            };
            assert!(expected.contains(&excess.unwrap()), "{excess:?}, not {expected:?}");
            self.make_room(number, slot);
        }
    }

    fn die(&mut self, number: WorkerNumber) {
        let worker = self.workers[usize::from(number)].take().unwrap();
        self.living.remove(&worker.process);
        for (_, fd) in worker.in_use {
            self.in_use.remove(&fd);
        }
    }

    /// What the worker leaves behind is worse here than what can be.
    fn die_inside(&mut self, me: Holder, part: Part, n: usize) {
        let slot = self.any(n).unwrap_or(SlotIndex::new(0));
        self.shared.die(|all| match part {
            Part::Nothing => {}
            Part::InPool(server) => {
                all.pool.put(|| identity(server), &mut Lookup::default(), NO_LIMIT);
            }
            Part::Numbered => all.generation += 1,
            Part::OutOfPool => drop(all.pool.take(slot)),
            Part::Unnumbered => all.empty(slot),
            Part::Holder => {
                if let Some(entry) = all.entries.get_mut(slot.get() as usize) {
                    (entry.holder, entry.fd) = (me, -7);
                }
            }
            Part::Called => {
                for worker in &mut all.workers {
                    worker.called = 1;
                }
            }
            Part::Forgotten => all.pool.clear(),
            Part::Limits => all.pool.set_limits(1, Some(1)),
        });
        self.naive.forget_all();
    }

    /// Compares what the memory knows with the naive connections.
    fn check(&mut self) {
        let System { shared, naive, tickets, .. } = self;
        // If a worker has died in the last operation, the next one finds out.
        let Some(all) = shared.whole() else { return };
        // Promise 2: the counts are those of the naive ones, and within the limits.
        let connections = naive.idle.len() <= naive.limits.0 as usize;
        let slices = naive.keys().len() <= naive.limits.1 as usize;
        assert!(connections && slices);
        assert_eq!(all.pool.count() as usize, naive.idle.len());
        assert_eq!(all.pool.slices_in_use(), Some(naive.keys().len() as u32));
        for slice in all.pool.slices() {
            assert_eq!(slice.idle as usize, naive.count(core::str::from_utf8(slice.key).unwrap()));
        }
        for slot in (0..MOST).map(SlotIndex::new) {
            let one = naive.get(slot);
            let expected = one.map(|one| (one.holder, facts(one.fd), one.wanted));
            let entry = all.get(slot);
            assert_eq!(entry.map(|entry| (entry.holder, entry.idle, entry.wanted)), expected);
            let server = one.map(|one| one.server.1.as_bytes());
            assert_eq!(entry.and_then(|_| all.pool.address(slot)), server);
        }
        // No ticket has two holders, and none but that of the naive one.
        for &ticket in tickets.iter() {
            let workers = (0..WORKERS).map(Holder::Worker).chain([Holder::InFlight]);
            let holders: Vec<_> =
                workers.filter(|&holder| all.held(ticket, holder).is_some()).collect();
            assert_eq!(holders, naive.holders(ticket), "{ticket:?}");
        }
        for (number, known) in (0..).zip(&naive.workers) {
            assert_eq!(all.process(number), Some(known.process));
            let is_called = known.called.as_ref().is_none_or(|slots| !slots.is_empty());
            assert_eq!(all.is_called(number), is_called);
        }
        let receives = |known: &Known| known.process != 0 && !known.is_ending;
        assert_eq!(all.has_receiver(|_| true), naive.workers.iter().any(receives));
        self.check_descriptors();
    }

    /// The holder has the connection that it is thought to have, and nobody uses it.
    fn check_descriptors(&self) {
        for one in &self.naive.idle {
            assert!(!self.in_use.contains(&one.fd), "{one:?} is in use");
            let Holder::Worker(number) = one.holder else { continue };
            let Some(worker) = &self.workers[usize::from(number)] else { continue };
            let is_parked = worker.own.ticket(one.ticket.slot) == Some(one.ticket)
                && worker.table.get(&one.ticket.slot) == Some(&one.fd);
            assert!(is_parked || worker.moved.contains(&(one.ticket, one.fd)), "{one:?}");
        }
    }

    /// Nothing was lost: the connections leave in the order in which they were saved.
    fn empty(mut self) {
        self.shared.run(|_| ());
        let popped = core::iter::from_fn(|| self.shared.run(|all| all.pool.pop()));
        let expected = self.naive.idle.iter().rev().map(|one| one.ticket.slot);
        assert!(popped.eq(expected));
    }
}

fn choose<T: Copy>(among: &[T], n: usize) -> Option<T> {
    among.get(n.checked_rem(among.len())?).copied()
}

fn server() -> impl Strategy<Value = Server> {
    (proptest::sample::select(&KEYS[..]), proptest::sample::select(&ADDRESSES[..]))
}

fn part() -> impl Strategy<Value = Part> {
    prop_oneof![
        server().prop_map(Part::InPool),
        proptest::sample::select(vec![
            Part::Nothing,
            Part::Numbered,
            Part::OutOfPool,
            Part::Unnumbered,
            Part::Holder,
            Part::Called,
            Part::Forgotten,
            Part::Limits,
        ]),
    ]
}

fn operation() -> impl Strategy<Value = Operation> {
    let limit = || prop_oneof![3 => Just(NO_LIMIT), 2 => 0..5u32];
    let time = proptest::sample::select(vec![100, 500, 1000]);
    prop_oneof![
        8 => server().prop_map(Operation::Take),
        6 => any::<bool>().prop_map(Operation::Finish),
        16 => (server(), limit()).prop_map(|(server, limit)| Operation::Put(server, limit)),
        2 => any::<usize>().prop_map(Operation::Remove),
        2 => any::<usize>().prop_map(Operation::Cut),
        2 => any::<usize>().prop_map(Operation::Want),
        3 => any::<usize>().prop_map(Operation::Send),
        3 => Just(Operation::Receive),
        1 => Just(Operation::Lose),
        4 => Just(Operation::Look),
        2 => time.prop_map(Operation::Search),
        1 => (0..4u64, (0..MOST, 0..6u32), limit())
            .prop_map(|(configuration, limits, limit)| {
                Operation::Limits(configuration, limits, limit)
            }),
        1 => Just(Operation::Die),
        1 => (part(), any::<usize>()).prop_map(|(part, n)| Operation::DieInside(part, n)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn shared_connections_are_the_naive_ones(
        connections in prop_oneof![0..6u32, 6..=MOST],
        slices in 0..6u32,
        operations in proptest::collection::vec((0..WORKERS, operation()), 1..150),
    ) {
        let mut system = System::new((connections, slices));
        for (number, operation) in operations {
            system.run(number, operation);
            system.check();
        }
        system.empty();
    }
}

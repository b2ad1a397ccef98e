//! A worker dies at any instruction of an operation on shared connections.
//!
//! The connections lie in memory that processes share, as in a zone. A child runs one operation,
//! instruction by instruction under ptrace, and what is in the memory then is what it would leave
//! behind if it was killed there. Some children are killed for real. In any case, another process
//! finds that the operation has not begun, or that it has ended, or that everything is forgotten.
//!
//! The lock of the memory has no part in this: nginx's master unlocks what a dead worker has locked.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

use core::alloc::Layout;
use core::mem::MaybeUninit;
use core::ptr::{self, NonNull};
use std::panic::{AssertUnwindSafe, catch_unwind};

use allocator_api2::alloc::{AllocError, Allocator};
use libc::{c_int, pid_t};
use ngx_http_upstream_sliced_keepalive_module::policy::LimitedBy;
use ngx_http_upstream_sliced_keepalive_module::pool::{
    Evicted, Identity, Limits, Lookup, Protocol, SliceLimits, SlotIndex,
};
use ngx_http_upstream_sliced_keepalive_module::shared::{
    Calls, Connections, Holder, Idle, Shared, SharedPut, Ticket, WorkerNumber,
};

/// The size of the memory.
const SIZE: usize = 16 * 1024;
/// How many workers there can be, and the ones that have begun.
const MOST: WorkerNumber = 4;
const WORKERS: WorkerNumber = 3;
const LIMITS: Limits = Limits {
    connections: 4,
    address_length: 4,
    attributes_length: 0,
    slices: Some(SliceLimits { slices: 3, key_length: 4 }),
};
const NO_LIMIT: u32 = u32::MAX;
/// The worker that dies, and another one.
const DEAD: Holder = Holder::Worker(0);
const OTHER: Holder = Holder::Worker(1);
/// The key and the address of a server.
type Own = (&'static str, &'static str);
/// Those that occur.
const IDENTITIES: [Own; 6] =
    [("a", "1"), ("b", "1"), ("b", "2"), ("c", "1"), ("d", "1"), ("e", "1")];

type Bytes = [MaybeUninit<u8>; SIZE];

/// What is in the memory, before that of the allocator.
#[repr(C)]
struct Content {
    /// How many bytes are used.
    used: usize,
    /// The tickets that the operation has made known.
    told: usize,
    tickets: [MaybeUninit<Ticket>; 4],
    shared: MaybeUninit<Shared<Arena>>,
}

/// Gives memory away, and takes none back.
#[derive(Clone, Copy)]
struct Arena(NonNull<Content>);

// SAFETY: each allocation is a part of the memory that no other one has, and stays there.
unsafe impl Allocator for Arena {
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        // SAFETY: the memory begins with this number, and nothing else refers to it.
        let used = unsafe { &mut (*self.0.as_ptr()).used };
        let start = used.next_multiple_of(layout.align());
        let end = start.checked_add(layout.size()).filter(|&end| end <= SIZE).ok_or(AllocError)?;
        *used = end;
        // SAFETY: it is in the memory.
        let start = unsafe { self.0.cast::<u8>().add(start) };
        Ok(NonNull::slice_from_raw_parts(start, layout.size()))
    }

    unsafe fn deallocate(&self, _: NonNull<u8>, _: Layout) {}
}

/// The memory of all processes.
struct Memory(NonNull<Content>);

impl Memory {
    /// No connections, and no memory that could still be allocated.
    fn new() -> Self {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
        // SAFETY: new memory has no conditions.
        let memory = unsafe { libc::mmap(ptr::null_mut(), SIZE, access, flags, -1, 0) };
        assert_ne!(memory, libc::MAP_FAILED);
        let content = NonNull::new(memory.cast::<Content>()).unwrap();
        // SAFETY: it is aligned to pages, and large enough.
        unsafe { (*content.as_ptr()).used = size_of::<Content>() };
        let shared = Shared::new_in(LIMITS, MOST, &[7; 24], Arena(content)).unwrap();
        // SAFETY: as above; the allocations are behind it.
        unsafe {
            let used = &raw mut (*content.as_ptr()).used;
            let allocated = used.read() - size_of::<Content>();
            let promised = Shared::<Arena>::memory(LIMITS, MOST);
            // Each allocation may begin a little later.
            assert!(allocated <= promised + 16 * align_of::<Content>(), "{allocated}");
            used.write(SIZE);
            (*content.as_ptr()).shared.write(shared);
        }
        Memory(content)
    }

    /// Runs one operation.
    fn run<R>(&self, operation: impl FnOnce(&mut Connections<Arena>) -> R) -> R {
        // SAFETY: it is initialised, and the other process is stopped meanwhile.
        unsafe { (*self.0.as_ptr()).shared.assume_init_mut() }.run(operation)
    }

    /// Makes a ticket known.
    fn tell(&self, ticket: Ticket) {
        // SAFETY: only this process writes there; there is room for all.
        unsafe {
            let told = &raw mut (*self.0.as_ptr()).told;
            let place = (&raw mut (*self.0.as_ptr()).tickets).cast::<MaybeUninit<Ticket>>();
            place.add(told.read()).write_volatile(MaybeUninit::new(ticket));
            told.write_volatile(told.read() + 1);
        }
    }

    /// The tickets that were made known.
    fn told(&self) -> Vec<Ticket> {
        // SAFETY: as many are initialised.
        unsafe {
            let told = (&raw const (*self.0.as_ptr()).told).read_volatile();
            let tickets = (&raw const (*self.0.as_ptr()).tickets).read_volatile();
            tickets[..told].iter().map(|ticket| ticket.assume_init()).collect()
        }
    }

    fn bytes(&self) -> *mut Bytes {
        self.0.as_ptr().cast()
    }

    fn save(&self) -> Box<Bytes> {
        // SAFETY: nobody writes there now.
        Box::new(unsafe { self.bytes().read_volatile() })
    }

    fn restore(&self, bytes: &Bytes) {
        // SAFETY: nobody uses the memory now.
        unsafe { self.bytes().write_volatile(*bytes) }
    }

    fn is_changed(&self, since: &Bytes) -> bool {
        // SAFETY: both have this size.
        unsafe { libc::memcmp(self.bytes().cast(), since.as_ptr().cast(), SIZE) != 0 }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: nothing refers to the memory any more.
        unsafe { libc::munmap(self.0.as_ptr().cast(), SIZE) };
    }
}

/// Has this thread, and its children, run where it runs now: two processes that wait for each other
/// are slower on two processors.
fn stay() {
    // SAFETY: zeroes are an empty set.
    unsafe {
        let mut set: libc::cpu_set_t = core::mem::zeroed();
        libc::CPU_SET(libc::sched_getcpu().unsigned_abs() as usize, &mut set);
        libc::sched_setaffinity(0, size_of_val(&set), &raw const set);
    }
}

/// A child that runs an operation, and is stopped before it.
struct Child(pid_t);

impl Child {
    fn begin(operation: impl FnOnce()) -> Self {
        // SAFETY: the child needs nothing that another thread may have locked: the operation does
        // not allocate.
        let child = unsafe { libc::fork() };
        assert!(child >= 0, "no process");
        if child == 0 {
            // SAFETY: as above.
            unsafe {
                if libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) != 0 {
                    libc::_exit(1);
                }
                libc::raise(libc::SIGSTOP);
                operation();
                libc::_exit(0);
            }
        }
        let child = Child(child);
        assert_eq!(child.stopped(), Some(libc::SIGSTOP), "ptrace is not allowed");
        child
    }

    /// The signal by which it was stopped; `None` if it has ended.
    fn stopped(&self) -> Option<c_int> {
        let mut status = 0;
        // SAFETY: the place is valid.
        assert_eq!(unsafe { libc::waitpid(self.0, &raw mut status, 0) }, self.0);
        if libc::WIFSTOPPED(status) {
            return Some(libc::WSTOPSIG(status));
        }
        assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "status {status:#x}");
        None
    }

    /// Executes one instruction; `false` if that was the last one.
    fn step(&self) -> bool {
        // SAFETY: no memory is written.
        assert_eq!(unsafe { libc::ptrace(libc::PTRACE_SINGLESTEP, self.0, 0, 0) }, 0);
        let stopped = self.stopped();
        assert!(matches!(stopped, None | Some(libc::SIGTRAP)), "stopped by {stopped:?}");
        stopped.is_some()
    }
}

impl Drop for Child {
    /// Kills it, unless it has ended.
    fn drop(&mut self) {
        // SAFETY: it is a child: its number is not that of another process until it was waited for.
        // Then it is that of none so soon.
        unsafe {
            libc::kill(self.0, libc::SIGKILL);
            libc::waitpid(self.0, ptr::null_mut(), 0);
        }
    }
}

fn id((key, address): Own) -> Identity<'static> {
    let protocol = Protocol { module: 1, handler: 1, location: 0, tls: 0 };
    Identity { key: key.as_bytes(), address: address.as_bytes(), attributes: b"", protocol }
}

fn put(all: &mut Connections<Arena>, own: Own, (holder, fd): (Holder, i32)) -> SharedPut {
    let since = 1000 + u64::from(fd.unsigned_abs());
    let idle = Idle {
        requests: fd.unsigned_abs(),
        made: 1000,
        since,
        deadline: since + 1000,
        limited_by: LimitedBy::Hint,
        movable: true,
    };
    all.put(|| id(own), &mut Lookup::default(), NO_LIMIT, (holder, fd, &idle))
}

/// Puts until a connection is kept, and removes those in the way.
fn keep(all: &mut Connections<Arena>, own: Own, (holder, fd): (Holder, i32)) -> Ticket {
    loop {
        match put(all, own, (holder, fd)) {
            SharedPut::Kept(ticket) => return ticket,
            SharedPut::Close(slot, _) => all.remove(slot, holder),
            SharedPut::NotKept(why) => panic!("{why:?}"),
        }
    }
}

fn process(number: WorkerNumber) -> u32 {
    100 + u32::from(number)
}

/// All holdings so far.
struct Known {
    /// The connection of the worker that dies, and one of another worker.
    dead: Ticket,
    other: Ticket,
    /// One on its way.
    letter: Ticket,
    /// Those that are over, and one more of another worker.
    all: Vec<Ticket>,
}

/// Connections of all kinds, up to the limit.
fn fill(memory: &Memory) -> Known {
    memory.run(|all| {
        for number in 0..WORKERS {
            all.begin(number, process(number));
        }
        all.set_limits(5, 4, Some(3));
        let gone = keep(all, ("d", "1"), (OTHER, 8));
        all.take(gone.slot);
        let passed = keep(all, ("b", "1"), (DEAD, 9));
        let dead = keep(all, ("a", "1"), (DEAD, 10));
        let other = keep(all, ("a", "1"), (OTHER, 11));
        let letter = keep(all, ("b", "2"), (Holder::InFlight, -1));
        let passed_on = all.pass(passed.slot, OTHER, 12);
        Known { dead, other, letter, all: vec![gone, passed, dead, other, passed_on, letter] }
    })
}

/// What can be seen of the connections.
#[derive(Clone, Debug, PartialEq)]
struct State {
    connections: Vec<String>,
    found: Vec<Option<SlotIndex>>,
    slices: Vec<(Vec<u8>, u32, u64)>,
    held: Vec<(Ticket, Holder)>,
    workers: Vec<(Option<u32>, Option<Calls>)>,
    has_receiver: bool,
    limits: (u32, u32),
}

impl State {
    fn is_empty(&self) -> bool {
        self.connections.is_empty()
            && self.found.iter().all(Option::is_none)
            && self.slices.is_empty()
            && self.held.is_empty()
    }
}

fn holders() -> impl Iterator<Item = Holder> {
    (0..MOST).map(Holder::Worker).chain([Holder::InFlight])
}

/// What can be seen. Then the memory is used up, which shows that it can be used.
fn look(memory: &Memory, known: &[Ticket]) -> State {
    let told = memory.told();
    let mut state = memory.run(|all| see(all, known, &told));
    state.limits = use_up(memory, &[known, &told].concat());
    state
}

fn see(all: &mut Connections<Arena>, known: &[Ticket], told: &[Ticket]) -> State {
    let held = |all: &Connections<Arena>, ticket| {
        let held = holders().filter(|&holder| all.held(ticket, holder).is_some());
        held.map(|holder| (ticket, holder)).collect::<Vec<_>>()
    };
    let show = |slot| {
        let entry = all.get(slot)?;
        Some(format!("{slot:?} {entry:?} {:?}", all.pool().address(slot)))
    };
    let mut slices: Vec<_> =
        all.pool().slices().map(|slice| (slice.key.to_vec(), slice.idle, slice.hits)).collect();
    slices.sort();
    let state = State {
        connections: (0..LIMITS.connections).map(SlotIndex::new).filter_map(show).collect(),
        found: IDENTITIES.map(|own| all.find(&id(own), &mut Lookup::default())).into(),
        slices,
        held: known.iter().flat_map(|&ticket| held(all, ticket)).collect(),
        has_receiver: all.has_receiver(|_| true),
        workers: (0..MOST).map(|number| (all.process(number), all.calls(number))).collect(),
        limits: (0, 0),
    };
    let idle: u32 = state.slices.iter().map(|(_, idle, _)| idle).sum();
    assert_eq!((all.pool().count(), state.connections.len()), (idle, idle as usize));
    assert_eq!(all.pool().slices_in_use(), Some(state.slices.len() as u32));
    let of_told: usize = told.iter().map(|&ticket| held(all, ticket).len()).sum();
    assert!(of_told + state.held.len() <= idle as usize);
    state
}

/// Uses the memory, and answers how many connections and slices there can be.
fn use_up(memory: &Memory, known: &[Ticket]) -> (u32, u32) {
    let mut fresh = Vec::new();
    memory.run(empty);
    let connections = memory.run(|all| {
        let full = loop {
            match put(all, ("a", "1"), (OTHER, 30)) {
                SharedPut::Kept(ticket) => fresh.push(ticket),
                full => break full,
            }
        };
        assert!(matches!(full, SharedPut::Close(_, Evicted::Connections)), "{full:?}");
        all.pool().count()
    });
    for old in fresh.clone() {
        fresh.push(memory.run(|all| all.pass(old.slot, Holder::Worker(2), 31)));
        assert!(memory.run(|all| all.held(old, OTHER).is_none()));
    }
    memory.run(|all| all.begin(2, 200));
    assert_eq!(memory.run(|all| all.pool().count()), 0);

    let slices = memory.run(|all| {
        for key in ["a", "b", "c", "d", "e"] {
            match put(all, (key, "1"), (OTHER, 3)) {
                SharedPut::Kept(ticket) => {
                    fresh.push(all.pass(ticket.slot, Holder::InFlight, -1));
                }
                full => assert!(matches!(full, SharedPut::Close(..)), "{full:?}"),
            }
        }
        all.pool().slices_in_use().unwrap()
    });
    memory.run(|all| all.search(100_000, |_| true));
    memory.run(|all| all.search(200_000, |_| true));
    assert_eq!(memory.run(|all| all.pool().count()), 0);

    for (i, ticket) in fresh.iter().enumerate() {
        assert!(!fresh[..i].contains(ticket) && !known.contains(ticket), "{ticket:?} again");
    }
    // A worker that begins sets its limits, which were perhaps half set.
    memory.run(|all| all.set_limits(6, 1, Some(1)));
    memory.run(use_one);
    (connections, slices)
}

fn empty(all: &mut Connections<Arena>) {
    for slot in (0..LIMITS.connections).map(SlotIndex::new) {
        if all.get(slot).is_some() {
            all.remove(slot, OTHER);
        }
    }
    assert_eq!((all.pool().count(), all.pool().slices_in_use()), (0, Some(0)));
}

fn use_one(all: &mut Connections<Arena>) {
    keep(all, ("a", "1"), (OTHER, 32));
    let full = put(all, ("a", "1"), (OTHER, 33));
    assert!(matches!(full, SharedPut::Close(_, Evicted::Connections)), "{full:?}");
    keep(all, ("b", "1"), (OTHER, 34));
    assert_eq!(all.pool().count(), 1);
}

/// An operation, for which the memory is prepared.
struct Case {
    name: &'static str,
    prepare: fn(&Memory, &Known),
    operation: fn(&Memory, &Known),
}

fn nothing(_: &Memory, _: &Known) {}

/// A worker has died before.
fn die(memory: &Memory, _: &Known) {
    let die = || memory.run(|_| std::panic::resume_unwind(Box::new(())));
    catch_unwind(AssertUnwindSafe(die)).unwrap_err();
}

fn call(memory: &Memory, known: &Known) {
    memory.run(|all| all.want(known.dead.slot));
}

const CASES: &[Case] = &[
    Case {
        name: "put, at the limits of connections and slices",
        prepare: |memory, known| {
            memory.run(|all| {
                all.remove(known.letter.slot, OTHER);
                keep(all, ("c", "1"), (OTHER, 14));
            });
        },
        operation: |memory, _| {
            memory.tell(memory.run(|all| keep(all, ("e", "1"), (DEAD, 20))));
        },
    },
    Case {
        name: "put, with room and a new server",
        prepare: |memory, known| memory.run(|all| all.remove(known.dead.slot, OTHER)),
        operation: |memory, _| {
            memory.tell(memory.run(|all| keep(all, ("d", "1"), (DEAD, 20))));
        },
    },
    Case {
        name: "put, where nothing is full and everything known",
        prepare: |memory, known| memory.run(|all| all.remove(known.dead.slot, OTHER)),
        operation: |memory, _| {
            memory.tell(memory.run(|all| keep(all, ("b", "1"), (DEAD, 20))));
        },
    },
    Case {
        name: "take",
        prepare: nothing,
        operation: |memory, known| {
            memory.run(|all| {
                assert!(all.held(known.dead, DEAD).is_some());
                all.take(known.dead.slot);
            });
        },
    },
    Case {
        name: "pass, from another worker",
        prepare: nothing,
        operation: |memory, known| {
            memory.tell(memory.run(|all| all.pass(known.other.slot, DEAD, 20)));
        },
    },
    Case {
        name: "remove another worker's",
        prepare: nothing,
        operation: |memory, known| memory.run(|all| all.remove(known.other.slot, DEAD)),
    },
    Case {
        name: "want",
        prepare: nothing,
        operation: |memory, known| memory.run(|all| all.want(known.other.slot)),
    },
    Case {
        name: "calls",
        prepare: call,
        operation: |memory, _| {
            memory.run(|all| all.calls(0));
        },
    },
    Case {
        name: "begin, in the place of another one",
        prepare: call,
        operation: |memory, _| memory.run(|all| all.begin(0, 200)),
    },
    Case {
        name: "begin, in a new place",
        prepare: nothing,
        operation: |memory, _| memory.run(|all| all.begin(3, 200)),
    },
    Case {
        name: "forget",
        prepare: nothing,
        operation: |memory, _| memory.run(|all| all.forget(1)),
    },
    Case {
        name: "search",
        prepare: |memory, _| memory.run(|all| all.search(1000, |_| true)),
        operation: |memory, _| memory.run(|all| all.search(2000, |dead| dead != process(1))),
    },
    Case {
        name: "limits",
        prepare: nothing,
        operation: |memory, _| {
            memory.run(|all| {
                all.set_limits(6, 3, Some(1));
                while let Some((slot, _)) = all.excess(6, NO_LIMIT) {
                    all.remove(slot, DEAD);
                }
            });
        },
    },
    Case {
        name: "send",
        prepare: nothing,
        operation: |memory, known| {
            memory.run(|all| {
                all.set_ending(0);
                // The letter is on its way before the operation has ended.
                memory.tell(all.pass(known.dead.slot, Holder::InFlight, -1));
            });
        },
    },
    Case {
        name: "send in vain",
        prepare: nothing,
        operation: |memory, known| {
            memory.run(|all| {
                all.set_ending(0);
                all.pass(known.dead.slot, Holder::InFlight, -1);
                all.remove(known.dead.slot, DEAD);
            });
        },
    },
    Case {
        name: "receive",
        prepare: nothing,
        operation: |memory, known| {
            memory.tell(memory.run(|all| {
                assert!(all.held(known.letter, Holder::InFlight).is_some());
                all.pass(known.letter.slot, DEAD, 20)
            }));
        },
    },
    Case {
        name: "put, after a death",
        prepare: die,
        operation: |memory, _| {
            memory.tell(memory.run(|all| keep(all, ("e", "1"), (DEAD, 20))));
        },
    },
];

/// How far an operation has come, as the others see it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, PartialOrd)]
enum Stage {
    NotBegun,
    Forgotten,
    Ended,
}

/// A case, and what can be seen before and after it.
struct Trial {
    memory: Memory,
    case: &'static Case,
    known: Known,
    start: Box<Bytes>,
    before: State,
    after: State,
}

impl Trial {
    fn new(case: &'static Case) -> Self {
        let memory = Memory::new();
        let known = fill(&memory);
        (case.prepare)(&memory, &known);
        let start = memory.save();
        let before = look(&memory, &known.all);
        memory.restore(&start);
        (case.operation)(&memory, &known);
        let after = look(&memory, &known.all);
        memory.restore(&start);
        assert_ne!(before, after, "{}: no effect", case.name);
        Trial { memory, case, known, start, before, after }
    }

    fn begin(&self) -> Child {
        self.memory.restore(&self.start);
        Child::begin(|| (self.case.operation)(&self.memory, &self.known))
    }

    /// How far the operation has come, which was here before.
    fn stage(&self, before: Stage) -> Stage {
        let state = look(&self.memory, &self.known.all);
        let stage = if state == self.before && before == Stage::NotBegun {
            Stage::NotBegun
        } else if state == self.after {
            Stage::Ended
        } else {
            self.check_forgotten(&state);
            Stage::Forgotten
        };
        assert!(stage >= before, "{}: {stage:?} after {before:?}", self.case.name);
        stage
    }

    fn check_forgotten(&self, state: &State) {
        let Trial { case: Case { name, .. }, before, after, .. } = self;
        assert!(state.is_empty(), "{name}: {state:#?}\nbefore: {before:#?}");
        for (number, &(process, calls)) in state.workers.iter().enumerate() {
            let (old, new) = (before.workers[number].0, after.workers[number].0);
            // A worker whose beginning was not completed has a place, and perhaps no process.
            assert!([old, new, new.and(Some(0))].contains(&process), "{name}: {process:?}");
            let all = process.map(|_| Calls::AllFrom(0));
            assert_eq!(calls, all, "{name}: worker {number}");
        }
        let (old, new) = (before.limits, after.limits);
        // Those of connections and of slices are two.
        assert!([old.0, new.0].contains(&state.limits.0), "{name}: {:?}", state.limits);
        assert!([old.1, new.1].contains(&state.limits.1), "{name}: {:?}", state.limits);
    }
}

/// Looks at what is in the memory after each instruction that changes it. Answers the number of
/// instructions.
fn look_at_all(trial: &Trial) -> usize {
    let Trial { memory, case: Case { name, .. }, start, .. } = trial;
    let (mut last, mut stage) = (start.clone(), Stage::NotBegun);
    let (mut instructions, mut forgotten) = (0, 0);
    let child = trial.begin();
    while child.step() {
        instructions += 1;
        if memory.is_changed(&last) {
            last = memory.save();
            stage = trial.stage(stage);
            forgotten += usize::from(stage == Stage::Forgotten);
            memory.restore(&last);
        }
    }
    assert_eq!(trial.stage(stage), Stage::Ended, "{name}");
    assert!(forgotten > 0 || trial.before.is_empty(), "{name}: at no instruction");
    println!("{instructions:6} instructions, {forgotten:4} changes: {name}");
    instructions
}

/// Kills a child after each so many instructions.
fn kill(trial: &Trial, instructions: usize, stride: usize) {
    let mut stage = Stage::NotBegun;
    for last in (0..instructions).step_by(stride) {
        let child = trial.begin();
        assert!((0..last).all(|_| child.step()), "{}", trial.case.name);
        drop(child);
        stage = trial.stage(stage);
    }
}

/// Looks at everything, and kills so many children for each operation.
fn check(children: usize) {
    stay();
    for case in CASES {
        let trial = Trial::new(case);
        let instructions = look_at_all(&trial);
        kill(&trial, instructions, instructions.div_ceil(children));
    }
}

#[test]
fn a_worker_can_die_at_any_instruction() {
    check(3);
}

/// `cargo test --release -- --ignored`: in optimised code, and with many that are killed.
#[test]
#[ignore = "takes long unless optimised"]
fn a_worker_can_be_killed_at_any_instruction() {
    check(100);
}

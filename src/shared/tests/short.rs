//! Short forms of the operations.

use std::vec::Vec;

use allocator_api2::alloc::Global;

use crate::policy::LimitedBy;
use crate::pool::{Identity, Limits, Lookup, Protocol, SliceLimits, SlotIndex};
use crate::shared::*;

pub const HTTP: Protocol = Protocol { module: 1, handler: 1, location: 0, tls: 0 };
pub const NO_LIMIT: u32 = u32::MAX;
pub const NOTHING: [u32; 0] = [];
pub const SEED: Seed = [7; 24];

/// The holders, of which the workers have begun.
pub const A: Holder = Holder::Worker(0);
pub const B: Holder = Holder::Worker(1);
pub const WORKERS: WorkerNumber = 4;

/// The process of a worker that [`shared`] has begun.
pub fn process(number: WorkerNumber) -> Pid {
    100 + Pid::from(number)
}

/// No connections, of four workers that have begun.
pub fn shared(connections: u32, slices: u32) -> Shared<Global> {
    let slices = Some(SliceLimits { slices, key_length: 8 });
    let limits = Limits { connections, address_length: 8, attributes_length: 0, slices };
    let mut shared = Shared::new_in(limits, 16, &SEED, Global).unwrap();
    for number in 0..WORKERS {
        shared.run(|all| all.begin(number, process(number)));
    }
    shared
}

pub fn id<'a>(key: &'a str, address: &'a str) -> Identity<'a> {
    Identity { key: key.as_bytes(), address: address.as_bytes(), attributes: b"", protocol: HTTP }
}

/// What is known about a connection, made from its descriptor, so that no two are equal.
pub fn facts(fd: i32) -> Idle {
    let n = fd.unsigned_abs();
    let time = Time::from(n);
    Idle {
        requests: n + 1,
        made: time + 2,
        since: time + 3,
        deadline: time + 4,
        limited_by: LimitedBy::Hint,
        movable: n % 2 == 0,
    }
}

/// Puts once.
pub fn put(
    shared: &mut Shared<Global>,
    identity: &Identity<'_>,
    (holder, fd): (Holder, i32),
    limit: u32,
) -> SharedPut {
    let mut lookup = Lookup::default();
    shared.run(|all| all.put(|| *identity, &mut lookup, limit, (holder, fd, &facts(fd))))
}

/// Puts a connection that is kept at once.
pub fn keep(
    shared: &mut Shared<Global>,
    identity: &Identity<'_>,
    holder: Holder,
    fd: i32,
) -> Ticket {
    match put(shared, identity, (holder, fd), NO_LIMIT) {
        SharedPut::Kept(ticket) => ticket,
        other => panic!("{other:?}"),
    }
}

pub fn find(shared: &mut Shared<Global>, identity: &Identity<'_>) -> Option<SlotIndex> {
    shared.run(|all| all.find(identity, &mut Lookup::default()))
}

pub fn held(shared: &mut Shared<Global>, ticket: Ticket, holder: Holder) -> bool {
    shared.run(|all| all.held(ticket, holder).is_some())
}

/// The holders of a ticket, among all that there can be.
pub fn holders(shared: &mut Shared<Global>, ticket: Ticket) -> Vec<Holder> {
    let workers = (0..WORKERS).map(Holder::Worker);
    workers.chain([Holder::InFlight]).filter(|&holder| held(shared, ticket, holder)).collect()
}

pub fn count(shared: &mut Shared<Global>) -> u32 {
    shared.run(|all| all.pool().count())
}

/// The slots that a worker is called to, if they are told one by one.
pub fn calls(shared: &mut Shared<Global>, number: WorkerNumber) -> Vec<u32> {
    match shared.run(|all| all.calls(number)) {
        None => Vec::new(),
        Some(Calls::Slots(slots, count)) => slots[..count].to_vec(),
        Some(Calls::AllFrom(from)) => panic!("all from {from}"),
    }
}

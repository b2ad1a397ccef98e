//! A pool with the data of its caller, and short forms of its operations.

use std::collections::HashMap;

use allocator_api2::alloc::Global;

use crate::pool::*;

pub const HTTP: Protocol = Protocol { module: 1, handler: 1, location: 0, tls: 0 };
pub const NO_LIMIT: u32 = u32::MAX;
pub const SEED: Seed = [7; 24];
pub const ANY_TIME: u64 = u64::MAX;
pub const NOTHING: [u32; 0] = [];

/// A pool, with the data of its caller: the connection of each slot, and the time from which it is
/// no longer used.
pub struct Idle {
    pub pool: Pool<Global>,
    connections: HashMap<SlotIndex, (u32, u64)>,
}

impl Idle {
    pub fn new(limits: Limits, seed: &Seed) -> Self {
        Idle { pool: Pool::new_in(limits, seed, Global).unwrap(), connections: HashMap::new() }
    }

    pub fn find(&self, identity: &Identity<'_>, lookup: &mut Lookup) -> Option<u32> {
        let slot = self.pool.find(identity, lookup)?;
        Some(self.connections[&slot].0)
    }

    pub fn take(&mut self, identity: &Identity<'_>, lookup: &mut Lookup, now: u64) -> Take {
        let Some(slot) = self.pool.find(identity, lookup) else { return Take::Nothing };
        let (value, deadline) = self.connections.remove(&slot).unwrap();
        if deadline <= now {
            assert!(self.pool.remove(slot));
            Take::Close(value)
        } else {
            assert!(self.pool.take(slot));
            Take::Found(value)
        }
    }

    pub fn put(
        &mut self,
        identity: &Identity<'_>,
        lookup: &mut Lookup,
        what: (u32, u64),
        limit: u32,
    ) -> Result<SlotIndex, PutFailed> {
        match self.pool.put(|| *identity, lookup, limit) {
            Put::Kept(slot) => {
                assert_eq!(self.connections.insert(slot, what), None);
                Ok(slot)
            }
            Put::NotKept(refused) => Err(PutFailed::NotKept(refused)),
            Put::Close(slot, evicted) => Err(PutFailed::Close(self.remove(slot).unwrap(), evicted)),
        }
    }

    pub fn remove(&mut self, slot: SlotIndex) -> Option<u32> {
        let removed = self.pool.remove(slot);
        let connection = self.connections.remove(&slot);
        assert_eq!(removed, connection.is_some());
        connection.map(|(value, _)| value)
    }

    pub fn clear(&mut self) {
        self.pool.clear();
        self.connections.clear();
    }

    pub fn pop(&mut self) -> Option<u32> {
        let slot = self.pool.pop()?;
        self.connections.remove(&slot).map(|(value, _)| value)
    }
}

#[derive(Debug, PartialEq)]
pub enum Take {
    Found(u32),
    Close(u32),
    Nothing,
}

#[derive(Debug, PartialEq)]
pub enum PutFailed {
    NotKept(NotKept),
    Close(u32, Evicted),
}

pub fn pool(connections: u32, slices: u32) -> Idle {
    let slices = Some(SliceLimits { slices, key_length: 8 });
    Idle::new(Limits { connections, address_length: 8, attributes_length: 8, slices }, &SEED)
}

pub fn id<'a>(key: &'a str, address: &'a str) -> Identity<'a> {
    Identity { key: key.as_bytes(), address: address.as_bytes(), attributes: b"", protocol: HTTP }
}

/// Puts until the connection is kept or refused; the answer and the closed connections.
pub fn put(
    pool: &mut Idle,
    identity: &Identity<'_>,
    value: u32,
    limit: u32,
) -> (Result<SlotIndex, NotKept>, Vec<u32>) {
    put_until(pool, identity, (value, ANY_TIME), limit)
}

pub fn put_until(
    pool: &mut Idle,
    identity: &Identity<'_>,
    what: (u32, u64),
    limit: u32,
) -> (Result<SlotIndex, NotKept>, Vec<u32>) {
    let (answer, closed) = put_by(pool, identity, &mut Lookup::default(), what, limit);
    (answer, closed.into_iter().map(|(value, _)| value).collect())
}

pub fn put_by(
    pool: &mut Idle,
    identity: &Identity<'_>,
    lookup: &mut Lookup,
    what: (u32, u64),
    limit: u32,
) -> (Result<SlotIndex, NotKept>, Vec<(u32, Evicted)>) {
    let mut closed = Vec::new();
    loop {
        match pool.put(identity, lookup, what, limit) {
            Ok(slot) => return (Ok(slot), closed),
            Err(PutFailed::NotKept(refused)) => return (Err(refused), closed),
            Err(PutFailed::Close(value, evicted)) => closed.push((value, evicted)),
        }
    }
}

pub fn keep(pool: &mut Idle, identity: &Identity<'_>, value: u32) -> Vec<u32> {
    let (answer, closed) = put(pool, identity, value, NO_LIMIT);
    answer.unwrap();
    closed
}

pub fn take(pool: &mut Idle, identity: &Identity<'_>) -> Option<u32> {
    let (found, closed) = take_at(pool, identity, 0);
    assert_eq!(closed, NOTHING);
    found
}

/// Takes until a connection is found or none is left; the answer and the closed connections.
pub fn take_at(pool: &mut Idle, identity: &Identity<'_>, now: u64) -> (Option<u32>, Vec<u32>) {
    take_by(pool, identity, &mut Lookup::default(), now)
}

pub fn take_by(
    pool: &mut Idle,
    identity: &Identity<'_>,
    lookup: &mut Lookup,
    now: u64,
) -> (Option<u32>, Vec<u32>) {
    let mut closed = Vec::new();
    loop {
        match pool.take(identity, lookup, now) {
            Take::Found(value) => return (Some(value), closed),
            Take::Nothing => return (None, closed),
            Take::Close(value) => closed.push(value),
        }
    }
}

//! The pool against a naive one, by random operations.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::idle::*;
use crate::pool::*;

#[derive(Debug, Default, PartialEq)]
struct Used {
    connections: usize,
    peers: usize,
    slices: usize,
}

/// The numbers of nodes in use, that is, of nodes that are not empty.
fn used(pool: &mut Idle) -> Used {
    let pool = &mut pool.pool;
    let connections = pool.slots.count_all();
    let slices = pool.slices.as_mut().map_or(connections.min(1), Slices::count_all);
    Used { connections, peers: pool.peers.count(), slices }
}

/// The same rules, written down as simply as possible: a list, the most recently saved first, and
/// the order in which keys were used.
struct Naive {
    limits: Limits,
    slices: SliceLimits,
    idle: Vec<(Own, u32, u64)>,
    used: Vec<Vec<u8>>,
}

#[derive(Clone, Debug, PartialEq)]
struct Own {
    key: Vec<u8>,
    address: Vec<u8>,
    attributes: Vec<u8>,
    protocol: Protocol,
}

impl Own {
    fn identity(&self) -> Identity<'_> {
        Identity {
            key: &self.key,
            address: &self.address,
            attributes: &self.attributes,
            protocol: self.protocol,
        }
    }
}

impl Naive {
    fn count(&self, key: &[u8]) -> usize {
        self.idle.iter().filter(|(id, ..)| id.key == key).count()
    }

    fn keys(&self) -> HashSet<&[u8]> {
        self.idle.iter().map(|(id, ..)| &id.key[..]).collect()
    }

    fn touch(&mut self, key: &[u8]) {
        self.used.retain(|used| used != key);
        self.used.insert(0, key.to_vec());
    }

    fn take(&mut self, id: &Own, now: u64) -> (Option<u32>, Vec<u32>) {
        let mut closed = Vec::new();
        while let Some(i) = self.idle.iter().position(|(idle, ..)| idle == id) {
            let (_, value, deadline) = self.idle.remove(i);
            if deadline > now {
                self.touch(&id.key);
                return (Some(value), closed);
            }
            closed.push(value);
        }
        (None, closed)
    }

    fn close_last(&mut self, which: impl Fn(&Own) -> bool, why: Evicted) -> (u32, Evicted) {
        let i = self.idle.iter().rposition(|(id, ..)| which(id)).unwrap();
        (self.idle.remove(i).1, why)
    }

    /// Empties the least recently used slice.
    fn close_slice(&mut self, closed: &mut Vec<(u32, Evicted)>) {
        let keys = self.keys();
        let key = self.used.iter().rfind(|key| keys.contains(&key[..])).unwrap().clone();
        while self.count(&key) > 0 {
            closed.push(self.close_last(|idle| idle.key == key, Evicted::Slices));
        }
    }

    /// Closes what is too many, if a slice may hold `limit` connections.
    fn close_excess(&mut self, limit: u32) -> Vec<(u32, Evicted)> {
        let mut closed = Vec::new();
        while self.keys().len() > self.slices.slices as usize {
            self.close_slice(&mut closed);
        }
        let keys: Vec<_> = self.keys().into_iter().map(<[u8]>::to_vec).collect();
        for key in keys {
            while self.count(&key) > limit as usize {
                closed.push(self.close_last(|idle| idle.key == key, Evicted::SliceLimit));
            }
        }
        while self.idle.len() > self.limits.connections as usize {
            closed.push(self.close_last(|_| true, Evicted::Connections));
        }
        closed
    }

    fn put(
        &mut self,
        id: &Own,
        (value, deadline): (u32, u64),
        limit: u32,
    ) -> (Result<(), NotKept>, Vec<(u32, Evicted)>) {
        let mut closed = Vec::new();
        while self.count(&id.key) > 0 && self.count(&id.key) >= limit as usize {
            closed.push(self.close_last(|idle| idle.key == id.key, Evicted::SliceLimit));
        }
        if self.limits.connections == 0 || self.slices.slices == 0 {
            return (Err(NotKept::Disabled), closed);
        }
        if limit == 0 {
            return (Err(NotKept::SliceLimit), closed);
        }
        if id.key.len() > self.slices.key_length as usize {
            return (Err(NotKept::KeyLength), closed);
        }
        if id.address.len() > self.limits.address_length as usize {
            return (Err(NotKept::AddressLength), closed);
        }
        if id.attributes.len() > self.limits.attributes_length as usize {
            return (Err(NotKept::AttributesLength), closed);
        }
        while self.count(&id.key) == 0 && self.keys().len() >= self.slices.slices as usize {
            self.close_slice(&mut closed);
        }
        while self.idle.len() >= self.limits.connections as usize {
            closed.push(self.close_last(|_| true, Evicted::Connections));
        }
        self.idle.insert(0, (id.clone(), value, deadline));
        self.touch(&id.key);
        (Ok(()), closed)
    }
}

/// The lookup of an identity from its first use.
fn remembered<'a>(lookups: &'a mut Vec<(Own, Lookup)>, own: &Own) -> &'a mut Lookup {
    let i = lookups.iter().position(|(known, _)| known == own).unwrap_or_else(|| {
        lookups.push((own.clone(), Lookup::default()));
        lookups.len() - 1
    });
    &mut lookups[i].1
}

#[derive(Clone, Debug)]
enum Operation {
    Take(Own),
    /// With a limit of its slice, and a time after which it is not used.
    Put(Own, u32, Option<u64>),
    /// The nth idle connection is closed by its upstream.
    Remove(usize),
    Pop,
    /// The limits change: of connections, of slices and of a slice.
    Limits(u32, u32, u32),
    Clear,
}

impl Operation {
    fn without_key(&mut self) {
        match self {
            Operation::Take(own) => own.key.clear(),
            Operation::Put(own, limit, _) => {
                own.key.clear();
                *limit = NO_LIMIT;
            }
            Operation::Limits(.., limit) => *limit = NO_LIMIT,
            Operation::Remove(_) | Operation::Pop | Operation::Clear => {}
        }
    }
}

fn own() -> impl Strategy<Value = Own> {
    let key = proptest::collection::vec(b'a'..=b'c', 0..4);
    let address = proptest::collection::vec(b'1'..=b'3', 1..4);
    // Of the same letters, so that an address can end as the attributes of another one begin.
    let attributes = prop_oneof![Just(vec![]), proptest::collection::vec(b'1'..=b'2', 0..3)];
    let protocol = (1..3u16, 1..3u32, 0..2u64, 0..3u16)
        .prop_map(|(module, handler, location, tls)| Protocol { module, handler, location, tls });
    (key, address, attributes, protocol).prop_map(|(key, address, attributes, protocol)| Own {
        key,
        address,
        attributes,
        protocol,
    })
}

fn operation() -> impl Strategy<Value = Operation> {
    let limit = prop_oneof![3 => Just(NO_LIMIT), 2 => 0..6u32];
    prop_oneof![
        4 => own().prop_map(Operation::Take),
        8 => (own(), limit, proptest::option::of(0..20u64))
            .prop_map(|(own, limit, time)| Operation::Put(own, limit, time)),
        2 => any::<usize>().prop_map(Operation::Remove),
        1 => Just(Operation::Pop),
        1 => (0..12u32, 0..6u32, prop_oneof![Just(NO_LIMIT), 0..6u32])
            .prop_map(|(connections, slices, limit)| Operation::Limits(connections, slices, limit)),
        1 => Just(Operation::Clear),
    ]
}

/// Only a few identities, so that they occur again.
fn operations() -> impl Strategy<Value = Vec<Operation>> {
    proptest::collection::vec(own(), 1..12).prop_flat_map(|known| {
        let pick = proptest::sample::select(known);
        let operation = (operation(), pick).prop_map(|(operation, own)| match operation {
            Operation::Take(_) => Operation::Take(own),
            Operation::Put(_, limit, time) => Operation::Put(own, limit, time),
            other => other,
        });
        proptest::collection::vec(operation, 1..200)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn the_pool_is_the_naive_one(
        connections in 0..12u32,
        slices in proptest::option::weighted(0.8, 0..6u32),
        key_length in 0..4u16,
        address_length in 1..4u16,
        attributes_length in 0..3u16,
        operations in operations(),
        seed in any::<Seed>(),
    ) {
        let slices = slices.map(|slices| SliceLimits { slices, key_length });
        let limits = Limits { connections, address_length, attributes_length, slices };
        let mut pool = Idle::new(limits, &seed);
        // Without slices, everything has the same key, and only connections are limited.
        let unlimited = SliceLimits { slices: u32::MAX, key_length: Length::MAX };
        let slices = slices.unwrap_or(unlimited);
        let mut naive = Naive { limits, slices, idle: Vec::new(), used: Vec::new() };
        let mut slots = HashMap::new();
        // As in requests: begun some time ago, in another state of the pool.
        let mut lookups: Vec<(Own, Lookup)> = Vec::new();

        for (value, mut operation) in (0..).zip(operations) {
            if limits.slices.is_none() {
                operation.without_key();
            }
            let now = u64::from(value);
            match operation {
                Operation::Take(own) => {
                    let expected = naive.take(&own, now);
                    let lookup = remembered(&mut lookups, &own);
                    prop_assert_eq!(take_by(&mut pool, &own.identity(), lookup, now), expected);
                }
                Operation::Put(own, limit, time) => {
                    let what = (value, time.map_or(ANY_TIME, |time| now + time));
                    let lookup = remembered(&mut lookups, &own);
                    let (answer, closed) =
                        put_by(&mut pool, &own.identity(), lookup, what, limit);
                    let expected = naive.put(&own, what, limit);
                    prop_assert_eq!((answer.map(|_| ()), closed), expected);
                    if let Ok(slot) = answer {
                        slots.insert(value, slot);
                        let numbers = naive.idle.iter().map(|(_, value, _)| slots[value].get());
                        let numbers: HashSet<u32> = numbers.collect();
                        prop_assert_eq!(numbers.len(), naive.idle.len());
                        prop_assert!(numbers.iter().all(|&number| number < connections));
                    }
                    // Promise 2, for the key that was put.
                    prop_assert!(naive.count(&own.key) <= limit as usize);
                }
                Operation::Remove(n) if !naive.idle.is_empty() => {
                    let (_, value, _) = naive.idle.remove(n % naive.idle.len());
                    prop_assert_eq!(pool.remove(slots[&value]), Some(value));
                    prop_assert!(!pool.pool.remove(slots[&value]));
                }
                Operation::Limits(most, most_slices, limit) => {
                    let (most, most_slices) = (most.min(connections), most_slices.min(slices.slices));
                    naive.limits.connections = most;
                    if limits.slices.is_some() {
                        naive.slices.slices = most_slices;
                    }
                    pool.pool.set_limits(most, Some(most_slices));
                    let mut closed = Vec::new();
                    while let Some((slot, why)) = pool.pool.excess(limit) {
                        closed.push((pool.remove(slot).unwrap(), why));
                    }
                    let mut expected = naive.close_excess(limit);
                    closed.sort_unstable_by_key(|&(value, _)| value);
                    expected.sort_unstable_by_key(|&(value, _)| value);
                    prop_assert_eq!(closed, expected);
                }
                Operation::Clear => {
                    pool.clear();
                    naive.idle.clear();
                    naive.used.clear();
                }
                Operation::Remove(_) | Operation::Pop => {
                    prop_assert_eq!(pool.pop(), naive.idle.pop().map(|(_, value, _)| value));
                }
            }
            if let Some(in_use) = pool.pool.slices_in_use() {
                prop_assert_eq!(in_use as usize, naive.keys().len());
            }
            // Promise 2: the counts are those of the naive pool, and within the limits.
            let Used { connections: kept, peers, slices: used } = used(&mut pool);
            prop_assert_eq!(kept, naive.idle.len());
            prop_assert_eq!(used, naive.keys().len());
            prop_assert_eq!(pool.pool.count() as usize, kept);
            prop_assert!(kept <= naive.limits.connections as usize);
            prop_assert!(used <= naive.slices.slices as usize);
            prop_assert!(peers <= kept);
            for slice in pool.pool.slices() {
                prop_assert_eq!(slice.idle as usize, naive.count(slice.key));
            }
        }

        // Nothing was lost: the remaining connections leave in the order in which they were saved.
        while let Some(value) = pool.pop() {
            prop_assert_eq!(Some(value), naive.idle.pop().map(|(_, value, _)| value));
        }
        prop_assert!(naive.idle.is_empty());
        prop_assert_eq!(used(&mut pool), Used::default());
    }
}

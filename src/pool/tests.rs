//! The pool against a naive one, and its promises one by one.

use std::collections::{HashMap, HashSet};

use allocator_api2::alloc::Global;
use proptest::prelude::*;

use super::*;

const HTTP: Protocol = Protocol { handler: 1, location: 0, tls: false };
const NO_LIMIT: u32 = u32::MAX;
const SEED: Seed = [7; 24];
const ANY_TIME: u64 = u64::MAX;
const NOTHING: [u32; 0] = [];

/// A pool, with the data of its caller: the connection of each slot, and the time from which it is
/// no longer used.
struct Idle {
    pool: Pool<Global>,
    connections: HashMap<SlotIndex, (u32, u64)>,
}

impl Idle {
    fn new(limits: Limits, seed: &Seed) -> Self {
        Idle { pool: Pool::new_in(limits, seed, Global).unwrap(), connections: HashMap::new() }
    }

    fn find(&self, identity: &Identity<'_>, lookup: &mut Lookup) -> Option<u32> {
        let slot = self.pool.find(identity, lookup)?;
        Some(self.connections[&slot].0)
    }

    fn take(&mut self, identity: &Identity<'_>, lookup: &mut Lookup, now: u64) -> Take {
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

    fn put(
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
            Put::Close(slot, evicted) => {
                Err(PutFailed::Close(self.connections.remove(&slot).unwrap().0, evicted))
            }
        }
    }

    fn remove(&mut self, slot: SlotIndex) -> Option<u32> {
        let removed = self.pool.remove(slot);
        let connection = self.connections.remove(&slot);
        assert_eq!(removed, connection.is_some());
        connection.map(|(value, _)| value)
    }

    fn pop(&mut self) -> Option<u32> {
        let slot = self.pool.pop()?;
        self.connections.remove(&slot).map(|(value, _)| value)
    }
}

#[derive(Debug, PartialEq)]
enum Take {
    Found(u32),
    Close(u32),
    Nothing,
}

#[derive(Debug, PartialEq)]
enum PutFailed {
    NotKept(NotKept),
    Close(u32, Evicted),
}

fn pool(connections: u32, slices: u32) -> Idle {
    let slices = Some(SliceLimits { slices, key_length: 8 });
    Idle::new(Limits { connections, address_length: 8, slices }, &SEED)
}

fn id<'a>(key: &'a str, address: &'a str) -> Identity<'a> {
    Identity { key: key.as_bytes(), address: address.as_bytes(), protocol: HTTP }
}

/// Puts until the connection is kept or refused; the answer and the closed connections.
fn put(
    pool: &mut Idle,
    identity: &Identity<'_>,
    value: u32,
    limit: u32,
) -> (Result<SlotIndex, NotKept>, Vec<u32>) {
    put_until(pool, identity, (value, ANY_TIME), limit)
}

fn put_until(
    pool: &mut Idle,
    identity: &Identity<'_>,
    what: (u32, u64),
    limit: u32,
) -> (Result<SlotIndex, NotKept>, Vec<u32>) {
    let (answer, closed) = put_by(pool, identity, &mut Lookup::default(), what, limit);
    (answer, closed.into_iter().map(|(value, _)| value).collect())
}

fn put_by(
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

fn keep(pool: &mut Idle, identity: &Identity<'_>, value: u32) -> Vec<u32> {
    let (answer, closed) = put(pool, identity, value, NO_LIMIT);
    answer.unwrap();
    closed
}

fn take(pool: &mut Idle, identity: &Identity<'_>) -> Option<u32> {
    let (found, closed) = take_at(pool, identity, 0);
    assert_eq!(closed, NOTHING);
    found
}

/// Takes until a connection is found or none is left; the answer and the closed connections.
fn take_at(pool: &mut Idle, identity: &Identity<'_>, now: u64) -> (Option<u32>, Vec<u32>) {
    take_by(pool, identity, &mut Lookup::default(), now)
}

fn take_by(
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

#[test]
fn a_connection_is_reused_once() {
    let mut pool = pool(4, 4);
    keep(&mut pool, &id("a", "1"), 7);
    assert_eq!(take(&mut pool, &id("a", "1")), Some(7));
    assert_eq!(take(&mut pool, &id("a", "1")), None);
}

#[test]
fn the_most_recently_saved_comes_first() {
    let mut pool = pool(4, 4);
    for value in 1..=3 {
        keep(&mut pool, &id("a", "1"), value);
    }
    let taken: Vec<_> = (0..3).filter_map(|_| take(&mut pool, &id("a", "1"))).collect();
    assert_eq!(taken, [3, 2, 1]);
}

#[test]
fn another_identity_gets_nothing() {
    let mut pool = pool(4, 4);
    let saved = id("a", "1");
    keep(&mut pool, &saved, 7);

    let other = |protocol| Identity { protocol, ..saved };
    for identity in [
        id("b", "1"),
        id("", "1"),
        id("a", "2"),
        id("a1", ""),
        id("", "a1"),
        other(Protocol { handler: 2, ..HTTP }),
        other(Protocol { location: 1, ..HTTP }),
        other(Protocol { tls: true, ..HTTP }),
    ] {
        assert_eq!(take(&mut pool, &identity), None, "{identity:?}");
    }
    assert_eq!(take(&mut pool, &saved), Some(7));
}

/// The hashes are useless here: all identities have the same ones.
#[test]
fn equal_hashes_are_not_equal_identities() {
    let mut pool = pool(8, 8);
    let hashes = Some(pool.pool.hasher.hash(&id("a", "1")));
    let same = || Lookup { hashes, ..Lookup::default() };
    let identities = [id("a", "1"), id("b", "1"), id("a", "2"), id("", "")];
    for (value, identity) in (0..).zip(&identities) {
        pool.put(identity, &mut same(), (value, ANY_TIME), NO_LIMIT).unwrap();
    }
    assert_eq!(pool.take(&id("b", "2"), &mut same(), 0), Take::Nothing);
    for (value, identity) in (0..).zip(&identities) {
        assert_eq!(pool.take(identity, &mut same(), 0), Take::Found(value));
    }
}

/// A request looked its slice up; when it has finished, the place belongs to another slice.
#[test]
fn a_lookup_does_not_outlive_its_slice() {
    let mut pool = pool(1, 1);
    let (a, b) = (id("a", "1"), id("b", "1"));
    let mut lookup = Lookup::default();
    put_by(&mut pool, &a, &mut lookup, (1, ANY_TIME), NO_LIMIT).0.unwrap();
    assert_eq!(take_by(&mut pool, &a, &mut lookup, 0), (Some(1), vec![]));
    keep(&mut pool, &b, 2);
    assert_eq!(take(&mut pool, &b), Some(2));

    put_by(&mut pool, &a, &mut lookup, (1, ANY_TIME), NO_LIMIT).0.unwrap();
    assert_eq!(take(&mut pool, &b), None);
    assert_eq!(take(&mut pool, &a), Some(1));
}

/// The slice is still there, but the place of the server belongs to another server.
#[test]
fn a_lookup_does_not_outlive_its_peer() {
    let mut pool = pool(1, 1);
    let (one, two) = (id("a", "1"), id("a", "2"));
    let mut lookup = Lookup::default();
    put_by(&mut pool, &one, &mut lookup, (1, ANY_TIME), NO_LIMIT).0.unwrap();
    assert_eq!(take_by(&mut pool, &one, &mut lookup, 0), (Some(1), vec![]));
    keep(&mut pool, &two, 2);
    assert_eq!(take(&mut pool, &two), Some(2));

    put_by(&mut pool, &one, &mut lookup, (1, ANY_TIME), NO_LIMIT).0.unwrap();
    assert_eq!(take(&mut pool, &two), None);
    assert_eq!(take(&mut pool, &one), Some(1));
}

#[test]
fn an_empty_key_is_a_key() {
    let mut pool = pool(4, 4);
    keep(&mut pool, &id("", "1"), 7);
    assert_eq!(take(&mut pool, &id("a", "1")), None);
    assert_eq!(take(&mut pool, &id("", "1")), Some(7));
}

#[test]
fn at_the_limit_the_least_recently_saved_of_all_makes_room() {
    let mut pool = pool(3, 3);
    keep(&mut pool, &id("a", "1"), 1);
    keep(&mut pool, &id("b", "1"), 2);
    assert_eq!(keep(&mut pool, &id("c", "1"), 3), NOTHING);
    assert_eq!(keep(&mut pool, &id("c", "1"), 4), [1]);
    assert_eq!(keep(&mut pool, &id("c", "2"), 5), [2]);
}

#[test]
fn at_the_slice_limit_the_slice_makes_room_over_all_servers() {
    let mut pool = pool(9, 9);
    keep(&mut pool, &id("b", "1"), 1);
    assert_eq!(put(&mut pool, &id("a", "1"), 2, 2).1, NOTHING);
    assert_eq!(put(&mut pool, &id("a", "2"), 3, 2).1, NOTHING);
    assert_eq!(put(&mut pool, &id("a", "2"), 4, 2).1, [2]);
    assert_eq!(take(&mut pool, &id("a", "1")), None);
    assert_eq!(take(&mut pool, &id("b", "1")), Some(1));
}

#[test]
fn a_lower_slice_limit_closes_what_is_beyond_it() {
    let mut pool = pool(9, 9);
    for value in 1..=4 {
        keep(&mut pool, &id("a", "1"), value);
    }
    assert_eq!(put(&mut pool, &id("a", "1"), 5, 2).1, [1, 2, 3]);
    assert_eq!(put(&mut pool, &id("a", "1"), 6, 0), (Err(NotKept::SliceLimit), vec![4, 5]));
    assert_eq!(pool.pop(), None);
}

#[test]
fn a_new_slice_empties_the_least_recently_used_one() {
    let mut pool = pool(9, 2);
    keep(&mut pool, &id("a", "1"), 1);
    keep(&mut pool, &id("a", "2"), 2);
    keep(&mut pool, &id("b", "1"), 3);
    keep(&mut pool, &id("b", "1"), 4);
    assert_eq!(keep(&mut pool, &id("c", "1"), 5), [1, 2]);

    // Taking a connection uses its slice.
    assert_eq!(take(&mut pool, &id("b", "1")), Some(4));
    assert_eq!(keep(&mut pool, &id("d", "1"), 6), [5]);
    assert_eq!(take(&mut pool, &id("b", "1")), Some(3));
}

#[test]
fn an_emptied_slice_is_free_at_once() {
    let mut pool = pool(9, 2);
    keep(&mut pool, &id("a", "1"), 1);
    let (slot, _) = put(&mut pool, &id("b", "1"), 2, NO_LIMIT);
    take(&mut pool, &id("a", "1"));
    assert_eq!(keep(&mut pool, &id("c", "1"), 3), NOTHING);
    assert_eq!(pool.remove(slot.unwrap()), Some(2));
    assert_eq!(keep(&mut pool, &id("d", "1"), 4), NOTHING);
}

#[test]
fn at_its_deadline_a_connection_is_closed_instead_of_used() {
    let mut pool = pool(9, 9);
    let a = id("a", "1");
    put_until(&mut pool, &a, (1, 20), NO_LIMIT).0.unwrap();
    put_until(&mut pool, &a, (2, 10), NO_LIMIT).0.unwrap();
    put_until(&mut pool, &a, (3, 10), NO_LIMIT).0.unwrap();

    assert_eq!(take_at(&mut pool, &a, 9), (Some(3), vec![]));
    assert_eq!(take_at(&mut pool, &a, 10), (Some(1), vec![2]));

    put_until(&mut pool, &a, (4, 20), NO_LIMIT).0.unwrap();
    assert_eq!(take_at(&mut pool, &a, 20), (None, vec![4]));
    assert_eq!(pool.pop(), None);
}

/// Closing a connection does not use its slice, which is not put before the others.
#[test]
fn a_slice_is_not_used_by_closing() {
    let mut pool = pool(9, 2);
    keep(&mut pool, &id("a", "1"), 1);
    put_until(&mut pool, &id("a", "2"), (2, 10), NO_LIMIT).0.unwrap();
    keep(&mut pool, &id("b", "1"), 3);
    assert_eq!(take_at(&mut pool, &id("a", "2"), 10), (None, vec![2]));
    assert_eq!(keep(&mut pool, &id("c", "1"), 4), [1]);
}

#[test]
fn zero_keeps_nothing() {
    let refused = (Err(NotKept::Disabled), vec![]);
    assert_eq!(put(&mut pool(0, 9), &id("a", "1"), 1, NO_LIMIT), refused);
    assert_eq!(put(&mut pool(9, 0), &id("a", "1"), 1, NO_LIMIT), refused);
    let refused = (Err(NotKept::SliceLimit), vec![]);
    assert_eq!(put(&mut pool(9, 9), &id("a", "1"), 1, 0), refused);
}

#[test]
fn what_does_not_fit_is_refused_and_closes_nothing() {
    let mut pool = pool(1, 1);
    keep(&mut pool, &id("a", "1"), 1);
    let key = put(&mut pool, &id("123456789", "1"), 2, NO_LIMIT);
    assert_eq!(key, (Err(NotKept::KeyLength), vec![]));
    let address = put(&mut pool, &id("b", "123456789"), 2, NO_LIMIT);
    assert_eq!(address, (Err(NotKept::AddressLength), vec![]));
    assert_eq!(take(&mut pool, &id("a", "1")), Some(1));

    assert_eq!(keep(&mut pool, &id("12345678", "12345678"), 3), NOTHING);
    assert_eq!(take(&mut pool, &id("12345678", "12345678")), Some(3));
}

#[test]
fn hits_are_counted_for_as_long_as_a_slice_has_its_key() {
    let mut pool = pool(4, 1);
    let mut lookup = Lookup::default();
    let hits = |pool: &Idle| {
        pool.pool.slices().map(|slice| (slice.key.to_vec(), slice.hits)).collect::<Vec<_>>()
    };
    let a = id("a", "1");
    keep(&mut pool, &a, 7);
    for n in 0..3 {
        assert_eq!(hits(&pool), [(b"a".to_vec(), n)]);
        // Finding and removing do not count as hits.
        assert_eq!(pool.find(&a, &mut lookup), Some(7));
        pool.pop();
        keep(&mut pool, &a, 7);
        assert_eq!(hits(&pool), [(b"a".to_vec(), n)]);

        assert_eq!(take_by(&mut pool, &a, &mut lookup, 0).0, Some(7));
        assert_eq!(hits(&pool), vec![]);
        keep(&mut pool, &a, 7);
    }
    keep(&mut pool, &id("b", "1"), 8);
    assert_eq!(hits(&pool), [(b"b".to_vec(), 0)]);
    keep(&mut pool, &id("a", "1"), 7);
    assert_eq!(hits(&pool), [(b"a".to_vec(), 0)]);
}

#[test]
fn pop_empties_the_pool_from_the_oldest() {
    let mut pool = pool(3, 3);
    for (value, key) in (1..).zip(["a", "b", "a"]) {
        keep(&mut pool, &id(key, "1"), value);
    }
    let popped: Vec<_> = core::iter::from_fn(|| pool.pop()).collect();
    assert_eq!(popped, [1, 2, 3]);
}

#[test]
fn each_seed_has_its_own_hashes() {
    let hashes = |i: usize| {
        let mut seed = SEED;
        seed[i] ^= 1;
        Hasher::new(&seed).hash(&id("a", "1"))
    };
    let slices: HashSet<u32> = (0..16).map(|i| hashes(i).slice).collect();
    let peers: HashSet<u32> = (0..24).map(|i| hashes(i).peer).collect();
    assert_eq!((slices.len(), peers.len()), (16, 24));
}

#[derive(Debug, Default, PartialEq)]
struct Used {
    connections: usize,
    peers: usize,
    slices: usize,
}

/// The numbers of nodes in use, that is, of nodes that are not empty.
fn used(pool: &mut Idle) -> Used {
    let pool = &mut pool.pool;
    let connections = pool.slots.count();
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
    protocol: Protocol,
}

impl Own {
    fn identity(&self) -> Identity<'_> {
        Identity { key: &self.key, address: &self.address, protocol: self.protocol }
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
        if self.count(&id.key) == 0 && self.keys().len() >= self.slices.slices as usize {
            let keys = self.keys();
            let key = self.used.iter().rfind(|key| keys.contains(&key[..])).unwrap().clone();
            while self.count(&key) > 0 {
                closed.push(self.close_last(|idle| idle.key == key, Evicted::Slices));
            }
        }
        if self.idle.len() >= self.limits.connections as usize {
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
}

impl Operation {
    fn without_key(&mut self) {
        match self {
            Operation::Take(own) => own.key.clear(),
            Operation::Put(own, limit, _) => {
                own.key.clear();
                *limit = NO_LIMIT;
            }
            Operation::Remove(_) | Operation::Pop => {}
        }
    }
}

fn own() -> impl Strategy<Value = Own> {
    let key = proptest::collection::vec(b'a'..=b'c', 0..4);
    let address = proptest::collection::vec(b'1'..=b'3', 1..4);
    let protocol = (1..3u16, 0..2usize, any::<bool>());
    (key, address, protocol).prop_map(|(key, address, (handler, location, tls))| Own {
        key,
        address,
        protocol: Protocol { handler, location, tls },
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
        operations in operations(),
        seed in any::<Seed>(),
    ) {
        let slices = slices.map(|slices| SliceLimits { slices, key_length });
        let limits = Limits { connections, address_length, slices };
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
            prop_assert!(kept <= connections as usize && used <= slices.slices as usize);
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

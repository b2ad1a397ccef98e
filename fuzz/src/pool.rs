//! The pool's operations, and the same rules written down as simply as possible: a list, the most
//! recently saved connection first, and the order in which keys were used.

use std::collections::{HashMap, HashSet};

use allocator_api2::alloc::Global;

use crate::module::pool::{
    Identity, Length, Limits, Lookup, NotKept, Pool, Protocol, Put, SliceLimits, SlotIndex,
};

/// A time of the operations, each of which is one later.
type Time = u64;

/// Some are longer than the limits, and some begin with another.
const KEYS: [&str; 8] = ["", "a", "b", "c", "ab", "abc", "abcd", "abcdefghi"];
const ADDRESSES: [&str; 4] = ["1", "2", "12", "1234"];
/// Some continue an address to another one.
const ATTRIBUTES: [&str; 4] = ["", "", "2", "34"];
const SLICE_LIMITS: [u32; 8] = [u32::MAX, 0, 1, 2, 3, 5, u32::MAX - 1, u32::MAX];
/// As many as an identity may have requests that have looked it up.
const LOOKUPS: usize = 4;

/// Runs the operations that the input says. It may be written by hand: `4382` and then `pa0 `
/// and so on, see [`Input`].
pub fn check(input: &[u8]) {
    let mut input = Input(input.iter());
    let Some(limits) = input.limits() else { return };
    let Ok(pool) = Pool::new_in(limits, &[7; 24], Global) else { unreachable!("they are small") };
    let mut both =
        Both { pool, idle: HashMap::new(), naive: Naive::new(limits), lookups: Vec::new(), now: 0 };

    while let Some(operation) = input.operation(limits.slices.is_some()) {
        both.now += 1;
        match operation {
            Operation::Take(request) => both.take(&request),
            Operation::Put(request, limit, time) => both.put(&request, limit, time),
            Operation::Remove(n) => both.remove(n),
            Operation::Pop => both.pop(),
        }
    }
    both.empty();
}

enum Operation {
    Take(Request),
    /// With a limit of its slice, and a time after which it is not used.
    Put(Request, u32, Option<Time>),
    /// The nth idle connection is closed by its upstream.
    Remove(usize),
    Pop,
}

/// An identity, and which one of its lookups is used: those that were not used for some time are
/// of a pool that was another.
struct Request {
    own: Own,
    lookup: usize,
}

#[derive(Clone, Debug, Eq, PartialEq)]
struct Own {
    key: &'static str,
    address: &'static str,
    attributes: &'static str,
    protocol: Protocol,
}

impl Own {
    fn identity(&self) -> Identity<'static> {
        Identity {
            key: self.key.as_bytes(),
            address: self.address.as_bytes(),
            attributes: self.attributes.as_bytes(),
            protocol: self.protocol,
        }
    }
}

/// What is read from the input.
struct Input<'a>(core::slice::Iter<'a, u8>);

impl Input<'_> {
    /// One digit each: connections, slices, the longest key and the longest address. With `?`,
    /// there are no slices, or many.
    fn limits(&mut self) -> Option<Limits> {
        let connections = self.digit()?;
        let slices = self.digit()?;
        let key_length = self.digit()? as Length % 8;
        let address_length = self.digit()? as Length % 8;
        let slices = match slices {
            15 => None,
            14 => Some(u32::MAX - 1),
            slices => Some(slices),
        };
        let slices = slices.map(|slices| SliceLimits { slices, key_length });
        // The address of three bytes at most leaves the longest attributes out.
        let attributes_length = address_length / 2;
        Some(Limits { connections, address_length, attributes_length, slices })
    }

    fn digit(&mut self) -> Option<u32> {
        self.0.next().map(|&byte| u32::from(byte) % 16)
    }

    /// A letter, `t`, `p`, `r` or `o`, and what belongs to it.
    fn operation(&mut self, with_keys: bool) -> Option<Operation> {
        Some(match self.0.next()? % 8 {
            0 | 1 => {
                let request = self.request(with_keys)?;
                let options = usize::from(*self.0.next()?);
                let limit = if with_keys { SLICE_LIMITS[options % 8] } else { u32::MAX };
                let time = (options / 8) as Time % 8;
                Operation::Put(request, limit, time.checked_sub(1).map(|time| time * 3))
            }
            2 | 3 => Operation::Remove(usize::from(*self.0.next()?)),
            4..=6 => Operation::Take(self.request(with_keys)?),
            _ => Operation::Pop,
        })
    }

    /// Two bytes: the key and the address, the protocol and the lookup.
    fn request(&mut self, with_keys: bool) -> Option<Request> {
        let server = usize::from(*self.0.next()?);
        let other = usize::from(*self.0.next()?);
        let protocol = Protocol {
            module: (other / 16 % 2) as u16,
            handler: (other / 8 % 2) as u32,
            location: (other / 32 % 2) as u64,
            tls: (other / 64 % 2) as u16,
        };
        let key = if with_keys { KEYS[server % 8] } else { "" };
        let address = ADDRESSES[server / 8 % 4];
        let own = Own { key, address, attributes: ATTRIBUTES[server / 32 % 4], protocol };
        Some(Request { own, lookup: other % (LOOKUPS + 1) })
    }
}

/// The pool and the naive one, which get the same operations.
struct Both {
    pool: Pool<Global>,
    /// Which connection is in which slot, and when it is no longer used.
    idle: HashMap<SlotIndex, (u32, Time)>,
    naive: Naive,
    lookups: Vec<(Own, [Lookup; LOOKUPS])>,
    now: Time,
}

impl Both {
    fn take(&mut self, request: &Request) {
        let mut lookup = self.lookup(request);
        let mut closed = Vec::new();
        let found = loop {
            let Some(slot) = self.pool.find(&request.own.identity(), &mut lookup) else {
                break None;
            };
            let (value, deadline) = self.leave(slot);
            if deadline > self.now {
                assert!(self.pool.take(slot));
                break Some(value);
            }
            assert!(self.pool.remove(slot));
            closed.push(value);
        };
        self.remember(request, lookup);
        assert_eq!((found, closed), self.naive.take(&request.own, self.now));
    }

    fn put(&mut self, request: &Request, limit: u32, time: Option<Time>) {
        let mut lookup = self.lookup(request);
        let deadline = time.map_or(Time::MAX, |time| self.now + time);
        let value = self.now as u32;
        let mut closed = Vec::new();
        let answer = loop {
            match self.pool.put(|| request.own.identity(), &mut lookup, limit) {
                Put::Kept(slot) => break Ok(slot),
                Put::NotKept(why) => break Err(why),
                Put::Close(slot, _) => {
                    assert!(self.pool.remove(slot), "a connection that must leave is not there");
                    closed.push(self.leave(slot).0);
                }
            }
        };
        self.remember(request, lookup);
        let expected = self.naive.put(&request.own, (value, deadline), limit);
        assert_eq!((answer.map(|_| ()), closed), expected);
        if let Ok(slot) = answer {
            self.naive.kept(slot);
            assert_eq!(self.idle.insert(slot, (value, deadline)), None);
        }
        self.naive.check_limits(&request.own, limit);
    }

    fn remove(&mut self, n: usize) {
        if self.naive.idle.is_empty() {
            return self.pop();
        }
        let Idle { value, slot, .. } = self.naive.idle.remove(n % self.naive.idle.len());
        let Some(slot) = slot else { unreachable!("a connection that is kept has a slot") };
        assert!(self.pool.remove(slot));
        assert!(!self.pool.remove(slot));
        assert_eq!(self.leave(slot).0, value);
    }

    /// The connection that was in a slot.
    fn leave(&mut self, slot: SlotIndex) -> (u32, Time) {
        self.idle.remove(&slot).unwrap_or_else(|| unreachable!("the slot has a connection"))
    }

    fn pop(&mut self) {
        let popped = self.pool.pop().map(|slot| self.leave(slot).0);
        assert_eq!(popped, self.naive.idle.pop().map(|idle| idle.value));
    }

    /// Nothing was lost: what is left comes out in the order in which it was saved.
    fn empty(&mut self) {
        while !self.naive.idle.is_empty() {
            self.pop();
        }
        assert_eq!(self.pool.pop(), None);
    }

    /// A request's lookup, or a new one.
    fn lookup(&self, request: &Request) -> Lookup {
        let mut known = self.lookups.iter().filter(|(own, _)| *own == request.own);
        let lookup = known.next().and_then(|(_, lookups)| lookups.get(request.lookup));
        lookup.copied().unwrap_or_default()
    }

    fn remember(&mut self, request: &Request, lookup: Lookup) {
        if request.lookup == LOOKUPS {
            return;
        }
        match self.lookups.iter_mut().find(|(own, _)| *own == request.own) {
            Some((_, lookups)) => lookups[request.lookup] = lookup,
            None => {
                let mut lookups = [Lookup::default(); LOOKUPS];
                lookups[request.lookup] = lookup;
                self.lookups.push((request.own.clone(), lookups));
            }
        }
    }
}

/// The pool as a list.
struct Naive {
    limits: Limits,
    slices: SliceLimits,
    idle: Vec<Idle>,
    used: Vec<&'static str>,
}

struct Idle {
    own: Own,
    value: u32,
    deadline: Time,
    /// Where the pool keeps it.
    slot: Option<SlotIndex>,
}

impl Naive {
    /// Without slices, everything has the same key, and only connections are limited.
    fn new(limits: Limits) -> Self {
        let unlimited = SliceLimits { slices: u32::MAX, key_length: Length::MAX };
        let slices = limits.slices.unwrap_or(unlimited);
        Naive { limits, slices, idle: Vec::new(), used: Vec::new() }
    }

    fn take(&mut self, own: &Own, now: Time) -> (Option<u32>, Vec<u32>) {
        let mut closed = Vec::new();
        while let Some(i) = self.idle.iter().position(|idle| idle.own == *own) {
            let Idle { value, deadline, .. } = self.idle.remove(i);
            if deadline > now {
                self.touch(own.key);
                return (Some(value), closed);
            }
            closed.push(value);
        }
        (None, closed)
    }

    fn put(
        &mut self,
        own: &Own,
        (value, deadline): (u32, Time),
        limit: u32,
    ) -> (Result<(), NotKept>, Vec<u32>) {
        let mut closed = Vec::new();
        while self.count(own.key) > 0 && self.count(own.key) >= limit as usize {
            closed.push(self.close_last(own.key));
        }
        if let Some(refused) = self.refuse(own, limit) {
            return (Err(refused), closed);
        }
        let keys = self.keys();
        if !keys.contains(own.key) && keys.len() >= self.slices.slices as usize {
            let victim = self.used.iter().rfind(|&key| keys.contains(key)).copied();
            let key = victim.unwrap_or_else(|| unreachable!("every key was used"));
            while self.count(key) > 0 {
                closed.push(self.close_last(key));
            }
        }
        if self.idle.len() >= self.limits.connections as usize {
            closed.extend(self.idle.pop().map(|idle| idle.value));
        }
        self.idle.insert(0, Idle { own: own.clone(), value, deadline, slot: None });
        self.touch(own.key);
        (Ok(()), closed)
    }

    fn refuse(&self, own: &Own, limit: u32) -> Option<NotKept> {
        if self.limits.connections == 0 || self.slices.slices == 0 {
            return Some(NotKept::Disabled);
        }
        if limit == 0 {
            return Some(NotKept::SliceLimit);
        }
        if own.key.len() > self.slices.key_length as usize {
            return Some(NotKept::KeyLength);
        }
        if own.address.len() > self.limits.address_length as usize {
            return Some(NotKept::AddressLength);
        }
        let fits = own.attributes.len() <= self.limits.attributes_length as usize;
        (!fits).then_some(NotKept::AttributesLength)
    }

    /// The slot of the connection that was put last: below the limit, and of no other one.
    fn kept(&mut self, slot: SlotIndex) {
        assert!(slot.get() < self.limits.connections);
        assert!(self.idle.iter().all(|idle| idle.slot != Some(slot)));
        self.idle[0].slot = Some(slot);
    }

    /// The promise about limits, for the key that was put and for all.
    fn check_limits(&self, own: &Own, limit: u32) {
        assert!(self.count(own.key) <= limit as usize);
        assert!(self.idle.len() <= self.limits.connections as usize);
        assert!(self.keys().len() <= self.slices.slices as usize);
    }

    fn count(&self, key: &str) -> usize {
        self.idle.iter().filter(|idle| idle.own.key == key).count()
    }

    fn keys(&self) -> HashSet<&'static str> {
        self.idle.iter().map(|idle| idle.own.key).collect()
    }

    fn close_last(&mut self, key: &str) -> u32 {
        let last = self.idle.iter().rposition(|idle| idle.own.key == key);
        let i = last.unwrap_or_else(|| unreachable!("it was counted"));
        self.idle.remove(i).value
    }

    fn touch(&mut self, key: &'static str) {
        self.used.retain(|&used| used != key);
        self.used.insert(0, key);
    }
}

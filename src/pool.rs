//! The sliced idle pool: which idle connection is reused, and which one makes room.
//!
//! Ground rules:
//!
//! - The pool knows nothing of nginx. It keeps values of any small type, and its caller closes the
//!   connections that the pool lets go of, *after* the call: nginx may call back into the module
//!   while it closes one.
//! - Everything is allocated by [`Pool::new_in`]. From then on, nothing is.
//! - Every operation costs the same, however many connections, slices or servers there are: nodes
//!   lie in slabs, lists and hash chains run through them as indices.
//! - Nothing here panics. An index that leads nowhere is an operation without effect.
//!
//! ```text
//!  slices   key, count, recently used ─┐      found by key
//!    └─ peers   address, protocol ─────┤      found by slice, address and protocol
//!         └─ slots   connection ───────┘      in three lists: of its peer, of its slice, of all
//! ```

#![forbid(unsafe_code)]

use core::hash::{BuildHasher, Hash, Hasher};
use std::hash::RandomState;

use allocator_api2::alloc::Allocator;
pub use allocator_api2::collections::TryReserveError;

use self::index::{Index, Indexed, Place};
use self::list::{Linked, Links, List};
use self::slab::Slab;
pub use self::strings::Length;
use self::strings::Strings;

mod index;
mod list;
mod slab;
mod strings;

/// The limits that hold for a pool as a whole; memory is allocated for them.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most idle connections.
    pub connections: u32,
    /// Most slices that hold idle connections at once.
    pub slices: u32,
    /// Longest slice key, in bytes.
    pub key_length: Length,
    /// Longest server address, in bytes.
    pub address_length: Length,
}

/// A point in time, in milliseconds of any clock that does not go back.
pub type Time = u64;

/// When a connection is no longer used; the last moment there is if it may be used at any time.
pub type Deadline = Time;

/// What a connection speaks, as far as connections that differ in it must not be mixed. The pool
/// only compares the numbers.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Protocol {
    /// Tells the handler that makes requests for this connection.
    pub handler: usize,
    /// Tells the location, if connections are not shared among locations, and else is 0.
    pub location: usize,
    /// Whether the connection is encrypted.
    pub tls: bool,
}

/// What a connection is saved and looked up under.
#[derive(Clone, Copy, Debug)]
pub struct Identity<'a> {
    /// The slice key.
    pub key: &'a [u8],
    /// The server address, compared as bytes.
    pub address: &'a [u8],
    /// The protocol.
    pub protocol: Protocol,
}

/// The hashes of an [`Identity`], so that they are computed once for `take` and `put`.
#[derive(Clone, Copy, Debug)]
pub struct Hashes {
    slice: u32,
    peer: u32,
}

/// Where a connection is kept, until it is taken or removed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SlotIndex(u32);

impl SlotIndex {
    /// The number of the slot, below the limit of connections.
    pub fn get(self) -> u32 {
        self.0
    }
}

/// The answer of [`Pool::take`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Take<T> {
    /// The connection has left the pool to be used.
    Found(T),
    /// This connection has left the pool because it was idle for too long: close it, and ask
    /// again.
    Close(T),
    /// There is none.
    Nothing,
}

/// The answer of [`Pool::put`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Put<T> {
    /// The connection is kept, in this slot.
    Kept(SlotIndex),
    /// This other connection has left the pool to make room: close it, and put again.
    Close(T),
    /// The connection is not kept.
    Refused(Refused),
}

/// Why a connection is not kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refused {
    /// A limit is zero.
    Limit,
    /// The slice key does not fit.
    KeyLength,
    /// The server address does not fit.
    AddressLength,
}

/// The idle connections of one key.
struct Slice {
    place: Place,
    recently_used: Links,
    slots: List<InSlice>,
    count: u32,
    key_length: Length,
}

/// The idle connections of one slice to one server address, by one protocol.
struct Peer {
    place: Place,
    slice: u32,
    slots: List<InPeer>,
    protocol: Protocol,
    address_length: Length,
}

/// One idle connection.
struct Slot<T> {
    value: T,
    deadline: Deadline,
    in_peer: Links,
    in_slice: Links,
    in_pool: Links,
    peer: u32,
}

// A slot with a pointer in it takes less than a cache line.
const _: () = assert!(size_of::<Slot<core::ptr::NonNull<u8>>>() <= 48);

/// The kinds of lists.
enum InPeer {}
enum InSlice {}
enum InPool {}

/// Idle connections of the type `T`, in slices.
pub struct Pool<T, A: Allocator> {
    limits: Limits,
    hasher: RandomState,
    slots: Slab<Slot<T>, A>,
    peers: Slab<Peer, A>,
    slices: Slab<Slice, A>,
    addresses: Strings<A>,
    keys: Strings<A>,
    peer_index: Index<A>,
    slice_index: Index<A>,
    recently_saved: List<InPool>,
    recently_used: List<InPool>,
}

impl<T: Copy, A: Allocator + Clone> Pool<T, A> {
    /// Makes an empty pool; all the memory that it will ever use is allocated here.
    ///
    /// # Errors
    ///
    /// The allocator has not enough memory.
    pub fn new_in(limits: Limits, allocator: A) -> Result<Self, TryReserveError> {
        // A slice holds one connection at least, and so does a peer.
        let connections = limits.connections;
        let slices = limits.slices.min(connections);

        Ok(Pool {
            limits,
            hasher: RandomState::new(),
            slots: Slab::new_in(connections, allocator.clone())?,
            peers: Slab::new_in(connections, allocator.clone())?,
            slices: Slab::new_in(slices, allocator.clone())?,
            addresses: Strings::new_in(connections, limits.address_length, allocator.clone())?,
            keys: Strings::new_in(slices, limits.key_length, allocator.clone())?,
            peer_index: Index::new_in(connections, allocator.clone())?,
            slice_index: Index::new_in(slices, allocator)?,
            recently_saved: List::new(),
            recently_used: List::new(),
        })
    }

    /// Computes the hashes of an identity, with this pool's random seed.
    pub fn hash(&self, identity: &Identity<'_>) -> Hashes {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(identity.key);
        let slice = hasher.clone().finish();
        hasher.write(identity.address);
        identity.protocol.hash(&mut hasher);
        let peer = hasher.finish();

        // The lower half of a good hash is one, too.
        Hashes { slice: slice as u32, peer: peer as u32 }
    }

    /// Takes the most recently saved connection that was saved under this identity, unless its
    /// deadline has come: then it must be closed, and the next one may do.
    pub fn take(&mut self, identity: &Identity<'_>, hashes: Hashes, now: Time) -> Take<T> {
        let Some((slice, slot)) = self.find(identity, hashes) else { return Take::Nothing };
        let expired = self.slots.get(slot).is_some_and(|slot| slot.deadline <= now);
        if !expired {
            self.recently_used.touch(&mut self.slices, slice);
        }
        match self.remove(SlotIndex(slot)) {
            Some(value) if expired => Take::Close(value),
            Some(value) => Take::Found(value),
            None => Take::Nothing,
        }
    }

    /// Keeps a connection under this identity until its deadline, if no limit forbids it.
    /// `slice_limit` is the most connections that its slice may hold.
    ///
    /// The answer may be another connection, which has left the pool for this one. Put again after
    /// it was closed: each time there is one connection less in the way.
    pub fn put(
        &mut self,
        identity: &Identity<'_>,
        hashes: Hashes,
        value: T,
        deadline: Deadline,
        slice_limit: u32,
    ) -> Put<T> {
        let slice = self.find_slice(identity, hashes);

        if let Some(victim) = slice.and_then(|slice| self.over(slice, slice_limit)) {
            return self.close(victim);
        }
        if let Some(refused) = self.refuse(identity, slice_limit) {
            return Put::Refused(refused);
        }
        if let Some(victim) = self.in_the_way(slice) {
            return self.close(victim);
        }
        match self.keep(identity, hashes, slice, (value, deadline)) {
            Some(slot) => Put::Kept(slot),
            None => Put::Refused(Refused::Limit),
        }
    }

    /// Removes the connection that is kept in a slot.
    pub fn remove(&mut self, slot: SlotIndex) -> Option<T> {
        let SlotIndex(slot) = slot;
        let peer = self.slots.get(slot)?.peer;
        let slice = self.peers.get(peer)?.slice;

        self.recently_saved.remove(&mut self.slots, slot);
        if let Some(peer) = self.peers.get_mut(peer) {
            peer.slots.remove(&mut self.slots, slot);
        }
        if let Some(slice) = self.slices.get_mut(slice) {
            slice.slots.remove(&mut self.slots, slot);
            slice.count = slice.count.saturating_sub(1);
        }
        self.forget_empty(peer, slice);
        self.slots.remove(slot).map(|slot| slot.value)
    }

    /// Removes any connection, the least recently saved one first.
    pub fn pop(&mut self) -> Option<T> {
        self.recently_saved.back().and_then(|slot| self.remove(SlotIndex(slot)))
    }

    /// The slice of this identity, and its most recently saved connection.
    fn find(&self, identity: &Identity<'_>, hashes: Hashes) -> Option<(u32, u32)> {
        let slice = self.find_slice(identity, hashes)?;
        let peer = self.find_peer(slice, identity, hashes)?;
        Some((slice, self.peers.get(peer)?.slots.front()?))
    }

    fn find_slice(&self, identity: &Identity<'_>, hashes: Hashes) -> Option<u32> {
        self.slice_index.find(&self.slices, hashes.slice, |index, slice| {
            self.keys.get(index, slice.key_length) == Some(identity.key)
        })
    }

    fn find_peer(&self, slice: u32, identity: &Identity<'_>, hashes: Hashes) -> Option<u32> {
        self.peer_index.find(&self.peers, hashes.peer, |index, peer| {
            peer.slice == slice
                && peer.protocol == identity.protocol
                && self.addresses.get(index, peer.address_length) == Some(identity.address)
        })
    }

    /// The least recently saved connection of a slice that is at its limit.
    fn over(&self, slice: u32, limit: u32) -> Option<u32> {
        self.slices.get(slice).filter(|slice| slice.count >= limit)?.slots.back()
    }

    fn refuse(&self, identity: &Identity<'_>, slice_limit: u32) -> Option<Refused> {
        if slice_limit == 0 || self.limits.connections == 0 || self.limits.slices == 0 {
            Some(Refused::Limit)
        } else if self.keys.fit(identity.key).is_none() {
            Some(Refused::KeyLength)
        } else if self.addresses.fit(identity.address).is_none() {
            Some(Refused::AddressLength)
        } else {
            None
        }
    }

    /// A connection that leaves before one of this slice fits: of the least recently used slice if
    /// a new slice is needed and all are taken, else the least recently saved one of all if no
    /// slot is free.
    fn in_the_way(&self, slice: Option<u32>) -> Option<u32> {
        if slice.is_none() && self.slices.len() >= self.limits.slices {
            let slice = self.recently_used.back()?;
            return self.slices.get(slice)?.slots.back();
        }
        if self.slots.is_full() { self.recently_saved.back() } else { None }
    }

    fn close(&mut self, victim: u32) -> Put<T> {
        match self.remove(SlotIndex(victim)) {
            Some(value) => Put::Close(value),
            None => Put::Refused(Refused::Limit),
        }
    }

    fn keep(
        &mut self,
        identity: &Identity<'_>,
        hashes: Hashes,
        slice: Option<u32>,
        (value, deadline): (T, Deadline),
    ) -> Option<SlotIndex> {
        let slice = match slice {
            Some(slice) => slice,
            None => self.insert_slice(identity, hashes)?,
        };
        let peer = match self.find_peer(slice, identity, hashes) {
            Some(peer) => peer,
            None => self.insert_peer(slice, identity, hashes)?,
        };
        let slot = self.slots.insert(Slot {
            value,
            deadline,
            in_peer: Links::NONE,
            in_slice: Links::NONE,
            in_pool: Links::NONE,
            peer,
        })?;

        self.recently_saved.push_front(&mut self.slots, slot);
        self.peers.get_mut(peer)?.slots.push_front(&mut self.slots, slot);
        let node = self.slices.get_mut(slice)?;
        node.slots.push_front(&mut self.slots, slot);
        node.count = node.count.saturating_add(1);
        self.recently_used.touch(&mut self.slices, slice);
        Some(SlotIndex(slot))
    }

    fn insert_slice(&mut self, identity: &Identity<'_>, hashes: Hashes) -> Option<u32> {
        let slice = self.slices.insert(Slice {
            place: Place::new(hashes.slice),
            recently_used: Links::NONE,
            slots: List::new(),
            count: 0,
            key_length: self.keys.fit(identity.key)?,
        })?;
        self.keys.set(slice, identity.key);
        self.slice_index.insert(&mut self.slices, slice);
        self.recently_used.push_front(&mut self.slices, slice);
        Some(slice)
    }

    fn insert_peer(&mut self, slice: u32, identity: &Identity<'_>, hashes: Hashes) -> Option<u32> {
        let peer = self.peers.insert(Peer {
            place: Place::new(hashes.peer),
            slice,
            slots: List::new(),
            protocol: identity.protocol,
            address_length: self.addresses.fit(identity.address)?,
        })?;
        self.addresses.set(peer, identity.address);
        self.peer_index.insert(&mut self.peers, peer);
        Some(peer)
    }

    /// A peer and a slice whose last connection has left are free again at once.
    fn forget_empty(&mut self, peer: u32, slice: u32) {
        if self.peers.get(peer).is_some_and(|peer| peer.slots.is_empty()) {
            self.peer_index.remove(&mut self.peers, peer);
            self.peers.remove(peer);
        }
        if self.slices.get(slice).is_some_and(|slice| slice.slots.is_empty()) {
            self.slice_index.remove(&mut self.slices, slice);
            self.recently_used.remove(&mut self.slices, slice);
            self.slices.remove(slice);
        }
    }
}

impl<T> Linked<InPeer> for Slot<T> {
    fn links_mut(&mut self) -> &mut Links {
        &mut self.in_peer
    }
}

impl<T> Linked<InSlice> for Slot<T> {
    fn links_mut(&mut self) -> &mut Links {
        &mut self.in_slice
    }
}

impl<T> Linked<InPool> for Slot<T> {
    fn links_mut(&mut self) -> &mut Links {
        &mut self.in_pool
    }
}

impl Linked<InPool> for Slice {
    fn links_mut(&mut self) -> &mut Links {
        &mut self.recently_used
    }
}

impl Indexed for Peer {
    fn place(&self) -> Place {
        self.place
    }

    fn place_mut(&mut self) -> &mut Place {
        &mut self.place
    }
}

impl Indexed for Slice {
    fn place(&self) -> Place {
        self.place
    }

    fn place_mut(&mut self) -> &mut Place {
        &mut self.place
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects)]
mod tests;

//! The sliced idle pool: it decides which idle connection is reused, and which one makes room.
//!
//! Ground rules:
//!
//! - The pool does not use nginx and has no connections: it answers with the numbers of slots, and
//!   its caller knows the connection of each slot. The caller closes connections that have left the
//!   pool, *after* the call: nginx may call back into the module while it closes one.
//! - All memory is allocated by [`Pool::new_in`], and none later.
//! - Every operation costs the same, however many connections, slices or servers there are: nodes
//!   lie in slabs, lists and hash chains run through them as indices.
//! - An empty slice or peer does not count, but stays in its place until the place is needed: the
//!   next request is likely to have the same key.
//! - Nothing here panics. An index that leads nowhere is an operation without effect.
//!
//! ```text
//!  slices   key, count, recently used ─┐      found by key
//!    └─ peers   address, protocol ─────┤      found by slice, address, attributes, protocol
//!         └─ slots ────────────────────┘      in three lists: of its peer, of its slice, of all
//! ```

#![forbid(unsafe_code)]

use core::num::NonZeroU64;

use allocator_api2::alloc::Allocator;
pub use allocator_api2::collections::TryReserveError;

pub use self::hasher::Seed;
use self::hasher::{Hasher, Hashes};
pub use self::identity::{Identity, Protocol};
pub use self::limits::{Limits, SliceLimits};
use self::list::{InPool, List, NIL};
use self::peers::{Peer, Peers};
pub use self::slices::UsedSlice;
use self::slices::{Slice, Slices};
use self::slots::{Slot, Slots};
pub use self::strings::Length;

mod hasher;
mod identity;
pub(crate) mod index;
mod limits;
pub(crate) mod list;
mod peers;
mod slab;
mod slices;
mod slots;
pub(crate) mod strings;

/// The progress of looking up an [`Identity`] in one pool, so that nothing is computed or compared
/// twice.
#[derive(Clone, Copy, Debug)]
pub struct Lookup {
    hashes: Option<Hashes>,
    /// [`NIL`] until it is found.
    peer: u32,
    /// The pool's count of births at the time when it was found.
    found_at: NonZeroU64,
}

impl Default for Lookup {
    /// A lookup that has not begun.
    fn default() -> Self {
        Lookup { hashes: None, peer: NIL, found_at: NonZeroU64::MIN }
    }
}

/// The slot of a connection, until it is taken or removed.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct SlotIndex(u32);

impl SlotIndex {
    /// The slot of a number.
    pub fn new(number: u32) -> Self {
        SlotIndex(number)
    }

    /// The number of the slot, below the limit of connections.
    pub fn get(self) -> u32 {
        self.0
    }
}

/// The answer of [`Pool::put`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Put {
    /// The connection is kept, in this slot.
    Kept(SlotIndex),
    /// The connection of this slot must make room: remove it, close it, and put again.
    Close(SlotIndex, Evicted),
    /// The connection is not kept.
    NotKept(NotKept),
}

/// The limit that a connection made room for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Evicted {
    /// The limit of connections.
    Connections,
    /// The limit of its slice.
    SliceLimit,
    /// The limit of slices.
    Slices,
}

/// Why a connection is not kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NotKept {
    /// The limit of connections or of slices is zero.
    Disabled,
    /// The limit of its slice is zero.
    SliceLimit,
    /// The slice key does not fit.
    KeyLength,
    /// The server address does not fit.
    AddressLength,
    /// The attributes do not fit.
    AttributesLength,
}

// The memory for a connection, without that of its slice, is as much as nginx's keepalive module
// needs: 152 bytes, including the address, of at most 28 bytes (IPv6), and 32 bytes for the caller.
const _: () = assert!(size_of::<Slot>() + size_of::<Peer>() + size_of::<u32>() + 28 + 32 <= 152);

/// The memory for a connection, without texts, if it has a peer and a slice of its own, and these
/// have a bucket each.
const NODES: usize =
    size_of::<Slot>() + size_of::<Peer>() + size_of::<Slice>() + size_of::<[u32; 2]>();

/// The slots of idle connections, in slices.
pub struct Pool<A: Allocator> {
    slots: Slots<A>,
    recently_saved: List<InPool>,
    peers: Peers<A>,
    slices: Option<Slices<A>>,
    hasher: Hasher,
    /// The number of peers and slices so far, plus one.
    births: NonZeroU64,
    /// The peer that was used last.
    recent: u32,
    limits: Limits,
}

impl<A: Allocator + Clone> Pool<A> {
    /// Makes an empty pool; all of its memory is allocated here. Only the caller should know the
    /// seed.
    ///
    /// # Errors
    ///
    /// The allocator has not enough memory.
    pub fn new_in(limits: Limits, seed: &Seed, allocator: A) -> Result<Self, TryReserveError> {
        let Limits { connections, address_length, attributes_length, slices } = limits;
        Ok(Pool {
            slots: Slots::new_in(connections, allocator.clone())?,
            recently_saved: List::new(),
            // A peer in use holds one connection at least.
            peers: Peers::new_in(
                connections,
                (address_length, attributes_length),
                allocator.clone(),
            )?,
            slices: match slices {
                Some(limits) => Some(Slices::new_in(limits, connections, allocator)?),
                None => None,
            },
            hasher: Hasher::new(seed),
            births: NonZeroU64::MIN,
            recent: NIL,
            limits,
        })
    }
}

impl<A: Allocator> Pool<A> {
    /// How much memory is allocated for these limits, in bytes.
    pub fn memory(limits: Limits) -> usize {
        let Limits { connections, address_length, attributes_length, slices } = limits;
        let strings = slices.map_or(0, |slices| usize::from(slices.key_length));
        let strings = strings.saturating_add(address_length.into());
        let strings = strings.saturating_add(attributes_length.into());
        strings.saturating_add(NODES).saturating_mul(connections as usize)
    }

    /// The most recently saved connection of an identity. It stays until it is taken or removed.
    ///
    /// `lookup` is new, or of this identity in this pool.
    #[inline(always)]
    pub fn find(&self, identity: &Identity<'_>, lookup: &mut Lookup) -> Option<SlotIndex> {
        let peer = self.peer(identity, lookup)?;
        self.peers.get(peer)?.slots.front().map(SlotIndex)
    }

    /// The connection of a slot leaves the pool, to be used: a hit of its slice. `false` if the
    /// slot is empty.
    pub fn take(&mut self, slot: SlotIndex) -> bool {
        self.take_out(slot, true).is_some()
    }

    /// The connection of a slot leaves the pool, to be closed. `false` if the slot is empty.
    pub fn remove(&mut self, slot: SlotIndex) -> bool {
        self.take_out(slot, false).is_some()
    }

    /// Finds a slot for a connection of an identity, if no limit forbids it. `slice_limit` is the
    /// most connections that its slice may hold, and `lookup` is new, or of this identity in this
    /// pool: then the identity is often not needed again.
    ///
    /// The answer may be the slot of another connection, which must leave for this one. Put again
    /// after it was removed: each time, one connection fewer is in the way.
    #[inline(always)]
    pub fn put<'a>(
        &mut self,
        identity: impl FnOnce() -> Identity<'a>,
        lookup: &mut Lookup,
        slice_limit: u32,
    ) -> Put {
        let found = self.found_before(lookup).filter(|&peer| self.has_room(peer, slice_limit));
        match found.and_then(|peer| self.keep(peer)) {
            Some(slot) => Put::Kept(slot),
            None => self.put_anew(&identity(), lookup, slice_limit),
        }
    }

    /// The number of connections.
    pub fn count(&self) -> u32 {
        self.slots.count()
    }

    /// The peer of a connection: the same number for all connections of an identity, until the last
    /// one has left.
    pub fn peer_of(&self, SlotIndex(slot): SlotIndex) -> Option<u32> {
        self.slots.get(slot).map(|slot| slot.peer)
    }

    /// Of the connections of the same identity, the one that was saved first.
    pub fn oldest(&self, slot: SlotIndex) -> Option<SlotIndex> {
        self.peers.get(self.peer_of(slot)?)?.slots.back().map(SlotIndex)
    }

    /// Whether there is a connection of this key to this server, for an identity that has none: it
    /// is of another protocol, or has other attributes. It looks at all peers, so it is only for
    /// debugging.
    pub fn has_other(&self, identity: &Identity<'_>) -> bool {
        self.peers.used().any(|(index, peer)| {
            self.slices.as_ref().is_none_or(|slices| slices.is(peer.slice, identity.key))
                && self.peers.is_to(index, peer, identity.address)
        })
    }

    /// The server address of a connection.
    pub fn address(&self, slot: SlotIndex) -> Option<&[u8]> {
        self.peers.address(self.peer_of(slot)?)
    }

    /// Sets the limits of connections and slices, to those of [`Pool::new_in`] or lower ones.
    pub fn set_limits(&mut self, connections: u32, slices: Option<u32>) {
        self.limits.connections = connections;
        self.slots.set_limit(connections);
        if let (Some(slices), Some(limits), Some(limit)) =
            (&mut self.slices, &mut self.limits.slices, slices)
        {
            limits.slices = limit;
            slices.set_limit(limit);
        }
    }

    /// A connection that is too many, after the limits were lowered. `slice_limit` is the most
    /// connections that a slice may hold.
    pub fn excess(&self, slice_limit: u32) -> Option<(SlotIndex, Evicted)> {
        let of_slices = self.slices.as_ref().and_then(|slices| {
            let of_least_used = slices.excess().and_then(|slice| slices.back(slice));
            let beyond = || Some((slices.beyond(slice_limit)?, Evicted::SliceLimit));
            of_least_used.map(|victim| (victim, Evicted::Slices)).or_else(beyond)
        });
        let of_all = || {
            let is_excess = self.slots.count() > self.limits.connections;
            let victim = self.recently_saved.back().filter(|_| is_excess)?;
            Some((victim, Evicted::Connections))
        };
        of_slices.or_else(of_all).map(|(victim, why)| (SlotIndex(victim), why))
    }

    /// Forgets all connections, and lookups.
    pub fn clear(&mut self) {
        self.slots.clear();
        self.recently_saved = List::new();
        self.peers.clear();
        if let Some(slices) = &mut self.slices {
            slices.clear();
        }
        self.births = self.births.saturating_add(1);
        self.recent = NIL;
    }

    /// The number of slices that hold idle connections; `None` if one slice holds everything.
    pub fn slices_in_use(&self) -> Option<u32> {
        self.slices.as_ref().map(Slices::in_use)
    }

    /// The slices that hold idle connections, in no order. Without slices, the list is empty.
    pub fn slices(&self) -> impl Iterator<Item = UsedSlice<'_>> {
        self.slices.iter().flat_map(Slices::iter)
    }

    /// Removes the least recently saved connection.
    pub fn pop(&mut self) -> Option<SlotIndex> {
        let slot = SlotIndex(self.recently_saved.back()?);
        self.remove(slot).then_some(slot)
    }

    /// The peer of this identity, which may be vacant.
    #[inline(always)]
    fn peer(&self, identity: &Identity<'_>, lookup: &mut Lookup) -> Option<u32> {
        if let Some(peer) = self.found_before(lookup) {
            return Some(peer);
        }
        // The peer that was used last is often the right one: without slices, or if a key is busy.
        let peer = match self.peers.get(self.recent) {
            Some(peer) if self.is(self.recent, peer, identity) => self.recent,
            _ => self.search(identity, lookup)?,
        };
        lookup.peer = peer;
        lookup.found_at = self.births;
        Some(peer)
    }

    /// The peer of an earlier lookup, if neither its place nor that of its slice was given to
    /// another one in the meantime.
    #[inline(always)]
    fn found_before(&self, lookup: &Lookup) -> Option<u32> {
        let peer = self.peers.get(lookup.peer)?;
        let mut same = peer.birth <= lookup.found_at;
        if let Some(slices) = &self.slices {
            same &= slices.birth(peer.slice)? <= lookup.found_at;
        }
        same.then_some(lookup.peer)
    }

    #[inline(never)]
    fn search(&self, identity: &Identity<'_>, lookup: &mut Lookup) -> Option<u32> {
        let hash = self.hashes(identity, lookup).peer;
        self.peers.find(hash, |index, peer| self.is(index, peer, identity))
    }

    /// Whether a peer is that of an identity.
    #[inline(always)]
    fn is(&self, index: u32, peer: &Peer, identity: &Identity<'_>) -> bool {
        let in_slice = |slices: &Slices<A>| slices.is(peer.slice, identity.key);
        self.slices.as_ref().is_none_or(in_slice) && self.peers.is(index, peer, identity)
    }

    fn hashes(&self, identity: &Identity<'_>, lookup: &mut Lookup) -> Hashes {
        *lookup.hashes.get_or_insert_with(|| self.hasher.hash(identity))
    }

    /// Whether a peer's slice can take one more connection. The slice still has its place, even if
    /// it is vacant.
    #[inline(always)]
    fn has_room(&self, peer: u32, limit: u32) -> bool {
        let Some(slices) = &self.slices else { return true };
        self.peers.get(peer).is_some_and(|peer| slices.has_room(peer.slice, limit))
    }

    /// Takes a connection out of its slot and its lists.
    #[inline(always)]
    fn take_out(&mut self, SlotIndex(index): SlotIndex, used: bool) -> Option<()> {
        let peer_index = self.slots.get(index)?.peer;
        let peer = self.peers.get_mut(peer_index)?;
        let slots = self.slots.nodes_mut();

        peer.slots.remove(slots, index);
        self.recently_saved.remove(slots, index);
        if let Some(slices) = &mut self.slices {
            slices.leave(peer.slice, slots, index, used);
        }
        if peer.slots.is_empty() {
            self.peers.vacate(peer_index);
        }
        self.slots.release(index);
        Some(())
    }

    /// Keeps a connection for a peer, whose slice may be vacant. `None` if no slot is free.
    #[inline(always)]
    fn keep(&mut self, peer_index: u32) -> Option<SlotIndex> {
        let peer = self.peers.get_mut(peer_index)?;
        let index = self.slots.insert(peer_index)?;
        let slots = self.slots.nodes_mut();
        let was_empty = peer.slots.is_empty();

        peer.slots.push_front(slots, index);
        self.recently_saved.push_front(slots, index);
        if let Some(slices) = &mut self.slices {
            slices.enter(peer.slice, slots, index);
        }
        if was_empty {
            self.peers.occupy(peer_index);
        }
        self.recent = peer_index;
        Some(SlotIndex(index))
    }

    /// Like [`Self::put`], for a connection that needs a new peer or slice, or for which others
    /// must leave.
    #[cold]
    #[inline(never)]
    fn put_anew(&mut self, identity: &Identity<'_>, lookup: &mut Lookup, slice_limit: u32) -> Put {
        let peer = self.peer(identity, lookup);
        let slice = self.slice(peer, identity, lookup);

        if let Some(victim) = self.beyond(slice, slice_limit) {
            return Put::Close(SlotIndex(victim), Evicted::SliceLimit);
        }
        if let Some(refused) = self.refuse(identity, slice_limit) {
            return Put::NotKept(refused);
        }
        if let Some((victim, evicted)) = self.in_the_way(slice) {
            return Put::Close(SlotIndex(victim), evicted);
        }
        let peer = peer.or_else(|| self.insert(identity, lookup, slice));
        match peer.and_then(|peer| self.keep(peer)) {
            Some(slot) => Put::Kept(slot),
            None => Put::NotKept(NotKept::Disabled),
        }
    }

    /// The slice of this identity, if there are slices and it is found.
    fn slice(
        &self,
        peer: Option<u32>,
        identity: &Identity<'_>,
        lookup: &mut Lookup,
    ) -> Option<u32> {
        let slices = self.slices.as_ref()?;
        match peer {
            Some(peer) => self.peers.get(peer).map(|peer| peer.slice),
            None => slices.find(identity.key, self.hashes(identity, lookup).slice),
        }
    }

    /// The least recently saved connection of a slice that is at its limit.
    fn beyond(&self, slice: Option<u32>, limit: u32) -> Option<u32> {
        let (slices, slice) = (self.slices.as_ref()?, slice?);
        if slices.count(slice)? >= limit { slices.back(slice) } else { None }
    }

    fn refuse(&self, identity: &Identity<'_>, slice_limit: u32) -> Option<NotKept> {
        if self.limits.connections == 0 {
            return Some(NotKept::Disabled);
        }
        if let (Some(slices), Some(limits)) = (&self.slices, self.limits.slices) {
            if limits.slices == 0 {
                return Some(NotKept::Disabled);
            }
            if slice_limit == 0 {
                return Some(NotKept::SliceLimit);
            }
            if !slices.fits(identity.key) {
                return Some(NotKept::KeyLength);
            }
        }
        if !self.peers.fits(identity.address) {
            return Some(NotKept::AddressLength);
        }
        (!self.peers.fit(identity.attributes)).then_some(NotKept::AttributesLength)
    }

    /// A connection that must leave before one of this slice fits: one of the least recently used
    /// slice if a slice is needed and all are in use; otherwise, if no slot is free, the least
    /// recently saved one of all.
    fn in_the_way(&self, slice: Option<u32>) -> Option<(u32, Evicted)> {
        if let Some(slices) = &self.slices {
            let is_used = slice.and_then(|slice| slices.count(slice)).is_some_and(|n| n != 0);
            if let Some(used) = slices.in_the_way().filter(|_| !is_used) {
                return Some((slices.back(used)?, Evicted::Slices));
            }
        }
        if !self.slots.is_full() {
            return None;
        }
        Some((self.recently_saved.back()?, Evicted::Connections))
    }

    /// A new peer of this identity, in its slice if that was found. They are vacant until a
    /// connection is kept there.
    fn insert(
        &mut self,
        identity: &Identity<'_>,
        lookup: &mut Lookup,
        slice: Option<u32>,
    ) -> Option<u32> {
        let hashes = self.hashes(identity, lookup);
        let slice = match (&mut self.slices, slice) {
            (Some(slices), None) => {
                self.births = self.births.saturating_add(1);
                slices.insert(identity.key, hashes.slice, self.births)?
            }
            (_, slice) => slice.unwrap_or(NIL),
        };
        self.births = self.births.saturating_add(1);
        self.peers.insert(identity, hashes.peer, slice, self.births)
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects)]
mod tests;

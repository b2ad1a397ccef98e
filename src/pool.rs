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
//! - What has become empty is as good as gone, but stays where it is until its place is needed:
//!   the next request is likely to be of the same key.
//! - What a hit does is inlined, and what else there may be is not, so that it costs a hit nothing.
//! - Nothing here panics. An index that leads nowhere is an operation without effect.
//!
//! ```text
//!  slices   key, count, recently used ─┐      found by key
//!    └─ peers   address, protocol ─────┤      found by slice, address and protocol
//!         └─ slots   connection ───────┘      in three lists: of its peer, of its slice, of all
//! ```

#![forbid(unsafe_code)]

use core::num::NonZeroU64;

use allocator_api2::alloc::Allocator;
pub use allocator_api2::collections::TryReserveError;

pub use self::hasher::Seed;
use self::hasher::{Hasher, Hashes};
use self::list::{InPool, List, NIL};
use self::peers::{Peer, Peers};
use self::slices::Slices;
use self::slots::{Slot, Slots};
pub use self::strings::Length;

mod hasher;
mod index;
mod list;
mod peers;
mod slab;
mod slices;
mod slots;
mod strings;

/// The limits that hold for a pool as a whole; memory is allocated for them.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most idle connections.
    pub connections: u32,
    /// Longest server address, in bytes.
    pub address_length: Length,
    /// `None`: one slice holds everything, and keys and their limits are not looked at.
    pub slices: Option<SliceLimits>,
}

/// The limits of slices.
#[derive(Clone, Copy, Debug)]
pub struct SliceLimits {
    /// Most slices that hold idle connections at once.
    pub slices: u32,
    /// Longest slice key, in bytes.
    pub key_length: Length,
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

/// How far an [`Identity`] was looked up in one pool, so that nothing is computed or compared
/// twice.
#[derive(Clone, Copy, Debug)]
pub struct Lookup {
    hashes: Option<Hashes>,
    /// [`NIL`] until it is found.
    peer: u32,
    /// The pool's count of births when it was found.
    found_at: NonZeroU64,
}

impl Default for Lookup {
    /// The beginning.
    fn default() -> Self {
        Lookup { hashes: None, peer: NIL, found_at: NonZeroU64::MIN }
    }
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
    Close(T, Evicted),
    /// The connection is not kept.
    Refused(Refused),
}

/// What a connection made room for.
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
pub enum Refused {
    /// The limit of connections or of slices is zero.
    Disabled,
    /// The limit of its slice is zero.
    SliceLimit,
    /// The slice key does not fit.
    KeyLength,
    /// The server address does not fit.
    AddressLength,
}

/// What is to be known of a slice.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Slice<'a> {
    /// Its key.
    pub key: &'a [u8],
    /// How many idle connections it holds.
    pub idle: u32,
    /// How many connections were taken from it to be used, since it has this key.
    pub hits: u64,
}

// The memory of a connection besides that of its slice is as much as nginx's keepalive module
// needs, which is 152 bytes, with the address, of at most 28 bytes (IPv6), and the 16 bytes that a
// caller may want to keep.
const _: () = {
    let slot = size_of::<Slot<core::ptr::NonNull<u8>>>();
    assert!(slot + size_of::<Peer>() + size_of::<u32>() + 28 + 16 <= 152);
};

/// Idle connections of the type `T`, in slices.
pub struct Pool<T, A: Allocator> {
    slots: Slots<T, A>,
    recently_saved: List<InPool>,
    /// The slot of the connection that was saved by the last operation: it often is the first to be
    /// taken again, so it is in no list and counted nowhere yet. [`NIL`] if there is none.
    last: u32,
    /// Whether that one is alone in its slice.
    unsettled: bool,
    peers: Peers<A>,
    slices: Option<Slices<A>>,
    hasher: Hasher,
    /// How many peers and slices there were so far, and one.
    births: NonZeroU64,
    /// The peer that was used last.
    recent: u32,
    limits: Limits,
}

impl<T: Copy, A: Allocator + Clone> Pool<T, A> {
    /// Makes an empty pool; all the memory that it will ever use is allocated here. Nobody but the
    /// caller should know the seed.
    ///
    /// # Errors
    ///
    /// The allocator has not enough memory.
    pub fn new_in(limits: Limits, seed: &Seed, allocator: A) -> Result<Self, TryReserveError> {
        let Limits { connections, address_length, slices } = limits;
        Ok(Pool {
            slots: Slots::new_in(connections, allocator.clone())?,
            recently_saved: List::new(),
            last: NIL,
            unsettled: false,
            // A peer in use holds one connection at least.
            peers: Peers::new_in(connections, address_length, allocator.clone())?,
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

impl<T: Copy, A: Allocator> Pool<T, A> {
    /// Takes the most recently saved connection that was saved under this identity, unless its
    /// deadline has come: then it must be closed, and the next one may do.
    ///
    /// `lookup` is new, or of this identity in this pool.
    pub fn take<'a>(
        &mut self,
        identity: impl Fn() -> Identity<'a>,
        lookup: &mut Lookup,
        now: Time,
    ) -> Take<T> {
        let Some(peer) = self.find(identity, lookup) else { return Take::Nothing };
        let Some((index, slot)) = self.front(peer) else { return Take::Nothing };
        let (value, expired) = (slot.value, slot.deadline <= now);
        self.take_out(index, !expired);
        if expired { Take::Close(value) } else { Take::Found(value) }
    }

    /// Keeps a connection under an identity until its deadline, if no limit forbids it.
    /// `slice_limit` is the most connections that its slice may hold, and `lookup` is new, or of
    /// this identity in this pool: then there may be no need to know the identity again.
    ///
    /// The answer may be another connection, which has left the pool for this one. Put again after
    /// it was closed: each time there is one connection less in the way.
    pub fn put<'a>(
        &mut self,
        identity: impl FnOnce() -> Identity<'a>,
        lookup: &mut Lookup,
        value: T,
        deadline: Deadline,
        slice_limit: u32,
    ) -> Put<T> {
        self.settle();
        let found = self.found_before(lookup);
        let room = found.and_then(|peer| Some((peer, self.room(peer, slice_limit)?)));
        match room.and_then(|(peer, vacant)| self.keep(peer, vacant, value, deadline)) {
            Some(slot) => Put::Kept(slot),
            None => self.put_anew(&identity(), lookup, (value, deadline), slice_limit),
        }
    }

    /// Removes the connection that is kept in a slot.
    pub fn remove(&mut self, slot: SlotIndex) -> Option<T> {
        let SlotIndex(index) = slot;
        let slot = self.slots.get(index).filter(|slot| slot.peer != NIL)?;
        let value = slot.value;
        self.take_out(index, false);
        Some(value)
    }

    /// Takes back that the last [`Self::take`] by this lookup was a hit of its slice: the connection
    /// that it found could not be used.
    pub fn discount_hit(&mut self, lookup: &Lookup) {
        if let (Some(slices), Some(peer)) = (&mut self.slices, self.peers.get(lookup.peer)) {
            slices.discount_hit(peer.slice);
        }
    }

    /// How many slices hold idle connections; `None` if one slice holds everything.
    #[inline(always)]
    pub fn slices_in_use(&self) -> Option<u32> {
        let slices = self.slices.as_ref()?;
        Some(slices.in_use().wrapping_add(self.unsettled.into()))
    }

    /// The slices that hold idle connections, in no order. There are none if one slice holds
    /// everything.
    pub fn slices(&mut self) -> impl Iterator<Item = Slice<'_>> {
        self.settle();
        self.slices.iter().flat_map(Slices::iter)
    }

    /// The deadline of the connection that is kept in a slot, or was the last one there.
    pub fn deadline(&self, slot: SlotIndex) -> Option<Deadline> {
        self.slots.get(slot.get()).map(|slot| slot.deadline)
    }

    /// Removes any connection, the least recently saved one first.
    pub fn pop(&mut self) -> Option<T> {
        self.settle();
        self.recently_saved.back().and_then(|slot| self.remove(SlotIndex(slot)))
    }

    /// The peer of this identity, which may be vacant.
    #[inline(always)]
    fn find<'a>(&self, identity: impl Fn() -> Identity<'a>, lookup: &mut Lookup) -> Option<u32> {
        if let Some(peer) = self.found_before(lookup) {
            return Some(peer);
        }
        // The peer that was used last: without slices, it often is the one.
        let peer = match self.peers.get(self.recent) {
            Some(peer)
                if self.slices.is_none() && self.peers.is(self.recent, peer, &identity()) =>
            {
                self.recent
            }
            _ => self.search(&identity(), lookup)?,
        };
        lookup.peer = peer;
        lookup.found_at = self.births;
        Some(peer)
    }

    /// What was found by an earlier call, if neither its place nor its slice's is that of another
    /// one by now.
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
    #[inline(never)]
    fn is(&self, index: u32, peer: &Peer, identity: &Identity<'_>) -> bool {
        let in_slice = |slices: &Slices<A>| slices.is(peer.slice, identity.key);
        self.peers.is(index, peer, identity) && self.slices.as_ref().is_none_or(in_slice)
    }

    fn hashes(&self, identity: &Identity<'_>, lookup: &mut Lookup) -> Hashes {
        *lookup.hashes.get_or_insert_with(|| self.hasher.hash(identity))
    }

    /// Whether a peer's slice is vacant; `None` if it can take no more connections.
    #[inline(always)]
    fn room(&self, peer: u32, limit: u32) -> Option<bool> {
        let Some(slices) = &self.slices else { return Some(false) };
        let count = slices.count(self.peers.get(peer)?.slice)?;
        (count < limit).then_some(count == 0)
    }

    /// The most recently saved connection of a peer.
    fn front(&self, peer: u32) -> Option<(u32, &Slot<T>)> {
        if let Some(slot) = self.slots.get(self.last).filter(|slot| slot.peer == peer) {
            return Some((self.last, slot));
        }
        let index = self.peers.get(peer)?.slots.front()?;
        Some((index, self.slots.get(index)?))
    }

    /// Takes a connection out, to be used, or to be closed.
    #[inline(always)]
    fn take_out(&mut self, index: u32, used: bool) {
        if index == self.last {
            self.last = NIL;
            self.unsettled = false;
            self.touch(index, used);
        } else {
            self.settle();
            self.unlink(index, used);
        }
        self.slots.release(index);
    }

    /// Marks the slice of a connection as used, which keeping it would have done.
    fn touch(&mut self, index: u32, used: bool) -> Option<()> {
        let slices = self.slices.as_mut()?;
        slices.touch(self.peers.get(self.slots.get(index)?.peer)?.slice, used);
        Some(())
    }

    #[inline(never)]
    fn unlink(&mut self, index: u32, used: bool) -> Option<()> {
        let slots = self.slots.nodes_mut();
        let peer_index = slots.get(index as usize)?.peer;
        let peer = self.peers.get_mut(peer_index)?;

        peer.slots.remove(slots, index);
        self.recently_saved.remove(slots, index);
        if let Some(slices) = &mut self.slices {
            slices.leave(peer.slice, slots, index, used);
        }
        if peer.slots.is_empty() {
            self.peers.vacate(peer_index);
        }
        Some(())
    }

    /// Keeps a connection for a peer, whose slice may be vacant. There is room for it.
    #[inline(always)]
    fn keep(&mut self, peer: u32, vacant: bool, value: T, deadline: Deadline) -> Option<SlotIndex> {
        self.last = self.slots.insert(value, deadline, peer)?;
        self.unsettled = vacant;
        self.recent = peer;
        Some(SlotIndex(self.last))
    }

    /// Puts the connection that was saved last where the others are. Whatever does not take just
    /// that one out again begins with this.
    fn settle(&mut self) {
        if self.last != NIL {
            let index = core::mem::replace(&mut self.last, NIL);
            self.unsettled = false;
            self.link(index);
        }
    }

    #[inline(never)]
    fn link(&mut self, index: u32) -> Option<()> {
        let slots = self.slots.nodes_mut();
        let peer_index = slots.get(index as usize)?.peer;
        let peer = self.peers.get_mut(peer_index)?;
        let was_empty = peer.slots.is_empty();

        peer.slots.push_front(slots, index);
        self.recently_saved.push_front(slots, index);
        if let Some(slices) = &mut self.slices {
            slices.enter(peer.slice, slots, index);
        }
        if was_empty {
            self.peers.occupy(peer_index);
        }
        Some(())
    }

    /// Like [`Self::put`], where something is in the way or not there.
    #[cold]
    #[inline(never)]
    fn put_anew(
        &mut self,
        identity: &Identity<'_>,
        lookup: &mut Lookup,
        (value, deadline): (T, Deadline),
        slice_limit: u32,
    ) -> Put<T> {
        let peer = self.find(|| *identity, lookup);
        let slice = self.slice(peer, identity, lookup);

        if let Some(victim) = self.beyond(slice, slice_limit) {
            return self.close(victim, Evicted::SliceLimit);
        }
        if let Some(refused) = self.refuse(identity, slice_limit) {
            return Put::Refused(refused);
        }
        if let Some((victim, evicted)) = self.in_the_way(slice) {
            return self.close(victim, evicted);
        }
        let vacant = slice.is_none_or(|slice| self.is_vacant(slice));
        let peer = peer.or_else(|| self.insert(identity, lookup, slice));
        match peer.and_then(|peer| self.keep(peer, vacant, value, deadline)) {
            Some(slot) => Put::Kept(slot),
            None => Put::Refused(Refused::Disabled),
        }
    }

    /// The slice of this identity, if there are any and this one was found.
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

    fn is_vacant(&self, slice: u32) -> bool {
        self.slices.as_ref().and_then(|slices| slices.count(slice)) == Some(0)
    }

    /// The least recently saved connection of a slice that is at its limit.
    fn beyond(&self, slice: Option<u32>, limit: u32) -> Option<u32> {
        let (slices, slice) = (self.slices.as_ref()?, slice?);
        if slices.count(slice)? >= limit { slices.back(slice) } else { None }
    }

    fn refuse(&self, identity: &Identity<'_>, slice_limit: u32) -> Option<Refused> {
        if self.limits.connections == 0 {
            return Some(Refused::Disabled);
        }
        if let (Some(slices), Some(limits)) = (&self.slices, self.limits.slices) {
            if limits.slices == 0 {
                return Some(Refused::Disabled);
            }
            if slice_limit == 0 {
                return Some(Refused::SliceLimit);
            }
            if !slices.fits(identity.key) {
                return Some(Refused::KeyLength);
            }
        }
        (!self.peers.fits(identity.address)).then_some(Refused::AddressLength)
    }

    /// A connection that leaves before one of this slice fits: of the least recently used slice if
    /// a slice is needed and all are in use, else the least recently saved one of all if no slot
    /// is free.
    fn in_the_way(&self, slice: Option<u32>) -> Option<(u32, Evicted)> {
        if let (Some(slices), Some(limits), None) = (&self.slices, self.limits.slices, slice) {
            // Where there are more slices than connections, connections run out first.
            if limits.slices <= self.limits.connections {
                if let Some(used) = slices.in_the_way() {
                    return Some((slices.back(used)?, Evicted::Slices));
                }
            }
        }
        if !self.slots.is_full() {
            return None;
        }
        Some((self.recently_saved.back()?, Evicted::Connections))
    }

    fn close(&mut self, victim: u32, evicted: Evicted) -> Put<T> {
        match self.remove(SlotIndex(victim)) {
            Some(value) => Put::Close(value, evicted),
            None => Put::Refused(Refused::Disabled),
        }
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

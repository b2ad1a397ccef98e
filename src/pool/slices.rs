//! The slices: connections of the same key.

use core::num::NonZeroU64;

use allocator_api2::alloc::Allocator;
use allocator_api2::collections::TryReserveError;

use super::index::{Index, Indexed, Place};
use super::limits::SliceLimits;
use super::list::{InSlice, Linked, Links, List};
use super::slab::{Slab, Vacant};
use super::strings::{Length, Strings};

/// The kind of list that the slices in use are in.
enum Used {}

/// A slice; vacant while it has no connections.
pub struct Slice {
    place: Place,
    /// In the list of slices in use, or of vacant ones.
    links: Links,
    slots: List<InSlice>,
    birth: NonZeroU64,
    hits: u64,
    count: u32,
    key_length: Length,
}

/// A slice that holds idle connections.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct UsedSlice<'a> {
    /// Its key.
    pub key: &'a [u8],
    /// How many idle connections it holds.
    pub idle: u32,
    /// The number of connections taken from it to be used, since it got this key.
    pub hits: u64,
}

/// The slices of a pool.
pub struct Slices<A: Allocator> {
    nodes: Slab<Slice, A>,
    keys: Strings<A>,
    index: Index<A>,
    recently_used: List<Used>,
    in_use: u32,
    /// How many may be in use.
    limit: u32,
}

impl<A: Allocator + Clone> Slices<A> {
    /// Allocates memory for slices of at most this number of connections together.
    pub fn new_in(
        limits: SliceLimits,
        connections: u32,
        allocator: A,
    ) -> Result<Self, TryReserveError> {
        // A slice in use holds one connection at least.
        let capacity = limits.slices.min(connections);
        Ok(Slices {
            nodes: Slab::new_in(capacity, allocator.clone())?,
            keys: Strings::new_in(capacity, limits.key_length, allocator.clone())?,
            index: Index::new_in(capacity, allocator)?,
            recently_used: List::new(),
            in_use: 0,
            limit: limits.slices,
        })
    }
}

impl<A: Allocator> Slices<A> {
    /// The slice with a key.
    pub fn find(&self, key: &[u8], hash: u32) -> Option<u32> {
        self.index.find(self.nodes.nodes(), hash, |index, slice| {
            self.keys.is(index, slice.key_length, key)
        })
    }

    /// Whether a slice has this key.
    pub fn is(&self, index: u32, key: &[u8]) -> bool {
        self.nodes.get(index).is_some_and(|slice| self.keys.is(index, slice.key_length, key))
    }

    /// Whether a key is not too long to be kept.
    pub fn fits(&self, key: &[u8]) -> bool {
        self.keys.fit(key).is_some()
    }

    /// The number of a slice among all peers and slices.
    pub fn birth(&self, index: u32) -> Option<NonZeroU64> {
        self.nodes.get(index).map(|slice| slice.birth)
    }

    /// The number of connections in a slice.
    pub fn count(&self, index: u32) -> Option<u32> {
        self.nodes.get(index).map(|slice| slice.count)
    }

    /// The number of slices in use.
    pub fn in_use(&self) -> u32 {
        self.in_use
    }

    /// The slices in use.
    pub fn iter(&self) -> impl Iterator<Item = UsedSlice<'_>> {
        self.nodes.nodes().iter().zip(0..).filter(|(slice, _)| slice.count != 0).map(
            |(slice, index)| UsedSlice {
                key: self.keys.get(index, slice.key_length).unwrap_or_default(),
                idle: slice.count,
                hits: slice.hits,
            },
        )
    }

    /// The least recently saved connection of a slice.
    pub fn back(&self, index: u32) -> Option<u32> {
        self.nodes.get(index)?.slots.back()
    }

    /// Sets how many slices may be in use: as many as there is memory for, or fewer. Those beyond
    /// it stay in use.
    pub fn set_limit(&mut self, limit: u32) {
        self.limit = limit;
    }

    /// Whether a slice can take one more connection, if it may hold this number of them. If it is
    /// vacant, it still has its place.
    pub fn has_room(&self, index: u32, limit: u32) -> bool {
        let Some(slice) = self.nodes.get(index) else { return false };
        slice.count < limit && (slice.count != 0 || self.in_use < self.limit)
    }

    /// The least recently used slice, if no further one may be in use.
    pub fn in_the_way(&self) -> Option<u32> {
        if self.in_use >= self.limit { self.recently_used.back() } else { None }
    }

    /// The least recently used slice, if more are in use than may be.
    pub fn excess(&self) -> Option<u32> {
        if self.in_use > self.limit { self.recently_used.back() } else { None }
    }

    /// The least recently saved connection of a slice that holds more than `limit`.
    pub fn beyond(&self, limit: u32) -> Option<u32> {
        self.nodes.nodes().iter().find(|slice| slice.count > limit)?.slots.back()
    }

    /// Forgets all slices.
    pub fn clear(&mut self) {
        self.nodes.clear();
        self.index.clear();
        self.recently_used = List::new();
        self.in_use = 0;
    }

    /// A new slice. It is vacant until it has a connection.
    pub fn insert(&mut self, key: &[u8], hash: u32, birth: NonZeroU64) -> Option<u32> {
        if let Some(old) = self.nodes.vacant() {
            self.index.remove(self.nodes.nodes_mut(), old);
        }
        let slice = self.nodes.insert(Slice {
            place: Place::new(hash),
            links: Links::NONE,
            slots: List::new(),
            birth,
            hits: 0,
            count: 0,
            key_length: self.keys.fit(key)?,
        })?;
        self.keys.set(slice, key);
        self.index.insert(self.nodes.nodes_mut(), slice);
        self.nodes.vacate(slice);
        Some(slice)
    }

    /// Puts a connection into a slice.
    pub fn enter<N: Linked<InSlice>>(&mut self, index: u32, slots: &mut [N], slot: u32) {
        let Some(slice) = self.nodes.get_mut(index) else { return };
        let was_empty = slice.count == 0;
        slice.count = slice.count.saturating_add(1);
        slice.slots.push_front(slots, slot);

        if was_empty {
            self.in_use = self.in_use.saturating_add(1);
            self.nodes.occupy(index);
            self.recently_used.push_front(self.nodes.nodes_mut(), index);
        } else {
            self.recently_used.touch(self.nodes.nodes_mut(), index);
        }
    }

    /// Takes a connection out of a slice: to be used, or to be closed.
    pub fn leave<N: Linked<InSlice>>(
        &mut self,
        index: u32,
        slots: &mut [N],
        slot: u32,
        used: bool,
    ) {
        let Some(slice) = self.nodes.get_mut(index) else { return };
        slice.slots.remove(slots, slot);
        slice.count = slice.count.saturating_sub(1);
        slice.hits = slice.hits.wrapping_add(used.into());

        if slice.count == 0 {
            self.in_use = self.in_use.saturating_sub(1);
            self.recently_used.remove(self.nodes.nodes_mut(), index);
            self.nodes.vacate(index);
        } else if used {
            self.recently_used.touch(self.nodes.nodes_mut(), index);
        }
    }
}

impl Linked<Used> for Slice {
    fn links_mut(&mut self) -> &mut Links {
        &mut self.links
    }
}

impl Linked<Vacant> for Slice {
    fn links_mut(&mut self) -> &mut Links {
        &mut self.links
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
impl<A: Allocator> Slices<A> {
    /// The number of slices in use, that is, of slices that are not empty.
    pub fn count_all(&mut self) -> usize {
        let used = self.nodes.nodes().iter().filter(|slice| slice.count != 0).count();
        assert_eq!(self.nodes.count(), used);
        assert_eq!(self.in_use as usize, used);
        used
    }
}

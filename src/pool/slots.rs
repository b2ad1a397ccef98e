//! The slots: one for each idle connection.

use allocator_api2::alloc::Allocator;
use allocator_api2::collections::TryReserveError;
use allocator_api2::vec::Vec;

use super::list::{InPeer, InPool, InSlice, Linked, Links, NIL};

/// The place of one idle connection.
pub struct Slot {
    in_peer: Links,
    in_slice: Links,
    in_pool: Links,
    /// Its peer; [`NIL`] if there is no connection.
    pub peer: u32,
    /// The next slot without a connection.
    free: u32,
}

/// The slots of a pool, in memory that is reserved once, and touched only when no slot that was
/// used before is free.
pub struct Slots<A: Allocator> {
    slots: Vec<Slot, A>,
    free: u32,
    /// How many have a connection.
    count: u32,
    /// How many may have one.
    limit: u32,
}

impl<A: Allocator> Slots<A> {
    /// Reserves memory for `capacity` slots.
    pub fn new_in(capacity: u32, allocator: A) -> Result<Self, TryReserveError> {
        let mut slots = Vec::new_in(allocator);
        slots.try_reserve_exact(capacity as usize)?;
        Ok(Slots { slots, free: NIL, count: 0, limit: capacity })
    }

    /// Whether as many slots have a connection as may have one.
    pub fn is_full(&self) -> bool {
        self.count >= self.limit
    }

    /// The number of slots with a connection.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Sets how many slots may have a connection: as many as there is memory for, or fewer. Those
    /// beyond it keep theirs.
    pub fn set_limit(&mut self, limit: u32) {
        self.limit = limit.min(u32::try_from(self.slots.capacity()).unwrap_or(u32::MAX));
    }

    /// Empties all slots.
    pub fn clear(&mut self) {
        self.slots.clear();
        self.free = NIL;
        self.count = 0;
    }

    /// The slot under an index.
    pub fn get(&self, index: u32) -> Option<&Slot> {
        self.slots.get(index as usize)
    }

    /// All slots, in the order of their indices, to be changed.
    pub fn nodes_mut(&mut self) -> &mut [Slot] {
        &mut self.slots
    }

    /// Puts a connection into a slot, which is in no list yet; `None` if there is no room.
    pub fn insert(&mut self, peer: u32) -> Option<u32> {
        if self.is_full() {
            return None;
        }
        self.count = self.count.saturating_add(1);
        let Some(slot) = self.slots.get_mut(self.free as usize) else { return self.push(peer) };
        slot.peer = peer;
        Some(core::mem::replace(&mut self.free, slot.free))
    }

    /// Puts a connection into a slot that was not used before.
    #[inline(never)]
    fn push(&mut self, peer: u32) -> Option<u32> {
        let index = u32::try_from(self.slots.len()).ok()?;
        let (in_peer, in_slice, in_pool) = (Links::NONE, Links::NONE, Links::NONE);
        self.slots.push(Slot { in_peer, in_slice, in_pool, peer, free: NIL });
        Some(index)
    }

    /// A connection has left its slot, and its lists.
    pub fn release(&mut self, index: u32) {
        if let Some(slot) = self.slots.get_mut(index as usize) {
            slot.peer = NIL;
            self.count = self.count.saturating_sub(1);
            slot.free = core::mem::replace(&mut self.free, index);
        }
    }
}

impl Linked<InPeer> for Slot {
    fn links_mut(&mut self) -> &mut Links {
        &mut self.in_peer
    }
}

impl Linked<InSlice> for Slot {
    fn links_mut(&mut self) -> &mut Links {
        &mut self.in_slice
    }
}

impl Linked<InPool> for Slot {
    fn links_mut(&mut self) -> &mut Links {
        &mut self.in_pool
    }
}

#[cfg(test)]
impl<A: Allocator> Slots<A> {
    /// The number of slots with a connection.
    pub fn count_all(&self) -> usize {
        let used = self.slots.iter().filter(|slot| slot.peer != NIL).count();
        assert_eq!(self.count as usize, used);
        used
    }
}

#[cfg(test)]
mod tests {
    use allocator_api2::alloc::Global;

    use super::*;

    #[test]
    fn slots_are_used_again() {
        let mut slots = Slots::new_in(2, Global).unwrap();
        let a = slots.insert(7).unwrap();
        let b = slots.insert(8).unwrap();
        assert!(slots.is_full());
        assert_eq!(slots.insert(9), None);

        slots.release(a);
        assert!(!slots.is_full());
        assert_eq!((slots.get(a).unwrap().peer, slots.count_all()), (NIL, 1));
        assert_eq!(slots.insert(10), Some(a));
        assert_eq!(slots.get(a).unwrap().peer, 10);
        assert_eq!(slots.get(b).unwrap().peer, 8);
        assert!(slots.is_full());
    }

    #[test]
    fn a_lower_limit_takes_nothing_away() {
        let mut slots = Slots::new_in(3, Global).unwrap();
        let a = slots.insert(7).unwrap();
        slots.insert(8).unwrap();
        slots.set_limit(1);
        assert_eq!((slots.is_full(), slots.count_all(), slots.insert(9)), (true, 2, None));
        slots.release(a);
        assert_eq!(slots.insert(9), None);
        slots.set_limit(3);
        assert_eq!(slots.insert(9), Some(a));
        slots.clear();
        assert_eq!((slots.count_all(), slots.insert(9)), (0, Some(0)));
    }

    #[test]
    fn nothing_fits_into_none() {
        let mut slots = Slots::new_in(0, Global).unwrap();
        assert!(slots.is_full());
        assert_eq!(slots.insert(7), None);
        assert!(slots.get(0).is_none());
    }

    #[test]
    fn memory_is_touched_when_it_is_needed() {
        let mut slots = Slots::new_in(100, Global).unwrap();
        for _ in 0..10 {
            let index = slots.insert(7).unwrap();
            slots.release(index);
        }
        assert_eq!(slots.slots.len(), 1);
    }
}

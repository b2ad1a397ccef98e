//! Nodes of one kind under small numbers, in memory that is reserved once.

use allocator_api2::alloc::Allocator;
use allocator_api2::collections::TryReserveError;
use allocator_api2::vec::Vec;

use super::list::NIL;

enum Entry<N> {
    Used(N),
    /// Not in use; holds the next entry that is not.
    Free(u32),
}

/// A fixed number of places for nodes; a node keeps its index until it is removed.
///
/// The memory is reserved when the slab is made and touched only when a place is used for the
/// first time, so a large slab that is never filled costs no resident memory.
pub struct Slab<N, A: Allocator> {
    entries: Vec<Entry<N>, A>,
    /// The first free entry among those once used.
    free: u32,
    capacity: u32,
    len: u32,
}

impl<N, A: Allocator> Slab<N, A> {
    /// Reserves memory for `capacity` nodes.
    pub fn new_in(capacity: u32, allocator: A) -> Result<Self, TryReserveError> {
        let mut entries = Vec::new_in(allocator);
        entries.try_reserve_exact(capacity as usize)?;
        Ok(Slab { entries, free: NIL, capacity, len: 0 })
    }

    /// The number of nodes.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether every place is taken.
    pub fn is_full(&self) -> bool {
        self.len >= self.capacity
    }

    /// The node under an index.
    pub fn get(&self, index: u32) -> Option<&N> {
        match self.entries.get(index as usize) {
            Some(Entry::Used(node)) => Some(node),
            _ => None,
        }
    }

    /// The node under an index, to be changed.
    pub fn get_mut(&mut self, index: u32) -> Option<&mut N> {
        match self.entries.get_mut(index as usize) {
            Some(Entry::Used(node)) => Some(node),
            _ => None,
        }
    }

    /// Puts a node in; `None` if the slab is full.
    pub fn insert(&mut self, node: N) -> Option<u32> {
        if self.is_full() {
            return None;
        }
        let index = match self.entries.get_mut(self.free as usize) {
            Some(entry) => {
                let index = self.free;
                if let Entry::Free(next) = *entry {
                    self.free = next;
                }
                *entry = Entry::Used(node);
                index
            }
            None => {
                let index = u32::try_from(self.entries.len()).ok()?;
                self.entries.push(Entry::Used(node));
                index
            }
        };
        self.len = self.len.saturating_add(1);
        Some(index)
    }

    /// Takes a node out; its index is free for another one.
    pub fn remove(&mut self, index: u32) -> Option<N> {
        let entry = self.entries.get_mut(index as usize)?;
        if let Entry::Free(_) = entry {
            return None;
        }
        let Entry::Used(node) = core::mem::replace(entry, Entry::Free(self.free)) else {
            return None;
        };
        self.free = index;
        self.len = self.len.saturating_sub(1);
        Some(node)
    }
}

#[cfg(test)]
mod tests {
    use allocator_api2::alloc::Global;

    use super::*;

    #[test]
    fn places_are_used_again() {
        let mut slab = Slab::new_in(2, Global).unwrap();
        let a = slab.insert('a').unwrap();
        let b = slab.insert('b').unwrap();
        assert!(slab.is_full());
        assert_eq!(slab.insert('c'), None);

        assert_eq!(slab.remove(a), Some('a'));
        assert_eq!(slab.remove(a), None);
        assert_eq!(slab.get(a), None);
        assert_eq!(slab.len(), 1);

        assert_eq!(slab.insert('d'), Some(a));
        assert_eq!((slab.get(a), slab.get(b)), (Some(&'d'), Some(&'b')));
        assert!(slab.is_full());
    }

    #[test]
    fn nothing_fits_into_none() {
        let mut slab = Slab::new_in(0, Global).unwrap();
        assert!(slab.is_full());
        assert_eq!(slab.insert(1), None);
        assert_eq!(slab.get(0), None);
        assert_eq!(slab.remove(0), None);
    }

    #[test]
    fn memory_is_not_moved() {
        let mut slab = Slab::new_in(100, Global).unwrap();
        let first = slab.insert(0).unwrap();
        let address = core::ptr::from_ref(slab.get(first).unwrap());
        for i in 1..100 {
            slab.insert(i).unwrap();
        }
        assert!(core::ptr::eq(address, slab.get(first).unwrap()));
    }
}

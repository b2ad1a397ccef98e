//! Nodes of one kind, each under a small number, in memory that is reserved once.

use allocator_api2::alloc::Allocator;
use allocator_api2::collections::TryReserveError;
use allocator_api2::vec::Vec;

use super::list::{Linked, List};

/// The kind of list that the vacant nodes of a slab are in.
pub enum Vacant {}

/// A fixed number of places for nodes, each under the index of its place.
///
/// A node that is no longer in use becomes vacant, and stays unchanged until its place is needed:
/// it can be occupied again. The place that has been vacant longest is used first.
///
/// The memory is reserved when the slab is made and touched only when there is no vacant place, so
/// a large slab that is never filled costs no resident memory.
pub struct Slab<N, A: Allocator> {
    nodes: Vec<N, A>,
    vacant: List<Vacant>,
    capacity: u32,
}

impl<N: Linked<Vacant>, A: Allocator> Slab<N, A> {
    /// Reserves memory for `capacity` nodes.
    pub fn new_in(capacity: u32, allocator: A) -> Result<Self, TryReserveError> {
        let mut nodes = Vec::new_in(allocator);
        nodes.try_reserve_exact(capacity as usize)?;
        Ok(Slab { nodes, vacant: List::new(), capacity })
    }

    /// Whether no node is vacant, and there is no place for another one.
    pub fn is_full(&self) -> bool {
        self.vacant.is_empty() && self.nodes.len() >= self.capacity as usize
    }

    /// The node under an index, vacant or not.
    pub fn get(&self, index: u32) -> Option<&N> {
        self.nodes.get(index as usize)
    }

    /// The node under an index, vacant or not, to be changed.
    pub fn get_mut(&mut self, index: u32) -> Option<&mut N> {
        self.nodes.get_mut(index as usize)
    }

    /// All nodes, vacant or not, in the order of their indices.
    pub fn nodes(&self) -> &[N] {
        &self.nodes
    }

    /// All nodes, vacant or not, in the order of their indices, to be changed.
    pub fn nodes_mut(&mut self) -> &mut [N] {
        &mut self.nodes
    }

    /// The node that has been vacant longest.
    pub fn vacant(&self) -> Option<u32> {
        self.vacant.back()
    }

    /// Makes a node vacant that is in use and in no list.
    pub fn vacate(&mut self, index: u32) {
        self.vacant.push_front(&mut self.nodes, index);
    }

    /// Puts a vacant node, unchanged, into use again.
    pub fn occupy(&mut self, index: u32) {
        self.vacant.remove(&mut self.nodes, index);
    }

    /// Forgets all nodes.
    pub fn clear(&mut self) {
        self.nodes.clear();
        self.vacant = List::new();
    }

    /// Inserts a node, in place of the one that has been vacant longest if there is one; `None` if
    /// the slab is full.
    pub fn insert(&mut self, node: N) -> Option<u32> {
        if let Some(index) = self.vacant() {
            self.occupy(index);
            *self.get_mut(index)? = node;
            return Some(index);
        }
        if self.is_full() {
            return None;
        }
        let index = u32::try_from(self.nodes.len()).ok()?;
        self.nodes.push(node);
        Some(index)
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects)]
impl<N: Linked<Vacant>, A: Allocator> Slab<N, A> {
    /// The number of nodes in use.
    pub fn count(&mut self) -> usize {
        self.nodes.len() - self.vacant.count(&mut self.nodes)
    }
}

#[cfg(test)]
mod tests {
    use allocator_api2::alloc::Global;

    use super::super::list::Links;
    use super::*;

    struct Node(Links, char);

    impl Linked<Vacant> for Node {
        fn links_mut(&mut self) -> &mut Links {
            &mut self.0
        }
    }

    fn node(name: char) -> Node {
        Node(Links::NONE, name)
    }

    #[test]
    fn places_are_used_again() {
        let mut slab = Slab::new_in(2, Global).unwrap();
        let a = slab.insert(node('a')).unwrap();
        let b = slab.insert(node('b')).unwrap();
        assert!(slab.is_full());
        assert_eq!(slab.insert(node('c')), None);

        slab.vacate(a);
        assert!(!slab.is_full());
        assert_eq!(slab.insert(node('d')), Some(a));
        assert_eq!((slab.get(a).unwrap().1, slab.get(b).unwrap().1), ('d', 'b'));
        assert!(slab.is_full());
    }

    #[test]
    fn the_longest_vacant_place_is_used_first() {
        let mut slab = Slab::new_in(3, Global).unwrap();
        for name in ['a', 'b', 'c'] {
            slab.insert(node(name)).unwrap();
        }
        for index in [1, 0, 2] {
            slab.vacate(index);
        }
        assert_eq!(slab.vacant(), Some(1));
        let places: Vec<_> = (0..3).filter_map(|_| slab.insert(node('d'))).collect();
        assert_eq!(places, [1, 0, 2]);
    }

    #[test]
    fn a_vacant_node_can_be_occupied_as_it_is() {
        let mut slab = Slab::new_in(2, Global).unwrap();
        let a = slab.insert(node('a')).unwrap();
        let b = slab.insert(node('b')).unwrap();
        slab.vacate(a);
        slab.vacate(b);
        slab.occupy(a);
        assert_eq!(slab.get(a).unwrap().1, 'a');
        assert_eq!(slab.insert(node('c')), Some(b));
        assert!(slab.is_full());
    }

    #[test]
    fn nothing_fits_into_none() {
        let mut slab = Slab::new_in(0, Global).unwrap();
        assert!(slab.is_full());
        assert_eq!(slab.insert(node('a')), None);
        assert!(slab.get(0).is_none());
    }

    #[test]
    fn memory_is_not_moved() {
        let mut slab = Slab::new_in(100, Global).unwrap();
        let first = slab.insert(node('a')).unwrap();
        let address = core::ptr::from_ref(slab.get(first).unwrap());
        for _ in 1..100 {
            slab.insert(node('b')).unwrap();
        }
        assert!(core::ptr::eq(address, slab.get(first).unwrap()));
    }

    #[test]
    fn memory_is_touched_when_it_is_needed() {
        let mut slab = Slab::new_in(100, Global).unwrap();
        for _ in 0..10 {
            let index = slab.insert(node('a')).unwrap();
            slab.vacate(index);
        }
        assert_eq!(slab.nodes().len(), 1);
    }
}

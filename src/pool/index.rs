//! A hash table of nodes, which are linked in their places.

use allocator_api2::alloc::Allocator;
use allocator_api2::collections::TryReserveError;
use allocator_api2::vec::Vec;

use super::list::NIL;

/// A node's place in an index.
#[derive(Clone, Copy)]
pub struct Place {
    hash: u32,
    /// The next node in the same bucket.
    next: u32,
}

impl Place {
    /// The place of a node that is not yet in an index.
    pub fn new(hash: u32) -> Self {
        Place { hash, next: NIL }
    }
}

/// A node that can be in an index.
pub trait Indexed {
    /// The node's place.
    fn place(&self) -> Place;

    /// The node's place, to be changed.
    fn place_mut(&mut self) -> &mut Place;
}

/// Finds a node by a hash and a comparison.
///
/// There are as many buckets as there can be nodes, and the hash has a seed that clients do not
/// know: with any keys, a bucket holds one node or two.
pub struct Index<A: Allocator> {
    buckets: Vec<u32, A>,
}

impl<A: Allocator> Index<A> {
    /// Allocates the buckets for at most `capacity` nodes.
    pub fn new_in(capacity: u32, allocator: A) -> Result<Self, TryReserveError> {
        let mut buckets = Vec::new_in(allocator);
        buckets.try_reserve_exact(capacity as usize)?;
        buckets.resize(capacity as usize, NIL);
        Ok(Index { buckets })
    }

    /// The node with the hash for which `same` is true.
    pub fn find<N: Indexed>(
        &self,
        nodes: &[N],
        hash: u32,
        same: impl Fn(u32, &N) -> bool,
    ) -> Option<u32> {
        let mut index = *self.buckets.get(self.bucket(hash))?;
        while let Some(node) = nodes.get(index as usize) {
            if node.place().hash == hash && same(index, node) {
                return Some(index);
            }
            index = node.place().next;
        }
        None
    }

    /// Forgets all nodes.
    pub fn clear(&mut self) {
        self.buckets.fill(NIL);
    }

    /// Inserts a node that is not in the index.
    pub fn insert<N: Indexed>(&mut self, nodes: &mut [N], index: u32) {
        let Some(node) = nodes.get_mut(index as usize) else { return };
        let bucket = self.bucket(node.place().hash);
        let Some(head) = self.buckets.get_mut(bucket) else { return };
        node.place_mut().next = core::mem::replace(head, index);
    }

    /// Removes a node that is in the index.
    pub fn remove<N: Indexed>(&mut self, nodes: &mut [N], index: u32) {
        let Some(Place { hash, next }) = nodes.get(index as usize).map(Indexed::place) else {
            return;
        };
        let bucket = self.bucket(hash);
        let Some(head) = self.buckets.get_mut(bucket) else { return };
        if *head == index {
            *head = next;
            return;
        }
        let mut before = *head;
        while let Some(node) = nodes.get_mut(before as usize) {
            let place = node.place_mut();
            if place.next == index {
                place.next = next;
                return;
            }
            before = place.next;
        }
    }

    /// Spreads the hashes over the buckets in their order: any number of buckets is possible.
    #[inline]
    fn bucket(&self, hash: u32) -> usize {
        ((u64::from(hash).wrapping_mul(self.buckets.len() as u64)) >> 32) as usize
    }
}

#[cfg(test)]
mod tests {
    use allocator_api2::alloc::Global;

    use super::*;

    struct Node(Place, char);

    impl Indexed for Node {
        fn place(&self) -> Place {
            self.0
        }

        fn place_mut(&mut self) -> &mut Place {
            &mut self.0
        }
    }

    /// Four nodes in one bucket, two of them with the same hash.
    fn crowded() -> (Index<Global>, Vec<Node>) {
        let names = [(0, 'a'), (4, 'b'), (4, 'c'), (8, 'd')];
        let mut nodes: Vec<_> =
            names.iter().map(|&(hash, name)| Node(Place::new(hash), name)).collect();
        let mut index = Index::new_in(4, Global).unwrap();
        for node in 0..4 {
            index.insert(&mut nodes, node);
        }
        (index, nodes)
    }

    fn find(index: &Index<Global>, nodes: &[Node], hash: u32, name: char) -> Option<u32> {
        index.find(nodes, hash, |_, node| node.1 == name)
    }

    #[test]
    fn a_hash_alone_is_not_enough() {
        let (index, nodes) = crowded();
        assert_eq!(find(&index, &nodes, 4, 'b'), Some(1));
        assert_eq!(find(&index, &nodes, 4, 'c'), Some(2));
        assert_eq!(find(&index, &nodes, 4, 'a'), None);
        assert_eq!(find(&index, &nodes, 12, 'd'), None);
    }

    #[test]
    fn nodes_are_spread_over_the_buckets() {
        let mut nodes: Vec<_> = (0..100).map(|i| Node(Place::new(i << 26 | i), 'a')).collect();
        let mut index = Index::new_in(64, Global).unwrap();
        for node in 0..64 {
            index.insert(&mut nodes, node);
        }
        assert!(nodes.iter().all(|node| node.0.next == NIL));
        assert!(!index.buckets.contains(&NIL));
    }

    #[test]
    fn any_hash_has_a_bucket() {
        for capacity in [1, 3, 100] {
            let index = Index::new_in(capacity, Global).unwrap();
            assert_eq!(index.buckets.len(), capacity as usize);
            for hash in [0, 1, u32::MAX / 2, u32::MAX] {
                assert!(index.bucket(hash) < capacity as usize);
            }
        }
    }

    #[test]
    fn any_node_can_be_removed() {
        for gone in 0..4 {
            let (mut index, mut nodes) = crowded();
            index.remove(&mut nodes, gone);
            for (i, (hash, name)) in [(0, 'a'), (4, 'b'), (4, 'c'), (8, 'd')].iter().enumerate() {
                let i = u32::try_from(i).unwrap();
                assert_eq!(find(&index, &nodes, *hash, *name), (i != gone).then_some(i));
            }
        }
    }
}

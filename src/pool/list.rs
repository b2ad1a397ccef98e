//! Doubly linked lists whose links are indices into a slab.

use core::marker::PhantomData;

/// The index of no node.
pub const NIL: u32 = u32::MAX;

/// A node's neighbours in one list.
#[derive(Clone, Copy)]
pub struct Links {
    previous: u32,
    next: u32,
}

impl Links {
    /// The links of a node that is in no list.
    pub const NONE: Links = Links { previous: NIL, next: NIL };
}

/// The kind of list that the connections of a peer are in.
pub enum InPeer {}
/// The kind of list that the connections of a slice are in.
pub enum InSlice {}

/// The kind of list that all connections of a pool are in.
pub enum InPool {}

/// A node that can be in a list of the kind `K`.
pub trait Linked<K> {
    /// The node's links in that list.
    fn links_mut(&mut self) -> &mut Links;
}

/// A list of the kind `K`. The front is the most recently pushed node.
pub struct List<K> {
    front: u32,
    back: u32,
    kind: PhantomData<K>,
}

impl<K> List<K> {
    /// A list with no nodes.
    pub const fn new() -> Self {
        List { front: NIL, back: NIL, kind: PhantomData }
    }

    /// The most recently pushed node.
    pub fn front(&self) -> Option<u32> {
        (self.front != NIL).then_some(self.front)
    }

    /// The least recently pushed node.
    pub fn back(&self) -> Option<u32> {
        (self.back != NIL).then_some(self.back)
    }

    /// Whether the list has no nodes.
    pub fn is_empty(&self) -> bool {
        self.front == NIL
    }

    /// Puts a node that is not in the list at the front.
    pub fn push_front<N: Linked<K>>(&mut self, nodes: &mut [N], index: u32) {
        let Some(node) = nodes.get_mut(index as usize) else { return };
        *node.links_mut() = Links { previous: NIL, next: self.front };

        match nodes.get_mut(self.front as usize) {
            Some(next) => next.links_mut().previous = index,
            None => self.back = index,
        }
        self.front = index;
    }

    /// Removes a node that is in the list.
    pub fn remove<N: Linked<K>>(&mut self, nodes: &mut [N], index: u32) {
        let Some(node) = nodes.get_mut(index as usize) else { return };
        let Links { previous, next } = core::mem::replace(node.links_mut(), Links::NONE);

        match nodes.get_mut(previous as usize) {
            Some(node) => node.links_mut().next = next,
            None => self.front = next,
        }
        match nodes.get_mut(next as usize) {
            Some(node) => node.links_mut().previous = previous,
            None => self.back = previous,
        }
    }

    /// Moves a node that is in the list to the front.
    pub fn touch<N: Linked<K>>(&mut self, nodes: &mut [N], index: u32) {
        if self.front != index {
            self.remove(nodes, index);
            self.push_front(nodes, index);
        }
    }
}

#[cfg(test)]
impl<K> List<K> {
    /// The number of nodes in the list.
    pub fn count<N: Linked<K>>(&self, nodes: &mut [N]) -> usize {
        let next = |&index: &u32| {
            let next = nodes[index as usize].links_mut().next;
            (next != NIL).then_some(next)
        };
        core::iter::successors(self.front(), next).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Node(Links);

    impl Linked<()> for Node {
        fn links_mut(&mut self) -> &mut Links {
            &mut self.0
        }
    }

    fn forward(list: &List<()>, nodes: &[Node]) -> Vec<u32> {
        core::iter::successors(list.front(), |&i| {
            let next = nodes[i as usize].0.next;
            (next != NIL).then_some(next)
        })
        .collect()
    }

    fn backward(list: &List<()>, nodes: &[Node]) -> Vec<u32> {
        core::iter::successors(list.back(), |&i| {
            let previous = nodes[i as usize].0.previous;
            (previous != NIL).then_some(previous)
        })
        .collect()
    }

    fn three() -> (List<()>, Vec<Node>) {
        let mut nodes: Vec<_> = (0..3).map(|_| Node(Links::NONE)).collect();
        let mut list = List::new();
        for index in 0..3 {
            list.push_front(&mut nodes, index);
        }
        (list, nodes)
    }

    #[test]
    fn pushed_nodes_come_first() {
        let (list, nodes) = three();
        assert_eq!(forward(&list, &nodes), [2, 1, 0]);
        assert_eq!(backward(&list, &nodes), [0, 1, 2]);
    }

    #[test]
    fn any_node_can_be_removed() {
        for gone in 0..3 {
            let (mut list, mut nodes) = three();
            list.remove(&mut nodes, gone);
            let mut left: Vec<u32> = (0..3).filter(|&i| i != gone).collect();
            assert_eq!(backward(&list, &nodes), left);
            left.reverse();
            assert_eq!(forward(&list, &nodes), left);
        }
    }

    #[test]
    fn the_last_node_leaves_an_empty_list() {
        let (mut list, mut nodes) = three();
        for index in 0..3 {
            assert!(!list.is_empty());
            list.remove(&mut nodes, index);
        }
        assert!(list.is_empty());
        assert_eq!((list.front(), list.back()), (None, None));
    }

    #[test]
    fn a_touched_node_comes_first() {
        let (mut list, mut nodes) = three();
        list.touch(&mut nodes, 0);
        assert_eq!(forward(&list, &nodes), [0, 2, 1]);
        list.touch(&mut nodes, 0);
        assert_eq!(backward(&list, &nodes), [1, 2, 0]);
    }
}

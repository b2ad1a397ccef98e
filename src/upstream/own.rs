//! The connections that this worker holds in shared memory, by the peer under which they lie there,
//! so that a request gets an own one first.
//!
//! Another worker may take one away at any time. So an entry here is only a hint: its ticket shows
//! whether it is still true.

#![forbid(unsafe_code)]

use allocator_api2::alloc::Allocator;
use allocator_api2::vec::Vec;

use crate::pool::list::{Linked, Links, List, NIL};
use crate::pool::{SlotIndex, TryReserveError};
use crate::shared::Ticket;

/// The kind of list that the own connections of a peer are in.
enum InPeer {}

/// A slot, seen from this worker.
#[derive(Clone, Copy)]
struct Node {
    /// The number of the holding; 0 if there is no connection.
    generation: u64,
    /// [`NIL`] if it is in no list.
    peer: u32,
    links: Links,
}

const EMPTY: Node = Node { generation: 0, peer: NIL, links: Links::NONE };

impl Linked<InPeer> for Node {
    fn links_mut(&mut self) -> &mut Links {
        &mut self.links
    }
}

/// The own connections.
pub struct Own<A: Allocator> {
    nodes: Vec<Node, A>,
    peers: Vec<List<InPeer>, A>,
}

impl<A: Allocator + Clone> Own<A> {
    /// Reserves memory for as many slots, and as many peers.
    ///
    /// # Errors
    ///
    /// There is not enough memory.
    pub fn new_in(slots: u32, memory: A) -> Result<Self, TryReserveError> {
        let mut nodes = Vec::new_in(memory.clone());
        nodes.try_reserve_exact(slots as usize)?;
        let mut peers = Vec::new_in(memory);
        peers.try_reserve_exact(slots as usize)?;
        Ok(Own { nodes, peers })
    }
}

impl<A: Allocator> Own<A> {
    /// The connection of a peer that was inserted last.
    pub fn first(&self, peer: u32) -> Option<Ticket> {
        self.ticket(SlotIndex::new(self.peers.get(peer as usize)?.front()?))
    }

    /// The holding of a slot.
    pub fn ticket(&self, slot: SlotIndex) -> Option<Ticket> {
        let generation = self.nodes.get(slot.get() as usize)?.generation;
        (generation != 0).then_some(Ticket { slot, generation })
    }

    /// Inserts a connection; whether there was another one in its slot, which is removed.
    #[inline(always)]
    pub fn insert(&mut self, ticket: Ticket, peer: u32) -> bool {
        let had = self.ticket(ticket.slot).is_some();
        if had {
            self.unlink(ticket.slot);
        }
        let index = ticket.slot.get() as usize;
        grow(&mut self.nodes, index, || EMPTY);
        grow(&mut self.peers, peer as usize, List::new);
        let (Some(node), Some(list)) =
            (self.nodes.get_mut(index), self.peers.get_mut(peer as usize))
        else {
            return had;
        };
        *node = Node { generation: ticket.generation, peer, links: Links::NONE };
        list.push_front(&mut self.nodes, ticket.slot.get());
        had
    }

    /// Removes the connection of a slot, if there is one.
    pub fn remove(&mut self, slot: SlotIndex) -> Option<Ticket> {
        let ticket = self.ticket(slot)?;
        self.clear(slot);
        Some(ticket)
    }

    /// Removes the connection of a slot.
    #[inline(always)]
    pub fn clear(&mut self, slot: SlotIndex) {
        self.unlink(slot);
        if let Some(node) = self.nodes.get_mut(slot.get() as usize) {
            node.generation = 0;
        }
    }

    /// Hides the connection of a slot from [`Self::first`].
    pub fn unlink(&mut self, slot: SlotIndex) {
        let Some(node) = self.nodes.get_mut(slot.get() as usize) else { return };
        let peer = core::mem::replace(&mut node.peer, NIL);
        if let Some(list) = self.peers.get_mut(peer as usize) {
            list.remove(&mut self.nodes, slot.get());
        }
    }

    /// The first connection in a slot from this one on.
    pub fn next(&self, from: u32) -> Option<Ticket> {
        let index = self.nodes.iter().skip(from as usize).position(|node| node.generation != 0)?;
        self.ticket(SlotIndex::new(from.checked_add(u32::try_from(index).ok()?)?))
    }
}

/// Makes a list so long that it has this index, within the memory that is reserved.
fn grow<T, A: Allocator>(list: &mut Vec<T, A>, index: usize, empty: impl Fn() -> T) {
    while list.len() <= index && list.len() < list.capacity() {
        list.push(empty());
    }
}

#[cfg(test)]
mod tests {
    use allocator_api2::alloc::Global;

    use super::*;

    fn ticket(slot: u32, generation: u64) -> Ticket {
        Ticket { slot: SlotIndex::new(slot), generation }
    }

    #[test]
    fn the_last_one_of_a_peer_comes_first() {
        let mut own = Own::new_in(8, Global).unwrap();
        assert_eq!((own.first(3), own.next(0)), (None, None));
        own.insert(ticket(5, 1), 3);
        own.insert(ticket(2, 2), 3);
        own.insert(ticket(4, 3), 0);
        assert_eq!((own.first(3), own.first(0)), (Some(ticket(2, 2)), Some(ticket(4, 3))));
        assert_eq!(own.remove(SlotIndex::new(2)), Some(ticket(2, 2)));
        assert_eq!(own.remove(SlotIndex::new(2)), None);
        assert_eq!(own.first(3), Some(ticket(5, 1)));
        assert_eq!((own.next(0), own.next(5)), (Some(ticket(4, 3)), Some(ticket(5, 1))));
        assert_eq!(own.next(6), None);
    }

    #[test]
    fn nothing_is_kept_beyond_the_memory() {
        let mut own = Own::new_in(2, Global).unwrap();
        own.insert(ticket(2, 1), 0);
        own.insert(ticket(0, 1), 2);
        assert_eq!((own.next(0), own.first(2)), (None, None));
    }
}

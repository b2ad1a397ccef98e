//! The peers: connections of one slice to one server address, by one protocol, with the same
//! attributes.

use core::num::NonZeroU64;

use allocator_api2::alloc::Allocator;
use allocator_api2::collections::TryReserveError;

use super::identity::{Identity, Protocol};
use super::index::{Index, Indexed, Place};
use super::list::{InPeer, Linked, Links, List};
use super::slab::{Slab, Vacant};
use super::strings::{Length, Strings};

/// A peer; vacant while it has no connections.
pub struct Peer {
    place: Place,
    vacant: Links,
    /// Its idle connections, the most recently saved one first.
    pub slots: List<InPeer>,
    /// Its number among all peers and slices.
    pub birth: NonZeroU64,
    protocol: Protocol,
    /// Its slice, if there are slices. If this peer is vacant, the place may belong to another
    /// slice by now.
    pub slice: u32,
    address_length: Length,
    attributes_length: Length,
}

/// The peers of a pool.
pub struct Peers<A: Allocator> {
    nodes: Slab<Peer, A>,
    addresses: Strings<A>,
    attributes: Strings<A>,
    index: Index<A>,
}

impl<A: Allocator + Clone> Peers<A> {
    /// Allocates memory for as many peers, and addresses and attributes of these lengths.
    pub fn new_in(
        capacity: u32,
        (address_length, attributes_length): (Length, Length),
        allocator: A,
    ) -> Result<Self, TryReserveError> {
        Ok(Peers {
            nodes: Slab::new_in(capacity, allocator.clone())?,
            addresses: Strings::new_in(capacity, address_length, allocator.clone())?,
            attributes: Strings::new_in(capacity, attributes_length, allocator.clone())?,
            index: Index::new_in(capacity, allocator)?,
        })
    }
}

impl<A: Allocator> Peers<A> {
    /// The peer under an index, vacant or not.
    pub fn get(&self, index: u32) -> Option<&Peer> {
        self.nodes.get(index)
    }

    /// The peer under an index, vacant or not, to be changed.
    pub fn get_mut(&mut self, index: u32) -> Option<&mut Peer> {
        self.nodes.get_mut(index)
    }

    /// Whether a peer has the address, the attributes and the protocol of an identity.
    #[inline(always)]
    pub fn is(&self, index: u32, peer: &Peer, identity: &Identity<'_>) -> bool {
        peer.protocol == identity.protocol
            && self.is_to(index, peer, identity.address)
            && usize::from(peer.attributes_length) == identity.attributes.len()
            && (identity.attributes.is_empty() || self.has(index, peer, identity.attributes))
    }

    /// Whether a peer has these attributes, which are seldom any.
    #[inline(never)]
    fn has(&self, index: u32, peer: &Peer, attributes: &[u8]) -> bool {
        self.attributes.get(index, peer.attributes_length) == Some(attributes)
    }

    /// Whether a peer has this address.
    pub fn is_to(&self, index: u32, peer: &Peer, address: &[u8]) -> bool {
        self.addresses.is(index, peer.address_length, address)
    }

    /// The peers that have connections, with their indices.
    pub fn used(&self) -> impl Iterator<Item = (u32, &Peer)> {
        (0..).zip(self.nodes.nodes()).filter(|(_, peer)| !peer.slots.is_empty())
    }

    /// The peer with a hash for which `same` is true.
    pub fn find(&self, hash: u32, same: impl Fn(u32, &Peer) -> bool) -> Option<u32> {
        self.index.find(self.nodes.nodes(), hash, same)
    }

    /// Whether an address is not too long to be kept.
    pub fn fits(&self, address: &[u8]) -> bool {
        self.addresses.fit(address).is_some()
    }

    /// Whether attributes are not too long to be kept.
    pub fn fit(&self, attributes: &[u8]) -> bool {
        self.attributes.fit(attributes).is_some()
    }

    /// Forgets all peers.
    pub fn clear(&mut self) {
        self.nodes.clear();
        self.index.clear();
    }

    /// The address of a peer.
    pub fn address(&self, index: u32) -> Option<&[u8]> {
        self.addresses.get(index, self.get(index)?.address_length)
    }

    /// A new peer. It is vacant until it has a connection.
    pub fn insert(
        &mut self,
        identity: &Identity<'_>,
        hash: u32,
        slice: u32,
        birth: NonZeroU64,
    ) -> Option<u32> {
        if let Some(old) = self.nodes.vacant() {
            self.index.remove(self.nodes.nodes_mut(), old);
        }
        let peer = self.nodes.insert(Peer {
            place: Place::new(hash),
            vacant: Links::NONE,
            slots: List::new(),
            birth,
            protocol: identity.protocol,
            slice,
            address_length: self.addresses.fit(identity.address)?,
            attributes_length: self.attributes.fit(identity.attributes)?,
        })?;
        self.addresses.set(peer, identity.address);
        self.attributes.set(peer, identity.attributes);
        self.index.insert(self.nodes.nodes_mut(), peer);
        self.nodes.vacate(peer);
        Some(peer)
    }

    /// A peer's last connection has left.
    pub fn vacate(&mut self, index: u32) {
        self.nodes.vacate(index);
    }

    /// A peer's first connection has come.
    pub fn occupy(&mut self, index: u32) {
        self.nodes.occupy(index);
    }
}

impl Linked<Vacant> for Peer {
    fn links_mut(&mut self) -> &mut Links {
        &mut self.vacant
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

#[cfg(test)]
impl<A: Allocator> Peers<A> {
    /// The number of peers in use, that is, of peers that are not empty.
    pub fn count(&mut self) -> usize {
        let used = self.nodes.nodes().iter().filter(|peer| !peer.slots.is_empty()).count();
        assert_eq!(self.nodes.count(), used);
        used
    }
}

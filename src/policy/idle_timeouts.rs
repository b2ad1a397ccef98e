//! The idle timeouts of servers, by address, in memory that is reserved once.

#![forbid(unsafe_code)]

use core::hash::{BuildHasher, Hasher};

use allocator_api2::alloc::Allocator;
use allocator_api2::vec::Vec;
use foldhash::SharedSeed;
use foldhash::fast::SeedableRandomState;

use super::Time;
use super::idle_timeout::IdleTimeout;
use crate::guarded::Forget;
use crate::pool::TryReserveError;
use crate::pool::index::{Index, Indexed, Place};
use crate::pool::list::{Linked, Links, List};
use crate::pool::strings::{Length, Strings};

/// The kind of list that all servers are in.
enum InUse {}

struct Server {
    place: Place,
    links: Links,
    address_length: Length,
    idle_timeout: IdleTimeout,
}

/// The idle timeouts of the servers that have closed idle connections. When there is no room for
/// another server, it takes the place of the one that has not been asked for the longest.
pub struct IdleTimeouts<A: Allocator> {
    servers: Vec<Server, A>,
    addresses: Strings<A>,
    index: Index<A>,
    used: List<InUse>,
    capacity: u32,
    hasher: SeedableRandomState,
}

/// Whether a request uses an idle connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// It does.
    Usable,
    /// The server may be about to close it. With the idle time after which the server closes
    /// connections, in milliseconds, if this timeout is used for the first time.
    TooOld(Option<u32>),
}

impl<A: Allocator + Clone> IdleTimeouts<A> {
    /// Reserves memory for as many servers, with addresses of at most this length in bytes.
    ///
    /// # Errors
    ///
    /// There is not enough memory.
    pub fn new_in(
        capacity: u32,
        address_length: Length,
        allocator: A,
    ) -> Result<Self, TryReserveError> {
        let mut servers = Vec::new_in(allocator.clone());
        servers.try_reserve_exact(capacity as usize)?;
        Ok(IdleTimeouts {
            servers,
            addresses: Strings::new_in(capacity, address_length, allocator.clone())?,
            index: Index::new_in(capacity, allocator)?,
            used: List::new(),
            capacity,
            hasher: SeedableRandomState::with_seed(0, SharedSeed::global_fixed()),
        })
    }
}

impl<A: Allocator> IdleTimeouts<A> {
    /// How much memory is allocated for as many servers, in bytes.
    pub fn memory(capacity: u32, address_length: Length) -> usize {
        let server = size_of::<Server>().saturating_add(size_of::<u32>());
        server.saturating_add(address_length.into()).saturating_mul(capacity as usize)
    }

    /// A server has closed a connection that was idle for this time, in milliseconds.
    pub fn closed(&mut self, address: &[u8], age: u32, now: Time) {
        let Some(index) = self.find(address).or_else(|| self.insert(address)) else { return };
        if let Some(server) = self.servers.get_mut(index as usize) {
            server.idle_timeout.closed(age, now);
        }
    }

    /// A request is about to use an open connection that has been idle for this time, in
    /// milliseconds. `margin` is the time by which its use ends before the server's timeout.
    ///
    /// If it is too old, so are all of the same kind, of which it is the one saved last. `oldest`
    /// answers how long the one saved first has been idle, if that one is open: the ages of those
    /// that are not used are all that can show that there is no such timeout any more.
    pub fn check(
        &mut self,
        address: &[u8],
        (age, oldest): (u32, impl FnOnce() -> Option<u32>),
        (now, margin): (Time, u64),
    ) -> Verdict {
        let server = self.find(address).and_then(|index| self.servers.get_mut(index as usize));
        let Some(Server { idle_timeout, .. }) = server else { return Verdict::Usable };
        let is_too_old = |known: &IdleTimeout| known.limit(margin).is_some_and(|limit| age > limit);
        idle_timeout.open(age, now);
        if is_too_old(idle_timeout) {
            oldest().into_iter().for_each(|oldest| idle_timeout.open(oldest, now));
        }
        match is_too_old(idle_timeout) {
            true => Verdict::TooOld(idle_timeout.first_use()),
            false => Verdict::Usable,
        }
    }

    /// The servers whose timeouts are known: the address and the timeout, in milliseconds.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], u32)> {
        (0..).zip(&self.servers).filter_map(|(index, server)| {
            let address = self.addresses.get(index, server.address_length)?;
            Some((address, server.idle_timeout.get()?))
        })
    }

    fn hash(&self, address: &[u8]) -> u32 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(address);
        hasher.finish() as u32
    }

    fn find(&mut self, address: &[u8]) -> Option<u32> {
        let is_same =
            |index, server: &Server| self.addresses.is(index, server.address_length, address);
        let index = self.index.find(&self.servers, self.hash(address), is_same)?;
        self.used.touch(&mut self.servers, index);
        Some(index)
    }

    /// A server that is not known yet; `None` if its address is too long.
    fn insert(&mut self, address: &[u8]) -> Option<u32> {
        let server = Server {
            place: Place::new(self.hash(address)),
            links: Links::NONE,
            address_length: self.addresses.fit(address)?,
            idle_timeout: IdleTimeout::default(),
        };
        let next = u32::try_from(self.servers.len()).ok()?;
        let index = if next < self.capacity {
            self.servers.push(server);
            next
        } else {
            let index = self.used.back()?;
            self.used.remove(&mut self.servers, index);
            self.index.remove(&mut self.servers, index);
            *self.servers.get_mut(index as usize)? = server;
            index
        };
        self.addresses.set(index, address);
        self.index.insert(&mut self.servers, index);
        self.used.push_front(&mut self.servers, index);
        Some(index)
    }
}

impl<A: Allocator> Forget for IdleTimeouts<A> {
    fn forget_all(&mut self) {
        self.servers.clear();
        self.index.clear();
        self.used = List::new();
    }
}

impl Indexed for Server {
    fn place(&self) -> Place {
        self.place
    }

    fn place_mut(&mut self) -> &mut Place {
        &mut self.place
    }
}

impl Linked<InUse> for Server {
    fn links_mut(&mut self) -> &mut Links {
        &mut self.links
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects)]
mod tests;

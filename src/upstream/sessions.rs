//! TLS sessions, each for connections of one identity: a session carries what was proved when it
//! began, above all the client certificate, and so is only offered where the connection could have
//! been used again.
//!
//! A balancer of nginx has one session for each server, whatever it was made with.

use allocator_api2::collections::TryReserveError;
use allocator_api2::vec::Vec;
use ngx::core::Pool as Memory;

use crate::nginx::tls::TlsSession;
use crate::pool::{Identity, Limits, Lookup, Pool, Put, Seed, SliceLimits, SlotIndex};

/// The most sessions that a worker has for an upstream; the least recently used one makes room.
const SESSIONS: u32 = 256;

/// The sessions of an upstream: they lie in a pool like that of idle connections.
pub struct Sessions {
    pool: Pool<Memory>,
    /// By slot.
    sessions: Vec<Option<TlsSession>, Memory>,
}

impl Sessions {
    /// No sessions; `limits` are those of the upstream's connections.
    ///
    /// # Errors
    ///
    /// There is not enough memory.
    pub fn new_in(limits: Limits, seed: &Seed, memory: Memory) -> Result<Self, TryReserveError> {
        let slices = limits.slices.map(|slices| SliceLimits { slices: SESSIONS, ..slices });
        let limits = Limits { connections: SESSIONS, slices, ..limits };
        let mut sessions = Vec::new_in(memory.clone());
        sessions.try_reserve_exact(SESSIONS as usize)?;
        sessions.resize_with(SESSIONS as usize, || None);
        Ok(Sessions { pool: Pool::new_in(limits, seed, memory)?, sessions })
    }

    /// The session of an identity, which is used now.
    pub fn get(&mut self, identity: &Identity<'_>) -> Option<TlsSession> {
        let slot = self.pool.find(identity, &mut Lookup::default())?;
        let session = self.sessions.get(slot.get() as usize)?.clone()?;
        self.set(identity, session.clone());
        Some(session)
    }

    /// Saves the session of an identity, in place of one that it has.
    pub fn set(&mut self, identity: &Identity<'_>, session: TlsSession) {
        let mut lookup = Lookup::default();
        if let Some(slot) = self.pool.find(identity, &mut lookup) {
            self.pool.remove(slot);
            self.forget(slot);
        }
        loop {
            match self.pool.put(|| *identity, &mut lookup, u32::MAX) {
                Put::Kept(slot) => {
                    if let Some(place) = self.sessions.get_mut(slot.get() as usize) {
                        *place = Some(session);
                    }
                    return;
                }
                Put::Close(slot, _) => {
                    self.pool.remove(slot);
                    self.forget(slot);
                }
                Put::NotKept(_) => return,
            }
        }
    }

    fn forget(&mut self, slot: SlotIndex) {
        if let Some(place) = self.sessions.get_mut(slot.get() as usize) {
            *place = None;
        }
    }
}

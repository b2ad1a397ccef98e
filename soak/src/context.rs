//! The data that clients, backends and checks share.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::ledger::Ledger;
use crate::report::Report;
use crate::upstreams::Identity;

/// A connection that has had a request, as its backend knows it.
#[derive(Clone)]
pub struct Known {
    /// Its identity.
    pub identity: Identity,
    /// The number of requests that it has carried.
    pub requests: u64,
    /// The time since which no request is on it and nothing was done to it; `None` if there is one.
    pub idle: Option<Instant>,
}

/// Connections, by the server's and nginx's address.
pub type Connections = HashMap<(SocketAddr, SocketAddr), Known>;

/// All of this data.
pub struct Context {
    /// The events of requests.
    pub ledger: Ledger,
    /// The figures.
    pub report: Report,
    connections: Mutex<Connections>,
    behaved: AtomicBool,
    /// Whether the connections that workers share have their lower limits, and since when.
    low: Mutex<Option<Instant>>,
}

/// The time in which workers keep to lower limits, after they are set.
const LOWERED: Duration = Duration::from_secs(1);

impl Context {
    /// Nothing has happened yet.
    pub fn new() -> Self {
        let (ledger, report) = (Ledger::new(), Report::default());
        Context {
            ledger,
            report,
            connections: Mutex::default(),
            behaved: AtomicBool::new(false),
            low: Mutex::default(),
        }
    }

    /// The connections that have had a request.
    pub fn connections(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().expect("nobody panics with the lock")
    }

    /// Lower limits are set, or are about to be raised.
    pub fn lower(&self, low: bool) {
        let low = low.then(Instant::now);
        *self.low.lock().expect("nobody panics with the lock") = low;
    }

    /// Whether lower limits are in force.
    pub fn is_low(&self) -> bool {
        let low = *self.low.lock().expect("nobody panics with the lock");
        low.is_some_and(|low| low.elapsed() >= LOWERED)
    }

    /// Whether backends must do nothing wrong for now.
    pub fn behave(&self, behaved: bool) {
        self.behaved.store(behaved, Ordering::SeqCst);
    }

    /// Whether backends may do something wrong.
    pub fn may_spoil(&self) -> bool {
        !self.behaved.load(Ordering::SeqCst)
    }
}

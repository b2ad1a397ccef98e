//! The data that clients, backends and checks share.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::ledger::Ledger;
use crate::report::Report;
use crate::upstreams::Identity;

/// All of this data.
pub struct Context {
    /// The events of requests.
    pub ledger: Ledger,
    /// The figures.
    pub report: Report,
    /// The identities of connections, if they have one, by the server's and nginx's address.
    pub connections: Mutex<HashMap<(SocketAddr, SocketAddr), Identity>>,
    behaved: AtomicBool,
}

impl Context {
    /// Nothing has happened yet.
    pub fn new() -> Self {
        let (ledger, report) = (Ledger::new(), Report::default());
        Context { ledger, report, connections: Mutex::default(), behaved: AtomicBool::new(false) }
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

//! The backends: servers that accept connections, with TLS or without.

use std::collections::HashMap;
use std::fmt::{Display, Formatter};
use std::io::Result;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::connection::Connection;
use crate::faults::IdleFault;
use crate::ledger::Ledger;
use crate::report::Report;
use crate::upstreams::{LOCATIONS, UPSTREAMS};

/// What a connection must never be shared between.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Identity {
    /// The index of the location.
    pub location: usize,
    /// The slice key, cut to its length.
    pub key: String,
}

impl Identity {
    /// From the number of a location and the whole key.
    pub fn new(location: usize, key: &str) -> Self {
        let upstream = &UPSTREAMS[LOCATIONS[location].upstream];
        Identity { location, key: upstream.cut(key).to_owned() }
    }
}

impl Display for Identity {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", LOCATIONS[self.location].path, self.key)
    }
}

/// What all backends share.
pub struct Context {
    /// What happened to requests.
    pub ledger: Ledger,
    /// The figures.
    pub report: Report,
    /// The identities of the connections that have one, by the server's and nginx's address.
    pub connections: Mutex<HashMap<(SocketAddr, SocketAddr), Identity>>,
    behaved: AtomicBool,
}

impl Context {
    /// Nothing has happened yet.
    pub fn new() -> Self {
        let (ledger, report) = (Ledger::new(), Report::default());
        Context { ledger, report, connections: Mutex::default(), behaved: AtomicBool::new(false) }
    }

    /// Whether backends are to do nothing wrong for now.
    pub fn behave(&self, behaved: bool) {
        self.behaved.store(behaved, Ordering::SeqCst);
    }

    /// Whether backends may do something wrong.
    pub fn may_spoil(&self) -> bool {
        !self.behaved.load(Ordering::SeqCst)
    }
}

/// One server of an upstream.
#[derive(Clone, Copy)]
pub struct Server {
    /// The index of the upstream.
    pub upstream: usize,
    /// The server's address.
    pub address: SocketAddr,
}

/// Accepts connections, for ever.
pub async fn serve(context: Arc<Context>, server: Server, listener: TcpListener, tls: TlsAcceptor) {
    loop {
        let Ok((stream, peer)) = listener.accept().await else { continue };
        context.report.accepted[server.upstream].add();
        let (context, tls) = (context.clone(), tls.clone());
        tokio::spawn(async move {
            // nginx may close a connection at any time, as the backend may.
            let _ = accept(&context, server, stream, peer, tls).await;
            let mut connections = context.connections.lock().expect("nobody panics with the lock");
            connections.remove(&(server.address, peer));
        });
    }
}

async fn accept(
    context: &Context,
    server: Server,
    stream: TcpStream,
    peer: SocketAddr,
    tls: TlsAcceptor,
) -> Result<()> {
    stream.set_nodelay(true)?;
    if context.may_spoil() && IdleFault::at_accept(&mut rand::rng()) {
        context.report.faults.add();
        context.ledger.idle_fault(server.address, None, IdleFault::Accept);
        return Ok(());
    }
    let mut first = [0];
    stream.peek(&mut first).await?;
    // The first byte of a TLS handshake.
    if first[0] == 0x16 {
        let stream = tls.accept(stream).await?;
        let name = stream.get_ref().1.server_name().map(str::to_owned);
        let name = Some(name.unwrap_or_default());
        Connection::new(context, server, peer, name, stream).run().await
    } else {
        Connection::new(context, server, peer, None, stream).run().await
    }
}

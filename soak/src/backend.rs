//! The backends: servers that accept connections, with TLS or without.

use std::io::Result;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::connection::Connection;
use crate::context::Context;
use crate::faults::IdleFault;
use crate::upstreams::Server;

/// Accepts connections without end.
pub async fn serve(context: Arc<Context>, server: Server, listener: TcpListener, tls: TlsAcceptor) {
    loop {
        let Ok((stream, peer)) = listener.accept().await else { continue };
        context.report.accepted[server.upstream].add();
        let (context, tls) = (context.clone(), tls.clone());
        tokio::spawn(async move {
            // nginx may close a connection at any time, as the backend may.
            let _ = accept(&context, server, stream, peer, tls).await;
            context.connections().remove(&(server.address, peer));
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

//! What backends answer, and what bodies are made of.

use rand::Rng;

use crate::backend::Server;
use crate::connection::{KEPT, Request};
use crate::upstreams::UPSTREAMS;

/// What some servers send before they close an idle connection.
pub const TIMEOUT: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// An answer whose status line is none. nginx takes it for the body of an HTTP/0.9 answer, passes
/// that on without a header, and keeps the client's connection open.
pub const NO_STATUS: &[u8] = b"HTTQ/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

/// An answer with a field that is none.
pub const NO_FIELD: &[u8] = b"HTTP/1.1 200 OK\r\nX-Broken\0: 1\r\nContent-Length: 0\r\n\r\n";

/// A body that tells whose it is.
pub fn filling(id: u64, length: usize) -> Vec<u8> {
    format!("{id:016x}\n").bytes().cycle().take(length).collect()
}

/// A whole answer.
pub fn whole(rng: &mut impl Rng, request: &Request, server: Server) -> Vec<u8> {
    let length = match rng.random_range(0..200) {
        0 => 0,
        1 => rng.random_range(20_000..100_000),
        _ => rng.random_range(20..600),
    };
    let body = filling(request.id, length);
    let chunked = rng.random_range(0..4) == 0;
    let mut answer = head(request, server, (!chunked).then_some(length)).into_bytes();
    match () {
        () if request.head => {}
        () if chunked => chunk(&mut answer, &body),
        () => answer.extend_from_slice(&body),
    }
    answer
}

fn head(request: &Request, server: Server, length: Option<usize>) -> String {
    let length = match length {
        Some(length) => format!("Content-Length: {length}"),
        None => "Transfer-Encoding: chunked".to_owned(),
    };
    let hints = match UPSTREAMS[server.upstream].hints {
        true => format!("Keep-Alive: timeout={KEPT}\r\n"),
        false => String::new(),
    };
    let (id, address) = (request.id, server.address);
    format!("HTTP/1.1 200 OK\r\n{hints}{length}\r\nX-Id: {id:x}\r\nX-Server: {address}\r\n\r\n")
}

fn chunk(answer: &mut Vec<u8>, body: &[u8]) {
    for part in body.chunks(1000) {
        answer.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
        answer.extend_from_slice(part);
        answer.extend_from_slice(b"\r\n");
    }
    answer.extend_from_slice(b"0\r\n\r\n");
}

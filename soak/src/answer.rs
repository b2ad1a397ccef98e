//! The answers of backends, and the bodies.

use rand::Rng;

use crate::request::Request;
use crate::upstreams::{KEPT, Server, UPSTREAMS};

/// The answer that some servers send before they close an idle connection.
pub const TIMEOUT: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// An answer with an invalid status line. nginx takes it for the body of an HTTP/0.9 answer, passes
/// it on without a header, and keeps the client's connection open.
pub const NO_STATUS: &[u8] = b"HTTQ/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

/// An answer with an invalid field.
pub const NO_FIELD: &[u8] = b"HTTP/1.1 200 OK\r\nX-Broken\0: 1\r\nContent-Length: 0\r\n\r\n";

/// The field that marks bytes in the form of an answer that are no answer.
pub const STRAY: &str = "X-Stray";

/// An answer.
pub struct Answer {
    /// All bytes.
    pub bytes: Vec<u8>,
    /// Whether it says that it is the last one on its connection.
    pub close: bool,
}

/// A body that names its request.
pub fn filling(id: u64, length: usize) -> Vec<u8> {
    format!("{id:016x}\n").bytes().cycle().take(length).collect()
}

/// A correct answer.
pub fn whole(rng: &mut impl Rng, request: &Request, server: Server) -> Answer {
    let empty = if request.cacheable { 100 } else { 1 };
    if request.conditional && rng.random_range(0..3) != 0 || rng.random_range(0..200) < empty {
        return without_body(rng, request, server);
    }
    let length = match rng.random_range(0..200) {
        0 => rng.random_range(20_000..100_000),
        _ => rng.random_range(20..600),
    };
    let chunked = rng.random_range(0..4) == 0;
    let mut bytes = head("200 OK", &length_of(length, chunked), request, server).into_bytes();
    if !request.head {
        bytes.extend(body(&filling(request.id, length), chunked));
    }
    Answer { bytes, close: false }
}

/// An answer that consists of a header only.
pub fn without_body(rng: &mut impl Rng, request: &Request, server: Server) -> Answer {
    let close = request.conditional && rng.random_range(0..3) == 0;
    let (status, fields) = match () {
        () if close => ("304 Not Modified", "Connection: close\r\n".to_owned()),
        () if request.conditional => ("304 Not Modified", String::new()),
        () if request.head => ("200 OK", length_of(rng.random_range(0..600), rng.random())),
        () if rng.random_range(0..3) == 0 => ("204 No Content", String::new()),
        () => ("200 OK", length_of(0, false)),
    };
    Answer { bytes: head(status, &fields, request, server).into_bytes(), close }
}

/// A 500 in two parts; the second one has the form of an answer, or is empty.
pub fn error(rng: &mut impl Rng, request: &Request, server: Server) -> (Answer, Vec<u8>) {
    let empty = request.head || rng.random_range(0..5) == 0;
    let body = if empty { vec![] } else { stray(request.id) };
    let chunked = !empty && rng.random_range(0..4) == 0;
    let close = rng.random_range(0..8) == 0;
    let mut fields = length_of(body.len(), chunked);
    if close {
        fields.push_str("Connection: close\r\n");
    }
    let status = "500 Internal Server Error";
    let mut bytes = head(status, &fields, request, server).into_bytes();
    if !chunked {
        return (Answer { bytes, close }, body);
    }
    // The second part begins where nginx expects the bytes of the chunk.
    bytes.extend_from_slice(format!("{:x}\r\n", body.len()).as_bytes());
    (Answer { bytes, close }, [&body, &b"\r\n0\r\n\r\n"[..]].concat())
}

/// Bytes in the form of an answer that are no answer. They name the request before them.
pub fn stray(id: u64) -> Vec<u8> {
    let body = format!("This is no answer to anybody, but came after request {id:x}.\n");
    let length = length_of(body.len(), false);
    let stray = format!(
        "HTTP/1.1 200 OK\r\nCache-Control: no-store\r\n{length}{STRAY}: {id:x}\r\n\r\n{body}"
    );
    stray.into_bytes()
}

fn head(status: &str, fields: &str, request: &Request, server: Server) -> String {
    let hints = match UPSTREAMS[server.upstream].hints {
        true => format!("Keep-Alive: timeout={KEPT}\r\n"),
        false => String::new(),
    };
    let (id, identity, address) = (request.id, &request.identity, server.address);
    let tag = match request.cacheable {
        true => format!("ETag: \"{id:x}\"\r\n"),
        false => String::new(),
    };
    format!(
        "HTTP/1.1 {status}\r\n{hints}{tag}{fields}X-Id: {id:x}\r\nX-For: {identity}\r\n\
         X-Server: {address}\r\n\r\n"
    )
}

fn length_of(length: usize, chunked: bool) -> String {
    match chunked {
        true => "Transfer-Encoding: chunked\r\n".to_owned(),
        false => format!("Content-Length: {length}\r\n"),
    }
}

fn body(bytes: &[u8], chunked: bool) -> Vec<u8> {
    if !chunked {
        return bytes.to_vec();
    }
    let mut chunks = Vec::new();
    for part in bytes.chunks(1000) {
        chunks.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
        chunks.extend_from_slice(part);
        chunks.extend_from_slice(b"\r\n");
    }
    chunks.extend_from_slice(b"0\r\n\r\n");
    chunks
}

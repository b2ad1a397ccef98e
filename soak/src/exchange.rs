//! A request and its answer, on a client's connection.

use std::net::SocketAddr;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::answer::{self, STRAY};
use crate::faults::Failure;
use crate::upstreams::{Identity, LOCATIONS, UPSTREAMS};
use crate::wire::{self, Body, Wire};

/// The values of `$upstream_cache_status` for an answer from a cache.
const CACHED: [&str; 4] = ["HIT", "STALE", "UPDATING", "REVALIDATED"];

/// An open connection to nginx.
pub struct Connection {
    /// Its bytes.
    pub wire: Wire<TcpStream>,
    /// The client's port.
    pub port: u16,
    /// The worker at the other end, when it has answered.
    pub worker: Option<u32>,
}

/// A request.
pub struct Request {
    /// Its number.
    pub id: u64,
    /// The index of its location.
    pub location: usize,
    /// Its method.
    pub method: &'static str,
    /// Its host.
    pub host: String,
    /// The length of its body.
    pub body: usize,
    /// Whether it is the last one on its connection.
    pub close: bool,
}

/// An answer.
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// The request that the backend has answered; `None` if the answer is not the backend's.
    pub id: Option<u64>,
    /// The subject of that request.
    pub identity: Option<String>,
    /// The server that has answered.
    pub server: Option<SocketAddr>,
    /// The servers that nginx has tried.
    pub tried: Vec<SocketAddr>,
    /// The worker that has answered.
    pub worker: Option<u32>,
    /// The cache status of nginx, if there is a cache.
    pub cache: Option<String>,
    /// Whether it is the last one on its connection.
    pub close: bool,
    /// Whether it has the mark of bytes that are no answer.
    stray: bool,
    body: Body,
}

impl Request {
    /// The identity under which nginx looks for a connection.
    pub fn identity(&self) -> Identity {
        let upstream = &UPSTREAMS[LOCATIONS[self.location].upstream];
        Identity::new(self.location, &upstream.key_of(&self.host))
    }

    /// All bytes, as they are sent.
    pub fn bytes(&self) -> Vec<u8> {
        let Request { id, location, method, host, body, close } = self;
        let path = LOCATIONS[*location].path;
        let connection = if *close { "close" } else { "keep-alive" };
        let length = match *method {
            "POST" => format!("Content-Length: {body}\r\n"),
            _ => String::new(),
        };
        let head = format!(
            "{method} {path}?{id:x} HTTP/1.1\r\nHost: {host}\r\nConnection: {connection}\r\n\
             {length}\r\n"
        );
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(&answer::filling(*id, *body));
        bytes
    }
}

impl Connection {
    /// Connects to nginx.
    pub async fn open(nginx: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(nginx).await?;
        stream.set_nodelay(true)?;
        let port = stream.local_addr()?.port();
        Ok(Connection { wire: Wire::new(stream), port, worker: None })
    }

    /// Sends a request and waits for the answer; if it failed, there may be a part of one.
    pub async fn exchange(
        &mut self,
        request: &Request,
    ) -> Result<Answer, (Failure, Option<Answer>)> {
        // nginx may have answered and closed before it read everything.
        let _ = self.wire.stream.write_all(&request.bytes()).await;
        let answer = match self.wire.head(|head| wire::response(head, parse)).await {
            Ok(answer) => answer,
            Err(_) => return Err((broken(self.wire.unused()), None)),
        };
        if answer.stray {
            return Err((Failure::Stray, Some(answer)));
        }
        if request.method == "HEAD" {
            return Ok(answer);
        }
        match self.wire.body(answer.body).await {
            Err(_) => Err((Failure::Cut, Some(answer))),
            // The body of an error is not checked.
            Ok(_) if answer.status != 200 => Ok(answer),
            Ok(body) if is_stray(&body) => Err((Failure::Stray, Some(answer))),
            Ok(body) if Some(&body) == answer.filling(body.len()).as_ref() => Ok(answer),
            Ok(_) => Ok(Answer { id: None, ..answer }),
        }
    }
}

impl Answer {
    /// Whether it comes from a cache.
    pub fn is_cached(&self) -> bool {
        self.cache.as_deref().is_some_and(|status| CACHED.contains(&status))
    }

    /// The body that it must have.
    fn filling(&self, length: usize) -> Option<Vec<u8>> {
        Some(answer::filling(self.id?, length))
    }
}

/// Whether there is the mark of bytes that are no answer.
fn is_stray(bytes: &[u8]) -> bool {
    bytes.windows(STRAY.len()).any(|window| window == STRAY.as_bytes())
}

/// The failure of an answer that has no header.
fn broken(answer: &[u8]) -> Failure {
    const BEGINNING: &[u8] = b"HTTP/1.1 ";
    match answer {
        [] => Failure::Closed,
        _ if is_stray(answer) => Failure::Stray,
        _ if BEGINNING.iter().zip(answer).all(|(a, b)| a == b) => Failure::Cut,
        _ => Failure::Strange,
    }
}

fn parse(status: u16, fields: wire::Fields<'_>) -> Answer {
    let tried = fields.get("X-Upstream").unwrap_or_default().split(", ");
    let chunked = fields.get("Transfer-Encoding").is_some();
    let length = fields.number("Content-Length");
    Answer {
        status,
        id: fields.get("X-Id").and_then(|id| u64::from_str_radix(id, 16).ok()),
        identity: fields.get("X-For").map(str::to_owned),
        server: fields.number("X-Server"),
        tried: tried.filter_map(|address| address.parse().ok()).collect(),
        worker: fields.number("X-Worker"),
        body: match length {
            _ if status == 204 => Body::Length(0),
            _ if chunked => Body::Chunked,
            Some(length) => Body::Length(length),
            None => Body::ToTheEnd,
        },
        cache: fields.get("X-Cache").map(str::to_owned),
        close: fields.get("Connection") == Some("close"),
        stray: fields.get(STRAY).is_some(),
    }
}

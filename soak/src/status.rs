//! The counters of `keepalive_status`.

use std::collections::BTreeMap;
use std::io::{Error, Result};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde::Deserialize;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::upstreams::UPSTREAMS;
use crate::wire::{self, Body, Wire};

/// The path of the location.
pub const PATH: &str = "/keepalive-status";

/// The path of another one, for which nginx asks itself, after a lookup in the cache.
pub const THROUGH_CACHE: &str = "/keepalive-status-through-cache";

/// The time that nginx may need for the status.
const PATIENCE: Duration = Duration::from_secs(10);

/// The time after which the cache counts as locked.
const LOCKED: Duration = Duration::from_secs(1);

/// The time after which shared connections count as locked.
const AT_ONCE: Duration = Duration::from_millis(200);

/// The time until it is asked again.
const MEANWHILE: Duration = Duration::from_millis(10);

/// The counters of an upstream whose workers share connections.
#[derive(Default, Deserialize)]
pub struct SharedCounts {
    /// Requests that used an idle connection of another worker.
    pub borrowed: u64,
    /// Connections that were taken over from a worker of before a reload.
    pub kept_over_reload: u64,
    /// Connections that the system refused to hand over.
    pub refused_handovers: u64,
}

/// The module's counters for an upstream.
#[derive(Deserialize)]
pub struct Counts {
    /// Requests that were sent to a server of the upstream.
    pub requests: u64,
    /// Requests that used an idle connection.
    pub hits: u64,
    /// Requests that found no idle connection.
    pub misses: u64,
    /// Connections that were kept.
    pub saved: u64,
    /// Idle connections that were closed, by reason.
    pub closed: BTreeMap<String, u64>,
    /// Connections that were not kept, by reason.
    pub refused: BTreeMap<String, u64>,
    /// Connections that are idle.
    pub idle: u64,
    /// Only if the workers share connections.
    #[serde(default)]
    pub shared: SharedCounts,
}

impl Counts {
    /// The number of saved connections that have not left.
    pub fn left(&self) -> i64 {
        let gone = self.closed.values().sum::<u64>() + self.hits;
        self.saved as i64 - gone as i64
    }

    /// The number of connections closed because a worker had ended.
    pub fn shut(&self) -> i64 {
        self.closed.get("shutdown").map_or(0, |&closed| closed as i64)
    }
}

#[derive(Deserialize)]
struct Status {
    upstreams: BTreeMap<String, Counts>,
}

/// Reads the counters of each upstream from nginx.
pub async fn read(nginx: SocketAddr) -> Result<Vec<Counts>> {
    read_from(nginx, PATH).await
}

/// Whether nginx tells its status at once: a stopped worker may have locked the connections that it
/// shares.
pub async fn is_told(nginx: SocketAddr) -> bool {
    matches!(timeout(AT_ONCE, read_from(nginx, PATH)).await, Ok(Ok(_)))
}

/// Whether nginx can read its cache: a stopped worker may have locked it.
pub async fn can_use_cache(nginx: SocketAddr) -> bool {
    matches!(timeout(LOCKED, read_from(nginx, THROUGH_CACHE)).await, Ok(Ok(_)))
}

async fn read_from(nginx: SocketAddr, path: &str) -> Result<Vec<Counts>> {
    let end = Instant::now() + PATIENCE;
    loop {
        match timeout(PATIENCE, ask(nginx, path)).await {
            Ok(Ok(counts)) => return Ok(counts),
            // nginx closes clients' connections when it runs short of them.
            Ok(Err(_)) if Instant::now() < end => sleep(MEANWHILE).await,
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(Error::other("nginx did not tell its status")),
        }
    }
}

async fn ask(nginx: SocketAddr, path: &str) -> Result<Vec<Counts>> {
    let mut wire = Wire::new(TcpStream::connect(nginx).await?);
    let request = format!("GET {path} HTTP/1.1\r\nHost: soak\r\nConnection: close\r\n\r\n");
    wire.stream.write_all(request.as_bytes()).await?;
    let length = wire.head(|head| {
        wire::response(head, |status, fields| {
            fields.number("Content-Length").filter(|_| status == 200)
        })
    });
    let length = length.await?.ok_or_else(|| Error::other("the status has no length"))?;
    let body = wire.body(Body::Length(length)).await?;
    let mut status: Status = serde_json::from_slice(&body)?;
    let counts = |name| {
        status.upstreams.remove(name).ok_or_else(|| Error::other("the status lacks an upstream"))
    };
    UPSTREAMS.iter().map(|upstream| upstream.name).map(counts).collect()
}

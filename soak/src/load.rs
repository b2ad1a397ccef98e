//! The load: clients; some keep their connections, some do not.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rand::distr::weighted::WeightedIndex;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rand_distr::{Distribution, Zipf};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::{sleep, timeout};

use crate::context::Context;
use crate::exchange::{Answer, Connection, Request};
use crate::faults::Failure;
use crate::ledger::Case;
use crate::upstreams::{LOCATIONS, Location, UPSTREAMS};

/// The number of clients.
pub const CLIENTS: usize = 80;

/// The number of keys that are requested more than once.
const KEYS: f32 = 10_000.0;

/// The factor by which the first keys are requested more often than the last ones.
const SKEW: f32 = 1.4;

/// The longest that an answer may take: more than all of nginx's timeouts together.
const PATIENCE: Duration = Duration::from_secs(20);

/// The signal for clients to pause, and their answer that they do.
#[derive(Default)]
pub struct Gate {
    closed: AtomicBool,
    /// Whether no request may begin that uses an upstream whose workers share connections.
    lull: AtomicBool,
    /// Whether no request may begin that uses nginx's cache.
    uncached: AtomicBool,
    under_way: AtomicUsize,
}

impl Gate {
    /// Lets no request begin.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    /// Lets requests begin again.
    pub fn open(&self) {
        self.closed.store(false, Ordering::SeqCst);
    }

    /// Begins or ends a lull of requests that use shared connections: meanwhile those are idle.
    pub fn lull(&self, begin: bool) {
        self.lull.store(begin, Ordering::SeqCst);
    }

    /// Lets no request begin that uses nginx's cache, or lets them begin again.
    pub fn leave_cache(&self, leave: bool) {
        self.uncached.store(leave, Ordering::SeqCst);
    }

    /// Whether requests of a location may begin.
    fn admits(&self, location: &Location) -> bool {
        let lull = UPSTREAMS[location.upstream].shared && self.lull.load(Ordering::SeqCst);
        let uncached = location.cache.is_some() && self.uncached.load(Ordering::SeqCst);
        !lull && !uncached
    }

    /// Whether no request is under way.
    pub fn is_quiet(&self) -> bool {
        self.under_way.load(Ordering::SeqCst) == 0
    }

    async fn enter(&self) {
        loop {
            self.under_way.fetch_add(1, Ordering::SeqCst);
            if !self.closed.load(Ordering::SeqCst) {
                return;
            }
            self.leave();
            sleep(Duration::from_millis(10)).await;
        }
    }

    fn leave(&self) {
        self.under_way.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A client.
pub struct Client {
    context: Arc<Context>,
    gate: Arc<Gate>,
    nginx: SocketAddr,
    failures: UnboundedSender<Case>,
    rng: SmallRng,
    locations: WeightedIndex<u32>,
    keys: Zipf<f32>,
    connection: Option<Connection>,
}

static NEXT: AtomicU64 = AtomicU64::new(1);

impl Client {
    /// A client, which has no connection yet.
    pub fn new(
        context: Arc<Context>,
        gate: Arc<Gate>,
        nginx: SocketAddr,
        failures: UnboundedSender<Case>,
    ) -> Self {
        let weights = LOCATIONS.iter().map(|location| location.weight);
        Client {
            context,
            gate,
            nginx,
            failures,
            rng: SmallRng::from_rng(&mut rand::rng()),
            locations: WeightedIndex::new(weights).expect("the weights are positive"),
            keys: Zipf::new(KEYS, SKEW).expect("the numbers are positive"),
            connection: None,
        }
    }

    /// Sends requests without end.
    pub async fn run(mut self) {
        loop {
            self.gate.enter().await;
            let request = self.request();
            self.context.report.requests.add();
            if self.rng.random_range(0..200) == 0 {
                self.give_up(&request).await;
            } else {
                self.perform(&request).await;
            }
            self.gate.leave();
        }
    }

    fn request(&mut self) -> Request {
        let (method, body) = match self.rng.random_range(0..100) {
            0..60 => ("GET", 0),
            60..67 => ("HEAD", 0),
            67..98 => ("POST", self.rng.random_range(0..500)),
            _ => ("POST", self.rng.random_range(10_000..200_000)),
        };
        let once = self.rng.random_range(0..12) == 0;
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let host = if once {
            self.context.report.single_keys.add();
            format!("once{id:08}.soak")
        } else {
            let key = self.keys.sample(&mut self.rng) as u32 - 1;
            self.context.report.key(key);
            format!("k{key:04}.soak")
        };
        let location = loop {
            let location = self.locations.sample(&mut self.rng);
            if self.gate.admits(&LOCATIONS[location]) {
                break location;
            }
        };
        Request { id, location, method, host, body, close: self.rng.random_range(0..20) == 0 }
    }

    /// The open connection, or a new one.
    async fn connect(&mut self) -> std::io::Result<Connection> {
        match self.connection.take() {
            Some(connection) => Ok(connection),
            None => Connection::open(self.nginx).await,
        }
    }

    /// Sends a request, or a part of it, and closes the connection at any later time.
    async fn give_up(&mut self, request: &Request) {
        self.context.report.aborted.add();
        self.context.ledger.requests.begin(request.id);
        let Ok(Connection { mut wire, .. }) = self.connect().await else { return };
        let mut bytes = request.bytes();
        if self.rng.random() {
            bytes.truncate(self.rng.random_range(1..bytes.len()));
        }
        let after = Duration::from_micros(self.rng.random_range(0..3000));
        let _ = timeout(after, async {
            wire.stream.write_all(&bytes).await?;
            wire.stream.read_u8().await
        })
        .await;
    }

    async fn perform(&mut self, request: &Request) {
        let begin = Instant::now();
        self.context.ledger.requests.begin(request.id);
        let (mut port, mut worker) = (0, None);
        let done = async {
            let mut connection = self.connect().await.map_err(|_| (Failure::Closed, None))?;
            (port, worker) = (connection.port, connection.worker);
            let answer = connection.exchange(request).await?;
            self.check(request, &answer);
            connection.worker = answer.worker;
            if !answer.close {
                self.connection = Some(connection);
            }
            match (answer.status, answer.id) {
                (200 | 204, Some(_)) => Ok(()),
                (200 | 204, None) => Err((Failure::Strange, Some(answer))),
                (status, _) => Err((Failure::Status(status), Some(answer))),
            }
        };
        let done = timeout(PATIENCE, done).await.unwrap_or(Err((Failure::Hung, None)));
        let Err((failure, answer)) = done else { return };
        let tried = answer.map_or(vec![], |answer| answer.tried);
        let (id, identity, end) = (request.id, request.identity(), Instant::now());
        let case = Case { id, failure, identity, tried, begin, end, port, worker };
        // The judge has ended only when failures have no meaning any more.
        let _ = self.failures.send(case);
    }

    /// Whether the answer belongs to this request, and comes from the server that nginx meant to
    /// ask. An answer from a cache belongs to a request with the same subject.
    fn check(&self, request: &Request, answer: &Answer) {
        let (report, identity) = (&self.context.report, request.identity());
        if let Some(status) = &answer.cache {
            report.cache(status);
        }
        if answer.id.is_some() && answer.identity.as_ref() != Some(&identity.to_string()) {
            report.violation(|| format!("an answer of {:?} to {identity:?}", answer.identity));
        }
        if answer.is_cached() {
            return;
        }
        if answer.id.is_some_and(|id| id != request.id) {
            report.violation(|| format!("answer {:x?} to request {:x}", answer.id, request.id));
        }
        if answer.server.is_some() && answer.server != answer.tried.last().copied() {
            let Answer { server, tried, .. } = answer;
            report.violation(|| format!("{identity:?} went to {server:?}, not to {tried:?}"));
        }
    }
}

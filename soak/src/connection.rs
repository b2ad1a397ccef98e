//! A connection at a backend: it remembers the identity of its first request, and reports requests
//! of any other identity. It also spoils requests on purpose.

use std::io::{ErrorKind, Result};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::server::TlsStream;

use crate::answer::{self, Answer};
use crate::context::{Context, Known};
use crate::faults::{Fault, IdleFault};
use crate::request::Request;
use crate::upstreams::{BUFFER, Identity, KEPT, LOCATIONS, Server, UPSTREAMS};
use crate::wire::{self, Body, Wire};

/// A time longer than nginx waits for an answer.
const STALL: Duration = Duration::from_secs(4);

/// The time for which requests may still arrive after an idle fault.
const LATE: Duration = Duration::from_secs(1);

/// The longest time that a server works for an answer, in microseconds.
const WORK: u64 = 3000;

/// The longest delay of a late body, in milliseconds.
const LATE_BODY: u64 = 600;

/// The longest time from the last answer to the end of a connection, in milliseconds.
const LINGER: u64 = 200;

/// A connection, with or without TLS.
pub trait Stream: AsyncRead + AsyncWrite + Unpin {
    /// The TCP connection below.
    fn tcp(&self) -> &TcpStream;
}

impl Stream for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Stream for TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }
}

/// A connection.
pub struct Connection<'a, S> {
    context: &'a Context,
    server: Server,
    peer: SocketAddr,
    /// The name that the client gave with TLS; `None` without TLS.
    name: Option<String>,
    /// The identity of the first request.
    first: Option<Identity>,
    /// The number of requests.
    requests: u64,
    /// A request that arrived when no request was allowed.
    early: Option<Request>,
    rng: SmallRng,
    wire: Wire<S>,
}

impl<'a, S: Stream> Connection<'a, S> {
    /// A connection without any request yet. `name` is the name that the client gave with TLS.
    pub fn new(
        context: &'a Context,
        server: Server,
        peer: SocketAddr,
        name: Option<String>,
        stream: S,
    ) -> Self {
        let (rng, wire) = (SmallRng::from_rng(&mut rand::rng()), Wire::new(stream));
        Connection { context, server, peer, name, first: None, requests: 0, early: None, rng, wire }
    }

    /// Serves requests, until the connection ends.
    pub async fn run(mut self) -> Result<()> {
        let mut request = self.request().await?;
        loop {
            self.check(&request);
            let fault = Fault::pick(&mut self.rng, request.cacheable, request.head);
            let may_break_off = |fault: &Fault| !(request.answered && fault.breaks_off());
            let fault = fault.filter(|_| self.context.may_spoil()).filter(may_break_off);
            if !self.answer(&request, fault).await? {
                return Ok(());
            }
            match self.next_request(&request).await? {
                Some(next) => request = next,
                None => return Ok(()),
            }
        }
    }

    /// Waits for a request.
    async fn request(&mut self) -> Result<Request> {
        let parsed = self.wire.head(|head| wire::request(head, Request::parse)).await;
        match &parsed {
            Err(error) if matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::Other) => {
                let first = &self.first;
                self.context.report.violation(|| format!("no request after {first:?}: {error}"));
            }
            // nginx has closed the connection: without this, hundreds of thousands of them would
            // be left to time out, and /proc/net/tcp slow to read.
            Err(_) => self.wire.stream.tcp().set_zero_linger()?,
            Ok(_) => {}
        }
        parsed
    }

    /// Waits for another request; spoils the connection meanwhile, if a fault is due. `last` is the
    /// request before.
    async fn next_request(&mut self, last: &Request) -> Result<Option<Request>> {
        if let Some(early) = self.early.take() {
            return Ok(Some(early));
        }
        self.set_known(Some(Instant::now()));
        let fault = IdleFault::pick(&mut self.rng).filter(|_| self.context.may_spoil());
        // A reset loses the bytes of the last answer that nginx has not received yet.
        let may_reset = |fault: &(IdleFault, _)| !(last.answered && fault.0 == IdleFault::Reset);
        if let Some((fault, after)) = fault.filter(may_reset) {
            if let Ok(request) = timeout(after, self.request()).await {
                return request.map(Some);
            }
            self.spoil(fault, last.id).await?;
            return Ok(None);
        }
        if !UPSTREAMS[self.server.upstream].hints {
            return self.request().await.map(Some);
        }
        match timeout(Duration::from_secs(KEPT), self.request()).await {
            Ok(request) => request.map(Some),
            // The server has announced it, so it is no fault.
            Err(_) => Ok(None),
        }
    }

    /// Waits for this number of milliseconds, in which no request should arrive.
    async fn expect_none(&mut self, time: u64, when: &str, last: u64) -> Result<()> {
        if let Ok(request) = timeout(Duration::from_millis(time), self.request()).await {
            let request = request?;
            let (id, identity, tls) = (request.id, &request.identity, self.name.is_some());
            self.context.report.violation(|| {
                format!("request {id:x} of {identity:?} came {when} {last:x}, TLS: {tls}")
            });
            self.early = Some(request);
        }
        Ok(())
    }

    /// A request has been read, and its answer has not ended: no other one may be there.
    async fn expect_no_other(&mut self, request: &Request) {
        if self.wire.unused().is_empty() {
            // nginx may have closed the connection.
            let _ = timeout(Duration::ZERO, self.wire.more()).await;
        }
        if self.wire.unused().is_empty() {
            return;
        }
        let other = wire::request(self.wire.unused(), Request::parse).ok();
        let other = other.map(|other| (format!("{:x}", other.id), other.worker, other.identity));
        let Request { id, worker, identity, .. } = request;
        self.context.report.violation(|| {
            format!("{other:?} came before the answer to {id:x} of {worker}, {identity:?}")
        });
    }

    /// Records what is known of this connection, for the checks.
    fn set_known(&self, idle: Option<Instant>) {
        let Some(identity) = self.first.clone() else { return };
        let known = Known { identity, requests: self.requests, idle };
        self.context.connections().insert((self.server.address, self.peer), known);
    }

    /// Does a wrong thing to an idle connection.
    async fn spoil(&mut self, fault: IdleFault, last: u64) -> Result<()> {
        self.set_known(None);
        self.context.report.faults.add();
        self.context.ledger.idle_fault(self.server.address, self.first.clone(), fault);
        match fault {
            IdleFault::Accept | IdleFault::Close => return Ok(()),
            IdleFault::Reset => {
                self.context.ledger.requests.spoiled(last, Fault::Truncate);
                return self.wire.stream.tcp().set_zero_linger();
            }
            IdleFault::HalfClose => self.wire.stream.shutdown().await?,
            IdleFault::Bytes => self.wire.stream.write_all(answer::TIMEOUT).await?,
        }
        if let Ok(Ok(request)) = timeout(LATE, self.request()).await {
            self.check(&request);
            self.context.ledger.requests.spoiled(request.id, Fault::Late);
        }
        Ok(())
    }

    /// Whether the connection may carry this request.
    fn check(&mut self, request: &Request) {
        let report = &self.context.report;
        self.context.ledger.requests.saw(request.id);
        let location = &LOCATIONS[request.identity.location];
        let name = (location.scheme == "https").then(|| request.identity.key.clone());
        if location.upstream != self.server.upstream || name != self.name {
            let (identity, server) = (&request.identity, self.server.address);
            report.violation(|| format!("{identity:?} on {server}, TLS name {:?}", self.name));
        }
        match &self.first {
            None => self.first = Some(request.identity.clone()),
            Some(first) => {
                report.reused[self.server.upstream].add();
                if *first != request.identity {
                    report.violation(|| format!("{:?} after {first:?}", request.identity));
                } else if request.refused {
                    report.violation(|| format!("a connection of {first:?} was kept"));
                }
            }
        }
        self.requests += 1;
        self.set_known(None);
    }

    /// Reads the body, which must be the client's.
    async fn read_body(&mut self, request: &Request) -> Result<()> {
        let body = self.wire.body(Body::Length(request.length)).await?;
        if body != answer::filling(request.id, body.len()) {
            self.context.report.violation(|| format!("foreign body of request {:x}", request.id));
        }
        Ok(())
    }

    /// Answers a request, or spoils it; false if the connection has ended.
    async fn answer(&mut self, request: &Request, fault: Option<Fault>) -> Result<bool> {
        if let Some(fault) = fault {
            self.context.report.faults.add();
            self.context.ledger.requests.spoiled(request.id, fault);
        }
        if !matches!(fault, Some(Fault::Early | Fault::Reset)) {
            self.read_body(request).await?;
            if UPSTREAMS[self.server.upstream].shared && self.rng.random_range(0..6) == 0 {
                // Time in which a worker could take the connection from another one.
                sleep(Duration::from_micros(self.rng.random_range(0..WORK))).await;
            }
            self.expect_no_other(request).await;
        }
        let mut answer = answer::whole(&mut self.rng, request, self.server);
        match fault {
            None | Some(Fault::Early | Fault::Late) => {}
            Some(Fault::Slow) => sleep(Duration::from_millis(self.rng.random_range(20..600))).await,
            Some(Fault::LateBody) => return self.fail(request).await,
            Some(Fault::Surplus) => {
                answer = answer::without_body(&mut self.rng, request, self.server);
                if self.rng.random() {
                    answer.bytes.resize(BUFFER, b'\n');
                }
                answer.bytes.extend(answer::stray(request.id));
            }
            Some(fault) => {
                self.spoil_request(request, fault, &answer.bytes).await?;
                return Ok(false);
            }
        }
        self.wire.stream.write_all(&answer.bytes).await?;
        if fault == Some(Fault::Early) {
            self.read_body(request).await?;
        }
        self.finish(request, &answer).await
    }

    /// Answers 500, mostly with a late body.
    async fn fail(&mut self, request: &Request) -> Result<bool> {
        let (mut answer, mut rest) = answer::error(&mut self.rng, request, self.server);
        let late = self.rng.random_range(0..5) != 0;
        if !late {
            answer.bytes.append(&mut rest);
        }
        self.wire.stream.write_all(&answer.bytes).await?;
        if !rest.is_empty() {
            let after = self.rng.random_range(1..LATE_BODY);
            self.expect_none(after, "before the end of the answer to", request.id).await?;
            self.wire.stream.write_all(&rest).await?;
        }
        self.finish(request, &answer).await
    }

    /// Ends the connection some time after an answer that announces it; false if it did.
    async fn finish(&mut self, request: &Request, answer: &Answer) -> Result<bool> {
        if answer.close && self.early.is_none() {
            let after = self.rng.random_range(0..LINGER);
            self.expect_none(after, "after \"Connection: close\" in the answer to", request.id)
                .await?;
        }
        Ok(!answer.close)
    }

    /// Does a wrong thing to a request, which ends the connection.
    async fn spoil_request(
        &mut self,
        request: &Request,
        fault: Fault,
        answer: &[u8],
    ) -> Result<()> {
        let half = self.rng.random_range(1..answer.len());
        match fault {
            Fault::Reset => return self.wire.stream.tcp().set_zero_linger(),
            Fault::HalfClose => {
                self.wire.stream.shutdown().await?;
                let _ = timeout(LATE, self.wire.drain()).await;
            }
            Fault::Truncate => self.wire.stream.write_all(&answer[..half]).await?,
            Fault::BrokenHeader => {
                // The client of a HEAD, which nginx sends as a GET to cache the answer, would wait
                // for the end of the connection.
                let status = !request.head && !request.cacheable && self.rng.random();
                let broken = if status { answer::NO_STATUS } else { answer::NO_FIELD };
                self.wire.stream.write_all(broken).await?;
            }
            Fault::Stall => {
                if self.rng.random() {
                    self.wire.stream.write_all(&answer[..half]).await?;
                }
                let _ = timeout(STALL, self.wire.drain()).await;
            }
            Fault::Close => {}
            Fault::Slow | Fault::Early | Fault::Late | Fault::LateBody | Fault::Surplus => {}
        }
        Ok(())
    }
}

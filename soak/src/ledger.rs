//! The events of each request, and the events that explain failures.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::faults::{Failure, Fault, IdleFault};
use crate::upstreams::Identity;

/// The number of requests that are remembered: more than are sent in half a minute.
const REMEMBERED: usize = 1 << 20;

/// The time that nginx may need to notice a fault in an idle connection.
const NOTICE: Duration = Duration::from_millis(250);

/// The longest harmless time in which this program, or a worker, does not run: half of nginx's
/// timeout. After a longer one, nginx may have waited for a backend without success. A worker is
/// never stopped for so long, unless the machine has too much to do.
const LONG: Duration = Duration::from_secs(1);

/// The time for which events are remembered: longer than any request takes.
const KEPT: Duration = Duration::from_secs(60);

/// The mark of a request that a backend has seen; the bits below are [`Fault::mark`].
const SEEN: u32 = 1 << 31;

/// The marks that backends left on requests.
pub struct Requests {
    slots: Vec<(AtomicU64, AtomicU32)>,
}

impl Requests {
    /// No request yet.
    pub fn new() -> Self {
        Requests { slots: (0..REMEMBERED).map(|_| Default::default()).collect() }
    }

    /// A request is about to be sent.
    pub fn begin(&self, id: u64) {
        let (slot_id, marks) = self.slot(id);
        marks.store(0, Ordering::SeqCst);
        slot_id.store(id, Ordering::SeqCst);
    }

    /// A backend has seen a request.
    pub fn saw(&self, id: u64) {
        self.mark(id, SEEN);
    }

    /// A backend is about to spoil a request.
    pub fn spoiled(&self, id: u64, fault: Fault) {
        self.mark(id, fault.mark());
    }

    fn mark(&self, id: u64, mark: u32) {
        let (slot_id, marks) = self.slot(id);
        if slot_id.load(Ordering::SeqCst) == id {
            marks.fetch_or(mark, Ordering::SeqCst);
        }
    }

    fn marks(&self, id: u64) -> u32 {
        self.slot(id).1.load(Ordering::SeqCst)
    }

    fn slot(&self, id: u64) -> &(AtomicU64, AtomicU32) {
        &self.slots[id as usize % REMEMBERED]
    }
}

/// A failed request, as its client knows it.
#[derive(Debug)]
pub struct Case {
    /// The request's number.
    pub id: u64,
    /// Its failure.
    pub failure: Failure,
    /// The identity under which nginx looked for a connection.
    pub identity: Identity,
    /// The servers that nginx tried, if it named them.
    pub tried: Vec<SocketAddr>,
    /// The time when the request began.
    pub begin: Instant,
    /// The time when it failed.
    pub end: Instant,
    /// The client's port.
    pub port: u16,
    /// The worker that answered earlier on the same connection.
    pub worker: Option<u32>,
}

struct Idle {
    at: Instant,
    server: SocketAddr,
    /// The identity of the connection; `None` if there was no request yet.
    identity: Option<Identity>,
    fault: IdleFault,
}

struct Kill {
    at: Instant,
    clients: HashSet<u16>,
}

#[derive(Default)]
struct Events {
    idle: VecDeque<Idle>,
    kills: Vec<Kill>,
    freezes: Vec<(Instant, Option<Instant>)>,
    lags: Vec<(Instant, Instant)>,
    shortages: Vec<(Instant, Option<Instant>)>,
    quitting: HashMap<u32, Instant>,
}

/// Everything that can explain a failure.
pub struct Ledger {
    /// The faults of backends in requests.
    pub requests: Requests,
    events: Mutex<Events>,
}

impl Ledger {
    /// Nothing has happened.
    pub fn new() -> Self {
        Ledger { requests: Requests::new(), events: Mutex::default() }
    }

    fn events(&self) -> std::sync::MutexGuard<'_, Events> {
        self.events.lock().expect("nobody panics with the lock")
    }

    /// A backend is about to spoil an idle connection.
    pub fn idle_fault(&self, server: SocketAddr, identity: Option<Identity>, fault: IdleFault) {
        self.events().idle.push_back(Idle { at: Instant::now(), server, identity, fault });
    }

    /// A stopped worker is about to be killed, with the connections of these clients.
    pub fn kill(&self, clients: HashSet<u16>) {
        self.events().kills.push(Kill { at: Instant::now(), clients });
    }

    /// Workers are about to be told to quit.
    pub fn quit(&self, workers: &[u32]) {
        let now = Instant::now();
        self.events().quitting.extend(workers.iter().map(|&worker| (worker, now)));
    }

    /// A worker is about to be stopped, or runs again.
    pub fn freeze(&self, begin: bool) {
        record(&mut self.events().freezes, begin);
    }

    /// This program could not run for this time: the machine has too much to do.
    pub fn lag(&self, begin: Instant, end: Instant) {
        self.events().lags.push((begin, end));
    }

    /// Workers with few connections are about to start, or have been replaced.
    pub fn shortage(&self, begin: bool) {
        record(&mut self.events().shortages, begin);
    }

    /// Whether a worker has stood still at any time since this one.
    pub fn stood_since(&self, time: Instant) -> bool {
        self.events().freezes.iter().any(|(_, end)| end.is_none_or(|end| end >= time))
    }

    /// Whether a worker was killed since this time.
    pub fn killed_since(&self, time: Instant) -> bool {
        self.events().kills.iter().any(|kill| kill.at >= time)
    }

    /// Forgets events that are too old to explain anything.
    pub fn prune(&self) {
        let Some(old) = Instant::now().checked_sub(KEPT) else { return };
        let mut events = self.events();
        while events.idle.front().is_some_and(|idle| idle.at < old) {
            events.idle.pop_front();
        }
        events.kills.retain(|kill| kill.at >= old);
        events.freezes.retain(|(_, end)| end.is_none_or(|end| end >= old));
        events.lags.retain(|(_, end)| *end >= old);
        events.shortages.retain(|(_, end)| end.is_none_or(|end| end >= old));
        // A worker that quits may have connections for as long as clients are idle in a pause.
        events.quitting.retain(|_, at| *at + 5 * KEPT >= old);
    }

    /// Whether something explains a failure.
    pub fn explains(&self, case: &Case) -> bool {
        let marks = self.requests.marks(case.id);
        let on_request = |fault: &Fault| marks & fault.mark() != 0 && fault.explains(case.failure);
        if Fault::ALL.iter().any(on_request) {
            return true;
        }
        let mut events = self.events();
        match case.failure {
            Failure::Closed if marks & SEEN == 0 && events.closes(case) => true,
            Failure::Cut if events.missed(case) >= LONG => true,
            Failure::Closed | Failure::Cut => events.killed(case),
            // nginx has no connection left to connect with.
            Failure::Status(500) => marks & SEEN == 0 && events.is_short(case),
            Failure::Status(504) => events.missed(case) >= LONG,
            Failure::Status(_) => events.idle_fault(case),
            Failure::Strange | Failure::Stray | Failure::Hung => false,
        }
    }
}

fn record(spans: &mut Vec<(Instant, Option<Instant>)>, begin: bool) {
    let now = Instant::now();
    match spans.last_mut() {
        Some((_, end @ None)) if !begin => *end = Some(now),
        _ if begin => spans.push((now, None)),
        _ => {}
    }
}

impl Events {
    /// Whether nginx may close the idle connection of a client, without having read the request.
    fn closes(&self, case: &Case) -> bool {
        let quits = |worker| self.quitting.get(&worker).is_some_and(|&at| at <= case.end);
        case.worker.is_some_and(quits) || self.is_short(case)
    }

    fn is_short(&self, case: &Case) -> bool {
        let during = |&(begin, end): &(Instant, Option<Instant>)| {
            begin <= case.end && end.is_none_or(|end| case.begin <= end + NOTICE)
        };
        self.shortages.iter().any(during)
    }

    /// Whether the client's connection belonged to a killed worker.
    fn killed(&self, case: &Case) -> bool {
        let of = |kill: &Kill| kill.at <= case.end && kill.clients.contains(&case.port);
        self.kills.iter().any(|kill| case.begin <= kill.at + NOTICE && of(kill))
    }

    /// The time for which this program, with the backends, or a worker did not run during a request.
    fn missed(&self, case: &Case) -> Duration {
        let during = |(begin, end): (Instant, Instant)| {
            end.min(case.end).saturating_duration_since(begin.max(case.begin))
        };
        let freezes = self.freezes.iter().map(|&(begin, end)| (begin, end.unwrap_or(case.end)));
        self.lags.iter().copied().chain(freezes).map(during).sum()
    }

    /// Whether a server has spoiled an idle connection at the same time, which this request may
    /// have got. Each connection can spoil one request only.
    fn idle_fault(&mut self, case: &Case) -> bool {
        let begin = self.noticed_since(case.begin);
        let met = |idle: &Idle| {
            begin <= idle.at
                && idle.at <= case.end
                && idle.fault.explains(case.failure)
                && (case.tried.is_empty() || case.tried.contains(&idle.server))
        };
        // A connection without a request may have been any client's: it is considered last.
        let own = |idle: &Idle| idle.identity.as_ref() == Some(&case.identity) && met(idle);
        let new = |idle: &Idle| idle.identity.is_none() && met(idle);
        let own = self.idle.iter().position(own);
        let index = own.or_else(|| self.idle.iter().position(new));
        index.is_some_and(|index| self.idle.remove(index).is_some())
    }

    /// The time since which a worker may not have noticed idle faults by this time.
    fn noticed_since(&self, time: Instant) -> Instant {
        let stood = |&&(begin, end): &&(Instant, Option<Instant>)| {
            begin <= time && end.is_none_or(|end| time <= end + NOTICE)
        };
        let begin = self.freezes.iter().find(stood).map_or(time, |&(begin, _)| begin);
        let lagged = |&&(begin, end): &&(Instant, Instant)| begin <= time && time <= end + NOTICE;
        let begin = self.lags.iter().find(lagged).map_or(begin, |&(lag, _)| lag.min(begin));
        begin.checked_sub(NOTICE).unwrap_or(begin)
    }
}

//! The module's counters, compared with other sources: nginx's access log has each attempt, the
//! system has each socket of the workers, and the backends have each connection and each reuse.
//!
//! Everything is compared while no request is under way, when it must be equal. Only a killed
//! worker leaves requests that it had counted, but neither logged nor ended.

use std::collections::BTreeMap;
use std::fmt::{Display, Formatter};
use std::io::Result;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use tokio::time::sleep;

use crate::access::{AccessLog, Logged};
use crate::nginx::{Killed, Nginx};
use crate::process;
use crate::report::Report;
use crate::status::{self, Counts};
use crate::upstreams::UPSTREAMS;

/// The number of looks until everything must be equal, and the time between two looks: a worker may
/// not get to run for a while. All together take less time than connections are idle.
const LOOKS: usize = 10;
const MEANWHILE: Duration = Duration::from_millis(50);

/// The average number of attempts of the requests that a killed worker leaves: nearly all of them
/// are at the first one.
const ATTEMPTS: i64 = 2;

/// The reasons of closing idle connections that the soak provokes.
const CLOSED: [&str; 8] = [
    "timeout",
    "hint",
    "peer",
    "connections",
    "slice_conn",
    "slice_poolsize",
    "worker_connections",
    "shutdown",
];

/// The cache statuses that the soak provokes.
const CACHES: [&str; 6] = ["MISS", "HIT", "EXPIRED", "STALE", "UPDATING", "REVALIDATED"];

/// The reasons of not keeping connections that the soak provokes.
const REFUSED: [&str; 5] = ["limit", "closed", "failed", "keylen", "exiting"];

/// A difference between the module's counters and another source.
#[derive(Clone, Eq, Ord, PartialEq, PartialOrd)]
enum Difference {
    Logged(String),
    Connected,
    Ended,
    /// As `Ended`, in upstreams whose workers share connections.
    SharedEnded,
}

/// The differences of an upstream.
type Differences = BTreeMap<Difference, i64>;

impl Display for Difference {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match self {
            Difference::Logged(what) => write!(f, "{what} - those in the log"),
            Difference::Connected => write!(f, "misses - connections of the backends"),
            Difference::Ended => write!(f, "requests - saved - refused - in use when killed"),
            Difference::SharedEnded => write!(f, "requests - saved - refused"),
        }
    }
}

/// The losses by killed workers.
#[derive(Default)]
struct Lost {
    workers: i64,
    /// The connections that clients had with them.
    clients: i64,
    /// Those of workers whose connections in use are unknown.
    unknown: i64,
}

impl Lost {
    /// The possible change of a difference, in all upstreams together.
    fn explains(&self, difference: &Difference) -> RangeInclusive<i64> {
        match difference {
            // No client has more than one request at a time.
            Difference::Logged(_) => 0..=self.clients * ATTEMPTS,
            // A worker does one thing at a time, and was stopped in the middle of it.
            Difference::Connected => 0..=self.workers,
            Difference::Ended => -self.workers..=self.workers + self.unknown,
            // From outside, a connection in use cannot be told from one of which the worker has a
            // descriptor that it does not use any more.
            Difference::SharedEnded => -self.workers..=self.workers + self.clients,
        }
    }
}

/// All sources at one moment, of each upstream.
struct Look {
    counts: Vec<Counts>,
    /// The connections that nginx's processes had after that.
    open: Vec<u64>,
    /// The counters after that.
    after: Vec<Counts>,
    differences: Vec<Differences>,
}

/// Compares the counters with the other sources.
pub struct Accounts {
    log: AccessLog,
    /// The connections that killed workers had in use, of each upstream.
    in_use: Vec<i64>,
    /// The differences at the last comparison.
    differences: Vec<Differences>,
    /// The connections that had been closed because a worker had ended.
    shut: Vec<i64>,
    /// The losses after that.
    lost: Lost,
}

impl Accounts {
    /// Nothing has been counted.
    pub fn new(dir: &Path) -> Self {
        Accounts {
            log: AccessLog::new(dir),
            in_use: vec![0; UPSTREAMS.len()],
            differences: vec![Differences::new(); UPSTREAMS.len()],
            shut: vec![0; UPSTREAMS.len()],
            lost: Lost::default(),
        }
    }

    /// A worker has been killed.
    pub fn expect_lost(&mut self, killed: &Killed) {
        self.lost.workers += 1;
        self.lost.clients += killed.clients as i64;
        match &killed.in_use {
            Some(in_use) => {
                self.in_use.iter_mut().zip(in_use).for_each(|(sum, in_use)| *sum += in_use);
            }
            None => self.lost.unknown += killed.clients as i64,
        }
    }

    /// Compares everything, while no request is under way; returns the counters.
    pub async fn check(&mut self, report: &Report, nginx: &Nginx) -> Result<Vec<Counts>> {
        let mut looks = 1;
        loop {
            let look = self.look(report, nginx).await?;
            let lost = self.lost_shared(&look);
            let wrong = [self.changes(&look), look.idle(), look.reused(report), lost].concat();
            if wrong.is_empty() || looks == LOOKS {
                for wrong in wrong {
                    report.violation(|| format!("counters: {wrong}"));
                }
                self.log.clear()?;
                (self.differences, self.lost) = (look.differences, Lost::default());
                self.shut = look.counts.iter().map(Counts::shut).collect();
                return Ok(look.counts);
            }
            looks += 1;
            sleep(MEANWHILE).await;
        }
    }

    async fn look(&mut self, report: &Report, nginx: &Nginx) -> Result<Look> {
        let counts = status::read(nginx.listen).await?;
        let sockets = process::sockets(&process::children(nginx.pid));
        let open = process::to_upstreams(sockets.values().flatten());
        let after = status::read(nginx.listen).await?;
        self.log.look(report)?;
        let of = |(index, counts): (usize, &Counts)| {
            let accepted = report.accepted[index].get();
            let in_use = (!UPSTREAMS[index].shared).then_some(self.in_use[index]);
            differences(counts, &self.log.logged[index], accepted, in_use)
        };
        let differences = counts.iter().enumerate().map(of).collect();
        Ok(Look { counts, open, after, differences })
    }

    /// The upstreams of which more shared connections were lost than a busy machine explains, while
    /// no worker was killed: reloads keep them.
    fn lost_shared(&self, look: &Look) -> Vec<String> {
        let mut wrong = vec![];
        for ((upstream, counts), before) in UPSTREAMS.iter().zip(&look.counts).zip(&self.shut) {
            let (lost, name) = (counts.shut() - before, upstream.name);
            let most = upstream.connections as i64;
            if upstream.is_movable() && self.lost.workers == 0 && lost > most {
                wrong.push(format!("{lost} connections of {name} were closed by ending workers"));
            }
        }
        wrong
    }

    /// The differences with a change that the losses do not explain.
    fn changes(&self, look: &Look) -> Vec<String> {
        let mut wrong = vec![];
        for what in look.differences[0].keys() {
            let now = look.differences.iter().map(|differences| differences[what]);
            let before = self.differences.iter().map(|differences| differences.get(what));
            let changes = now.zip(before).map(|(now, before)| now - before.unwrap_or(&0));
            let changes: Vec<i64> = changes.collect();
            let down: i64 = changes.iter().filter(|change| **change < 0).sum();
            let up: i64 = changes.iter().filter(|change| **change > 0).sum();
            let explained = self.lost.explains(what);
            if !explained.contains(&down) || !explained.contains(&up) {
                let named = UPSTREAMS.iter().zip(changes).filter(|(_, change)| *change != 0);
                let named = named.map(|(upstream, change)| format!("{} {change:+}", upstream.name));
                let named = named.collect::<Vec<_>>().join(", ");
                wrong.push(format!("{what}: {named}, explained are {explained:?}"));
            }
        }
        wrong
    }
}

/// The differences of an upstream. `in_use` is `None` if its workers share connections.
fn differences(
    counts: &Counts,
    logged: &Logged,
    accepted: u64,
    in_use: Option<i64>,
) -> Differences {
    let Counts { requests, hits, misses, saved, refused, .. } = counts;
    let less = |counted: &u64, known: u64| *counted as i64 - known as i64;
    let unconnected = logged.unconnected;
    let ended = saved + refused.values().sum::<u64>();
    let mut differences = Differences::from([
        (Difference::Connected, less(misses, accepted + unconnected)),
        (Difference::Ended, in_use.map_or(0, |in_use| less(requests, ended) - in_use)),
        (Difference::SharedEnded, in_use.map_or_else(|| less(requests, ended), |_| 0)),
    ]);
    let mut log = |what: &str, counted, known| {
        differences.insert(Difference::Logged(what.to_owned()), less(counted, known));
    };
    log("requests", requests, logged.servers + unconnected);
    log("hits", hits, logged.hits);
    log("borrowed", &counts.shared.borrowed, logged.borrowed);
    log("misses", misses, logged.misses + unconnected);
    log("saved", saved, logged.saved);
    for (reason, refused) in refused {
        let known = logged.refused.get(reason).copied().unwrap_or_default();
        log(&format!("refused ({reason})"), refused, known);
    }
    differences
}

impl Look {
    /// The upstreams whose idle connections are not the open ones of the workers. Some may be
    /// closed meanwhile.
    fn idle(&self) -> Vec<String> {
        let mut wrong = vec![];
        let both = self.counts.iter().zip(&self.after);
        for ((upstream, open), (counts, after)) in UPSTREAMS.iter().zip(&self.open).zip(both) {
            let (name, idle, left) = (upstream.name, counts.idle, counts.left());
            if !(after.idle..=idle).contains(open) {
                wrong.push(format!("{name} has {idle} idle connections, but {open} are open"));
            }
            if !(after.left()..=left).contains(&(*open as i64)) {
                wrong.push(format!("{name} saved - closed - hits = {left}, but {open} are open"));
            }
        }
        wrong
    }

    /// The upstreams in which backends have seen more reuse than was counted. They may have seen
    /// less: clients give requests up.
    fn reused(&self, report: &Report) -> Vec<String> {
        let mut wrong = vec![];
        for ((upstream, counts), reused) in UPSTREAMS.iter().zip(&self.counts).zip(&report.reused) {
            let (name, hits, reused) = (upstream.name, counts.hits, reused.get());
            if hits < reused {
                wrong.push(format!("{name} has {hits} hits, but {reused} were seen"));
            }
        }
        wrong
    }
}

/// Whether everything that the soak provokes has happened, and was counted.
pub fn reasons(report: &Report, counts: &[Counts]) {
    for status in CACHES {
        if !report.caches().contains_key(status) {
            report.violation(|| format!("no client was answered with the cache's status {status}"));
        }
    }
    for reason in CLOSED {
        if counts.iter().all(|counts| counts.closed.get(reason).is_none_or(|n| *n == 0)) {
            report.violation(|| format!("counters: no connection was closed ({reason})"));
        }
    }
    for reason in REFUSED {
        if counts.iter().all(|counts| counts.refused.get(reason).is_none_or(|n| *n == 0)) {
            report.violation(|| format!("counters: no connection was refused ({reason})"));
        }
    }
}

//! The figures, and their text.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use crate::upstreams::UPSTREAMS;

/// The number of broken promises that are described; all are counted.
const DESCRIBED: u64 = 30;

/// The figures.
#[derive(Default)]
pub struct Report {
    /// Requests that clients have sent.
    pub requests: Counter,
    /// Connections that the backends of each upstream have accepted.
    pub accepted: [Counter; UPSTREAMS.len()],
    /// Requests that they got on a connection with an earlier request.
    pub reused: [Counter; UPSTREAMS.len()],
    /// The module's counter at the last check: requests that used an idle connection.
    pub hits: Counter,
    /// Requests that found no idle connection.
    pub misses: Counter,
    /// Idle connections.
    pub idle: Counter,
    /// Requests that used an idle connection of another worker.
    pub borrowed: Counter,
    /// Connections that were taken over from a worker of before a reload.
    pub kept_over_reload: Counter,
    /// Connections that the system refused to hand over.
    pub refused_handovers: Counter,
    /// The looks at the limits of connections that workers share, while there was load.
    pub samples: Counter,
    /// The most idle connections of each upstream in them.
    pub peaks: [Counter; UPSTREAMS.len()],
    /// Faults of the backends.
    pub faults: Counter,
    /// Requests that clients gave up on purpose.
    pub aborted: Counter,
    /// Failed requests that a fault explains.
    pub explained: Counter,
    /// Failed requests that nothing explains.
    pub unexplained: Counter,
    /// Other broken promises.
    pub violations: Counter,
    /// Reloads of the configuration.
    pub reloads: Counter,
    /// Workers killed.
    pub kills: Counter,
    /// Those killed in an operation on connections that workers share.
    pub kills_in_operation: Counter,
    /// Workers stopped for a while.
    pub freezes: Counter,
    /// Times at which this program did not get to run.
    pub lags: Counter,
    /// Keys that were requested once.
    pub single_keys: Counter,
    keys: Mutex<HashSet<u32>>,
    caches: Mutex<BTreeMap<String, u64>>,
}

/// A number that grows.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one, and returns the sum.
    pub fn add(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Sets it.
    pub fn set(&self, number: u64) {
        self.0.store(number, Ordering::Relaxed);
    }

    /// Raises it to this number, unless it is higher.
    pub fn raise(&self, number: u64) {
        self.0.fetch_max(number, Ordering::Relaxed);
    }

    /// Its value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Report {
    /// A client has used a key.
    pub fn key(&self, key: u32) {
        self.keys.lock().expect("nobody panics with the lock").insert(key);
    }

    /// A client has got an answer with this cache status.
    pub fn cache(&self, status: &str) {
        *self.caches().entry(status.to_owned()).or_default() += 1;
    }

    /// The number of answers with each cache status.
    pub fn caches(&self) -> MutexGuard<'_, BTreeMap<String, u64>> {
        self.caches.lock().expect("nobody panics with the lock")
    }

    /// The soak cannot go on, which breaks a promise too.
    pub fn failed(&self, why: &str) {
        self.violations.add();
        eprintln!("soak: {why}");
    }

    /// A promise was broken.
    pub fn violation(&self, what: impl FnOnce() -> String) {
        if self.violations.add() <= DESCRIBED {
            eprintln!("soak: violation: {}", what());
        }
    }

    /// A request failed, and nothing explains it.
    pub fn unexplained(&self, what: impl FnOnce() -> String) {
        if self.unexplained.add() <= DESCRIBED {
            eprintln!("soak: unexplained: {}", what());
        }
    }

    /// Whether all promises were kept.
    pub fn is_good(&self) -> bool {
        self.violations.get() == 0 && self.unexplained.get() == 0
    }

    /// The figures so far, for the progress.
    pub fn progress(&self) -> String {
        format!(
            "{}, {} requests given up, {} failures explained, {} workers killed in an operation, {} stopped for a while, {} lags of this program, {} hand-overs refused, {} samples, most idle {}, caches {:?}",
            self.figures(),
            self.aborted.get(),
            self.explained.get(),
            self.kills_in_operation.get(),
            self.freezes.get(),
            self.lags.get(),
            self.refused_handovers.get(),
            self.samples.get(),
            self.peaks(),
            self.caches(),
        )
    }

    fn peaks(&self) -> String {
        let peaks = UPSTREAMS.iter().zip(&self.peaks).filter(|(upstream, _)| upstream.shared);
        let peaks = peaks.map(|(upstream, peak)| format!("{} {}", upstream.name, peak.get()));
        peaks.collect::<Vec<_>>().join(", ")
    }

    /// The figures of the last line.
    pub fn figures(&self) -> String {
        let keys = self.keys.lock().expect("nobody panics with the lock").len() as u64;
        format!(
            "requests={} reused={} keys={} faults={} reloads={} kills={} violations={} \
             unexplained={} hits={} misses={} idle={} borrowed={} kept_over_reload={}",
            self.requests.get(),
            self.reused.iter().map(Counter::get).sum::<u64>(),
            keys + self.single_keys.get(),
            self.faults.get(),
            self.reloads.get(),
            self.kills.get(),
            self.violations.get(),
            self.unexplained.get(),
            self.hits.get(),
            self.misses.get(),
            self.idle.get(),
            self.borrowed.get(),
            self.kept_over_reload.get(),
        )
    }
}

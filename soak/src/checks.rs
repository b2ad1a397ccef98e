//! The checks from outside: sockets, memory, logs.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::context::Context;
use crate::nginx::Nginx;
use crate::process::{self, Socket};
use crate::upstreams::{Identity, LOCATIONS, UPSTREAMS, upstream_of};

/// The limit for the growth of a process's memory in a minute, in kilobytes, after it has worked
/// for a minute: its heap is fragmented a little more or less. A leak of four bytes per request
/// would exceed it.
const GROWTH: u64 = 1024;

/// The time between two looks at the memory.
const MINUTE: Duration = Duration::from_secs(60);

/// The length from which nginx's ordinary log is emptied, in bytes.
const LONG_LOG: u64 = 64 << 20;

/// Whether each worker, or all together, keep within the limits. Call it while no request is under
/// way.
pub fn limits(context: &Context, nginx: &Nginx) {
    for (worker, sockets) in process::sockets(&nginx.workers()) {
        check(context, &format!("worker {worker} has"), &sockets, false);
    }
    let all = process::sockets(&process::children(nginx.pid));
    let all: Vec<_> = all.into_values().flatten().collect();
    check(context, "all workers have", &all, true);
}

/// Checks the idle connections of one worker, or all those that workers share.
fn check(context: &Context, who: &str, sockets: &[Socket], shared: bool) {
    for (index, upstream) in UPSTREAMS.iter().enumerate() {
        if upstream.shared != shared {
            continue;
        }
        let idle = sockets.iter().filter(|socket| upstream_of(socket.remote) == Some(index));
        let idle: Vec<_> = idle.collect();
        let keys = keys(context, index, &idle);
        for excess in upstream.excess(&keys, context.is_low(), 0) {
            context.report.violation(|| format!("{who} {excess}"));
        }
    }
}

/// The number of connections under each key.
fn keys(context: &Context, upstream: usize, idle: &[&Socket]) -> HashMap<String, usize> {
    let connections = context.connections();
    let identity = |socket: &&Socket| {
        connections.get(&(socket.remote, socket.local)).map(|known| &known.identity)
    };
    let mut keys = HashMap::new();
    for Identity { location, key } in idle.iter().filter_map(identity) {
        if LOCATIONS[*location].upstream == upstream {
            *keys.entry(key.clone()).or_default() += 1;
        }
    }
    keys
}

/// The number of connections that the workers have to backends.
pub fn connections(nginx: &Nginx) -> usize {
    let sockets = process::sockets(&process::children(nginx.pid));
    let is_upstream = |socket: &&Socket| upstream_of(socket.remote).is_some();
    sockets.values().flatten().filter(is_upstream).count()
}

/// The memory of nginx's processes, minute by minute.
pub struct Memory {
    looked: Instant,
    /// The memory of the processes at the last look, and whether they existed at the look before
    /// it.
    before: HashMap<u32, (u64, bool)>,
    /// The number of processes that were compared.
    pub compared: u64,
}

impl Memory {
    /// No memory is known yet.
    pub fn new() -> Self {
        Memory { looked: Instant::now(), before: HashMap::new(), compared: 0 }
    }

    /// Looks at the memory once a minute, and compares.
    pub fn look(&mut self, context: &Context, nginx: &Nginx) {
        if self.looked.elapsed() < MINUTE {
            return;
        }
        self.looked = Instant::now();
        let mut now = HashMap::new();
        for process in process::children(nginx.pid).into_iter().chain([nginx.pid]) {
            let Some(size) = process::memory(process) else { continue };
            let before = self.before.get(&process);
            if let Some(&(before, true)) = before {
                self.compared += 1;
                if size > before + GROWTH {
                    context.report.violation(|| {
                        format!("process {process} grew from {before} to {size} kB in a minute")
                    });
                }
            }
            now.insert(process, (size, before.is_some()));
        }
        self.before = now;
    }
}

/// nginx's logs.
pub struct Logs {
    grave: PathBuf,
    ordinary: PathBuf,
    read: usize,
    /// The workers that were killed on purpose.
    killed: HashSet<u32>,
    /// All of them.
    ever_killed: HashSet<u32>,
}

impl Logs {
    /// The logs in nginx's folder.
    pub fn new(dir: &Path) -> Self {
        let (grave, ordinary) = (dir.join("grave.log"), dir.join("error.log"));
        Logs { grave, ordinary, read: 0, killed: HashSet::new(), ever_killed: HashSet::new() }
    }

    /// A worker has been killed on purpose, which will be in the log.
    pub fn expect_killed(&mut self, worker: u32) {
        self.killed.insert(worker);
        self.ever_killed.insert(worker);
    }

    /// Looks for lines that should not be there.
    pub fn look(&mut self, context: &Context) {
        let log = fs::read_to_string(&self.grave).unwrap_or_default();
        let new = log.get(self.read..).unwrap_or_default();
        let new = &new[..new.rfind('\n').map_or(0, |end| end + 1)];
        self.read += new.len();
        for line in new.lines() {
            if !self.is_expected(line) {
                context.report.violation(|| format!("nginx logged: {line}"));
            }
        }
        if fs::metadata(&self.ordinary).is_ok_and(|file| file.len() > LONG_LOG) {
            let _ = fs::File::create(&self.ordinary);
        }
    }

    fn is_expected(&mut self, line: &str) -> bool {
        let killed = line.split_once("worker process ").and_then(|(_, rest)| {
            let (worker, how) = rest.split_once(' ')?;
            (how == "exited on signal 9").then_some(worker.parse().ok()?)
        });
        killed.is_some_and(|worker| self.killed.remove(&worker))
            // An entry of the cache that a killed worker had in use.
            || !self.ever_killed.is_empty() && line.contains("ignore long locked inactive cache entry")
            || self.was_locked(line)
            // An entry that another worker is about to replace: nginx asks the server instead.
            || line.contains(" has too long header")
    }

    /// Whether a line is about shared connections, or learned idle timeouts, that a killed worker had
    /// locked.
    fn was_locked(&self, line: &str) -> bool {
        let worker = line.split_once(" shared memory zone \"upstream_keepalive_");
        let worker = worker.and_then(|(_, rest)| rest.rsplit_once("\" was locked by "));
        let worker = worker.and_then(|(_, worker)| worker.parse().ok());
        worker.is_some_and(|worker| self.ever_killed.contains(&worker))
    }

    /// The lines of nginx's ordinary log about a request.
    pub fn about(dir: &Path, id: u64) -> String {
        let log = fs::read(dir.join("error.log")).unwrap_or_default();
        let (log, wanted) = (String::from_utf8_lossy(&log), format!("?{id:x} HTTP/"));
        log.lines()
            .filter(|line| line.contains(&wanted))
            .map(|line| format!("\n  {line}"))
            .collect()
    }
}

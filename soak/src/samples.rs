//! Samples of the connections that workers share, under load: whether the limits hold over all
//! workers.
//!
//! nginx is not asked. A connection counts as idle if its backend has written an answer some time
//! before the sample, and gets no request and no end until some time after it. So it counts neither
//! connections on which something is about to happen, nor those for which a worker that has just
//! read an answer, or is about to send a request, did not get to run for a moment. What a stopped
//! worker has not read is known from the system.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::block_in_place;
use tokio::time::sleep;

use crate::context::Context;
use crate::load::Gate;
use crate::nginx::WORKERS;
use crate::process;
use crate::upstreams::{Identity, LOCATIONS, UPSTREAMS};

/// The time for which a connection must have been idle before a sample, and must be after it.
const AROUND: Duration = Duration::from_millis(20);

/// The time for which connections must stay idle after a sample in which they are too many.
const CONFIRMED: Duration = Duration::from_millis(60);

/// A delay of this program that makes a sample useless.
const LATE: Duration = Duration::from_millis(15);

/// The time after a kill in which the connections of the killed worker may still be open, in other
/// workers, and not count.
const KILLED: Duration = Duration::from_millis(1200);

/// There is a lull in the last ones of so many samples: before those, what is idle changes all the
/// time.
const LULL: u64 = 6;
const PERIOD: u64 = 20;

/// An idle connection of an upstream whose workers share them.
struct Idle {
    /// The server's and nginx's address.
    addresses: (SocketAddr, SocketAddr),
    identity: Identity,
    requests: u64,
}

/// Takes samples without end.
pub async fn take(context: Arc<Context>, gate: Arc<Gate>) {
    for number in 0_u64.. {
        gate.lull(number % PERIOD >= PERIOD - LULL);
        sample(&context).await;
    }
}

async fn sample(context: &Context) {
    let begin = Instant::now();
    let Some(before) = begin.checked_sub(AROUND) else { return };
    let low = context.is_low();
    let mut idle = idle_since(context, before);
    if !excess(&idle, low, 0).is_empty() {
        let quiet = block_in_place(process::quiet);
        let is_quiet = |(server, nginx): (SocketAddr, SocketAddr)| {
            let both = [quiet.get(&(server, nginx)), quiet.get(&(nginx, server))];
            both.iter().all(|quiet| quiet.is_some_and(|quiet| *quiet))
        };
        idle.retain(|idle| is_quiet(idle.addresses));
    }
    let after = Instant::now();
    sleep(AROUND).await;
    if after.elapsed() > AROUND + LATE {
        return;
    }
    retain_idle(context, &mut idle);
    let killed = begin.checked_sub(KILLED).is_some_and(|time| context.ledger.killed_since(time));
    if killed || low != context.is_low() {
        return;
    }
    for (upstream, keys) in keys(&idle) {
        context.report.peaks[upstream].raise(keys.values().sum::<usize>() as u64);
    }
    context.report.samples.add();
    // A worker that stopped may have locked the connections: then all others, old ones of a reload
    // included, wait for it, each with a connection of which the answer has ended.
    let waiting = || if context.ledger.stood_since(before) { 2 * WORKERS } else { 0 };
    if excess(&idle, low, waiting()).is_empty() {
        return;
    }
    // The one that has locked them may just not get to run.
    sleep(CONFIRMED).await;
    retain_idle(context, &mut idle);
    for excess in excess(&idle, low, waiting()) {
        context.report.violation(|| format!("all workers have {excess} under load"));
    }
}

/// The connections that have been idle since this time.
fn idle_since(context: &Context, time: Instant) -> Vec<Idle> {
    let connections = context.connections();
    let idle = connections.iter().filter_map(|(&addresses, known)| {
        let is_idle = known.idle.is_some_and(|since| since <= time);
        let (identity, requests) = (&known.identity, known.requests);
        let is_shared = UPSTREAMS[LOCATIONS[identity.location].upstream].shared;
        (is_idle && is_shared).then(|| Idle { addresses, identity: identity.clone(), requests })
    });
    idle.collect()
}

/// Leaves those that have stayed idle.
fn retain_idle(context: &Context, idle: &mut Vec<Idle>) {
    let connections = context.connections();
    idle.retain(|idle| {
        let known = connections.get(&idle.addresses);
        known.is_some_and(|known| known.idle.is_some() && known.requests == idle.requests)
    });
}

/// The number of connections under each key of each upstream.
fn keys(idle: &[Idle]) -> HashMap<usize, HashMap<String, usize>> {
    let mut keys: HashMap<usize, HashMap<String, usize>> = HashMap::new();
    for Identity { location, key } in idle.iter().map(|idle| &idle.identity) {
        let keys = keys.entry(LOCATIONS[*location].upstream).or_default();
        *keys.entry(key.clone()).or_default() += 1;
    }
    keys
}

/// What is too much, in all upstreams, if so many connections of each may not count.
fn excess(idle: &[Idle], low: bool, less: usize) -> Vec<String> {
    let of = |(upstream, keys): (usize, _)| UPSTREAMS[upstream].excess(&keys, low, less);
    keys(idle).into_iter().flat_map(of).collect()
}

//! The counters of the events of connections: for each upstream one block for each worker, which
//! only that worker writes, and the sum of all blocks on request.
//!
//! The blocks lie in memory that the workers share. A worker adds without locks or locked
//! instructions, in cache lines that no other worker writes.
//!
//! The number of idle connections is not a counter: it is the number of saved connections minus
//! those used again or closed. So it cannot drift, and the connections of a killed worker are
//! included: the system has closed them, and they count as closed by a shutdown.

#![forbid(unsafe_code)]

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

pub use self::reasons::{Closed, Refused};

mod reasons;

/// The number of a process; 0 is no process.
pub type Pid = u32;

/// The counters of one worker for one upstream. A block of zeroes was never used.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct WorkerCounters {
    owner: AtomicU32,
    /// The slices that hold idle connections.
    slices: AtomicU32,
    hits: AtomicU64,
    misses: AtomicU64,
    balancer: AtomicU64,
    saved: AtomicU64,
    /// The idle connections of earlier owners, which ended without closing them.
    lost: AtomicU64,
    borrowed: AtomicU64,
    lost_races: AtomicU64,
    refused_handovers: AtomicU64,
    kept_over_reload: AtomicU64,
    closed: [AtomicU64; Closed::ALL.len()],
    refused: [AtomicU64; Refused::ALL.len()],
}

impl WorkerCounters {
    /// An unused block.
    pub const fn new() -> Self {
        WorkerCounters {
            owner: AtomicU32::new(0),
            slices: AtomicU32::new(0),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            balancer: AtomicU64::new(0),
            saved: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            borrowed: AtomicU64::new(0),
            lost_races: AtomicU64::new(0),
            refused_handovers: AtomicU64::new(0),
            kept_over_reload: AtomicU64::new(0),
            closed: [const { AtomicU64::new(0) }; Closed::ALL.len()],
            refused: [const { AtomicU64::new(0) }; Refused::ALL.len()],
        }
    }

    /// Makes a process the owner of this block, which writes to it. The previous owner has ended,
    /// or is the same.
    pub fn claim(&self, process: Pid) {
        if self.owner.load(Relaxed) != process {
            self.lost.store(self.lost.load(Relaxed).wrapping_add(self.read().idle), Relaxed);
            self.slices.store(0, Relaxed);
            self.owner.store(process, Relaxed);
        }
    }

    /// Makes a process the owner of this block, whose number of idle connections is not computed.
    pub fn set_owner(&self, process: Pid) {
        self.owner.store(process, Relaxed);
    }

    /// This process, if it is the owner of this block, is about to end. Its further events are
    /// counted.
    pub fn release(&self, process: Pid) {
        let _ = self.owner.compare_exchange(process, 0, Relaxed, Relaxed);
    }

    /// A request uses an idle connection.
    pub fn hit(&self) {
        add(&self.hits);
    }

    /// A request found no idle connection.
    pub fn miss(&self) {
        add(&self.misses);
    }

    /// The balancer gave a request a connection of its own.
    pub fn balancer(&self) {
        add(&self.balancer);
    }

    /// A connection is idle from now on.
    pub fn saved(&self) {
        add(&self.saved);
    }

    /// A connection that was saved is closed.
    pub fn closed(&self, why: Closed) {
        if let Some(counter) = self.closed.get(why as usize) {
            add(counter);
        }
    }

    /// A connection was not saved.
    pub fn refused(&self, why: Refused) {
        if let Some(counter) = self.refused.get(why as usize) {
            add(counter);
        }
    }

    /// A request uses an idle connection that another worker has saved. It is a hit, too.
    pub fn borrowed(&self) {
        add(&self.borrowed);
    }

    /// Another worker was faster to use a connection, or to close it.
    pub fn lost_race(&self) {
        add(&self.lost_races);
    }

    /// The system refused to hand a connection over from one worker to another.
    pub fn refused_handover(&self) {
        add(&self.refused_handovers);
    }

    /// A connection was taken over from a worker of before a reload.
    pub fn kept_over_reload(&self) {
        add(&self.kept_over_reload);
    }

    /// Sets the number of slices that hold idle connections, if there are slices.
    pub fn set_slices(&self, slices: Option<u32>) {
        if let Some(slices) = slices {
            self.slices.store(slices, Relaxed);
        }
    }

    /// The counters, each read once, so that they agree: `idle` is the number of saved connections
    /// that have not left. The end of a connection is read before its beginning, so that `idle` is
    /// not below zero while the owner counts.
    fn read(&self) -> Totals {
        let read = |counter: &AtomicU64| counter.load(Relaxed);
        let mut counts = Totals {
            refused: self.refused.each_ref().map(read),
            closed: self.closed.each_ref().map(read),
            ..Totals::default()
        };
        counts.close(read(&self.lost));
        counts.hits = read(&self.hits);
        counts.saved = read(&self.saved);
        counts.misses = read(&self.misses);
        counts.balancer = read(&self.balancer);
        let gone = counts.closed.iter().fold(counts.hits, |sum, &n| sum.wrapping_add(n));
        counts.idle = counts.saved.saturating_sub(gone);
        counts
    }
}

fn add(counter: &AtomicU64) {
    counter.store(counter.load(Relaxed).wrapping_add(1), Relaxed);
}

/// The counters of all workers together for one upstream.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Totals {
    /// The number of living workers.
    pub workers: u32,
    /// The idle connections of living workers.
    pub idle: u64,
    /// The slices that hold idle connections, summed over the living workers.
    pub slices: u64,
    /// Requests that used an idle connection.
    pub hits: u64,
    /// Requests that found no idle connection.
    pub misses: u64,
    /// Requests that used a connection of the balancer's own.
    pub balancer: u64,
    /// Connections that were kept after a request.
    pub saved: u64,
    closed: [u64; Closed::ALL.len()],
    refused: [u64; Refused::ALL.len()],
    /// If the workers share their connections.
    pub shared: Option<SharedTotals>,
}

/// The counters of the connections that workers share.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct SharedTotals {
    /// Requests that used an idle connection of another worker.
    pub borrowed: u64,
    /// Connections that another worker was faster to use or to close.
    pub lost_races: u64,
    /// Connections that the system refused to hand over from one worker to another.
    pub refused_handovers: u64,
    /// Connections that were taken over from a worker of before a reload.
    pub kept_over_reload: u64,
}

impl Totals {
    /// Sums up blocks. `lives` tells whether a process of this number is alive.
    pub fn sum<'a>(
        blocks: impl IntoIterator<Item = &'a WorkerCounters>,
        lives: impl Fn(Pid) -> bool,
    ) -> Self {
        let mut counts = Totals::default();
        for block in blocks {
            counts.add(block, &lives);
        }
        counts
    }

    /// Sums up blocks of workers that share their connections: `idle` and `slices` are those of all
    /// workers. No worker counts meanwhile. What was saved, and was neither used nor closed nor is
    /// idle, was closed by the system when its worker ended.
    pub fn sum_shared<'a>(
        blocks: impl IntoIterator<Item = &'a WorkerCounters> + Clone,
        lives: impl Fn(Pid) -> bool,
        (idle, slices): (u64, u64),
    ) -> Self {
        let mut counts = Totals::default();
        let mut shared = SharedTotals::default();
        for block in blocks {
            let read = |counter: &AtomicU64| counter.load(Relaxed);
            shared.borrowed = shared.borrowed.wrapping_add(read(&block.borrowed));
            shared.lost_races = shared.lost_races.wrapping_add(read(&block.lost_races));
            let refused = read(&block.refused_handovers);
            shared.refused_handovers = shared.refused_handovers.wrapping_add(refused);
            let kept = read(&block.kept_over_reload);
            shared.kept_over_reload = shared.kept_over_reload.wrapping_add(kept);
            counts.add_events(&block.read());
            let owner = block.owner.load(Relaxed);
            counts.workers = counts.workers.wrapping_add((owner != 0 && lives(owner)).into());
        }
        let gone = counts.closed.iter().fold(counts.hits, |sum, &n| sum.wrapping_add(n));
        counts.close(counts.saved.saturating_sub(gone).saturating_sub(idle));
        Totals { idle, slices, shared: Some(shared), ..counts }
    }

    fn add(&mut self, block: &WorkerCounters, lives: impl Fn(Pid) -> bool) {
        let counts = block.read();
        let owner = block.owner.load(Relaxed);
        if owner != 0 && lives(owner) {
            self.workers = self.workers.wrapping_add(1);
            self.idle = self.idle.wrapping_add(counts.idle);
            self.slices = self.slices.wrapping_add(block.slices.load(Relaxed).into());
        } else {
            // So that the number does not match another process later.
            let _ = block.owner.compare_exchange(owner, 0, Relaxed, Relaxed);
            self.close(counts.idle);
        }
        self.add_events(&counts);
    }

    fn add_events(&mut self, counts: &Totals) {
        self.hits = self.hits.wrapping_add(counts.hits);
        self.misses = self.misses.wrapping_add(counts.misses);
        self.balancer = self.balancer.wrapping_add(counts.balancer);
        self.saved = self.saved.wrapping_add(counts.saved);
        add_all(&mut self.closed, &counts.closed);
        add_all(&mut self.refused, &counts.refused);
    }

    /// Adds idle connections that the system closed when their worker had ended.
    fn close(&mut self, lost: u64) {
        if let Some(shutdown) = self.closed.get_mut(Closed::Shutdown as usize) {
            *shutdown = shutdown.wrapping_add(lost);
        }
    }

    /// Requests sent to servers of the upstream.
    pub fn requests(&self) -> u64 {
        self.hits.wrapping_add(self.misses).wrapping_add(self.balancer)
    }

    /// The connections that were closed, by the reason's name.
    pub fn closed(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        Closed::ALL.map(Closed::name).into_iter().zip(self.closed)
    }

    /// The connections that were not kept, by the reason's name.
    pub fn refused(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        Refused::ALL.map(Refused::name).into_iter().zip(self.refused)
    }
}

fn add_all<const N: usize>(sums: &mut [u64; N], counts: &[u64; N]) {
    for (sum, count) in sums.iter_mut().zip(counts) {
        *sum = sum.wrapping_add(*count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closed(counts: &Totals, why: Closed) -> u64 {
        counts.closed().find(|&(name, _)| name == why.name()).unwrap().1
    }

    #[test]
    fn each_reason_has_a_place_and_a_name_of_its_own() {
        for (i, &why) in Closed::ALL.iter().enumerate() {
            let block = WorkerCounters::new();
            block.closed(why);
            let counts = Totals::sum([&block], |_| true);
            let found: Vec<_> = counts.closed().filter(|&(_, n)| n == 1).collect();
            assert_eq!((why as usize, found), (i, vec![(why.name(), 1)]));
        }
        for (i, &why) in Refused::ALL.iter().enumerate() {
            let block = WorkerCounters::new();
            block.refused(why);
            let counts = Totals::sum([&block], |_| true);
            let found: Vec<_> = counts.refused().filter(|&(_, n)| n == 1).collect();
            assert_eq!((why as usize, found), (i, vec![(why.name(), 1)]));
        }
    }

    #[test]
    fn idle_is_what_was_saved_and_has_not_left() {
        let block = WorkerCounters::new();
        block.claim(7);
        for _ in 0..5 {
            block.miss();
            block.saved();
        }
        block.hit();
        block.closed(Closed::Timeout);
        block.set_slices(Some(2));
        let counts = Totals::sum([&block], |pid| pid == 7);
        assert_eq!((counts.workers, counts.idle, counts.slices), (1, 3, 2));
        assert_eq!((counts.requests(), counts.hits, counts.misses, counts.saved), (6, 1, 5, 5));
    }

    #[test]
    fn numbers_agree_while_the_owner_counts() {
        let block = WorkerCounters::new();
        block.claim(7);
        std::thread::scope(|scope| {
            let owner = scope.spawn(|| {
                for _ in 0..200_000 {
                    block.miss();
                    block.saved();
                    block.hit();
                    block.saved();
                    block.closed(Closed::Timeout);
                }
            });
            while !owner.is_finished() {
                let counts = Totals::sum([&block], |_| true);
                let closed: u64 = counts.closed().map(|(_, n)| n).sum();
                assert_eq!(counts.saved.wrapping_sub(closed + counts.hits), counts.idle);
            }
        });
    }

    #[test]
    fn workers_are_summed_up() {
        let blocks = [const { WorkerCounters::new() }; 3];
        for (pid, block) in (7..).zip(&blocks[..2]) {
            block.claim(pid);
            block.saved();
            block.set_slices(Some(1));
            block.refused(Refused::Time);
        }
        let counts = Totals::sum(&blocks, |_| true);
        assert_eq!((counts.workers, counts.idle, counts.slices, counts.saved), (2, 2, 2, 2));
        assert!(counts.refused().any(|refused| refused == ("time", 2)));
    }

    #[test]
    fn what_a_killed_worker_had_is_closed() {
        let block = WorkerCounters::new();
        block.claim(7);
        for _ in 0..3 {
            block.saved();
        }
        block.closed(Closed::Shutdown);
        block.set_slices(Some(2));

        // No worker is alive; each reading gives the same result.
        for _ in 0..2 {
            let counts = Totals::sum([&block], |_| false);
            assert_eq!((counts.workers, counts.idle, counts.slices), (0, 0, 0));
            assert_eq!((counts.saved, closed(&counts, Closed::Shutdown)), (3, 3));
        }
        // Another process of the same number is not the worker.
        let counts = Totals::sum([&block], |_| true);
        assert_eq!((counts.workers, counts.idle, counts.slices), (0, 0, 0));

        // The next worker in its place.
        block.claim(8);
        block.saved();
        block.set_slices(Some(1));
        let counts = Totals::sum([&block], |pid| pid == 8);
        assert_eq!((counts.workers, counts.idle, counts.slices), (1, 1, 1));
        assert_eq!((counts.saved, closed(&counts, Closed::Shutdown)), (4, 3));
    }

    #[test]
    fn a_worker_that_ends_is_none() {
        let block = WorkerCounters::new();
        block.claim(7);
        block.saved();
        block.release(8);
        assert_eq!(Totals::sum([&block], |_| true).workers, 1);
        block.release(7);
        let counts = Totals::sum([&block], |_| true);
        assert_eq!((counts.workers, counts.idle, closed(&counts, Closed::Shutdown)), (0, 0, 1));
        block.closed(Closed::Shutdown);
        assert_eq!(closed(&Totals::sum([&block], |_| true), Closed::Shutdown), 1);
    }

    #[test]
    fn a_worker_that_claims_its_own_block_loses_nothing() {
        let block = WorkerCounters::new();
        block.claim(7);
        block.saved();
        block.claim(7);
        let counts = Totals::sum([&block], |_| true);
        assert_eq!((counts.idle, closed(&counts, Closed::Shutdown)), (1, 0));
    }

    #[test]
    fn a_block_is_whole_cache_lines() {
        assert_eq!((align_of::<WorkerCounters>(), size_of::<WorkerCounters>()), (64, 256));
    }
}

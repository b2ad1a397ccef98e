//! The events around the load: reloads, kills, shortages, and pauses for checks.

use std::io::{Error, Result};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use tokio::time::{Instant, sleep, sleep_until};

use crate::accounts::{self, Accounts};
use crate::checks::{self, Logs, Memory};
use crate::context::Context;
use crate::load::Gate;
use crate::nginx::{Killed, Nginx, WORKERS};
use crate::report::Report;

/// The time from one reload to the next.
const CYCLE: Duration = Duration::from_secs(2);

/// Long soaks have calm minutes, without reloads and kills, so that workers grow old: the length of
/// the calm at the end of each period, and the period, in seconds.
const CALM: (u64, u64) = (240, 600);

/// The longest that requests may take to come to an end.
const PATIENCE: Duration = Duration::from_secs(30);

/// Cycles between two pauses. Every other time no worker is killed, so that the module's counters
/// must be exact.
const PERIOD: u64 = 8;

/// The time for which backends do nothing wrong before a pause: in the pause, nginx then waits for
/// no answer, and has idle connections.
const BEHAVED: Duration = Duration::from_secs(2);

/// The time that workers may need after the last answer to park all connections, and to close their
/// descriptors of those that other workers have used: they look for them every 500 ms.
const SETTLED: Duration = Duration::from_millis(700);

/// The idle timeout of nginx's upstreams, and a little more.
const IDLE: Duration = Duration::from_secs(3);

/// The time after which requests with nginx's cache have come to an end, all but a few.
const UNCACHED: Duration = Duration::from_millis(300);

/// The state of a soak.
pub struct Storm {
    context: Arc<Context>,
    gate: Arc<Gate>,
    logs: Logs,
    accounts: Accounts,
    memory: Memory,
    begin: Instant,
    cycle: u64,
    few: bool,
}

impl Storm {
    /// Nothing has happened yet.
    pub fn new(context: Arc<Context>, gate: Arc<Gate>, dir: &Path) -> Self {
        let (logs, memory, accounts) = (Logs::new(dir), Memory::new(), Accounts::new(dir));
        let begin = Instant::now();
        Storm { context, gate, logs, accounts, memory, begin, cycle: 0, few: false }
    }

    /// Runs for this time.
    pub async fn run(&mut self, nginx: &Nginx, time: Duration) -> Result<()> {
        let end = self.begin + time;
        while Instant::now() < end {
            let next = Instant::now() + CYCLE;
            if self.is_calm(end) {
                self.replenish(nginx).await?;
            } else {
                self.trouble(nginx).await?;
            }
            sleep_until(next.min(end)).await;
            if self.cycle % PERIOD == PERIOD - 1 {
                self.pause(nginx).await?;
                self.gate.open();
            }
            self.logs.look(&self.context);
            self.memory.look(&self.context, nginx);
            self.context.ledger.prune();
            self.cycle += 1;
        }
        Ok(())
    }

    fn is_calm(&self, end: Instant) -> bool {
        let (calm, period) = CALM;
        let (now, all) = (self.begin.elapsed().as_secs(), (end - self.begin).as_secs());
        let begin = now / period * period + period - calm;
        now >= begin && all >= begin + calm
    }

    /// Ends a shortage, before calm minutes.
    async fn replenish(&mut self, nginx: &Nginx) -> Result<()> {
        if self.few { self.reload(nginx, false).await } else { Ok(()) }
    }

    async fn reload(&mut self, nginx: &Nginx, few: bool) -> Result<()> {
        if !few {
            self.context.lower(false);
        }
        nginx.reload(&self.context.ledger, few).await?;
        if few && !self.few {
            self.context.lower(true);
        }
        self.few = few;
        self.context.report.reloads.add();
        Ok(())
    }

    /// Disturbs nginx: a reload, and a kill or a stopped worker.
    async fn trouble(&mut self, nginx: &Nginx) -> Result<()> {
        let Context { ledger, report, .. } = &*self.context.clone();
        // Workers run short of connections for some seconds.
        self.reload(nginx, matches!(self.cycle % 12, 6..9)).await?;
        let (pause, time, which) = {
            let mut rng = rand::rng();
            (rng.random_range(100..900), rng.random_range(100..700), rng.random_range(0..WORKERS))
        };
        sleep(Duration::from_millis(pause)).await;
        if self.cycle / PERIOD % 2 == 0 && self.cycle % 2 == 1 {
            let killed = self.kill(nginx, which).await?;
            self.logs.expect_killed(killed.worker);
            self.accounts.expect_lost(&killed);
            report.kills.add();
        } else if self.cycle % 3 != 0 {
            nginx.freeze(ledger, which, Duration::from_millis(time)).await?;
            report.freezes.add();
        }
        Ok(())
    }

    /// Kills a worker: every other time in an operation on shared connections, if possible.
    async fn kill(&self, nginx: &Nginx, which: usize) -> Result<Killed> {
        let Context { ledger, report, .. } = &*self.context;
        if self.cycle % 4 == 3 {
            self.gate.leave_cache(true);
            sleep(UNCACHED).await;
            let killed = nginx.kill_in_operation(ledger, which).await;
            self.gate.leave_cache(false);
            if let Some(killed) = killed? {
                report.kills_in_operation.add();
                return Ok(killed);
            }
        }
        nginx.kill(ledger, which).await
    }

    /// Waits until no request is under way, and checks the limits and the counters.
    async fn pause(&mut self, nginx: &Nginx) -> Result<()> {
        self.context.behave(true);
        sleep(BEHAVED).await;
        self.gate.close();
        let end = Instant::now() + PATIENCE;
        while !self.gate.is_quiet() {
            if Instant::now() > end {
                return Err(Error::other("requests did not come to an end"));
            }
            sleep(Duration::from_millis(10)).await;
        }
        sleep(SETTLED).await;
        checks::limits(&self.context, nginx);
        let counts = self.accounts.check(&self.context.report, nginx).await?;
        let Report { hits, misses, idle, .. } = &self.context.report;
        let Report { borrowed, kept_over_reload, refused_handovers, .. } = &self.context.report;
        hits.set(counts.iter().map(|counts| counts.hits).sum());
        misses.set(counts.iter().map(|counts| counts.misses).sum());
        idle.set(counts.iter().map(|counts| counts.idle).sum());
        borrowed.set(counts.iter().map(|counts| counts.shared.borrowed).sum());
        refused_handovers.set(counts.iter().map(|counts| counts.shared.refused_handovers).sum());
        kept_over_reload.set(counts.iter().map(|counts| counts.shared.kept_over_reload).sum());
        self.context.behave(false);
        Ok(())
    }

    /// Ends the load, and checks that all sockets are closed and nginx quits in good order.
    pub async fn end(&mut self, nginx: &mut Nginx) -> Result<()> {
        self.pause(nginx).await?;
        sleep(IDLE).await;
        let left = checks::connections(nginx);
        if left != 0 {
            let report = &self.context.report;
            report.violation(|| format!("{left} connections to backends are left"));
        }
        let counts = self.accounts.check(&self.context.report, nginx).await?;
        if self.cycle < PERIOD {
            eprintln!("soak: too short to judge what is counted by reason");
        } else {
            accounts::reasons(&self.context.report, &counts);
        }
        let status = nginx.quit().await?;
        if !status.success() {
            self.context.report.violation(|| format!("nginx ended with {status}"));
        }
        self.logs.look(&self.context);
        if self.memory.compared == 0 {
            eprintln!("soak: too short to judge the memory");
        }
        Ok(())
    }
}

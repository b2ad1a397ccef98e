//! Servers, and when they close idle connections.

use super::random::Random;

/// A point in time or a duration, in microseconds.
pub type Micros = u64;

pub const MILLISECOND: Micros = 1000;
pub const SECOND: Micros = 1000 * MILLISECOND;
pub const MINUTE: Micros = 60 * SECOND;

/// How a server's own timer ends idle connections.
#[derive(Clone, Copy, Debug)]
pub struct Timer {
    pub timeout: Micros,
    /// The server looks for idle connections from time to time only.
    pub sweep: Option<Micros>,
    /// The client does not notice before it uses the connection: a middlebox has forgotten it.
    pub is_silent: bool,
}

impl Timer {
    pub fn exact(timeout: Micros) -> Self {
        Timer { timeout, sweep: None, is_silent: false }
    }
}

/// Restarts, of which each closes all connections of its process.
#[derive(Clone, Copy, Debug)]
pub struct Restarts {
    pub every: Micros,
    pub processes: u64,
    /// The time from one process to the next one.
    pub apart: Micros,
}

/// A server, or what its clients see of it.
#[derive(Clone, Debug, Default)]
pub struct Server {
    /// From when on which timer is set; there is none before.
    pub timers: Vec<(Micros, Option<Timer>)>,
    /// Another server behind the same address, which gets every second connection.
    pub other: Option<Timer>,
    /// Each connection is closed at a random time while it is idle, after this time on average.
    pub kill: Option<Micros>,
    /// The probability that a connection is closed when it is used once more.
    pub kill_at_reuse: f64,
    pub restarts: Option<Restarts>,
    /// At so many connections, the one that has been idle for the longest makes room.
    pub limit: Option<usize>,
}

impl Server {
    pub fn with(timer: Timer) -> Self {
        Server { timers: vec![(0, Some(timer))], ..Server::default() }
    }

    pub fn exact(timeout: Micros) -> Self {
        Server::with(Timer::exact(timeout))
    }

    pub fn sweeper(timeout: Micros, sweep: Micros) -> Self {
        Server::with(Timer { sweep: Some(sweep), ..Timer::exact(timeout) })
    }

    /// The timer for connections that become idle now.
    pub fn timer(&self, now: Micros, connection: usize) -> Option<Timer> {
        if connection % 2 == 1 && self.other.is_some() {
            return self.other;
        }
        self.timers.iter().rev().find(|(from, _)| *from <= now).and_then(|(_, timer)| *timer)
    }

    /// When the timer closes a connection that becomes idle now; the end of time if never.
    pub fn end(&self, now: Micros, connection: usize, random: &mut Random) -> Micros {
        self.timer(now, connection).map_or(Micros::MAX, |timer| {
            let end = now + timer.timeout;
            match timer.sweep {
                Some(sweep) => end.div_ceil(sweep) * sweep,
                None => end + random.below(2 * MILLISECOND),
            }
        })
    }

    /// When something else does.
    pub fn accident(&self, now: Micros, connection: usize, random: &mut Random) -> Micros {
        let killed = self.kill.map_or(Micros::MAX, |mean| now + random.wait(mean));
        killed.min(self.next_restart(now, connection))
    }

    /// When the process of a connection is restarted next.
    pub fn next_restart(&self, now: Micros, connection: usize) -> Micros {
        self.restarts.map_or(Micros::MAX, |Restarts { every, processes, apart }| {
            let offset = (connection as u64 % processes) * apart;
            let past = (now + every - offset) / every;
            past * every + offset
        })
    }

    /// The shortest and the longest timeout that is right now, in milliseconds.
    pub fn truth(&self, now: Micros) -> Option<(u32, u32)> {
        let timer = self.timer(now, 0)?;
        let shortest = (timer.timeout / MILLISECOND) as u32;
        let longest = shortest + (timer.sweep.unwrap_or(0) / MILLISECOND) as u32;
        Some((shortest - shortest / 100, longest + longest / 100 + 10))
    }
}

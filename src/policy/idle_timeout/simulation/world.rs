//! Clients, the module's idle connections and a server, event by event.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::random::Random;
use super::server::{MILLISECOND, Micros, Server};
use crate::policy::idle_timeout::IdleTimeout;
use crate::policy::must_look;

/// A request fails if the server closes its connection within this time after it was sent.
const RACE: Micros = 2 * MILLISECOND;
const RESPONSE: Micros = 30 * MILLISECOND;
/// The margin of `keepalive_hints`, in milliseconds.
const MARGIN: u64 = 1000;

/// What clients do.
#[derive(Clone, Debug)]
pub struct Traffic {
    /// The time between two requests of each client: on average, or always.
    pub gaps: Vec<Micros>,
    pub is_periodic: bool,
    /// Up to so many requests at once.
    pub burst: u64,
    /// Whether all clients use one slice, and not one each.
    pub is_common: bool,
    /// Most idle connections of one slice.
    pub slice_limit: usize,
}

/// What has happened.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub requests: u64,
    pub reused: u64,
    pub failed: u64,
    /// Those due to the server's timer.
    pub raced: u64,
    /// Those of them after the server has closed three connections, 100 ms apart.
    pub raced_late: u64,
    /// Those of them after a right timeout was learned for the first time.
    pub raced_knowing: u64,
    /// How many connections the server has closed, 100 ms apart, after a second or more.
    pub closes: u64,
    /// What was learned, and when.
    pub values: Vec<(Micros, Option<u32>)>,
    /// The times with a right value, with a wrong one, and altogether.
    pub right: Micros,
    pub wrong: Micros,
    pub time: Micros,
}

impl Outcome {
    /// The part of the requests that were sent on a connection of another one.
    pub fn reuse(&self) -> f64 {
        self.reused as f64 / self.requests as f64
    }

    /// What is known at a time.
    pub fn value_at(&self, time: Micros) -> Option<u32> {
        self.values.iter().rev().find(|(from, _)| *from <= time).and_then(|(_, value)| *value)
    }
}

struct Connection {
    slice: usize,
    /// Since when it has been idle or busy.
    since: Micros,
    /// When the server closes it, if it stays idle.
    end: Micros,
    /// When its timer ends.
    timer: Micros,
    is_idle: bool,
}

#[derive(Clone, Copy, Eq, Ord, PartialEq, PartialOrd)]
enum Event {
    Request {
        client: usize,
    },
    Response {
        connection: usize,
    },
    /// The server closes a connection that has been idle since then.
    Close {
        connection: usize,
        since: Micros,
    },
}

pub struct World {
    server: Server,
    traffic: Traffic,
    learn: bool,
    random: Random,
    now: Micros,
    events: BinaryHeap<Reverse<(Micros, Event)>>,
    connections: Vec<Connection>,
    /// The idle connections of each slice, the least recently saved first.
    slices: Vec<Vec<usize>>,
    timeout: IdleTimeout,
    open: usize,
    last_close: Micros,
    outcome: Outcome,
}

impl World {
    /// Lets clients and a server run for some time.
    pub fn run(server: &Server, traffic: &Traffic, learn: bool, time: Micros) -> Outcome {
        let mut world = World {
            server: server.clone(),
            traffic: traffic.clone(),
            learn,
            random: Random::new(7),
            now: 0,
            events: BinaryHeap::new(),
            connections: Vec::new(),
            slices: vec![Vec::new(); if traffic.is_common { 1 } else { traffic.gaps.len() }],
            timeout: IdleTimeout::default(),
            open: 0,
            last_close: 0,
            outcome: Outcome::default(),
        };
        for (client, gap) in traffic.gaps.iter().enumerate() {
            let first = world.random.below(*gap);
            world.at(first, Event::Request { client });
        }
        while let Some(Reverse((now, event))) = world.events.pop() {
            let end = now.min(time);
            world.account(end - world.now);
            world.now = end;
            if now >= time {
                break;
            }
            world.happen(event);
            world.note();
        }
        world.outcome
    }

    fn at(&mut self, time: Micros, event: Event) {
        self.events.push(Reverse((time, event)));
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Request { client } => {
                let gap = self.traffic.gaps[client];
                let wait = if self.traffic.is_periodic { gap } else { self.random.wait(gap) };
                self.at(self.now + wait, Event::Request { client });
                let requests = 1 + self.random.below(self.traffic.burst);
                for _ in 0..requests {
                    self.request(if self.traffic.is_common { 0 } else { client });
                }
            }
            Event::Response { connection } => self.save(connection),
            Event::Close { connection, since } => {
                let Connection { is_idle, since: idle_since, .. } = self.connections[connection];
                let is_silent = self.server.timer(since, connection).is_some_and(|t| t.is_silent);
                if is_idle && idle_since == since && !is_silent {
                    self.close(connection);
                }
            }
        }
    }

    /// For how long a connection has been idle, in milliseconds, as nginx measures it.
    fn age(&self, connection: usize) -> u32 {
        let since = self.connections[connection].since;
        (self.now / MILLISECOND - since / MILLISECOND) as u32
    }

    fn request(&mut self, slice: usize) {
        self.outcome.requests += 1;
        match self.find(slice) {
            Some(connection) => {
                self.take(connection);
                let Connection { end, .. } = self.connections[connection];
                if end <= self.now + RACE || self.random.happens(self.server.kill_at_reuse) {
                    return self.fail(connection);
                }
                self.outcome.reused += 1;
                self.begin(connection);
            }
            None => {
                self.shed();
                self.open += 1;
                let new = Connection { slice, since: 0, end: 0, timer: 0, is_idle: false };
                self.connections.push(new);
                self.begin(self.connections.len() - 1);
            }
        }
    }

    fn begin(&mut self, connection: usize) {
        self.connections[connection].since = self.now;
        let wait = MILLISECOND + self.random.wait(RESPONSE);
        self.at(self.now + wait, Event::Response { connection });
    }

    /// The idle connection that a request uses: what the module does.
    fn find(&mut self, slice: usize) -> Option<usize> {
        let last = *self.slices[slice].last()?;
        if !self.learn || !must_look(self.age(last)) || !self.is_too_old(last) {
            return Some(last);
        }
        let first = *self.slices[slice].first()?;
        self.timeout.open(self.age(first), self.now / MILLISECOND);
        self.timeout.get().is_none().then_some(last)
    }

    fn is_too_old(&mut self, connection: usize) -> bool {
        let age = self.age(connection);
        self.timeout.open(age, self.now / MILLISECOND);
        self.timeout.limit(MARGIN).is_some_and(|limit| age > limit)
    }

    fn fail(&mut self, connection: usize) {
        self.outcome.failed += 1;
        if self.connections[connection].timer <= self.now + RACE {
            self.outcome.raced += 1;
            self.outcome.raced_late += u64::from(self.outcome.closes >= 3);
            self.outcome.raced_knowing += u64::from(self.outcome.right > 0);
        }
        self.open -= 1;
        self.saw_close(connection);
    }

    fn saw_close(&mut self, connection: usize) {
        let age = self.age(connection);
        if must_look(age) && self.now >= self.last_close + 100 * MILLISECOND {
            self.outcome.closes += 1;
            self.last_close = self.now;
        }
        if self.learn {
            self.timeout.closed(age, self.now / MILLISECOND);
        }
    }

    fn save(&mut self, connection: usize) {
        let Connection { since, slice, .. } = self.connections[connection];
        if self.server.next_restart(since, connection) <= self.now {
            self.open -= 1;
            return;
        }
        let timer = self.server.end(self.now, connection, &mut self.random);
        let end = timer.min(self.server.accident(self.now, connection, &mut self.random));
        self.connections[connection] =
            Connection { slice, since: self.now, end, timer, is_idle: true };
        if end < Micros::MAX {
            self.at(end, Event::Close { connection, since: self.now });
        }
        self.slices[slice].push(connection);
        if self.slices[slice].len() > self.traffic.slice_limit {
            let evicted = self.slices[slice][0];
            self.take(evicted);
            self.open -= 1;
        }
    }

    fn take(&mut self, connection: usize) {
        let Connection { slice, is_idle, .. } = &mut self.connections[connection];
        *is_idle = false;
        self.slices[*slice].retain(|other| *other != connection);
    }

    fn close(&mut self, connection: usize) {
        self.take(connection);
        self.open -= 1;
        self.saw_close(connection);
    }

    /// The server makes room for another connection.
    fn shed(&mut self) {
        if self.server.limit.is_some_and(|limit| self.open >= limit) {
            let idle = self.slices.iter().flatten().copied();
            if let Some(oldest) = idle.min_by_key(|idle| self.connections[*idle].since) {
                self.close(oldest);
            }
        }
    }

    /// Whether the value is right; `None` if there is none.
    fn is_right(&self) -> Option<bool> {
        let value = self.timeout.get()?;
        let truth = self.server.truth(self.now);
        Some(truth.is_some_and(|(shortest, longest)| (shortest..=longest).contains(&value)))
    }

    fn account(&mut self, passed: Micros) {
        self.outcome.time += passed;
        match self.is_right() {
            Some(true) => self.outcome.right += passed,
            Some(false) => self.outcome.wrong += passed,
            None => {}
        }
    }

    fn note(&mut self) {
        let value = self.timeout.get();
        if self.outcome.values.last().and_then(|(_, last)| *last) != value {
            self.outcome.values.push((self.now, value));
        }
    }
}

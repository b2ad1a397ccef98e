//! The worker that takes idle connections of the holder, and measures what that costs.

use std::hint;
use std::io::{ErrorKind, Result};
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use crate::processes::{CONTROL, Channels, Letter, Way, received};
use crate::shared::{BATCH, FREE, IDLE, Shared};
use crate::system::{self, CONNECTION, Epoll};
use crate::table::{Column, Row, Table};

/// How often a local hit is repeated, as it is too short for a clock.
const REPEATED: u32 = 1000;

/// What lies between measurements.
const PAUSE: Duration = Duration::from_micros(100);

/// The data of the event of a new connection.
const CONNECTED: u64 = CONTROL - 1;

/// The worker that takes connections.
pub struct Taker<'a> {
    channels: &'a Channels,
    shared: &'a Shared,
    /// The port of the server.
    port: u16,
    epoll: Epoll,
    holder: i32,
    holder_pidfd: OwnedFd,
    /// A listener of this process.
    listener: (OwnedFd, u16),
    /// How long it takes to read the clock of CPU time.
    reading: u64,
    table: Table,
}

/// What a clock and the counters said before something.
struct Before {
    calls: u64,
    cpu: u64,
    time: u64,
}

impl<'a> Taker<'a> {
    /// A worker that takes connections from the process `holder`.
    pub fn new(channels: &'a Channels, shared: &'a Shared, port: u16, holder: i32) -> Result<Self> {
        let epoll = Epoll::new()?;
        epoll.add(&channels.mailbox[0], libc::EPOLLIN, CONTROL)?;
        let mut readings: Vec<_> = (0..99)
            .map(|_| {
                let start = system::own_cpu_time();
                system::own_cpu_time() - start
            })
            .collect();
        readings.sort_unstable();
        let (holder_pidfd, listener) = (system::pidfd_open(holder)?, system::listen()?);
        let (reading, table) = (readings[readings.len() / 2], Table::default());
        Ok(Self { channels, shared, port, epoll, holder, holder_pidfd, listener, reading, table })
    }

    /// Measures everything.
    pub fn measure(mut self, rounds: u32, busy_rounds: u32) -> Result<Table> {
        self.batches(rounds, Self::borrowed_hit)?;
        self.batches(rounds, Self::warm_hit)?;
        self.batches(rounds, |taker, slot| taker.eviction(slot, Row::Eviction))?;
        self.batches(busy_rounds, Self::busy_hit)?;
        self.batches(busy_rounds, Self::busy_eviction)?;
        Ok(self.table)
    }

    /// Lets the holder park connections, and calls `round` for each; the ways take turns.
    fn batches(&mut self, rounds: u32, round: fn(&mut Self, u8) -> Result<()>) -> Result<()> {
        let mut left = rounds;
        while left > 0 {
            let batch = left.min(u32::from(BATCH)) as u8;
            left -= u32::from(batch);
            let slots = 0..batch * Way::ALL.len() as u8;
            for slot in slots.clone() {
                self.write(Letter::Park, slot)?;
            }
            wait_until(|| slots.clone().all(|slot| self.shared.state(slot) == IDLE))?;
            for slot in slots.clone() {
                round(self, slot)?;
            }
            self.write(Letter::Busy, 0)?;
            wait_until(|| slots.clone().all(|slot| self.shared.state(slot) == FREE))?;
            wait_until(|| self.shared.accepted.load(Relaxed) == self.shared.closed.load(Relaxed))?;
        }
        Ok(())
    }

    fn write(&self, letter: Letter, slot: u8) -> Result<()> {
        system::send(&self.channels.mailbox[0], &letter.to_bytes(slot))
    }

    /// Claims an idle connection of the holder, takes it, and watches it.
    fn take(&self, slot: u8) -> Result<OwnedFd> {
        let connection = match Way::of(slot) {
            Way::Flight => self.claimed(slot, || self.channels.take_from_flight(slot))?,
            Way::Mailbox => {
                self.claimed(slot, || Ok(()))?;
                self.write(Letter::Give, slot)?;
                while self.epoll.wait(-1)? != Some(CONTROL) {}
                received(&self.channels.mailbox[0])?
            }
            Way::Getfd => self.get_descriptor(slot)?,
        };
        // Way B needs no look: epoll watches the connection all the time.
        if Way::of(slot) != Way::Mailbox && !system::is_idle(&connection) {
            return Err(ErrorKind::ConnectionReset.into());
        }
        self.epoll.add(&connection, CONNECTION, u64::from(slot))?;
        Ok(connection)
    }

    /// Claims a connection, and calls `then` without the lock.
    fn claimed<T>(&self, slot: u8, then: impl FnOnce() -> Result<T>) -> Result<T> {
        self.shared.claim(slot, |_| ()).ok_or(ErrorKind::NotFound)?;
        then()
    }

    /// Way C: claims a connection, and copies the descriptor before the lock is given back.
    fn get_descriptor(&self, slot: u8) -> Result<OwnedFd> {
        let claimed = self.shared.claim(slot, |slot| {
            system::pidfd_getfd(&self.holder_pidfd, slot.descriptor.load(Relaxed))
        });
        claimed.ok_or(ErrorKind::NotFound)?
    }

    /// Closes a connection that was taken.
    fn finish(&self, slot: u8, connection: OwnedFd) -> Result<()> {
        self.epoll.delete(&connection)?;
        if Way::of(slot) == Way::Getfd {
            // The holder may have its descriptor still. Only this reaches the server, and wakes the
            // holder for certain.
            system::shut_down(&connection)?;
        }
        system::close(connection);
        if Way::of(slot) == Way::Flight {
            self.shared.set(slot, FREE);
        }
        Ok(())
    }

    /// One request and its response, as an event loop does it.
    fn exchange(&self, slot: u8, connection: &OwnedFd) -> Result<()> {
        system::send(connection, b"?")?;
        while self.epoll.wait(-1)? != Some(u64::from(slot)) {}
        system::receive(connection, &mut [0], 0).map(|_| ())
    }

    /// A new connection to the server, which is ready for a request.
    fn connect(&self) -> Result<OwnedFd> {
        let connection = system::connect_later(self.port)?;
        self.epoll.add(&connection, CONNECTION | libc::EPOLLOUT, CONNECTED)?;
        while self.epoll.wait(-1)? != Some(CONNECTED) {}
        Ok(connection)
    }

    /// A new connection, with the server's part in the same process.
    fn connect_accept_close(&self) -> Result<()> {
        let connection = system::connect(self.listener.1)?;
        let accepted = system::accept(&self.listener.0)?;
        system::close(connection);
        system::close(accepted);
        Ok(())
    }

    /// Closes an idle connection of the holder.
    fn evict(&self, slot: u8) -> Result<()> {
        match Way::of(slot) {
            Way::Flight => {
                system::close(self.claimed(slot, || self.channels.take_from_flight(slot))?);
                self.shared.set(slot, FREE);
            }
            Way::Mailbox => self.claimed(slot, || self.write(Letter::Close, slot))?,
            Way::Getfd => {
                let connection = self.get_descriptor(slot)?;
                system::shut_down(&connection)?;
                system::close(connection);
            }
        }
        Ok(())
    }
}

/// The measurements.
impl Taker<'_> {
    fn before(&self) -> Before {
        Before { calls: system::calls(), cpu: system::own_cpu_time(), time: system::now() }
    }

    /// Enters time, CPU time and system calls since `before`, and returns the CPU time.
    fn enter(&mut self, column: Column, before: &Before) -> u64 {
        let time = system::now() - before.time;
        let cpu = (system::own_cpu_time() - before.cpu).saturating_sub(self.reading);
        self.table.add_time(Row::Hit, column, time);
        self.table.add_time(Row::TakerCpu, column, cpu);
        self.table.add(Row::TakerCalls, column, (system::calls() - before.calls) as f64);
        cpu
    }

    /// Everything about a connection whose holder waits for events.
    fn borrowed_hit(&mut self, slot: u8) -> Result<()> {
        let column = Column::Way(Way::of(slot));
        let parking = self.shared.slot(slot).parking.load(Relaxed);
        self.table.add_time(Row::Parking, column, parking);
        if Way::of(slot) != Way::Flight {
            self.local_hits(slot, column)?;
        }

        let holder = system::cpu_time(self.holder)?;
        let holder_calls = self.shared.holder_calls.load(Relaxed);
        let before = self.before();
        let connection = self.take(slot)?;
        let cpu = self.enter(column, &before);

        self.exchange(slot, &connection)?;
        match Way::of(slot) {
            Way::Flight => self.local_flight(slot, connection)?,
            Way::Mailbox => self.finish(slot, connection)?,
            Way::Getfd => self.response_was_noticed(slot, connection, Row::Unnoticed)?,
        }
        wait_until(|| self.shared.state(slot) == FREE)?;
        // Until the holder waits again.
        thread::sleep(PAUSE);
        let holder_cpu = system::cpu_time(self.holder)? - holder;
        let holder_calls = self.shared.holder_calls.load(Relaxed) - holder_calls;
        self.table.add_time(Row::HolderCpu, column, holder_cpu);
        self.table.add_time(Row::Cpu, column, cpu + holder_cpu);
        self.table.add(Row::HolderCalls, column, holder_calls as f64);
        if Way::of(slot) == Way::Flight { self.connects() } else { Ok(()) }
    }

    /// Ways B and C: a process's own idle connection is in its epoll set already.
    fn local_hits(&mut self, slot: u8, column: Column) -> Result<()> {
        let start = system::now();
        for _ in 0..REPEATED {
            self.claimed(slot, || Ok(()))?;
            self.shared.set(slot, IDLE);
        }
        let time = (system::now() - start) as f64 / f64::from(REPEATED);
        self.table.add(Row::LocalHit, column, time / 1000.0);
        Ok(())
    }

    /// Way A: a process's own idle connection is in flight as all others.
    fn local_flight(&mut self, slot: u8, connection: OwnedFd) -> Result<()> {
        self.epoll.delete(&connection)?;
        self.channels.put_in_flight(slot, connection)?;
        self.shared.set(slot, IDLE);
        let start = system::now();
        let connection = self.take(slot)?;
        let time = system::now() - start;
        self.table.add_time(Row::LocalHit, Column::Way(Way::Flight), time);
        self.finish(slot, connection)
    }

    /// Way C: whether the holder has noticed the response, by which it learns that it no longer has
    /// the connection. Ends the connection, which it certainly notices.
    fn response_was_noticed(&mut self, slot: u8, connection: OwnedFd, row: Row) -> Result<()> {
        let turns = Duration::from_millis(if row == Row::BusyUnnoticed { 25 } else { 1 });
        let end = Instant::now() + turns;
        while self.shared.state(slot) != FREE && Instant::now() < end {
            thread::sleep(Duration::from_micros(20));
        }
        let unnoticed = u8::from(self.shared.state(slot) != FREE);
        self.table.add(row, Column::Way(Way::Getfd), f64::from(unnoticed));
        self.finish(slot, connection)
    }

    /// What a worker does without an idle connection.
    fn connects(&mut self) -> Result<()> {
        thread::sleep(PAUSE);
        let before = self.before();
        let connection = self.connect()?;
        self.enter(Column::Connect, &before);
        system::close(connection);

        thread::sleep(PAUSE);
        let before = self.before();
        self.connect_accept_close()?;
        let cpu = self.enter(Column::ConnectAcceptClose, &before);
        self.table.add_time(Row::Cpu, Column::ConnectAcceptClose, cpu);
        Ok(())
    }

    /// A hit without sleep before it: the processor is awake.
    fn warm_hit(&mut self, slot: u8) -> Result<()> {
        let way = Way::of(slot);
        let connection = self.warm(Column::Way(way), |taker| taker.take(slot))?;
        self.exchange(slot, &connection)?;
        self.finish(slot, connection)?;
        if way == Way::Flight {
            system::close(self.warm(Column::Connect, Self::connect)?);
            self.warm(Column::ConnectAcceptClose, Self::connect_accept_close)?;
        }
        wait_until(|| self.shared.state(slot) == FREE)
    }

    /// Enters the time of `action`, after a pause in which the processor does not sleep.
    fn warm<T>(&mut self, column: Column, action: impl Fn(&Self) -> Result<T>) -> Result<T> {
        let end = Instant::now() + PAUSE;
        while Instant::now() < end {
            hint::spin_loop();
        }
        let start = system::now();
        let result = action(self)?;
        self.table.add_time(Row::WarmHit, column, system::now() - start);
        Ok(result)
    }

    /// How long until the server sees the end of a connection.
    fn eviction(&mut self, slot: u8, row: Row) -> Result<()> {
        let closed = self.shared.closed.load(Relaxed);
        let start = system::now();
        self.evict(slot)?;
        wait_until(|| self.shared.closed.load(Acquire) > closed)?;
        let time = self.shared.closed_at.load(Relaxed) - start;
        self.table.add_time(row, Column::Way(Way::of(slot)), time);
        Ok(())
    }

    fn busy_hit(&mut self, slot: u8) -> Result<()> {
        self.at_any_moment(slot)?;
        let start = system::now();
        let connection = self.take(slot)?;
        let time = system::now() - start;
        self.table.add_time(Row::BusyHit, Column::Way(Way::of(slot)), time);
        self.exchange(slot, &connection)?;
        match Way::of(slot) {
            Way::Getfd => self.response_was_noticed(slot, connection, Row::BusyUnnoticed),
            _ => self.finish(slot, connection),
        }
    }

    fn busy_eviction(&mut self, slot: u8) -> Result<()> {
        self.at_any_moment(slot)?;
        self.eviction(slot, Row::BusyEviction)
    }

    /// Waits for a moment of the holder's 20 ms, another one in each round.
    fn at_any_moment(&self, slot: u8) -> Result<()> {
        if slot == 0 {
            self.write(Letter::Busy, 1)?;
        }
        thread::sleep(Duration::from_micros(u64::from(slot) * 7919 % 20_000));
        Ok(())
    }
}

/// Waits for what another process does.
fn wait_until(condition: impl Fn() -> bool) -> Result<()> {
    let end = system::now() + 5_000_000_000;
    while !condition() {
        if system::now() > end {
            return Err(ErrorKind::TimedOut.into());
        }
        thread::sleep(Duration::from_micros(20));
    }
    Ok(())
}

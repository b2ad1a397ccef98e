//! The server, and the worker that holds the idle connections.

use std::collections::HashMap;
use std::io::{Error, ErrorKind, Result};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::Ordering::Relaxed;

use crate::shared::{FREE, IDLE, SLOTS, Shared};
use crate::system::{self, CONNECTION, Epoll};

/// The data of events that are not those of a connection.
pub const CONTROL: u64 = u64::MAX;

/// What the holder's mailbox takes, with the number of a slot.
#[derive(Clone, Copy, PartialEq)]
pub enum Letter {
    /// Open a connection, and park it.
    Park,
    /// Way B: hand it over.
    Give,
    /// Way B: close it.
    Close,
    /// From now on, run 20 ms between looks at events, if the number is not zero.
    Busy,
}

impl Letter {
    const ALL: [Self; 4] = [Self::Park, Self::Give, Self::Close, Self::Busy];

    /// Its form in the mailbox.
    pub fn to_bytes(self, slot: u8) -> [u8; 2] {
        [self as u8, slot]
    }
}

/// The way by which a slot's connection changes hands; the slots take turns.
#[derive(Clone, Copy, PartialEq)]
pub enum Way {
    /// A: it lies in flight.
    Flight,
    /// B: the holder is asked by a letter.
    Mailbox,
    /// C: it is taken with `pidfd_getfd(2)`.
    Getfd,
}

impl Way {
    /// All of them, in the order of the tables.
    pub const ALL: [Self; 3] = [Self::Flight, Self::Mailbox, Self::Getfd];

    /// The way of a slot.
    pub fn of(slot: u8) -> Self {
        Self::ALL[usize::from(slot) % Self::ALL.len()]
    }
}

/// The sockets between the workers, made before the fork.
pub struct Channels {
    /// Way A: a pair for each slot; what is sent to the first comes out of the second.
    pub flights: Vec<[OwnedFd; 2]>,
    /// The mailbox of the holder, and the taker's end of it.
    pub mailbox: [OwnedFd; 2],
}

impl Channels {
    /// Opens all of them.
    pub fn new() -> Result<Self> {
        let flights = (0..SLOTS).map(|_| system::socket_pair()).collect::<Result<_>>()?;
        Ok(Self { flights, mailbox: system::socket_pair()? })
    }

    /// Way A: parks a connection, which has left epoll.
    pub fn put_in_flight(&self, slot: u8, connection: OwnedFd) -> Result<()> {
        system::send_descriptor(&self.flights[usize::from(slot)][0], slot, &connection)?;
        system::close(connection);
        Ok(())
    }

    /// Way A: the connection that lies in flight.
    pub fn take_from_flight(&self, slot: u8) -> Result<OwnedFd> {
        received(&self.flights[usize::from(slot)][1])
    }
}

/// The descriptor in a message.
pub fn received(channel: &OwnedFd) -> Result<OwnedFd> {
    let (_, descriptor) = system::receive_descriptor(channel)?;
    descriptor.map_err(|_| Error::new(ErrorKind::NotFound, "a message without its descriptor"))
}

/// One request and its response.
fn exchange(connection: &OwnedFd) -> Result<()> {
    system::send(connection, b"?")?;
    match system::receive(connection, &mut [0], 0)? {
        1 => Ok(()),
        _ => Err(ErrorKind::UnexpectedEof.into()),
    }
}

/// Sends everything back, and notes when connections are closed.
pub fn serve(listener: &OwnedFd, shared: &Shared) -> Result<()> {
    let epoll = Epoll::new()?;
    epoll.add(listener, libc::EPOLLIN, CONTROL)?;
    let mut connections = HashMap::new();
    loop {
        let Some(data) = epoll.wait(-1)? else { continue };
        if data == CONTROL {
            let connection = system::accept(listener)?;
            let data = connection.as_raw_fd() as u64;
            epoll.add(&connection, libc::EPOLLIN, data)?;
            connections.insert(data, connection);
            shared.accepted.fetch_add(1, Relaxed);
        } else if let Some(connection) = connections.get(&data) {
            if system::receive(connection, &mut [0], 0).is_ok_and(|length| length > 0) {
                system::send(connection, b"!")?;
            } else {
                shared.closed_at.store(system::now(), Relaxed);
                connections.remove(&data);
                shared.closed.fetch_add(1, Relaxed);
            }
        }
    }
}

/// The worker that holds the idle connections.
pub struct Holder<'a> {
    channels: &'a Channels,
    shared: &'a Shared,
    port: u16,
    epoll: Epoll,
    connections: [Option<OwnedFd>; SLOTS],
    busy: bool,
}

impl<'a> Holder<'a> {
    /// Its event loop.
    pub fn run(channels: &'a Channels, shared: &'a Shared, port: u16) -> Result<()> {
        let (epoll, connections) = (Epoll::new()?, [const { None }; SLOTS]);
        epoll.add(&channels.mailbox[1], libc::EPOLLIN, CONTROL)?;
        let mut holder = Self { channels, shared, port, epoll, connections, busy: false };
        loop {
            shared.holder_calls.store(system::calls(), Relaxed);
            match holder.epoll.wait(if holder.busy { 0 } else { -1 })? {
                Some(CONTROL) => holder.read_letter()?,
                Some(slot) => holder.wake(slot as u8)?,
                // All events are seen to, and it does not wait.
                None => be_busy(),
            }
        }
    }

    fn read_letter(&mut self) -> Result<()> {
        let mut letter = [0; 2];
        system::receive(&self.channels.mailbox[1], &mut letter, 0)?;
        let [kind, slot] = letter;
        match Letter::ALL[usize::from(kind)] {
            Letter::Park => self.park(slot),
            Letter::Give => self.give(slot),
            Letter::Close => {
                if let Some(connection) = self.connections[usize::from(slot)].take() {
                    system::close(connection);
                }
                self.shared.set(slot, FREE);
                Ok(())
            }
            Letter::Busy => {
                self.busy = slot != 0;
                Ok(())
            }
        }
    }

    /// Opens a connection, uses it once, and parks it.
    fn park(&mut self, slot: u8) -> Result<()> {
        let connection = system::connect(self.port)?;
        exchange(&connection)?;
        self.epoll.add(&connection, CONNECTION, u64::from(slot))?;

        let start = system::now();
        if Way::of(slot) == Way::Flight {
            self.epoll.delete(&connection)?;
            self.channels.put_in_flight(slot, connection)?;
        } else {
            self.shared.slot(slot).descriptor.store(connection.as_raw_fd(), Relaxed);
            self.connections[usize::from(slot)] = Some(connection);
        }
        self.shared.set(slot, IDLE);
        self.shared.slot(slot).parking.store(system::now() - start, Relaxed);
        Ok(())
    }

    /// Way B: hands a connection over.
    fn give(&mut self, slot: u8) -> Result<()> {
        if let Some(connection) = self.connections[usize::from(slot)].take() {
            self.epoll.delete(&connection)?;
            system::send_descriptor(&self.channels.mailbox[1], slot, &connection)?;
            system::close(connection);
        }
        self.shared.set(slot, FREE);
        Ok(())
    }

    /// Something happened to a connection. Way C: it was taken, and has a response that the taker
    /// has not read yet, or its end.
    fn wake(&mut self, slot: u8) -> Result<()> {
        // Whoever has claimed it took the descriptor under the same lock, and needs this one no
        // more. Nobody may claim it from now on.
        self.shared.claim(slot, |_| ());
        if let Some(connection) = self.connections[usize::from(slot)].take() {
            self.epoll.delete(&connection)?;
            system::close(connection);
        }
        self.shared.set(slot, FREE);
        Ok(())
    }
}

/// A long callback.
fn be_busy() {
    let end = system::now() + 20_000_000;
    while system::now() < end {}
}

//! Descriptors on their way from one worker process to another.
//!
//! A worker takes a connection of another one by `pidfd_getfd()`, which needs Linux 5.6 and the
//! right to trace that process. A worker that ends sends its connections through a socket pair
//! that the master made, and from which the new workers read.

use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Mutex, OnceLock};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, Shutdown, SocketFlags, SocketType,
};
use rustix::process;

use crate::counters::Pid;
use crate::pool::SlotIndex;
use crate::shared::{Ticket, WorkerNumber};

#[cfg(target_os = "linux")]
mod probe;

/// Why there is no descriptor.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Failure {
    /// The process, or its descriptor, does not exist any more.
    Gone,
    /// The system does not allow it, or cannot do it now.
    Refused(Errno),
}

impl From<Errno> for Failure {
    fn from(error: Errno) -> Self {
        match error {
            Errno::SRCH | Errno::BADF => Failure::Gone,
            error => Failure::Refused(error),
        }
    }
}

/// The most processes of a master, as in nginx.
const MOST: usize = 1024;

/// The processes from which descriptors were fetched, by the numbers of the workers.
static PROCESSES: Mutex<[Option<(Pid, OwnedFd)>; MOST]> = Mutex::new([const { None }; MOST]);

/// Whether this process must not try.
static FORBIDDEN: AtomicBool = AtomicBool::new(false);

/// Fetches a copy of a descriptor of another worker, by its number and its process.
///
/// # Errors
///
/// Why there is none.
pub fn fetch((number, process): (WorkerNumber, Pid), fd: RawFd) -> Result<OwnedFd, Failure> {
    if FORBIDDEN.load(Relaxed) {
        return Err(Failure::Refused(Errno::PERM));
    }
    let Ok(mut processes) = PROCESSES.lock() else { return Err(Failure::Gone) };
    let fetched = fetch_from(&mut *processes, number.into(), process, fd);
    if let Err(Failure::Refused(Errno::MFILE | Errno::NFILE)) = fetched {
        // The request goes on with a connection of its own, which needs one of these.
        processes.fill_with(|| None);
    }
    fetched
}

fn fetch_from(
    processes: &mut [Option<(Pid, OwnedFd)>],
    number: usize,
    process: Pid,
    fd: RawFd,
) -> Result<OwnedFd, Failure> {
    let is_known =
        processes.get(number).and_then(Option::as_ref).is_some_and(|&(known, _)| known == process);
    if !is_known {
        // Nobody asks for those that have ended again.
        for known in processes.iter_mut() {
            if known.as_ref().is_some_and(|&(known, _)| !lives(known)) {
                *known = None;
            }
        }
        let opened = open(process)?;
        *processes.get_mut(number).ok_or(Failure::Gone)? = Some((process, opened));
    }
    let Some(Some((_, pidfd))) = processes.get(number) else { return Err(Failure::Gone) };
    Ok(get(pidfd.as_fd(), fd)?)
}

#[cfg(target_os = "linux")]
fn open(process: Pid) -> Result<OwnedFd, Failure> {
    let pid = process.try_into().ok().and_then(process::Pid::from_raw).ok_or(Failure::Gone)?;
    Ok(process::pidfd_open(pid, process::PidfdFlags::empty())?)
}

#[cfg(target_os = "linux")]
fn get(pidfd: BorrowedFd<'_>, fd: RawFd) -> Result<OwnedFd, Errno> {
    process::pidfd_getfd(pidfd, fd, process::PidfdGetfdFlags::empty())
}

#[cfg(not(target_os = "linux"))]
fn open(_: Pid) -> Result<OwnedFd, Failure> {
    Err(Failure::Refused(Errno::NOSYS))
}

#[cfg(not(target_os = "linux"))]
fn get(_: BorrowedFd<'_>, _: RawFd) -> Result<OwnedFd, Errno> {
    Err(Errno::NOSYS)
}

/// Lets the other workers fetch descriptors of this one, where only the parent of a process may
/// trace it (Yama): all workers have the same parent. Finds out whether this one may try.
pub fn begin() {
    #[cfg(target_os = "linux")]
    {
        if let Some(master) = process::getppid() {
            // Without Yama, there is no such call, and no such rule.
            let _ = process::set_ptracer(process::PTracer::ProcessID(master));
        }
        let try_it = || {
            let _ = fetch((0, std::process::id()), 0);
        };
        FORBIDDEN.store(probe::is_deadly(try_it), Relaxed);
    }
}

/// Whether a worker of this number is alive: a process of the master's group, to which all workers
/// belong. Another program may have got the number of a killed worker.
pub fn lives(process: Pid) -> bool {
    let pid = process.try_into().ok().and_then(process::Pid::from_raw);
    pid.is_some_and(|pid| {
        process::getpgid(Some(pid)).is_ok_and(|group| group == process::getpgrp())
    })
}

/// Ends a connection for all processes that have a descriptor of it, at once.
pub fn shut_down(fd: BorrowedFd<'_>) {
    // It may have ended by itself.
    let _ = rustix::net::shutdown(fd, Shutdown::Both);
}

/// Whether there is nothing to read from a connection, not even its end.
pub fn is_quiet(fd: BorrowedFd<'_>) -> bool {
    let mut byte = [0_u8];
    let read = rustix::net::recv(fd, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT);
    read.is_err_and(|error| error == Errno::AGAIN)
}

/// The ends of the socket pair: to send, and to receive.
static MAILBOX: OnceLock<(OwnedFd, OwnedFd)> = OnceLock::new();

/// Makes the socket pair, unless there is one: it is the same for all workers of a master, old and
/// new ones.
///
/// # Errors
///
/// Those of `socketpair()`.
pub fn make_mailbox() -> Result<(), Errno> {
    if MAILBOX.get().is_none() {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let pair =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        // Nothing but this function sets it, and a master has one thread.
        let _ = MAILBOX.set(pair);
    }
    Ok(())
}

/// The end from which connections are received.
pub fn mailbox() -> Option<BorrowedFd<'static>> {
    MAILBOX.get().map(|(_, receiver)| receiver.as_fd())
}

/// What is sent with a descriptor.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Letter {
    /// The number of the memory in which the connection lies.
    pub zone: u64,
    /// Its holding.
    pub ticket: Ticket,
}

const LENGTH: usize = 20;

impl Letter {
    fn to_bytes(self) -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        let parts = self.zone.to_ne_bytes().into_iter();
        let parts = parts.chain(self.ticket.generation.to_ne_bytes());
        let parts = parts.chain(self.ticket.slot.get().to_ne_bytes());
        bytes.iter_mut().zip(parts).for_each(|(byte, part)| *byte = part);
        bytes
    }

    fn from_bytes(bytes: &[u8; LENGTH]) -> Option<Self> {
        let (zone, rest) = bytes.split_first_chunk()?;
        let (generation, rest) = rest.split_first_chunk()?;
        let (slot, _) = rest.split_first_chunk()?;
        let slot = SlotIndex::new(u32::from_ne_bytes(*slot));
        let ticket = Ticket { slot, generation: u64::from_ne_bytes(*generation) };
        Some(Letter { zone: u64::from_ne_bytes(*zone), ticket })
    }
}

/// Sends a connection to whichever worker receives it first.
///
/// # Errors
///
/// It is not sent: there are too many on their way, for example.
pub fn send(letter: Letter, fd: BorrowedFd<'_>) -> Result<(), Errno> {
    let (sender, _) = MAILBOX.get().ok_or(Errno::NOTCONN)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [fd];
    control.push(SendAncillaryMessage::ScmRights(&fds));
    let bytes = letter.to_bytes();
    rustix::net::sendmsg(sender, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Receives a connection, if there is one. Without a descriptor, this process has too many.
pub fn receive() -> Option<(Letter, Option<OwnedFd>)> {
    let (_, receiver) = MAILBOX.get()?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = [0; LENGTH];
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received =
        rustix::net::recvmsg(receiver, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags);
    if received.ok()?.bytes != LENGTH {
        return None;
    }
    let fd = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    Some((Letter::from_bytes(&bytes)?, fd))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_letter_arrives_as_it_was_sent() {
        let slot = SlotIndex::new(0x0102_0304);
        let ticket = Ticket { slot, generation: 0x1112_1314_1516_1718 };
        let letter = Letter { zone: 0x2122_2324_2526_2728, ticket };
        assert_eq!(Letter::from_bytes(&letter.to_bytes()), Some(letter));
    }

    #[test]
    fn a_descriptor_arrives_with_its_letter() {
        make_mailbox().unwrap();
        make_mailbox().unwrap();
        let pair = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::empty(),
            None,
        );
        let (a, b) = pair.unwrap();
        let letter = Letter { zone: 7, ticket: Ticket { slot: SlotIndex::new(3), generation: 5 } };
        send(letter, a.as_fd()).unwrap();
        drop(a);
        let (received, a) = receive().unwrap();
        let a = a.unwrap();
        assert_eq!(received, letter);
        assert!(receive().is_none());
        assert!(is_quiet(a.as_fd()) && is_quiet(b.as_fd()));
        shut_down(a.as_fd());
        assert!(!is_quiet(b.as_fd()));
    }

    #[test]
    fn what_is_gone_is_told_from_what_is_refused() {
        // The highest number that a process can have, and more.
        assert_eq!(fetch((1, 4_194_304), 0).unwrap_err(), Failure::Gone);
        assert_eq!(fetch((2, std::process::id()), 1_000_000).unwrap_err(), Failure::Gone);
        assert!(fetch((2, std::process::id()), 0).is_ok());
        assert!(lives(std::process::id()) && !lives(4_194_304));
    }

    #[test]
    fn processes_that_have_ended_are_forgotten() {
        let [mut first, mut second] =
            [(); 2].map(|()| Command::new("sleep").arg("60").spawn().unwrap());
        assert!(fetch((3, first.id()), 0).is_ok());
        first.kill().unwrap();
        first.wait().unwrap();
        assert!(fetch((4, second.id()), 0).is_ok());
        second.kill().unwrap();
        second.wait().unwrap();
        let processes = PROCESSES.lock().unwrap();
        let knows = |process| processes.iter().flatten().any(|&(known, _)| known == process);
        assert_eq!((knows(first.id()), knows(second.id())), (false, true));
    }
}

//! What happens when the system refuses, and when the server closes: each case for real, in a child
//! process of its own.

use std::fs;
use std::io::{ErrorKind, Result};
use std::os::fd::{AsRawFd, OwnedFd};

use crate::system::{self, CONNECTION, Epoll};

/// A connection, and the server's end of it.
struct Pair {
    client: OwnedFd,
    server: OwnedFd,
}

impl Pair {
    fn new() -> Result<Self> {
        let (listener, port) = system::listen()?;
        Ok(Self { client: system::connect(port)?, server: system::accept(&listener)? })
    }
}

/// Prints a table of what each way returned.
pub fn print() -> Result<()> {
    println!("| case | way | observed |\n|---|---|---|");
    let row = |case, way, observed| println!("| {case} | {way} | {observed} |");
    row("RLIMIT_NOFILE of the taker", "A, B", in_child(receive_at_limit)?);
    row("RLIMIT_NOFILE of the taker", "C", getfd_at_limit()?);
    row("30 in flight, user nobody, RLIMIT_NOFILE 20", "A, B", in_child(too_many_in_flight)?);
    row("user nobody, as setuid left it", "C", in_child(|| getfd_as_nobody(false))?);
    row("user nobody, PR_SET_DUMPABLE 1 as in nginx", "C", in_child(|| getfd_as_nobody(true))?);
    row("seccomp", "A, B", in_child(|| after_seccomp(flight))?);
    row("seccomp", "C", in_child(|| after_seccomp(getfd_from_parent))?);
    row("Yama", "C", yama()?);
    row("the server closes", "A", in_child(close_in_flight)?);
    row("the server closes, not deleted from epoll", "A", in_child(close_with_watch)?);
    row("the server closes", "B, C", in_child(close_in_epoll)?);
    Ok(())
}

/// What `case` observes in a child process.
fn in_child(case: impl FnOnce() -> Result<String>) -> Result<String> {
    let [ours, childs] = system::socket_pair()?;
    let _child = system::fork(|| system::send(&childs, case()?.as_bytes()))?;
    drop(childs);
    let mut observed = [0; 1000];
    let length = system::receive(&ours, &mut observed, 0)?;
    Ok(String::from_utf8_lossy(&observed[..length]).into_owned())
}

/// What a system call returned.
fn outcome<T>(name: &str, result: Result<T>) -> String {
    match result {
        Ok(_) => format!("{name}: succeeds"),
        Err(error) => format!("{name}: {error}"),
    }
}

/// Whether the server's end of a connection is still open.
fn seen_by(server: &OwnedFd) -> &'static str {
    if system::is_idle(server) { "the connection stays open" } else { "the connection is lost" }
}

fn receive_at_limit() -> Result<String> {
    let (pair, channel) = (Pair::new()?, system::socket_pair()?);
    system::send_descriptor(&channel[0], 0, &pair.client)?;
    system::close(pair.client);
    system::limit_descriptors(3)?;
    let flags = match system::receive_descriptor(&channel[1])? {
        (_, Ok(_)) => return Ok("recvmsg: succeeds".into()),
        (_, Err(libc::MSG_CTRUNC)) => "MSG_CTRUNC",
        (_, Err(_)) => "other flags",
    };
    Ok(format!("recvmsg: {flags}, without a descriptor; {}", seen_by(&pair.server)))
}

fn getfd_at_limit() -> Result<String> {
    let pair = Pair::new()?;
    let client = pair.client.as_raw_fd();
    let observed = in_child(|| {
        let holder = system::pidfd_open(system::parent())?;
        system::limit_descriptors(3)?;
        Ok(outcome("pidfd_getfd", system::pidfd_getfd(&holder, client)))
    })?;
    Ok(format!("{observed}; {}", seen_by(&pair.server)))
}

fn too_many_in_flight() -> Result<String> {
    let (pair, channel) = (Pair::new()?, system::socket_pair()?);
    system::become_nobody()?;
    system::limit_descriptors(20)?;
    for sent in 0..30 {
        if let Err(error) = system::send_descriptor(&channel[0], 0, &pair.client) {
            let open = seen_by(&pair.server);
            return Ok(format!("sendmsg after {sent}: {error}; {open}, with its holder"));
        }
    }
    Ok("sendmsg: all 30 succeed".into())
}

/// Puts a connection in flight, and takes it.
fn flight() -> Result<String> {
    let (pair, channel) = (Pair::new()?, system::socket_pair()?);
    system::send_descriptor(&channel[0], 0, &pair.client)?;
    let (_, received) = system::receive_descriptor(&channel[1])?;
    Ok(outcome("recvmsg", received.map_err(|_| ErrorKind::NotFound.into())))
}

/// A child takes a connection from this process.
fn getfd_from_parent() -> Result<String> {
    let pair = Pair::new()?;
    let client = pair.client.as_raw_fd();
    in_child(|| {
        let holder = system::pidfd_open(system::parent())?;
        Ok(outcome("pidfd_getfd", system::pidfd_getfd(&holder, client)))
    })
}

fn getfd_as_nobody(dumpable: bool) -> Result<String> {
    system::become_nobody()?;
    if dumpable {
        system::prctl(libc::PR_SET_DUMPABLE, 1)?;
    }
    getfd_from_parent()
}

fn after_seccomp(case: fn() -> Result<String>) -> Result<String> {
    system::forbid_pidfd_getfd()?;
    case()
}

/// Yama admits only descendants, unless the holder names an ancestor of the taker.
fn yama() -> Result<String> {
    let Ok(scope) = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope") else {
        return Ok("not tried: this kernel has no Yama".into());
    };
    let without = in_child(|| getfd_as_nobody(true))?;
    let with = in_child(|| {
        let any = system::prctl(libc::PR_SET_PTRACER, u64::MAX);
        any.and_then(|()| getfd_as_nobody(true))
    })?;
    Ok(format!("ptrace_scope {}: {without}; with PR_SET_PTRACER: {with}", scope.trim()))
}

/// Lets the server close, and says what epoll reports in 100 ms.
fn reported(epoll: &Epoll, server: OwnedFd) -> Result<&'static str> {
    system::close(server);
    Ok(if epoll.wait(100)?.is_some() { "epoll reports it" } else { "nobody notices" })
}

/// Whether a look at a connection that was taken tells that it has ended.
fn looked_at(channel: &OwnedFd) -> Result<&'static str> {
    let (_, received) = system::receive_descriptor(channel)?;
    let connection = received.map_err(|_| ErrorKind::NotFound)?;
    Ok(if system::is_idle(&connection) { "does not tell" } else { "tells" })
}

fn close_in_flight() -> Result<String> {
    let (pair, channel, epoll) = (Pair::new()?, system::socket_pair()?, Epoll::new()?);
    epoll.add(&pair.client, CONNECTION, 0)?;
    epoll.delete(&pair.client)?;
    system::send_descriptor(&channel[0], 0, &pair.client)?;
    system::close(pair.client);
    let reported = reported(&epoll, pair.server)?;
    Ok(format!("{reported}; recv(MSG_PEEK) after taking {} it", looked_at(&channel[1])?))
}

/// The epoll set refers to the open connection, not to the descriptor.
fn close_with_watch() -> Result<String> {
    let (pair, channel, epoll) = (Pair::new()?, system::socket_pair()?, Epoll::new()?);
    epoll.add(&pair.client, CONNECTION | libc::EPOLLONESHOT, 0)?;
    system::send_descriptor(&channel[0], 0, &pair.client)?;
    system::close(pair.client);
    Ok(format!("{}, though the descriptor is closed", reported(&epoll, pair.server)?))
}

fn close_in_epoll() -> Result<String> {
    let (pair, epoll) = (Pair::new()?, Epoll::new()?);
    epoll.add(&pair.client, CONNECTION, 0)?;
    Ok(format!("{}, that of the holder", reported(&epoll, pair.server)?))
}

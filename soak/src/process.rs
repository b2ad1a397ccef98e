//! Processes and their sockets, as the system describes them: `/proc`.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use crate::upstreams::{UPSTREAMS, upstream_of};

/// An open connection, from a process's side.
pub struct Socket {
    /// The process's address.
    pub local: SocketAddr,
    /// The other's address.
    pub remote: SocketAddr,
}

/// The state of an open connection, as the system writes it.
const ESTABLISHED: &str = "01";

/// The children of a process.
pub fn children(process: u32) -> Vec<u32> {
    let path = format!("/proc/{process}/task/{process}/children");
    let children = fs::read_to_string(path).unwrap_or_default();
    children.split_whitespace().filter_map(|child| child.parse().ok()).collect()
}

/// The title of a process; empty if it has ended.
pub fn title(process: u32) -> String {
    let title = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&title).trim_end_matches(['\0', ' ']).to_owned()
}

/// Whether a process is stopped.
pub fn is_stopped(process: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
}

/// The private memory of a process, in kilobytes.
pub fn memory(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

/// The open connections of each of these processes, including those that the other side has closed.
pub fn sockets(processes: &[u32]) -> HashMap<u32, Vec<Socket>> {
    // Connections opened after this are not seen; closed ones are not in the table.
    let mut owned: Vec<_> = processes.iter().map(|&process| (process, inodes(process))).collect();
    let mut sockets: HashMap<u32, Vec<Socket>> =
        processes.iter().map(|&process| (process, vec![])).collect();
    let table = fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    for line in table.lines().skip(1) {
        let Some((inode, socket)) = connection(line) else { continue };
        // The table changes while it is read, and may name a socket again.
        let owner =
            owned.iter_mut().find_map(|(process, inodes)| inodes.remove(&inode).then_some(process));
        if let Some(list) = owner.and_then(|process| sockets.get_mut(process)) {
            list.push(socket);
        }
    }
    sockets
}

/// The number of connections to each upstream.
pub fn to_upstreams<'a>(sockets: impl IntoIterator<Item = &'a Socket>) -> Vec<u64> {
    let mut counts = vec![0; UPSTREAMS.len()];
    for index in sockets.into_iter().filter_map(|socket| upstream_of(socket.remote)) {
        counts[index] += 1;
    }
    counts
}

/// The open connections of all processes, from both sides, by the address of this side and the
/// other: whether there is nothing to be read.
pub fn quiet() -> HashMap<(SocketAddr, SocketAddr), bool> {
    let table = fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let quiet = |line: &str| {
        let mut fields = line.split_whitespace();
        let (local, remote) = (fields.nth(1)?, fields.next()?);
        let (state, (_, unread)) = (fields.next()?, fields.next()?.split_once(':')?);
        let quiet = unread.bytes().all(|digit| digit == b'0');
        (state == ESTABLISHED).then_some(((address(local)?, address(remote)?), quiet))
    };
    table.lines().skip(1).filter_map(quiet).collect()
}

fn inodes(process: u32) -> HashSet<u64> {
    let Ok(files) = fs::read_dir(format!("/proc/{process}/fd")) else { return HashSet::new() };
    let links = files.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
    let inode = |link: &str| link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok();
    links.filter_map(|link| inode(link.to_str()?)).collect()
}

/// The inode and the addresses of a connection.
fn connection(line: &str) -> Option<(u64, Socket)> {
    let mut fields = line.split_whitespace();
    let (local, remote) = (fields.nth(1)?, fields.next()?);
    let inode = fields.nth(6)?.parse().ok()?;
    Some((inode, Socket { local: address(local)?, remote: address(remote)? }))
}

fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let ip = Ipv4Addr::from(u32::from_str_radix(ip, 16).ok()?.to_ne_bytes());
    Some(SocketAddrV4::new(ip, u16::from_str_radix(port, 16).ok()?).into())
}

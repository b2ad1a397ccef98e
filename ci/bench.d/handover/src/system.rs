//! System calls. Each function counts those that it makes; time and memory are not counted.

use std::io::{Error, Result};
use std::mem::{size_of, size_of_val};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::{self, from_mut, from_ref};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use libc::{c_int, c_long, c_void, sockaddr_in};

/// The system calls of this process.
static CALLS: AtomicU64 = AtomicU64::new(0);

/// How many system calls this process has made here.
pub fn calls() -> u64 {
    CALLS.load(Relaxed)
}

/// Counts one system call, and reads what it returned.
fn counted(returned: isize) -> Result<usize> {
    CALLS.fetch_add(1, Relaxed);
    usize::try_from(returned).map_err(|_| Error::last_os_error())
}

/// One system call that returns no number of interest.
fn done(returned: c_int) -> Result<()> {
    counted(returned as isize).map(|_| ())
}

/// One system call that returns a new descriptor.
fn opened(returned: c_long) -> Result<OwnedFd> {
    let fd = counted(returned as isize)?;
    // SAFETY: the system call has just opened it, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// `close(2)`.
pub fn close(fd: OwnedFd) {
    CALLS.fetch_add(1, Relaxed);
    drop(fd);
}

/// Two connected sockets that keep the borders of messages.
pub fn socket_pair() -> Result<[OwnedFd; 2]> {
    let mut pair = [0; 2];
    // SAFETY: there is room for two descriptors.
    done(unsafe { libc::socketpair(libc::AF_UNIX, libc::SOCK_SEQPACKET, 0, pair.as_mut_ptr()) })?;
    // SAFETY: the system call has just opened them, and nobody else knows them.
    Ok(pair.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }))
}

fn loopback(port: u16) -> sockaddr_in {
    sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes([127, 0, 0, 1]) },
        sin_zero: [0; 8],
    }
}

fn tcp_socket(flags: c_int) -> Result<OwnedFd> {
    // SAFETY: only numbers are passed.
    opened(c_long::from(unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM | flags, 0) }))
}

/// A socket that listens on the loopback address, and its port.
pub fn listen() -> Result<(OwnedFd, u16)> {
    let socket = tcp_socket(0)?;
    let (fd, mut address) = (socket.as_raw_fd(), loopback(0));
    let mut length = size_of::<sockaddr_in>() as u32;
    // SAFETY: the address is valid and as long as its length says.
    done(unsafe { libc::bind(fd, from_ref(&address).cast(), length) })?;
    // SAFETY: only numbers are passed.
    done(unsafe { libc::listen(fd, 1024) })?;
    // SAFETY: both are valid for writing, and the length is that of the address.
    done(unsafe { libc::getsockname(fd, from_mut(&mut address).cast(), &raw mut length) })?;
    Ok((socket, u16::from_be(address.sin_port)))
}

/// `socket(2)` and `connect(2)`, which waits until the connection is there.
pub fn connect(port: u16) -> Result<OwnedFd> {
    let socket = tcp_socket(0)?;
    start_to_connect(&socket, port)?;
    Ok(socket)
}

/// `socket(2)` and `connect(2)`, which do not wait.
pub fn connect_later(port: u16) -> Result<OwnedFd> {
    let socket = tcp_socket(libc::SOCK_NONBLOCK)?;
    match start_to_connect(&socket, port) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(socket),
    }
}

fn start_to_connect(socket: &OwnedFd, port: u16) -> Result<()> {
    let (fd, address) = (socket.as_raw_fd(), loopback(port));
    let length = size_of::<sockaddr_in>() as u32;
    // SAFETY: the address is valid and as long as its length says.
    done(unsafe { libc::connect(fd, from_ref(&address).cast(), length) })
}

/// `accept(2)`.
pub fn accept(listener: &OwnedFd) -> Result<OwnedFd> {
    let (fd, none) = (listener.as_raw_fd(), ptr::null_mut());
    // SAFETY: the address is not asked for.
    opened(c_long::from(unsafe { libc::accept(fd, none, ptr::null_mut()) }))
}

/// `send(2)`.
pub fn send(socket: &OwnedFd, bytes: &[u8]) -> Result<()> {
    let (data, flags) = (bytes.as_ptr().cast(), libc::MSG_NOSIGNAL);
    // SAFETY: the data are as long as the slice.
    counted(unsafe { libc::send(socket.as_raw_fd(), data, bytes.len(), flags) }).map(|_| ())
}

/// `recv(2)`.
pub fn receive(socket: &OwnedFd, bytes: &mut [u8], flags: c_int) -> Result<usize> {
    let data = bytes.as_mut_ptr().cast();
    // SAFETY: the room is as long as the slice.
    counted(unsafe { libc::recv(socket.as_raw_fd(), data, bytes.len(), flags) })
}

/// Looks whether a connection is idle: open, and nothing to read.
pub fn is_idle(socket: &OwnedFd) -> bool {
    let looked = receive(socket, &mut [0], libc::MSG_PEEK | libc::MSG_DONTWAIT);
    looked.is_err_and(|error| error.raw_os_error() == Some(libc::EAGAIN))
}

/// `shutdown(2)` of both directions.
pub fn shut_down(socket: &OwnedFd) -> Result<()> {
    // SAFETY: only numbers are passed.
    done(unsafe { libc::shutdown(socket.as_raw_fd(), libc::SHUT_RDWR) })
}

/// Room for one descriptor in a message, aligned as the kernel wants it.
#[repr(C)]
struct Control {
    header: libc::cmsghdr,
    descriptor: RawFd,
}

/// Calls `transfer` with a message of one byte and a descriptor.
fn with_message<T>(
    byte: &mut u8,
    control: &mut Control,
    transfer: impl FnOnce(&mut libc::msghdr) -> T,
) -> T {
    let mut part = libc::iovec { iov_base: from_mut(byte).cast(), iov_len: 1 };
    // SAFETY: it consists of numbers and pointers, all of which may be zero.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = from_mut(control).cast();
    message.msg_controllen = size_of::<Control>();
    transfer(&mut message)
}

fn control(descriptor: RawFd) -> Control {
    let header = libc::cmsghdr {
        cmsg_len: size_of::<libc::cmsghdr>() + size_of::<RawFd>(),
        cmsg_level: libc::SOL_SOCKET,
        cmsg_type: libc::SCM_RIGHTS,
    };
    Control { header, descriptor }
}

/// `sendmsg(2)`: puts a descriptor and a byte in flight, without waiting.
pub fn send_descriptor(channel: &OwnedFd, mut byte: u8, descriptor: &OwnedFd) -> Result<()> {
    let mut control = control(descriptor.as_raw_fd());
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    with_message(&mut byte, &mut control, |message| {
        // SAFETY: the message refers to a byte and a descriptor, which live until it is sent.
        counted(unsafe { libc::sendmsg(channel.as_raw_fd(), message, flags) }).map(|_| ())
    })
}

/// `recvmsg(2)`: a byte and a descriptor, or the flags of a message that has none.
pub fn receive_descriptor(channel: &OwnedFd) -> Result<(u8, std::result::Result<OwnedFd, c_int>)> {
    let (mut byte, mut control) = (0, control(-1));
    let (flags, length) = with_message(&mut byte, &mut control, |message| {
        // SAFETY: the message refers to room for a byte and a descriptor.
        let received = unsafe { libc::recvmsg(channel.as_raw_fd(), message, libc::MSG_DONTWAIT) };
        counted(received).map(|_| (message.msg_flags, message.msg_controllen))
    })?;
    if length == 0 || control.descriptor < 0 {
        return Ok((byte, Err(flags)));
    }
    // SAFETY: the kernel has just opened it for this message.
    Ok((byte, Ok(unsafe { OwnedFd::from_raw_fd(control.descriptor) })))
}

/// `pidfd_open(2)`.
pub fn pidfd_open(pid: i32) -> Result<OwnedFd> {
    // SAFETY: only numbers are passed.
    opened(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })
}

/// `pidfd_getfd(2)`: a copy of another process's descriptor.
pub fn pidfd_getfd(pidfd: &OwnedFd, descriptor: RawFd) -> Result<OwnedFd> {
    // SAFETY: only numbers are passed.
    opened(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), descriptor, 0) })
}

/// What nginx watches connections for.
pub const CONNECTION: c_int = libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLET;

/// An epoll instance.
pub struct Epoll(OwnedFd);

impl Epoll {
    /// `epoll_create1(2)`.
    pub fn new() -> Result<Self> {
        // SAFETY: only numbers are passed.
        opened(c_long::from(unsafe { libc::epoll_create1(0) })).map(Self)
    }

    /// `epoll_ctl(2)`: watches a descriptor; its events carry `data`.
    pub fn add(&self, fd: &OwnedFd, events: c_int, data: u64) -> Result<()> {
        let mut event = libc::epoll_event { events: events as u32, u64: data };
        let (operation, fd) = (libc::EPOLL_CTL_ADD, fd.as_raw_fd());
        // SAFETY: the event is valid.
        done(unsafe { libc::epoll_ctl(self.0.as_raw_fd(), operation, fd, &raw mut event) })
    }

    /// `epoll_ctl(2)`: watches a descriptor no longer.
    pub fn delete(&self, fd: &OwnedFd) -> Result<()> {
        let (operation, fd) = (libc::EPOLL_CTL_DEL, fd.as_raw_fd());
        // SAFETY: no event is needed for it.
        done(unsafe { libc::epoll_ctl(self.0.as_raw_fd(), operation, fd, ptr::null_mut()) })
    }

    /// `epoll_wait(2)`: the data of one event, or nothing after `milliseconds`.
    pub fn wait(&self, milliseconds: c_int) -> Result<Option<u64>> {
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        let fd = self.0.as_raw_fd();
        // SAFETY: there is room for one event.
        let events =
            counted(unsafe { libc::epoll_wait(fd, &raw mut event, 1, milliseconds) } as isize)?;
        Ok((events == 1).then_some(event.u64))
    }
}

/// The time of a clock, in nanoseconds.
fn clock(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the time is valid for writing.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// The time since some moment, the same in all processes, in nanoseconds.
pub fn now() -> u64 {
    clock(libc::CLOCK_MONOTONIC)
}

/// The CPU time of this process, in nanoseconds.
pub fn own_cpu_time() -> u64 {
    clock(libc::CLOCK_PROCESS_CPUTIME_ID)
}

/// The CPU time of a process, in nanoseconds.
pub fn cpu_time(pid: i32) -> Result<u64> {
    let mut id = 0;
    // SAFETY: the identifier is valid for writing.
    match unsafe { libc::clock_getcpuclockid(pid, &raw mut id) } {
        0 => Ok(clock(id)),
        error => Err(Error::from_raw_os_error(error)),
    }
}

/// A child process, which is killed at the end.
pub struct Child(pub i32);

impl Drop for Child {
    fn drop(&mut self) {
        // SAFETY: it is a child of this process, and was not waited for.
        unsafe {
            libc::kill(self.0, libc::SIGKILL);
            libc::waitpid(self.0, ptr::null_mut(), 0);
        }
    }
}

/// Runs `program` in a child process, which ends with this one, or after a minute.
pub fn fork(program: impl FnOnce() -> Result<()>) -> Result<Child> {
    // SAFETY: there are no threads, so the child may do anything.
    let pid = unsafe { libc::fork() };
    if pid != 0 {
        return done(pid).map(|()| Child(pid));
    }
    end_after(60);
    // SAFETY: only numbers are passed.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    let code = match program() {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("handover: a child process failed: {error}");
            1
        }
    };
    // SAFETY: a child leaves the parent's values and buffers alone.
    unsafe { libc::_exit(code) }
}

/// Lets the kernel end this process after some seconds.
pub fn end_after(seconds: u32) {
    // SAFETY: only numbers are passed.
    unsafe { libc::alarm(seconds) };
}

/// The process that started this one.
pub fn parent() -> i32 {
    // SAFETY: it has no conditions.
    unsafe { libc::getppid() }
}

/// Sets how many descriptors this process may have.
pub fn limit_descriptors(number: u64) -> Result<()> {
    let limit = libc::rlimit { rlim_cur: number, rlim_max: number };
    // SAFETY: the limit is valid.
    done(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) })
}

/// Becomes the user `nobody`, if root.
pub fn become_nobody() -> Result<()> {
    // SAFETY: only numbers are passed, and an empty list.
    unsafe {
        if libc::geteuid() == 0 {
            done(libc::setgroups(0, ptr::null()))?;
            done(libc::setgid(65_534))?;
            done(libc::setuid(65_534))?;
        }
    }
    Ok(())
}

/// `prctl(2)` with numbers.
pub fn prctl(option: c_int, value: u64) -> Result<()> {
    // SAFETY: only numbers are passed.
    done(unsafe { libc::prctl(option, value, 0, 0, 0) })
}

/// From now on, `pidfd_getfd(2)` fails with EPERM, as in Docker.
pub fn forbid_pidfd_getfd() -> Result<()> {
    let step = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut steps = [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, libc::SYS_pidfd_getfd as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1)?;
    let (option, mode) = (libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER);
    // SAFETY: the program is valid, and as long as it says.
    done(unsafe { libc::prctl(option, mode, from_ref(&filter).cast::<c_void>(), 0, 0) })
}

/// Memory that this process shares with its children, all zero.
///
/// # Safety
///
/// Zero must be a valid `T`, which must only change through shared references.
pub unsafe fn shared_memory<T>() -> Result<&'static T> {
    let size = size_of::<T>();
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
    // SAFETY: the kernel chooses the place.
    let memory = unsafe {
        libc::mmap(ptr::null_mut(), size, protection, flags | libc::MAP_ANONYMOUS, -1, 0)
    };
    if memory == libc::MAP_FAILED {
        return Err(Error::last_os_error());
    }
    // SAFETY: it is aligned to a page, large enough, zero, and stays until the process ends.
    let shared = unsafe { &*memory.cast::<T>() };
    debug_assert_eq!(size_of_val(shared), size);
    Ok(shared)
}

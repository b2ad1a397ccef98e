//! Whether a system call would end the process: a filter of system calls (seccomp) can answer one
//! that it does not know with a signal that nothing can catch, as systemd's does by default.

use core::mem::MaybeUninit;
use core::ptr;
use std::fs::File;
use std::io::{self, Read};

/// Whether a call ends a process that makes it. It is tried in a child process, if there is a filter
/// at all.
pub fn is_deadly(call: impl FnOnce()) -> bool {
    has_filter() && ends_process(call)
}

/// Whether this process has a filter of system calls, or that is not known.
fn has_filter() -> bool {
    let mut status = [0; 16384];
    let read = File::open("/proc/self/status").and_then(|mut file| file.read(&mut status));
    let status = status.get(..read.unwrap_or(0)).unwrap_or_default();
    !status.split(|&byte| byte == b'\n').any(|line| line == b"Seccomp:\t0")
}

fn ends_process(call: impl FnOnce()) -> bool {
    let mut set = MaybeUninit::uninit();
    let mut before = MaybeUninit::uninit();
    // SAFETY: both sets are initialised before they are read. The child makes only system calls, since
    // a worker may have other threads (`thread_pool`); it ends without returning, and leaves no core
    // file.
    unsafe {
        // Otherwise nginx's handler of this signal would take the child for one of its own.
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGCHLD);
        libc::sigprocmask(libc::SIG_BLOCK, set.as_ptr(), before.as_mut_ptr());
        let child = libc::fork();
        if child == 0 {
            let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            libc::setrlimit(libc::RLIMIT_CORE, &raw const none);
            call();
            libc::_exit(0);
        }
        let mut status = 0;
        let waited = child != -1
            && loop {
                let waited = libc::waitpid(child, &raw mut status, 0);
                if waited != -1 || io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
                    break waited == child;
                }
            };
        libc::sigprocmask(libc::SIG_SETMASK, before.as_ptr(), ptr::null_mut());
        waited && libc::WIFSIGNALED(status)
    }
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_child_is_seen() {
        assert!(!ends_process(|| {}));
        assert!(ends_process(|| {
            // SAFETY: it ends the child.
            unsafe { libc::raise(libc::SIGKILL) };
        }));
    }
}

//! A connection while it is idle: park, wake, close.
//!
//! What is set and reset here is what `ngx_http_upstream_keepalive_module` sets and resets.

use core::ffi::{c_char, c_void};
use core::ptr::NonNull;

use nginx_sys::{
    NGX_EAGAIN, ngx_add_timer, ngx_close_connection, ngx_connection_t, ngx_current_msec, ngx_cycle,
    ngx_del_timer, ngx_destroy_pool, ngx_event_t, ngx_exiting, ngx_handle_read_event, ngx_log_t,
    ngx_msec_t, ngx_queue_insert_after, ngx_queue_remove, ngx_socket_errno,
};

use crate::conf::{FOREVER, ServerConf};
use crate::counters::Closed;
use crate::nginx::{self, log_debug_http};
use crate::pool::SlotIndex;

/// The longest timer. nginx's tree of timers compares two entries by the sign of their difference,
/// so one that is due in half of the range, beside one that has expired, would come out as earlier.
const LONGEST: ngx_msec_t = ngx_msec_t::MAX >> 2;

/// For how long a connection must have been idle, in milliseconds, to be looked at once more before
/// it is used: servers that close idle connections wait at least so long, and a busy site, whose
/// connections are never idle for so long, does not pay for the system call.
const LOOK_AFTER: u32 = 1000;

/// What an idle connection's `data` points to.
pub struct Idle {
    conf: NonNull<ServerConf>,
    slot: SlotIndex,
    /// When it was parked: the lower half of `ngx_current_msec`.
    since: u32,
}

/// Sets up a connection, which the pool has just kept in `slot`, to wait. It may be closed at
/// once, if there is something to read, and after `limit` milliseconds, unless that is [`FOREVER`].
///
/// # Safety
///
/// `c` is a valid connection of the upstream with the configuration `conf`.
#[inline(always)]
pub unsafe fn park(
    c: NonNull<ngx_connection_t>,
    conf: NonNull<ServerConf>,
    slot: SlotIndex,
    limit: ngx_msec_t,
) {
    let c = c.as_ptr();
    // SAFETY:
    // 1. The connection is valid, and so are its two events.
    // 2. The slot's number is below the limit for which `conf.idle` was allocated.
    // 3. `ngx_cycle` is valid while a worker runs.
    unsafe {
        let (read, write) = ((*c).read, (*c).write);
        let idle = (*conf.as_ptr()).idle.add(slot.get() as usize);
        idle.write(Idle { conf, slot, since: ngx_current_msec as u32 });

        (*read).set_delayed(0);
        del_timer(read);
        del_timer(write);
        if limit != FOREVER {
            ngx_add_timer(read, limit.min(LONGEST));
        }
        (*write).handler = Some(dummy_handler);
        (*read).handler = Some(close_handler);

        (*c).data = idle.cast();
        (*c).set_idle(1);
        set_reusable(c, true);
        set_log(c, (*ngx_cycle).log);

        if (*read).ready() != 0 {
            close_handler(read);
        }
    }
}

/// Whether a connection, which was just taken from the pool, can be used: after some time, the
/// server may have closed it in the same moment, and the event waits behind that of the request.
///
/// # Safety
///
/// `c` is a valid parked connection.
pub unsafe fn is_open(c: NonNull<ngx_connection_t>) -> bool {
    // SAFETY: the data of a parked connection is its `Idle`.
    unsafe {
        let since = (*(*c.as_ptr()).data.cast::<Idle>()).since;
        (ngx_current_msec as u32).wrapping_sub(since) < LOOK_AFTER || is_quiet(c.as_ptr())
    }
}

/// Gives a connection, which was just taken from the pool, to a request again.
///
/// # Safety
///
/// `c` is a valid parked connection, and `log` is valid as long as the request uses it.
pub unsafe fn wake(c: NonNull<ngx_connection_t>, log: *mut ngx_log_t) {
    let c = c.as_ptr();
    // SAFETY: the connection is valid, and so are its events.
    unsafe {
        set_reusable(c, false);
        (*c).set_idle(0);
        (*c).sent = 0;
        (*c).data = core::ptr::null_mut();
        set_log(c, log);
        del_timer((*c).read);
    }
}

/// Closes a connection that has left the pool, and counts it.
///
/// # Safety
///
/// `c` is a valid parked connection, and nothing refers to it.
pub unsafe fn close(c: NonNull<ngx_connection_t>, why: Closed) {
    let c = c.as_ptr();
    // SAFETY: as promised; the data of a parked connection is its `Idle`.
    unsafe {
        let conf = (*(*c).data.cast::<Idle>()).conf.as_ptr();
        (*conf).counters.block().closed(why);
        if let Some(pool) = &(*conf).pool {
            (*conf).counters.block().set_slices(pool.slices_in_use());
        }
        set_reusable(c, false);
        close_connection(c);
    }
}

/// Whose limit of a connection's idle time it was that has passed: a server's hint is followed only
/// if it is shorter than `keepalive_timeout`.
///
/// # Safety
///
/// `c` is a valid parked connection.
pub unsafe fn expired(c: NonNull<ngx_connection_t>) -> Closed {
    // SAFETY: as promised; the data of a parked connection is its `Idle`.
    unsafe {
        let Idle { conf, slot, since } = (*c.as_ptr()).data.cast::<Idle>().read();
        let pool = (*conf.as_ptr()).pool.as_ref();
        let deadline = pool.and_then(|pool| pool.deadline(slot)).unwrap_or_default();
        let limit = (deadline as u32).wrapping_sub(since);
        if limit == (*conf.as_ptr()).timeout as u32 { Closed::Timeout } else { Closed::Hint }
    }
}

/// A cleanup of the configuration's pool: closes all that is idle.
///
/// # Safety
///
/// `data` points to the `ServerConf` of an upstream that is no longer used.
pub unsafe extern "C" fn close_all(data: *mut c_void) {
    let conf: *mut ServerConf = data.cast();
    // SAFETY: the configuration is valid until its pool is destroyed, which is after the cleanups.
    // It is borrowed for one operation at a time, and not while a connection is closed.
    while let Some(c) = unsafe { (*conf).pool.as_mut() }.and_then(|pool| pool.pop()) {
        // SAFETY: the connection has just left the pool.
        unsafe { close(c, Closed::Shutdown) };
    }
}

/// The handler of write events: there is nothing to do.
///
/// # Safety
///
/// nginx calls it with the event of a parked connection.
unsafe extern "C" fn dummy_handler(ev: *mut ngx_event_t) {
    // SAFETY: nginx passes a valid event.
    log_debug_http!(unsafe { (*ev).log }, "keepalive dummy handler");
}

/// The handler of read events: of a connection that is readable or closed, whose timer has fired,
/// or which nginx wants closed.
///
/// # Safety
///
/// nginx calls it with the event of a parked connection.
unsafe extern "C" fn close_handler(ev: *mut ngx_event_t) {
    // SAFETY: nginx passes a valid event; the event of a parked connection.
    unsafe {
        log_debug_http!((*ev).log, "keepalive close handler");

        let c: *mut ngx_connection_t = (*ev).data.cast();
        if (*c).close() == 0 && (*ev).timedout() == 0 && still_quiet(c) {
            return;
        }
        let Idle { conf, slot, .. } = (*c).data.cast::<Idle>().read();
        let removed = (*conf.as_ptr()).pool.as_mut().and_then(|pool| pool.remove(slot));
        if let Some(c) = removed {
            close(c, reason(c));
        }
    }
}

/// Why the handler of read events closes a connection.
///
/// # Safety
///
/// `c` is a valid parked connection.
unsafe fn reason(c: NonNull<ngx_connection_t>) -> Closed {
    // SAFETY: as promised.
    unsafe {
        if (*c.as_ptr()).close() != 0 {
            if ngx_exiting != 0 { Closed::Shutdown } else { Closed::WorkerConnections }
        } else if (*(*c.as_ptr()).read).timedout() != 0 {
            expired(c)
        } else {
            Closed::Peer
        }
    }
}

/// Whether an event was stale: there is nothing to read, and the server has not closed.
///
/// # Safety
///
/// `c` is a valid connection.
unsafe fn still_quiet(c: *mut ngx_connection_t) -> bool {
    // SAFETY: the connection is valid, and so is its event.
    unsafe {
        if !is_quiet(c) {
            return false;
        }
        (*(*c).read).set_ready(0);
        ngx_handle_read_event((*c).read, 0) == nginx::OK
    }
}

/// Whether there is nothing to read, not even the end.
///
/// # Safety
///
/// `c` is a valid connection.
unsafe fn is_quiet(c: *mut ngx_connection_t) -> bool {
    let mut byte: c_char = 0;
    // SAFETY: the connection is valid, and the buffer holds one byte.
    let n = unsafe { libc::recv((*c).fd, (&raw mut byte).cast(), 1, libc::MSG_PEEK) };
    n == -1 && ngx_socket_errno() == NGX_EAGAIN as i32
}

/// Closes a connection; called again by nginx when a TLS shutdown that had to wait is done.
///
/// # Safety
///
/// `c` is a valid connection, and nothing refers to it.
unsafe extern "C" fn close_connection(c: *mut ngx_connection_t) {
    // SAFETY: the connection is valid and used no more.
    unsafe {
        #[cfg(ngx_feature = "http_ssl")]
        if let Some(ssl) = (*c).ssl.as_mut() {
            // Nobody waits for an answer, and nobody reads an alert.
            ssl.set_no_wait_shutdown(1);
            ssl.set_no_send_shutdown(1);

            if nginx_sys::ngx_ssl_shutdown(c) == nginx_sys::NGX_AGAIN as nginx_sys::ngx_int_t {
                // The shutdown may have freed it.
                if let Some(ssl) = (*c).ssl.as_mut() {
                    ssl.handler = Some(close_connection);
                }
                return;
            }
        }
        ngx_destroy_pool((*c).pool);
        ngx_close_connection(c);
    }
}

/// Tells nginx whether it may have the connection closed when it runs short of them: what
/// `ngx_reusable_connection` does, but for the counter that `stub_status` shows as `Waiting`, which
/// is about clients.
///
/// # Safety
///
/// `c` is a valid connection, and is now what it was last told to be not.
unsafe fn set_reusable(c: *mut ngx_connection_t, reusable: bool) {
    // SAFETY:
    // 1. `ngx_cycle` is valid while a worker runs.
    // 2. The connection is valid, and in the queue if it is reusable.
    unsafe {
        let (cycle, queue) = (ngx_cycle, &raw mut (*c).queue);
        (*c).set_reusable(reusable.into());
        if reusable {
            ngx_queue_insert_after(&raw mut (*cycle).reusable_connections_queue, queue);
            (*cycle).reusable_connections_n = (*cycle).reusable_connections_n.wrapping_add(1);
        } else {
            ngx_queue_remove(queue);
            (*cycle).reusable_connections_n = (*cycle).reusable_connections_n.wrapping_sub(1);
        }
    }
}

/// # Safety
///
/// `c` is a valid connection of an upstream, which has a pool.
unsafe fn set_log(c: *mut ngx_connection_t, log: *mut ngx_log_t) {
    // SAFETY: as promised.
    unsafe {
        (*c).log = log;
        (*(*c).read).log = log;
        (*(*c).write).log = log;
        (*(*c).pool).log = log;
    }
}

/// # Safety
///
/// `ev` is a valid event.
#[inline(always)]
unsafe fn del_timer(ev: *mut ngx_event_t) {
    // SAFETY: as promised.
    unsafe {
        if (*ev).timer_set() != 0 {
            ngx_del_timer(ev);
        }
    }
}

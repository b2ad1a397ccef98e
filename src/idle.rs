//! A connection while it is parked: park, wake, close.
//!
//! It sets and resets the same fields as `ngx_http_upstream_keepalive_module`.

use core::ffi::c_void;
use core::ptr::NonNull;
use std::os::fd::AsFd;

use nginx_sys::{ngx_connection_t, ngx_event_t, ngx_log_t, ngx_msec_t};

use crate::counters::Closed;
use crate::handover;
use crate::nginx::{self, Connection, log_debug_http};
use crate::policy::{self, IdleLimit};
use crate::pool::SlotIndex;
use crate::upstream::{self, Copies, Moved, Parked, Removed, Upstream};

/// Prepares a connection, which an upstream has just kept under this `data`, for being idle. It is
/// closed at once if there is something to read, and later when its time is over.
#[inline(always)]
pub fn park(c: Connection, data: *mut c_void, limit: IdleLimit) {
    c.set_handlers(data, Some(close_handler), Some(dummy_handler));
    if let Some(timer) = limit.timer(ngx_msec_t::BITS) {
        c.add_timer(timer as ngx_msec_t);
    }
    c.set_idle(true);
    c.set_cycle_log();
    if c.is_ready() && has_ended(c) {
        close_parked(c, data);
    }
}

/// Why a parked connection cannot be used; `None` if it can.
pub fn end_of(parked: &Parked) -> Option<Closed> {
    let now = nginx::now();
    if parked.deadline <= now {
        return Some(parked.limited_by.into());
    }
    let look = policy::must_look(parked.idle(now));
    (look && !view(parked.connection).is_quiet()).then_some(Closed::Peer)
}

/// Gives a connection to a request again.
pub fn wake(removed: Removed, log: *mut ngx_log_t) -> NonNull<ngx_connection_t> {
    let (connection, _) = removed.into_inner();
    let c = view(connection);
    c.set_idle(false);
    c.reset_sent();
    c.set_log(log);
    c.del_timer();
    connection
}

/// Closes a connection that has left its upstream.
pub fn close(removed: Removed) {
    let (connection, copies) = removed.into_inner();
    let c = view(connection);
    c.set_idle(false);
    match copies {
        Copies::None => {}
        Copies::Unused => end(c),
        Copies::Used => c.forget_events(),
    }
    // SAFETY: it was parked, so no request knows it, and now the upstream does not any more.
    unsafe { c.close() }
}

/// Ends a connection that is about to be closed, and of which other workers may still have unused
/// descriptors: so it ends now, and no event of it comes later.
pub fn end(c: Connection) {
    if c.is_movable() {
        c.shut_down();
        c.forget_events();
    }
}

/// Closes the connections that other workers have taken away from this one, or want closed.
pub fn close_called(upstream: &Upstream) {
    while let Some(removed) = upstream.next_called() {
        close(removed);
    }
}

/// Makes a connection of one that this worker holds by its descriptor only. `None` if there is no
/// memory, or no room for another connection.
pub fn adopt(upstream: &Upstream, moved: Moved, log: *mut ngx_log_t) -> Option<Connection> {
    let facts = (moved.idle.requests as usize, moved.idle.made);
    match Connection::adopt((moved.fd, moved.is_unix), log, facts) {
        Ok(c) => Some(c),
        Err(fd) => {
            // Another worker may have it by now.
            if upstream.forget_moved(moved.ticket) {
                handover::shut_down(fd.as_fd());
            }
            None
        }
    }
}

/// Closes a connection that was adopted, and which another worker has ended meanwhile.
pub fn discard(c: Connection) {
    c.forget_events();
    // SAFETY: nothing else knows it yet.
    unsafe { c.close() }
}

/// Parks a connection that another worker has sent.
pub fn park_moved(upstream: &Upstream, moved: Moved) {
    let Moved { ticket, idle, .. } = moved;
    let Some(c) = adopt(upstream, moved, nginx::cycle_log()) else { return };
    match upstream.park_moved(ticket, c, &idle) {
        Some(data) => {
            park(c, data, idle.limit(nginx::now()));
        }
        None => discard(c),
    }
}

/// A cleanup of the configuration's memory: closes all idle connections.
///
/// # Safety
///
/// `data` points to an upstream that is no longer used.
pub unsafe extern "C" fn close_all(data: *mut c_void) {
    // SAFETY: the upstream lies in the memory that is cleaned up afterwards.
    let upstream = unsafe { &*data.cast::<Upstream>() };
    while let Some(removed) = upstream.pop(Closed::Shutdown) {
        close(removed);
    }
    #[cfg(ngx_feature = "http_ssl")]
    upstream.forget_sessions();
}

/// Closes a connection of this module for a reason, if it is idle.
pub fn close_idle(c: Connection, why: Closed) {
    if !c.is_idle() {
        return;
    }
    // SAFETY: a connection that is idle is parked, and this is what it was parked with.
    let (upstream, slot) = unsafe { upstream::find_parked((*c.as_ptr()).data) };
    upstream.remove(slot, why, nginx::now()).into_iter().for_each(close);
}

/// The view of a connection that is parked, or was until now.
fn view(connection: NonNull<ngx_connection_t>) -> Connection {
    // SAFETY: a parked connection is one to an upstream, and is closed only after it was removed.
    unsafe { Connection::new(connection) }
}

/// The handler of write events, which ignores them.
///
/// # Safety
///
/// nginx calls it with a valid event.
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
    // SAFETY: the data of a connection's event is the connection.
    let c = unsafe { (*ev).data.cast::<ngx_connection_t>() };
    let Some(c) = NonNull::new(c).map(view) else { return };
    log_debug_http!(c.log(), "keepalive close handler");
    // SAFETY: the connection is open.
    let data = unsafe { (*c.as_ptr()).data };
    // SAFETY: the connection is parked, and `data` is what it was parked with.
    let (upstream, slot) = unsafe { upstream::find_parked(data) };
    // Of one that another worker has taken away, nothing matters here any more.
    if !upstream.holds(slot) || has_ended(c) {
        close_parked(c, data);
    }
}

/// Whether a parked connection must be closed, and its event is not stale.
#[inline(always)]
fn has_ended(c: Connection) -> bool {
    c.must_close() || c.is_timed_out() || !still_quiet(c)
}

/// Closes a parked connection, or hands it over.
fn close_parked(c: Connection, data: *mut c_void) {
    // SAFETY: the connection is parked, and `data` is what it was parked with.
    let (upstream, slot) = unsafe { upstream::find_parked(data) };
    let removed = match reason(c, upstream, slot) {
        Closed::Shutdown => upstream.hand_over(slot),
        why => upstream.remove(slot, why, nginx::now()),
    };
    removed.into_iter().for_each(close);
}

/// Why the handler of read events closes a connection.
fn reason(c: Connection, upstream: &Upstream, slot: SlotIndex) -> Closed {
    if c.must_close() {
        if nginx::is_exiting() { Closed::Shutdown } else { Closed::WorkerConnections }
    } else if c.is_timed_out() {
        upstream.parked(slot).map_or(Closed::Timeout, |parked| parked.limited_by.into())
    } else {
        Closed::Peer
    }
}

/// Whether an event was stale: there is nothing to read, and the server has not closed.
fn still_quiet(c: Connection) -> bool {
    if !c.is_quiet() {
        return false;
    }
    c.set_not_ready();
    c.watch()
}

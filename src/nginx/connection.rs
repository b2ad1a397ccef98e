//! A connection of nginx to a server: the fields that this module reads and changes.

use core::ffi::{c_char, c_void};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};

use nginx_sys::{
    NGX_EAGAIN, NGX_OK, ngx_add_timer, ngx_atomic_uint_t, ngx_close_connection,
    ngx_connection_counter, ngx_connection_log_error_e_NGX_ERROR_ERR, ngx_connection_t,
    ngx_connection_tcp_nodelay_e_NGX_TCP_NODELAY_DISABLED,
    ngx_connection_tcp_nopush_e_NGX_TCP_NOPUSH_DISABLED, ngx_create_pool, ngx_cycle, ngx_del_timer,
    ngx_destroy_pool, ngx_event_actions, ngx_event_handler_pt, ngx_event_t, ngx_free_connection,
    ngx_get_connection, ngx_handle_read_event, ngx_int_t, ngx_io, ngx_log_t, ngx_msec_t,
    ngx_queue_insert_after, ngx_queue_remove, ngx_socket_errno,
};

use crate::policy::Time;

/// A view of a connection.
#[derive(Clone, Copy)]
pub struct Connection(NonNull<ngx_connection_t>);

impl Connection {
    /// The view of a connection.
    ///
    /// # Safety
    ///
    /// The connection has both events, and stays open as long as the view, or a copy of it, is used.
    /// It has a pool if it is parked, woken or closed.
    pub unsafe fn new(c: NonNull<ngx_connection_t>) -> Self {
        Connection(c)
    }

    /// The connection.
    pub fn as_ptr(self) -> *mut ngx_connection_t {
        self.0.as_ptr()
    }

    /// The connection.
    pub fn as_non_null(self) -> NonNull<ngx_connection_t> {
        self.0
    }

    /// Its descriptor.
    pub fn fd(self) -> RawFd {
        // SAFETY: the connection is open.
        unsafe { (*self.as_ptr()).fd }
    }

    /// Its descriptor, for one call.
    pub fn borrow_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the connection stays open as long as the view is used.
        unsafe { BorrowedFd::borrow_raw(self.fd()) }
    }

    /// Whether another process can use it: nothing else about it is in the memory of this one. TLS
    /// is, and modules that keep more on a connection (HTTP/2, gRPC) have its pool clean that up.
    pub fn is_movable(self) -> bool {
        #[cfg(ngx_feature = "http_ssl")]
        // SAFETY: the connection is open.
        if unsafe { !(*self.as_ptr()).ssl.is_null() } {
            return false;
        }
        // SAFETY: the connection is open. It has no pool if there was no memory for one.
        unsafe { (*self.as_ptr()).pool.as_ref().is_none_or(|pool| pool.cleanup.is_null()) }
    }

    fn read(self) -> *mut ngx_event_t {
        // SAFETY: the connection is open.
        unsafe { (*self.as_ptr()).read }
    }

    fn write(self) -> *mut ngx_event_t {
        // SAFETY: the connection is open.
        unsafe { (*self.as_ptr()).write }
    }

    /// Whether the server has closed it.
    pub fn is_eof(self) -> bool {
        // SAFETY: an open connection has both events.
        unsafe { (*self.read()).eof() != 0 }
    }

    /// Whether there was an error on it, and no timeout.
    pub fn is_broken(self) -> bool {
        let error = |event: *mut ngx_event_t| {
            // SAFETY: an open connection has both events.
            unsafe { (*event).error() != 0 && (*event).timedout() == 0 }
        };
        error(self.read()) || error(self.write())
    }

    /// Whether there was an error or a timeout on it.
    pub fn has_failed(self) -> bool {
        let failed = |event: *mut ngx_event_t| {
            // SAFETY: an open connection has both events.
            unsafe { (*event).error() != 0 || (*event).timedout() != 0 }
        };
        failed(self.read()) || failed(self.write())
    }

    /// Whether the timer of its read event has fired.
    pub fn is_timed_out(self) -> bool {
        // SAFETY: an open connection has both events.
        unsafe { (*self.read()).timedout() != 0 }
    }

    /// Whether its read event is ready.
    pub fn is_ready(self) -> bool {
        // SAFETY: an open connection has both events.
        unsafe { (*self.read()).ready() != 0 }
    }

    /// Whether nginx wants it closed.
    pub fn must_close(self) -> bool {
        // SAFETY: the connection is open.
        unsafe { (*self.as_ptr()).close() != 0 }
    }

    /// The number of requests for which it was used.
    pub fn requests(self) -> usize {
        // SAFETY: the connection is open.
        unsafe { (*self.as_ptr()).requests }
    }

    /// Whether it was made for the request that has it.
    #[inline(always)]
    pub fn is_new(self) -> bool {
        self.requests() <= 1
    }

    /// The time when it was made.
    pub fn made(self) -> Time {
        // SAFETY: the connection is open.
        unsafe { (*self.as_ptr()).start_time as Time }
    }

    /// How long ago it was made, in milliseconds.
    pub fn age(self, now: Time) -> u64 {
        // SAFETY: the connection is open.
        let made = unsafe { (*self.as_ptr()).start_time };
        (now as ngx_msec_t).wrapping_sub(made) as u64
    }

    /// Its log.
    pub fn log(self) -> *mut ngx_log_t {
        // SAFETY: the connection is open.
        unsafe { (*self.as_ptr()).log }
    }

    /// Has nginx watch it for data; `false` if that fails.
    pub fn watch(self) -> bool {
        // SAFETY: an open connection has both events.
        unsafe { ngx_handle_read_event(self.read(), 0) == NGX_OK as ngx_int_t }
    }

    /// Whether there is nothing to read, not even the end.
    pub fn is_quiet(self) -> bool {
        let mut byte: c_char = 0;
        // SAFETY: the connection is open, and the buffer holds one byte.
        let n =
            unsafe { libc::recv((*self.as_ptr()).fd, (&raw mut byte).cast(), 1, libc::MSG_PEEK) };
        n == -1 && ngx_socket_errno() == NGX_EAGAIN as i32
    }

    /// Whether TLS has read bytes of the server from the socket that nginx has not read from TLS,
    /// decrypted or not (nginx has it read ahead): no event reports them.
    pub fn has_pending(self) -> bool {
        #[cfg(ngx_feature = "http_ssl")]
        // SAFETY: the connection is open, and what is about its TLS lives as long.
        if let Some(ssl) = unsafe { (*self.as_ptr()).ssl.as_ref() } {
            // SAFETY: nginx makes OpenSSL's connection with its own.
            return unsafe { nginx_sys::SSL_has_pending(ssl.connection) } != 0;
        }
        false
    }

    /// Marks the read event as not ready: it was stale.
    pub fn set_not_ready(self) {
        // SAFETY: an open connection has both events.
        unsafe { (*self.read()).set_ready(0) }
    }

    /// Sets the handlers of its events, and their `data`, and ends its timers.
    #[inline(always)]
    pub fn set_handlers(
        self,
        data: *mut c_void,
        read: ngx_event_handler_pt,
        write: ngx_event_handler_pt,
    ) {
        del_timer(self.read());
        del_timer(self.write());
        // SAFETY: an open connection has both events.
        unsafe {
            (*self.as_ptr()).data = data;
            (*self.read()).set_delayed(0);
            (*self.read()).handler = read;
            (*self.write()).handler = write;
        }
    }

    /// Sets the timer of the read event, in milliseconds.
    pub fn add_timer(self, timer: ngx_msec_t) {
        // SAFETY: an open connection has both events, and this one has no timer.
        unsafe { ngx_add_timer(self.read(), timer) }
    }

    /// Ends the timer of the read event.
    pub fn del_timer(self) {
        del_timer(self.read());
    }

    /// Marks it as idle or not: nginx may close an idle connection if it runs short of connections,
    /// and closes it when the worker shuts down. This does the same as `ngx_reusable_connection`,
    /// except for the counter that `stub_status` shows as `Waiting`, which is about clients. One
    /// that is not idle any more was.
    pub fn set_idle(self, idle: bool) {
        let c = self.as_ptr();
        // SAFETY: `ngx_cycle` is valid while a worker runs; a connection is in the queue while it
        // is reusable, as an idle one is, and otherwise in no queue.
        unsafe {
            let (cycle, queue) = (ngx_cycle, &raw mut (*c).queue);
            // One that a balancer hands over may still be in the queue.
            if !idle || (*c).reusable() != 0 {
                ngx_queue_remove(queue);
                (*cycle).reusable_connections_n = (*cycle).reusable_connections_n.wrapping_sub(1);
            }
            (*c).set_idle(idle.into());
            (*c).set_reusable(idle.into());
            if idle {
                ngx_queue_insert_after(&raw mut (*cycle).reusable_connections_queue, queue);
                (*cycle).reusable_connections_n = (*cycle).reusable_connections_n.wrapping_add(1);
            }
        }
    }

    /// Whether it is marked as idle.
    pub fn is_idle(self) -> bool {
        // SAFETY: the connection is open.
        unsafe { (*self.as_ptr()).idle() != 0 }
    }

    /// Resets its counter of sent bytes for the next request.
    pub fn reset_sent(self) {
        // SAFETY: the connection is open.
        unsafe { (*self.as_ptr()).sent = 0 }
    }

    /// Sets its log. The log is valid while the connection has it.
    pub fn set_log(self, log: *mut ngx_log_t) {
        // SAFETY: an open connection has both events and a pool.
        unsafe {
            (*self.as_ptr()).log = log;
            (*self.read()).log = log;
            (*self.write()).log = log;
            (*(*self.as_ptr()).pool).log = log;
        }
    }

    /// Sets the log that is used outside of requests.
    pub fn set_cycle_log(self) {
        self.set_log(cycle_log());
    }

    /// Ends it for all processes that have a descriptor of it: closing this one would not.
    pub fn shut_down(self) {
        // SAFETY: the connection is open.
        unsafe { libc::shutdown(self.fd(), libc::SHUT_RDWR) };
    }

    /// Has nginx's event method forget it. The system does that when the last descriptor of it is
    /// closed, so nginx leaves it to the system; but another process may have one.
    pub fn forget_events(self) {
        // SAFETY: `ngx_event_actions` is set while a worker runs; not all methods have this action.
        unsafe {
            if let Some(del_conn) = ngx_event_actions.del_conn {
                del_conn(self.as_ptr(), 0);
            }
        }
    }

    /// Makes a connection of a descriptor that another process had: one to a server, on which
    /// nothing is under way. It is not parked, and has a pool. An error if there is no memory, or no
    /// room for another connection: the descriptor is given back.
    pub fn adopt(
        (fd, is_unix): (OwnedFd, bool),
        log: *mut ngx_log_t,
        (requests, made): (usize, Time),
    ) -> Result<Self, OwnedFd> {
        // SAFETY: the descriptor is open, and the log is valid.
        let c = NonNull::new(unsafe { ngx_get_connection(fd.as_raw_fd(), log) });
        let Some(connection) = c.map(Connection) else { return Err(fd) };
        let c = connection.as_ptr();
        // SAFETY: the connection is new, and has both events. The fields are those that
        // `ngx_event_connect_peer` sets.
        unsafe {
            (*c).type_ = libc::SOCK_STREAM;
            (*c).recv = ngx_io.recv;
            (*c).send = ngx_io.send;
            (*c).recv_chain = ngx_io.recv_chain;
            (*c).send_chain = ngx_io.send_chain;
            (*c).set_sendfile(1);
            (*c).set_log_error(ngx_connection_log_error_e_NGX_ERROR_ERR);
            if is_unix {
                (*c).set_tcp_nopush(ngx_connection_tcp_nopush_e_NGX_TCP_NOPUSH_DISABLED);
                (*c).set_tcp_nodelay(ngx_connection_tcp_nodelay_e_NGX_TCP_NODELAY_DISABLED);
            }
            (*c).number = next_number();
            (*c).requests = requests;
            (*c).start_time = made as ngx_msec_t;
            (*(*c).write).set_ready(1);
            (*c).pool = ngx_create_pool(POOL_SIZE, log);
            if (*c).pool.is_null() {
                // Otherwise nginx takes it for an open one when the worker ends.
                (*c).fd = -1;
                ngx_free_connection(c);
                return Err(fd);
            }
            connection.set_log(log);
            if !connection.add_events() {
                ngx_destroy_pool((*c).pool);
                (*c).fd = -1;
                ngx_free_connection(c);
                return Err(fd);
            }
        }
        // nginx closes it.
        let _ = fd.into_raw_fd();
        Ok(connection)
    }

    /// Has nginx's event method watch a new connection.
    fn add_events(self) -> bool {
        // SAFETY: `ngx_event_actions` is set while a worker runs; the connection is open.
        unsafe {
            match ngx_event_actions.add_conn {
                Some(add_conn) => add_conn(self.as_ptr()) == NGX_OK as ngx_int_t,
                None => self.watch(),
            }
        }
    }

    /// Closes it.
    ///
    /// # Safety
    ///
    /// Nothing refers to it any more, and no view of it is used.
    pub unsafe fn close(self) {
        // SAFETY: as for `close_connection`.
        unsafe { close_connection(self.as_ptr()) }
    }
}

/// The size of the pool of a connection to a server, as in `ngx_http_upstream_connect`.
const POOL_SIZE: usize = 128;

/// The log that is used outside of requests.
pub fn cycle_log() -> *mut ngx_log_t {
    // SAFETY: `ngx_cycle` is valid while a worker runs.
    unsafe { (*ngx_cycle).log }
}

/// The number of a new connection, for logs.
fn next_number() -> ngx_atomic_uint_t {
    // SAFETY: nginx sets the pointer when it starts; the counter is shared by all workers, and only
    // changed atomically.
    unsafe { AtomicUsize::from_ptr(ngx_connection_counter.cast()) }.fetch_add(1, Relaxed)
        as ngx_atomic_uint_t
}

fn del_timer(event: *mut ngx_event_t) {
    // SAFETY: it is called with the events of open connections.
    unsafe {
        if (*event).timer_set() != 0 {
            ngx_del_timer(event);
        }
    }
}

/// Closes a connection; called again by nginx when a TLS shutdown that had to wait is done.
///
/// # Safety
///
/// `c` is an open connection with a pool, and nothing refers to it.
unsafe extern "C" fn close_connection(c: *mut ngx_connection_t) {
    // SAFETY: the connection is open and used no more.
    unsafe {
        #[cfg(ngx_feature = "http_ssl")]
        if must_wait_for_shutdown(c) {
            return;
        }
        ngx_destroy_pool((*c).pool);
        ngx_close_connection(c);
    }
}

/// Shuts TLS down, if the connection has it. `true` if the shutdown must wait, and nginx calls
/// [`close_connection`] again.
///
/// # Safety
///
/// As for [`close_connection`].
#[cfg(ngx_feature = "http_ssl")]
unsafe fn must_wait_for_shutdown(c: *mut ngx_connection_t) -> bool {
    // SAFETY: the connection is open; the shutdown may free what is about TLS.
    unsafe {
        let Some(ssl) = (*c).ssl.as_mut() else { return false };
        // Nobody waits for an answer, and nobody reads an alert.
        ssl.set_no_wait_shutdown(1);
        ssl.set_no_send_shutdown(1);

        let waits = nginx_sys::ngx_ssl_shutdown(c) == nginx_sys::NGX_AGAIN as nginx_sys::ngx_int_t;
        if let Some(ssl) = (*c).ssl.as_mut().filter(|_| waits) {
            ssl.handler = Some(close_connection);
        }
        waits
    }
}

//! The part of sharing connections that a worker does beside its requests: it receives connections
//! from workers that end, and twice a second looks for what other workers have left to it.

use core::mem;
use core::ptr::NonNull;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};

use nginx_sys::{
    ngx_add_timer, ngx_close_connection, ngx_connection_t, ngx_cycle, ngx_event_t,
    ngx_get_connection, ngx_http_upstream_srv_conf_t, ngx_msec_t,
};
use ngx::core::Pool as Memory;
use ngx::http::{HttpModuleMainConf, NgxHttpUpstreamModule};

use crate::handover::{self, Letter};
use crate::idle;
use crate::nginx::{self, Connection};
use crate::upstream::Upstream;

/// The time between two looks, in milliseconds.
const PERIOD: ngx_msec_t = 500;

/// Begins, in a worker that has upstreams whose workers share connections. `None` if there is not
/// enough memory.
pub fn begin(memory: &Memory) -> Option<()> {
    if open_mailbox().is_none() {
        // Then other workers receive what is sent.
        upstreams().for_each(|(upstream, _)| upstream.set_ending());
    }
    // SAFETY: an event and a connection are numbers and pointers, for which zeroes are valid; the
    // memory is that of the worker's configuration.
    unsafe {
        // nginx writes the descriptor of an event's connection to its debug log.
        let mut none: ngx_connection_t = mem::zeroed();
        none.fd = -1;
        let none = nginx::allocate(memory.as_ptr(), none)?;
        let event: NonNull<ngx_event_t> = nginx::allocate(memory.as_ptr(), mem::zeroed())?;
        let event = event.as_ptr();
        (*event).handler = Some(look);
        (*event).data = none.as_ptr().cast();
        (*event).log = nginx::cycle_log();
        // A worker that ends does not wait for it.
        (*event).set_cancelable(1);
        ngx_add_timer(event, PERIOD);
    }
    Some(())
}

/// Closes what is still on its way, and has no receiver any more, in a worker that receives no
/// more itself.
pub fn end() {
    let has_receiver = |(upstream, _): (&Upstream, _)| upstream.has_receiver(handover::lives);
    if !upstreams().any(has_receiver) {
        while let Some((letter, fd)) = handover::receive() {
            drop(fd);
            receive(letter, None);
        }
    }
}

/// Has nginx watch the mailbox. `None` if there is no room for a connection, or no descriptor.
fn open_mailbox() -> Option<NonNull<ngx_connection_t>> {
    // nginx closes this one when the worker ends.
    let fd: OwnedFd = rustix::io::dup(handover::mailbox()?).ok()?;
    // SAFETY: the descriptor is open.
    let c = NonNull::new(unsafe { ngx_get_connection(fd.as_raw_fd(), nginx::cycle_log()) })?;
    let _ = fd.into_raw_fd();
    // SAFETY: the connection is new, and has both events.
    unsafe {
        let connection = c.as_ptr();
        (*(*connection).read).handler = Some(read_mailbox);
        (*(*connection).read).log = nginx::cycle_log();
        (*(*connection).write).log = nginx::cycle_log();
        // So that nginx asks for its end when the worker is to end.
        (*connection).set_idle(1);
        Connection::new(c).watch().then_some(c)
    }
}

/// The handler of read events of the mailbox.
///
/// # Safety
///
/// nginx calls it with the event of the mailbox's connection.
unsafe extern "C" fn read_mailbox(event: *mut ngx_event_t) {
    // SAFETY: the data of a connection's event is the connection.
    let Some(c) = NonNull::new(unsafe { (*event).data.cast::<ngx_connection_t>() }) else { return };
    // SAFETY: the connection is open.
    let connection = unsafe { Connection::new(c) };
    if connection.must_close() || nginx::is_exiting() {
        connection.forget_events();
        // SAFETY: nothing else uses the connection.
        unsafe { ngx_close_connection(c.as_ptr()) };
        // From now on nobody sends to this worker, and the last receiver closes what was sent.
        upstreams().for_each(|(upstream, _)| upstream.set_ending());
        end();
        return;
    }
    // A worker of before a reload, which is about to end, leaves the letters to the new ones.
    if upstreams().all(|(upstream, _)| upstream.is_latest()) {
        while let Some((letter, fd)) = handover::receive() {
            receive(letter, fd);
        }
    }
    connection.set_not_ready();
    connection.watch();
}

/// Parks a connection that was sent, if its upstream is still there and has its server.
fn receive(letter: Letter, fd: Option<OwnedFd>) {
    let Some((upstream, conf)) = upstreams().find(|(upstream, _)| upstream.is_in(letter.zone))
    else {
        return;
    };
    let is_server = |address: &[u8]| nginx::has_server(conf, address);
    if let Some(moved) = upstream.receive(letter.ticket, fd, is_server) {
        idle::park_moved(upstream, moved);
        idle::close_called(upstream);
    }
}

/// The handler of the timer.
///
/// # Safety
///
/// nginx calls it with the event of the timer.
unsafe extern "C" fn look(event: *mut ngx_event_t) {
    for (upstream, _) in upstreams() {
        upstream.search(nginx::now());
        if upstream.is_called() {
            idle::close_called(upstream);
        }
    }
    // SAFETY: the event is that of the timer, which has fired.
    unsafe { ngx_add_timer(event, PERIOD) };
}

/// The live upstreams of this worker, with nginx's.
fn upstreams() -> impl Iterator<Item = (&'static Upstream, &'static ngx_http_upstream_srv_conf_t)> {
    // SAFETY: `ngx_cycle`, and the configuration, live as long as the worker.
    let conf = unsafe { ngx_cycle.as_ref() }.and_then(NgxHttpUpstreamModule::main_conf);
    conf.into_iter().flat_map(nginx::upstreams).filter_map(|&upstream| {
        // SAFETY: the array holds pointers to upstreams.
        let upstream = unsafe { &*upstream };
        Some((Upstream::of(upstream)?, upstream))
    })
}

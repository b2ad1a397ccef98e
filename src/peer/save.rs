//! When a request is done with its connection: whether it can be used again, and for how long.

use core::ptr::{self, NonNull};

use nginx_sys::{
    NGX_LOG_WARN, NGX_PEER_FAILED, ngx_connection_t, ngx_current_msec, ngx_exiting,
    ngx_handle_read_event, ngx_msec_t, ngx_peer_connection_t, ngx_str_t, ngx_terminate, ngx_uint_t,
};
use ngx::core::NgxStr;
use ngx::ngx_log_error;

#[cfg(ngx_feature = "http_cache")]
use super::replaced;
use super::response::Response;
use super::{Outcome, Peer, identity, keepalive};
use crate::conf::{FOREVER, params};
use crate::counters::Refused;
use crate::idle;
use crate::nginx::{self, log_debug_http};
use crate::pool::{self, Deadline, Put, Time};

/// Keeps the connection of a request if it can be used again, and counts what became of it.
///
/// # Safety
///
/// `peer` and `pc` are valid, and of each other.
#[inline(always)]
pub unsafe fn save(peer: *mut Peer, pc: *mut ngx_peer_connection_t, state: ngx_uint_t) -> Outcome {
    // SAFETY: as promised.
    unsafe {
        let saved = match NonNull::new((*pc).connection) {
            Some(c) if state & NGX_PEER_FAILED as ngx_uint_t == 0 => {
                let response = response(peer, pc);
                check(peer, c, response).and_then(|()| put(peer, pc, c, response))
            }
            _ => refuse(Refused::Failed),
        };
        match saved {
            Ok(()) => Outcome::Saved,
            Err(why) => refused(peer, pc, why),
        }
    }
}

/// An answer that is rarely given: where it is not, the reason costs nothing.
#[cold]
#[inline(never)]
fn refuse<T>(why: Refused) -> Result<T, Refused> {
    Err(why)
}

/// Counts that a connection is not kept.
///
/// # Safety
///
/// `peer` and `pc` are valid, and of each other.
#[cold]
#[inline(never)]
unsafe fn refused(peer: *mut Peer, pc: *mut ngx_peer_connection_t, why: Refused) -> Outcome {
    // SAFETY: as promised.
    unsafe {
        log_debug_http!((*pc).log, "free keepalive peer: not saved: {}", why.name());
        (*(*peer).conf.as_ptr()).counters.block().refused(why);
    }
    Outcome::Refused(why)
}

/// Whether a connection can be used for another request: what the built-in module checks, in its
/// order.
///
/// # Safety
///
/// All three are valid, and of each other.
#[inline(always)]
unsafe fn check(
    peer: *mut Peer,
    c: NonNull<ngx_connection_t>,
    response: Response,
) -> Result<(), Refused> {
    let c = c.as_ptr();
    // SAFETY: they are valid, and with them the configuration, the upstream and the two events.
    unsafe {
        let conf = (*peer).conf.as_ptr();
        let upstream = (*peer).upstream.as_ptr();
        let (read, write) = ((*c).read, (*c).write);

        if (*read).eof() != 0 {
            return refuse(Refused::Closed);
        }
        if (*read).error() != 0
            || (*read).timedout() != 0
            || (*write).error() != 0
            || (*write).timedout() != 0
        {
            return refuse(Refused::Failed);
        }
        if (*c).requests >= (*conf).requests {
            return refuse(Refused::Requests);
        }
        if ngx_current_msec.wrapping_sub((*c).start_time) > (*conf).time {
            return refuse(Refused::Time);
        }
        if !response.reusable || (*upstream).request_body_sent() == 0 {
            return refuse(Refused::Closed);
        }
        if ngx_terminate != 0 || ngx_exiting != 0 {
            return refuse(Refused::Exiting);
        }
        if ngx_handle_read_event(read, 0) != nginx::OK {
            return refuse(Refused::Failed);
        }
        Ok(())
    }
}

/// Asks the pool to keep a connection, and parks it if it does.
///
/// # Safety
///
/// All three are valid, and of each other.
#[inline(always)]
unsafe fn put(
    peer: *mut Peer,
    pc: *mut ngx_peer_connection_t,
    c: NonNull<ngx_connection_t>,
    response: Response,
) -> Result<(), Refused> {
    // SAFETY: as promised. The pool is borrowed for one operation at a time, and not while a
    // connection is closed or parked.
    unsafe {
        let conf = (*peer).conf;
        let Some(key_length) = (*peer).key_length else { return refuse(Refused::Keylen) };
        let idle_limit = idle_limit(peer, response)?;
        let deadline = match idle_limit {
            FOREVER => Deadline::MAX,
            limit => (ngx_current_msec as Time).saturating_add(limit as Time),
        };
        let Some(slice_limit) = slice_limit(peer) else { return refuse(Refused::Limit) };

        loop {
            let Some(pool) = &mut (*conf.as_ptr()).pool else { return refuse(Refused::Disabled) };
            let identity = move || identity(peer, pc, key_length);
            match pool.put(identity, &mut (*peer).lookup, c, deadline, slice_limit) {
                Put::Kept(slot) => {
                    log_debug_http!((*pc).log, "free keepalive peer: saving connection {:p}", c);
                    let counters = (*conf.as_ptr()).counters.block();
                    counters.saved();
                    counters.set_slices(pool.slices_in_use());
                    (*pc).connection = ptr::null_mut();
                    idle::park(c, conf, slot, idle_limit);
                    return Ok(());
                }
                Put::Close(victim, why) => idle::close(victim, why.into()),
                Put::Refused(why) => {
                    if why == pool::Refused::AddressLength {
                        log_address(peer, pc);
                    }
                    return refuse(why.into());
                }
            }
        }
    }
}

/// Says once in a worker that connections to a server cannot be kept.
///
/// # Safety
///
/// `peer` and `pc` are valid, and of each other.
#[cold]
#[inline(never)]
unsafe fn log_address(peer: *mut Peer, pc: *mut ngx_peer_connection_t) {
    // SAFETY: as promised.
    unsafe {
        let logged = &raw mut (*(*peer).conf.as_ptr()).address_logged;
        if !logged.replace(true) {
            let name = NgxStr::from_ngx_str((*(*(*peer).upstream.as_ptr()).upstream).host);
            ngx_log_error!(
                NGX_LOG_WARN,
                (*pc).log,
                "address of a server that upstream \"{name}\" does not name is too long to keep \
                 connections to it"
            );
        }
    }
}

/// What the server has said about the connection in its response.
///
/// # Safety
///
/// `peer` and `pc` are valid, and of each other.
#[inline(always)]
unsafe fn response(peer: *mut Peer, pc: *mut ngx_peer_connection_t) -> Response {
    // SAFETY: as promised; an attempt that got a connection has a state.
    unsafe {
        let upstream = (*peer).upstream.as_ptr();
        #[cfg(ngx_feature = "http_cache")]
        if replaced::is_replaced(upstream) {
            return (*peer).replaced.response;
        }
        Response::of(upstream, (*(*peer).conf.as_ptr()).hints_margin, (*pc).log)
    }
}

/// How long the connection may be idle, in milliseconds; [`FOREVER`] if there is no limit.
///
/// # Safety
///
/// `peer` is valid.
#[inline(always)]
unsafe fn idle_limit(peer: *mut Peer, response: Response) -> Result<ngx_msec_t, Refused> {
    // SAFETY: as promised.
    let timeout = unsafe { (*(*peer).conf.as_ptr()).timeout };
    let hint = response.hint.and_then(|limit| limit.try_into().ok());
    let limit = timeout.min(hint.unwrap_or(FOREVER));
    if limit == 0 {
        return refuse(if timeout == 0 { Refused::Disabled } else { Refused::Hint });
    }
    Ok(limit)
}

/// The most connections that the request's slice may hold; `None` if this one is not kept.
///
/// # Safety
///
/// `peer` and `pc` are valid, and of each other.
unsafe fn slice_limit(peer: *mut Peer) -> Option<u32> {
    // SAFETY: as promised. The variables' handlers do not touch this configuration.
    unsafe {
        let keepalive = keepalive((*peer).conf)?;
        let Some(value) = &keepalive.slice_dyn else {
            return Some(keepalive.slice_conn.unwrap_or(u32::MAX));
        };
        let text = value.evaluate((*peer).trace.request())?;
        if text.is_empty() {
            return keepalive.slice_conn;
        }
        let limit = params::number(text.as_bytes());
        if limit.is_none() {
            log_invalid(peer, text);
        }
        limit
    }
}

/// # Safety
///
/// `peer` and `pc` are valid, and of each other.
#[cold]
#[inline(never)]
unsafe fn log_invalid(peer: *mut Peer, text: ngx_str_t) {
    // SAFETY: as promised.
    unsafe {
        let text = NgxStr::from_ngx_str(text);
        let name = NgxStr::from_ngx_str((*(*(*peer).upstream.as_ptr()).upstream).host);
        ngx_log_error!(
            NGX_LOG_WARN,
            (*(*(*peer).trace.request()).connection).log,
            "invalid \"slice_dyn\" value \"{text}\" of upstream \"{name}\""
        );
    }
}

//! Before an attempt: the balancer chooses a server, and the request gets an idle connection to it
//! if there is one.

use core::ptr::NonNull;

use nginx_sys::{NGX_AGAIN, NGX_DONE, NGX_LOG_INFO, ngx_connection_t, ngx_int_t};
use ngx::core::NgxStr;
use ngx::ngx_log_error;

use super::attempt::Attempt;
use super::attributes;
use crate::idle;
use crate::nginx::{self, AddressText, Connection, log_debug_http};
use crate::pool::Lookup;
use crate::trace;
use crate::upstream::Taken;

const DONE: ngx_int_t = NGX_DONE as ngx_int_t;
const AGAIN: ngx_int_t = NGX_AGAIN as ngx_int_t;

/// Asks the balancer for a server, then the upstream for an idle connection to it.
#[inline(always)]
pub fn get(attempt: Attempt) -> ngx_int_t {
    let (data, upstream) = (attempt.data(), attempt.upstream());
    data.begin_attempt();
    let Some(rc) = attempt.balancer_get() else { return nginx::ERROR };
    data.look_at_tls();
    if rc != nginx::OK {
        attributes::set_unknown(attempt);
        data.trace.push(trace::Attempt::None);
        if rc == DONE || rc == AGAIN {
            upstream.balancer();
        }
        return rc;
    }
    attributes::set(attempt);
    let Some((c, found)) = take(attempt) else {
        data.trace.push(trace::Attempt::Miss);
        upstream.miss();
        log_debug_http!(attempt.log(), "get keepalive peer: no idle connection{}", other(attempt));
        return nginx::OK;
    };
    log_debug_http!(attempt.log(), "get keepalive peer: using connection {:p}", c);
    data.trace.push(found);
    attempt.set_connection(c);
    DONE
}

/// Takes a connection to the balancer's server, and closes those that turn out to have ended.
#[inline(always)]
fn take(attempt: Attempt) -> Option<(NonNull<ngx_connection_t>, trace::Attempt)> {
    let (data, upstream) = (attempt.data(), attempt.upstream());
    if data.may_be_kept().is_err() {
        return None;
    }
    let (identity, now) = (attempt.identity(), nginx::now());
    let mut lookup = Lookup::default();
    let found = loop {
        match upstream.take(&identity, &mut lookup, (now, idle::end_of)) {
            Some(Taken::Hit(removed)) => {
                data.idle.set(removed.idle(now));
                let connection = idle::wake(removed, attempt.log());
                break Some((connection, trace::Attempt::Hit));
            }
            Some(Taken::Ended(removed)) => idle::close(removed),
            Some(Taken::TooOld(first_use)) => {
                log_too_old(attempt, first_use);
                break None;
            }
            Some(Taken::Moved) => match borrow(attempt) {
                Some(Ok(c)) => break Some((c.as_non_null(), trace::Attempt::Borrowed)),
                Some(Err(Lost)) => {}
                None => break None,
            },
            None => break None,
        }
    };
    data.lookup.set(lookup);
    if upstream.is_called() {
        attempt.answer_calls();
    }
    found
}

/// Says, for the debug log, that there are idle connections of the key and the server of a request,
/// but of another identity. It looks at all of them.
#[cold]
fn other(attempt: Attempt) -> &'static str {
    let may_be_kept = attempt.data().may_be_kept().is_ok();
    let has_other = may_be_kept && attempt.upstream().has_other(&attempt.identity());
    if has_other { ", only of another identity" } else { "" }
}

/// Logs that idle connections are not used since the server may be about to close them.
#[cold]
fn log_too_old(attempt: Attempt, first_use: Option<u32>) {
    log_debug_http!(attempt.log(), "get keepalive peer: idle for too long");
    let Some(timeout) = first_use else { return };
    let (server, name) = (AddressText::of(attempt.address()), attempt.upstream().name());
    let server = NgxStr::from_bytes(server.as_bytes());
    let (seconds, milliseconds) = (timeout / 1000, timeout % 1000);
    ngx_log_error!(
        NGX_LOG_INFO,
        attempt.log(),
        "idle timeout of server \"{server}\" of upstream \"{name}\" is \
         {seconds}.{milliseconds:03}s"
    );
}

/// Another worker has closed a connection that was moved here.
struct Lost;

/// Makes a connection of one that was moved here. `None` if there is no room for it.
#[cold]
fn borrow(attempt: Attempt) -> Option<Result<Connection, Lost>> {
    let upstream = attempt.upstream();
    let moved = upstream.moved()?;
    let ticket = moved.ticket;
    let idle = moved.idle.time(nginx::now());
    let c = idle::adopt(upstream, moved, attempt.log())?;
    if upstream.use_moved(ticket) {
        attempt.data().idle.set(idle);
        return Some(Ok(c));
    }
    idle::discard(c);
    Some(Err(Lost))
}

//! After an attempt: the request has finished with its connection, which is kept or not.

use nginx_sys::{NGX_LOG_WARN, ngx_str_t, ngx_uint_t};
use ngx::core::NgxStr;
use ngx::ngx_log_error;

use super::attempt::Attempt;
use super::attributes;
use super::client;
use super::data::Outcome;
use super::response::Response;
use crate::conf::params;
use crate::counters::Refused;
use crate::idle;
use crate::nginx::{self, Connection, log_debug_http};
use crate::policy::{self, Facts, IdleLimit, SliceDyn, Time};
use crate::upstream::Keep;

/// Keeps the connection of a request if it can be used again, and counts the outcome.
#[inline(always)]
pub fn save(attempt: Attempt, state: ngx_uint_t) -> Outcome {
    let saved = match attempt.connection(state) {
        Some(c) => keep(attempt, c),
        None => {
            learn(attempt);
            Err(Refused::Failed)
        }
    };
    match saved {
        Ok(()) => Outcome::Saved,
        Err(why) => {
            log_debug_http!(attempt.log(), "free keepalive peer: not saved: {}", why.name());
            attempt.upstream().refuse(why);
            attempt.end_connection();
            Outcome::Refused(why)
        }
    }
}

/// Learns from an attempt that has failed: the server may have closed an idle connection while the
/// request was on its way.
#[cold]
fn learn(attempt: Attempt) {
    let idle = attempt.data().idle.get();
    if policy::must_look(idle) && attempt.was_closed() {
        attempt.upstream().closed_in_use(attempt.address(), idle, nginx::now());
    }
}

/// Keeps a connection, unless something forbids it.
#[inline(always)]
fn keep(attempt: Attempt, c: Connection) -> Result<(), Refused> {
    let (upstream, settings) = (attempt.upstream(), attempt.upstream().settings());
    let response = attempt.response();
    let now = nginx::now();
    settings.use_limits.check(&facts(attempt, c, response, now))?;
    if !c.watch() {
        return Err(Refused::Failed);
    }
    if attempt.data().has_attributes() && c.is_new() {
        attributes::confirm(attempt);
        client::bind(attempt, c).ok_or(Refused::Failed)?;
    }
    attempt.data().may_be_kept()?;
    let idle_limit = IdleLimit::new(settings.timeout, response.hint)?;
    let slice_limit = slice_limit(attempt).ok_or(Refused::Limit)?;

    let mut lookup = attempt.data().lookup.get();
    let data = loop {
        let looked_up = (|| attempt.identity(), &mut lookup);
        match upstream.keep(c, looked_up, (slice_limit, idle_limit), now) {
            Keep::Kept(data) => break data,
            Keep::Close(removed) => idle::close(removed),
            Keep::Refused(why) => {
                if why == Refused::Address {
                    log_address(attempt);
                }
                if upstream.is_called() {
                    attempt.answer_calls();
                }
                return Err(why);
            }
        }
    };
    log_debug_http!(attempt.log(), "free keepalive peer: saving connection {:p}", c.as_ptr());
    attempt.leave_connection();
    idle::park(c, data, idle_limit);
    if upstream.is_called() {
        attempt.answer_calls();
    }
    Ok(())
}

#[inline(always)]
fn facts(attempt: Attempt, c: Connection, response: Response, now: Time) -> Facts {
    Facts {
        eof: c.is_eof(),
        failed: c.has_failed(),
        requests: c.requests(),
        age: c.age(now),
        reusable: response.reusable && !c.has_pending(),
        request_sent: attempt.is_request_sent(),
        exiting: nginx::is_exiting(),
    }
}

/// The most connections that the request's slice may hold; `None` if this one is not kept.
fn slice_limit(attempt: Attempt) -> Option<u32> {
    let keepalive = &attempt.upstream().settings().keepalive;
    let slice_dyn = match &keepalive.slice_dyn {
        None => SliceDyn::Unset,
        Some(value) => {
            // SAFETY: the request of an attempt is valid.
            let text = unsafe { value.evaluate(attempt.request()) }?;
            match params::number(text.as_bytes()) {
                _ if text.is_empty() => SliceDyn::Empty,
                None => {
                    log_invalid(attempt, text);
                    SliceDyn::Number(None)
                }
                number => SliceDyn::Number(number),
            }
        }
    };
    slice_dyn.limit(keepalive.slice_conn)
}

/// Logs that a value of `slice_dyn` is not a number.
#[cold]
fn log_invalid(attempt: Attempt, text: ngx_str_t) {
    let name = attempt.upstream().name();
    // SAFETY: the value is valid until another variable is evaluated; so is the request.
    let (text, log) =
        unsafe { (NgxStr::from_ngx_str(text), (*(*attempt.request()).connection).log) };
    ngx_log_error!(
        NGX_LOG_WARN,
        log,
        "invalid \"slice_dyn\" value \"{text}\" of upstream \"{name}\""
    );
}

/// Logs once in a worker that connections to a server cannot be kept.
#[cold]
fn log_address(attempt: Attempt) {
    if attempt.upstream().is_first_long_address() {
        let name = attempt.upstream().name();
        ngx_log_error!(
            NGX_LOG_WARN,
            attempt.log(),
            "address of a server that upstream \"{name}\" does not name is too long to keep \
             connections to it"
        );
    }
}

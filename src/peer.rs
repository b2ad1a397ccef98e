//! The hooks around an upstream's balancer. The balancer chooses the server; this module looks for
//! an idle connection to it, and keeps the connection when the request is done.

use core::ffi::c_void;
use core::ptr::NonNull;
use core::slice::from_raw_parts;

#[cfg(ngx_peer_notify)]
use nginx_sys::ngx_event_notify_peer_pt;
use nginx_sys::{
    NGX_AGAIN, NGX_DONE, NGX_ERROR, NGX_LOG_WARN, ngx_connection_t, ngx_current_msec,
    ngx_event_free_peer_pt, ngx_event_get_peer_pt, ngx_http_request_t,
    ngx_http_upstream_srv_conf_t, ngx_http_upstream_state_t, ngx_http_upstream_t, ngx_int_t,
    ngx_peer_connection_t, ngx_str_t, ngx_uint_t,
};
#[cfg(ngx_peer_session)]
use nginx_sys::{ngx_event_save_peer_session_pt, ngx_event_set_peer_session_pt};
use ngx::core::NgxStr;
use ngx::ngx_log_error;

#[cfg(ngx_feature = "http_cache")]
use self::replaced::Replaced;
use self::response::Response;
use self::save::save;
use crate::conf::{Keepalive, Module, ServerConf};
use crate::counters::{Closed, Refused};
use crate::idle;
use crate::nginx::{self, log_debug_http};
use crate::pool::{Identity, Length, Lookup, Protocol, Take, Time};
use crate::trace::{self, Attempt, Trace};

#[cfg(ngx_feature = "http_cache")]
mod replaced;
mod response;
mod save;

const ERROR: ngx_int_t = NGX_ERROR as ngx_int_t;
const DONE: ngx_int_t = NGX_DONE as ngx_int_t;
const AGAIN: ngx_int_t = NGX_AGAIN as ngx_int_t;

/// What a request needs between `init` and its last `free`, and the variables after that.
#[repr(C)]
pub struct Peer {
    /// The first member, so that who finds the trace has found the peer.
    trace: Trace,
    conf: NonNull<ServerConf>,
    /// What became of the last attempt's connection; `None` if it is still in use, or there is none.
    outcome: Option<Outcome>,
    /// The length of the slice key as used, which follows in memory; `None` if it is too long and
    /// connections under it are not kept.
    key_length: Option<Length>,
    /// The upstream of the request. `ngx_peer_connection_t` may be another module's copy.
    upstream: NonNull<ngx_http_upstream_t>,
    /// Of the server that the balancer chose last.
    lookup: Lookup,
    /// What the server said before a cached response took the place of its own.
    #[cfg(ngx_feature = "http_cache")]
    replaced: Replaced,
    balancer: Balancer,
}

/// What became of a connection after a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// It is kept.
    Saved,
    /// It is not kept.
    Refused(Refused),
}

/// What the balancer has put into `ngx_peer_connection_t`.
struct Balancer {
    data: *mut c_void,
    get: ngx_event_get_peer_pt,
    free: ngx_event_free_peer_pt,
    #[cfg(ngx_peer_notify)]
    notify: ngx_event_notify_peer_pt,
    #[cfg(ngx_peer_session)]
    set_session: ngx_event_set_peer_session_pt,
    #[cfg(ngx_peer_session)]
    save_session: ngx_event_save_peer_session_pt,
}

/// `peer.init` of the upstream: lets the balancer initialise the request, then puts this module's
/// callbacks around the balancer's.
///
/// # Safety
///
/// nginx calls it with a valid request, whose `upstream` is set, and its upstream.
pub unsafe extern "C" fn init(
    r: *mut ngx_http_request_t,
    us: *mut ngx_http_upstream_srv_conf_t,
) -> ngx_int_t {
    // SAFETY: nginx passes a valid request, whose `upstream` is set, and its upstream, which has
    // a configuration of this module or else this would not be its `peer.init`.
    unsafe {
        log_debug_http!((*(*r).connection).log, "init keepalive peer");

        let Some(conf) = Module::server_conf_of(&*us) else { return ERROR };
        let Some(init) = (*conf.as_ptr()).original_init_peer else { return ERROR };
        if init(r, us) != nginx::OK {
            return ERROR;
        }
        let Ok(key) = slice_key(r, us, conf) else { return ERROR };

        let Some(upstream) = NonNull::new((*r).upstream) else { return ERROR };
        let pc = &raw mut (*upstream.as_ptr()).peer;
        let peer = || Peer {
            trace: Trace::new(r),
            conf,
            outcome: None,
            key_length: key.map(|key| key.len() as Length),
            upstream,
            lookup: Lookup::default(),
            #[cfg(ngx_feature = "http_cache")]
            replaced: Replaced::default(),
            balancer: Balancer {
                data: (*pc).data,
                get: (*pc).get,
                free: (*pc).free,
                #[cfg(ngx_peer_notify)]
                notify: (*pc).notify,
                #[cfg(ngx_peer_session)]
                set_session: (*pc).set_session,
                #[cfg(ngx_peer_session)]
                save_session: (*pc).save_session,
            },
        };
        let bytes = key.unwrap_or_default();
        let Some(peer) = nginx::allocate_with((*r).pool, peer, bytes) else { return ERROR };
        Trace::link(&raw mut (*peer.as_ptr()).trace);
        #[cfg(ngx_feature = "http_cache")]
        replaced::watch(r, peer);

        (*pc).data = peer.as_ptr().cast();
        (*pc).get = Some(get);
        (*pc).free = Some(free);
        #[cfg(ngx_peer_notify)]
        {
            (*pc).notify = Some(notify);
        }
        #[cfg(ngx_peer_session)]
        {
            (*pc).set_session = Some(set_session);
            (*pc).save_session = Some(save_session);
        }
        nginx::OK
    }
}

/// `peer.get`: asks the balancer for a server, then the pool for a connection to it.
///
/// # Safety
///
/// nginx calls it with a valid `pc`, the member of an upstream, and the data that [`init`] has put
/// there.
unsafe extern "C" fn get(pc: *mut ngx_peer_connection_t, data: *mut c_void) -> ngx_int_t {
    let peer: *mut Peer = data.cast();
    // SAFETY: nginx passes a valid `pc` and the data that `init` has put there.
    unsafe {
        log_debug_http!((*pc).log, "get keepalive peer");

        let trace = &raw mut (*peer).trace;
        begin_attempt(peer);
        let Some(get) = (*peer).balancer.get else { return ERROR };
        let rc = get(pc, (*peer).balancer.data);
        if rc != nginx::OK {
            Trace::push(trace, Attempt::None);
            if rc == DONE || rc == AGAIN {
                (*(*peer).conf.as_ptr()).counters.block().balancer();
            }
            return rc;
        }
        let Some(c) = take(peer, pc) else {
            Trace::push(trace, Attempt::Miss);
            (*(*peer).conf.as_ptr()).counters.block().miss();
            return nginx::OK;
        };

        log_debug_http!((*pc).log, "get keepalive peer: using connection {:p}", c);
        Trace::push(trace, Attempt::Hit);
        count_hit(peer);
        idle::wake(c, (*pc).log);
        (*pc).connection = c.as_ptr();
        (*pc).set_cached(1);
        DONE
    }
}

/// Forgets what is known of the attempt before: the balancer may answer with a connection of its
/// own, about which the pool is not asked.
///
/// # Safety
///
/// `peer` is valid.
#[inline(always)]
unsafe fn begin_attempt(peer: *mut Peer) {
    // SAFETY: as promised.
    unsafe {
        (*peer).outcome = None;
        (*peer).lookup = Lookup::default();
        #[cfg(ngx_feature = "http_cache")]
        {
            (*peer).replaced.response = Response::default();
        }
    }
}

/// `peer.free`: keeps the connection if it can be used again, then tells the balancer.
///
/// # Safety
///
/// nginx calls it with a valid `pc`, the member of an upstream, and the data that [`init`] has put
/// there.
unsafe extern "C" fn free(pc: *mut ngx_peer_connection_t, data: *mut c_void, state: ngx_uint_t) {
    let peer: *mut Peer = data.cast();
    // SAFETY: nginx passes a valid `pc` and the data that `init` has put there.
    unsafe {
        log_debug_http!((*pc).log, "free keepalive peer");

        (*peer).outcome = Some(save(peer, pc, state));
        if let Some(free) = (*peer).balancer.free {
            free(pc, (*peer).balancer.data, state);
        }
    }
}

/// `peer.notify`, if the balancer has one.
///
/// # Safety
///
/// nginx calls it with a valid `pc` and the data that [`init`] has put there.
#[cfg(ngx_peer_notify)]
unsafe extern "C" fn notify(pc: *mut ngx_peer_connection_t, data: *mut c_void, kind: ngx_uint_t) {
    let peer: *mut Peer = data.cast();
    // SAFETY: nginx passes a valid `pc` and the data that `init` has put there.
    unsafe {
        if let Some(notify) = (*peer).balancer.notify {
            notify(pc, (*peer).balancer.data, kind);
        }
    }
}

/// `peer.set_session`, if the balancer has one.
///
/// # Safety
///
/// nginx calls it with a valid `pc` and the data that [`init`] has put there.
#[cfg(ngx_peer_session)]
unsafe extern "C" fn set_session(pc: *mut ngx_peer_connection_t, data: *mut c_void) -> ngx_int_t {
    let peer: *mut Peer = data.cast();
    // SAFETY: nginx passes a valid `pc` and the data that `init` has put there.
    unsafe {
        match (*peer).balancer.set_session {
            Some(set_session) => set_session(pc, (*peer).balancer.data),
            None => nginx::OK,
        }
    }
}

/// `peer.save_session`, if the balancer has one.
///
/// # Safety
///
/// nginx calls it with a valid `pc` and the data that [`init`] has put there.
#[cfg(ngx_peer_session)]
unsafe extern "C" fn save_session(pc: *mut ngx_peer_connection_t, data: *mut c_void) {
    let peer: *mut Peer = data.cast();
    // SAFETY: nginx passes a valid `pc` and the data that `init` has put there.
    unsafe {
        if let Some(save_session) = (*peer).balancer.save_session {
            save_session(pc, (*peer).balancer.data);
        }
    }
}

/// The peer of the upstream that a request has come to last, if that is one of this module.
///
/// # Safety
///
/// The request is valid, and the answer is used no longer than it.
pub unsafe fn of(r: *mut ngx_http_request_t) -> Option<NonNull<Peer>> {
    // SAFETY: the request is valid, and the array is one of states. The last trace is the first
    // member of a peer, since `Trace::push` moves only earlier attempts to another one.
    unsafe {
        let states = (*r).upstream_states.as_ref()?.as_slice::<ngx_http_upstream_state_t>();
        let trace = trace::traces(r).max_by_key(|trace| trace.end())?;
        // Any later attempt is of an upstream that is not one of this module.
        let later = states.get(trace.end()..)?.iter().any(|state| !state.peer.is_null());
        (!later).then(|| NonNull::from(trace).cast())
    }
}

/// The slice key as used; `None` if the upstream has no `slice_key`, or it is too long.
///
/// # Safety
///
/// The peer is valid, and the answer is used no longer than it.
pub unsafe fn slice<'a>(peer: NonNull<Peer>) -> Option<&'a [u8]> {
    let peer = peer.as_ptr();
    // SAFETY: as promised.
    unsafe {
        keepalive((*peer).conf)?.slice_key.as_ref()?;
        Some(key(peer, (*peer).key_length?))
    }
}

/// What became of the connection; `None` if it is still in use, or there is none.
///
/// # Safety
///
/// The peer is valid.
pub unsafe fn outcome(peer: NonNull<Peer>) -> Option<Outcome> {
    // SAFETY: as promised.
    unsafe { (*peer.as_ptr()).outcome }
}

/// Evaluates the slice key. `Ok(None)`: it is too long, and its connections are not kept.
///
/// # Safety
///
/// All three are valid, and of each other. The key may be the variable's own bytes: it is to be
/// copied before another variable is evaluated.
unsafe fn slice_key<'a>(
    r: *mut ngx_http_request_t,
    us: *mut ngx_http_upstream_srv_conf_t,
    conf: NonNull<ServerConf>,
) -> Result<Option<&'a [u8]>, ()> {
    // SAFETY: as promised. No variable's handler reads or writes this configuration.
    unsafe {
        let Some(keepalive) = keepalive(conf) else { return Err(()) };
        let Some(text) = &keepalive.slice_key else { return Ok(Some(&[])) };
        let mut key = text.evaluate(r).ok_or(())?;

        let longest = usize::from(keepalive.slice_keylen);
        if key.len > longest {
            if keepalive.slice_strict {
                return Ok(None);
            }
            log_cut(r, us, conf, key, longest);
            key.len = longest;
        }
        Ok(Some(NgxStr::from_ngx_str(key).as_bytes()))
    }
}

/// Says once in a worker that keys of this upstream are cut.
///
/// # Safety
///
/// As for [`slice_key`].
#[cold]
#[inline(never)]
unsafe fn log_cut(
    r: *mut ngx_http_request_t,
    us: *mut ngx_http_upstream_srv_conf_t,
    conf: NonNull<ServerConf>,
    key: ngx_str_t,
    longest: usize,
) {
    // SAFETY: as promised.
    unsafe {
        if !core::mem::replace(&mut (*conf.as_ptr()).cut_logged, true) {
            let key = NgxStr::from_ngx_str(key);
            let name = NgxStr::from_ngx_str((*us).host);
            ngx_log_error!(
                NGX_LOG_WARN,
                (*(*r).connection).log,
                "slice key \"{key}\" of upstream \"{name}\" is cut to {longest} bytes"
            );
        }
    }
}

/// # Safety
///
/// `conf` is valid, and the answer is used no longer than it.
unsafe fn keepalive<'a>(conf: NonNull<ServerConf>) -> Option<&'a Keepalive> {
    // SAFETY: as promised. The directive does not change after the configuration was read.
    unsafe { (*conf.as_ptr()).keepalive.as_ref() }
}

/// Counts that a request uses an idle connection.
///
/// # Safety
///
/// `peer` is valid, and [`take`] has found a connection for it.
#[inline(always)]
unsafe fn count_hit(peer: *mut Peer) {
    // SAFETY: as promised.
    unsafe {
        let conf = (*peer).conf.as_ptr();
        let counters = (*conf).counters.block();
        counters.hit();
        if let Some(pool) = &(*conf).pool {
            counters.set_slices(pool.slices_in_use());
        }
    }
}

/// Takes a connection to the server that the balancer chose.
///
/// # Safety
///
/// `peer` and `pc` are valid, and of each other.
unsafe fn take(
    peer: *mut Peer,
    pc: *mut ngx_peer_connection_t,
) -> Option<NonNull<ngx_connection_t>> {
    // SAFETY: as promised. The pool is borrowed for one operation at a time, and not while a
    // connection is closed.
    unsafe {
        let conf = (*peer).conf.as_ptr();
        let key_length = (*peer).key_length?;
        let identity = move || identity(peer, pc, key_length);
        loop {
            let pool = (*conf).pool.as_mut()?;
            match pool.take(identity, &mut (*peer).lookup, ngx_current_msec as Time) {
                Take::Found(c) if idle::is_open(c) => return Some(c),
                Take::Found(c) => {
                    pool.discount_hit(&(*peer).lookup);
                    idle::close(c, Closed::Peer);
                }
                Take::Close(c) => idle::close(c, idle::expired(c)),
                Take::Nothing => return None,
            }
        }
    }
}

/// What the request's connection is saved under.
///
/// # Safety
///
/// `peer` and `pc` are valid, and of each other, `key_length` is that of `peer`, and the answer is
/// used no longer than they are.
unsafe fn identity<'a>(
    peer: *mut Peer,
    pc: *mut ngx_peer_connection_t,
    key_length: Length,
) -> Identity<'a> {
    // SAFETY: as promised. The balancer has set the address.
    unsafe {
        let upstream = (*peer).upstream.as_ptr();
        let local = keepalive((*peer).conf).is_some_and(|keepalive| keepalive.local);

        Identity {
            key: key(peer, key_length),
            address: nginx::address((*pc).sockaddr, (*pc).socklen),
            protocol: Protocol {
                handler: (*upstream).create_request.map_or(0, |handler| handler as usize),
                location: if local { (*upstream).conf.addr() } else { 0 },
                tls: (*upstream).ssl() != 0,
            },
        }
    }
}

/// # Safety
///
/// `peer` is valid, `key_length` is its own, and the answer is used no longer than it.
unsafe fn key<'a>(peer: *mut Peer, key_length: Length) -> &'a [u8] {
    // SAFETY: `init` has copied the key behind `peer`.
    unsafe { from_raw_parts(peer.add(1).cast(), usize::from(key_length)) }
}

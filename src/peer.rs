//! The hooks around an upstream's balancer. The balancer chooses the server; this module looks for
//! an idle connection to it, and keeps the connection when the request is done.

use core::ffi::c_void;
use core::mem::offset_of;
use core::ptr::{self, NonNull};
use core::slice;

#[cfg(ngx_feature = "http_cache")]
use nginx_sys::NGX_HTTP_CACHE_REVALIDATED;
#[cfg(ngx_peer_notify)]
use nginx_sys::ngx_event_notify_peer_pt;
use nginx_sys::{
    NGX_DONE, NGX_ERROR, NGX_LOG_WARN, NGX_PEER_FAILED, ngx_connection_t, ngx_current_msec,
    ngx_event_free_peer_pt, ngx_event_get_peer_pt, ngx_exiting, ngx_handle_read_event,
    ngx_http_request_t, ngx_http_upstream_srv_conf_t, ngx_http_upstream_t, ngx_int_t, ngx_msec_t,
    ngx_peer_connection_t, ngx_str_t, ngx_terminate, ngx_uint_t,
};
#[cfg(ngx_peer_session)]
use nginx_sys::{ngx_event_save_peer_session_pt, ngx_event_set_peer_session_pt};
use ngx::core::NgxStr;
use ngx::ngx_log_error;

use crate::conf::params;
use crate::conf::{FOREVER, Keepalive, Module, ServerConf};
use crate::hints::{Hints, Malformed};
use crate::idle;
use crate::nginx::{self, log_debug_http};
use crate::pool::{Deadline, Identity, Length, Lookup, Protocol, Put, Refused, Take, Time};

const ERROR: ngx_int_t = NGX_ERROR as ngx_int_t;
const KEEP_ALIVE: &[u8] = b"Keep-Alive";

const DONE: ngx_int_t = NGX_DONE as ngx_int_t;

/// What a request needs between `init` and its last `free`.
struct Peer {
    conf: NonNull<ServerConf>,
    request: *mut ngx_http_request_t,
    /// The length of the slice key as used, which follows in memory; `None` if it is too long and
    /// connections under it are not kept.
    key_length: Option<Length>,
    /// Of the server that the balancer chose last.
    lookup: Lookup,
    balancer: Balancer,
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

        let pc = &raw mut (*(*r).upstream).peer;
        let peer = Peer {
            conf,
            request: r,
            key_length: key.map(|key| key.len() as Length),
            lookup: Lookup::default(),
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
        let key = key.unwrap_or_default();
        let Some(peer) = nginx::allocate_with((*r).pool, peer, key) else { return ERROR };

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

        let Some(get) = (*peer).balancer.get else { return ERROR };
        let rc = get(pc, (*peer).balancer.data);
        if rc != nginx::OK {
            return rc;
        }
        let Some(c) = take(peer, pc) else { return nginx::OK };

        log_debug_http!((*pc).log, "get keepalive peer: using connection {:p}", c);
        idle::wake(c, (*pc).log);
        (*pc).connection = c.as_ptr();
        (*pc).set_cached(1);
        DONE
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

        if state & NGX_PEER_FAILED as ngx_uint_t == 0 {
            if let Some(c) = NonNull::new((*pc).connection).filter(|&c| is_reusable(peer, pc, c)) {
                save(peer, pc, c);
            }
        }
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
    unsafe { (*conf.as_ptr()).keepalive() }
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
        (*peer).lookup = Lookup::default();

        loop {
            let pool = (*conf).pool.as_mut()?;
            match pool.take(identity, &mut (*peer).lookup, ngx_current_msec as Time) {
                Take::Found(c) if idle::is_open(c) => return Some(c),
                Take::Found(c) | Take::Close(c) => idle::close(c),
                Take::Nothing => return None,
            }
        }
    }
}

/// Whether a connection can be used for another request: what the built-in module checks, in its
/// order.
///
/// # Safety
///
/// All three are valid, and of each other.
unsafe fn is_reusable(
    peer: *mut Peer,
    pc: *mut ngx_peer_connection_t,
    c: NonNull<ngx_connection_t>,
) -> bool {
    let c = c.as_ptr();
    // SAFETY: they are valid, and with them the configuration, the upstream and the two events.
    unsafe {
        let conf = (*peer).conf.as_ptr();
        let upstream = upstream_of(pc);
        let (read, write) = ((*c).read, (*c).write);

        (*read).eof() == 0
            && (*read).error() == 0
            && (*read).timedout() == 0
            && (*write).error() == 0
            && (*write).timedout() == 0
            && (*c).requests < (*conf).requests
            && ngx_current_msec.wrapping_sub((*c).start_time) <= (*conf).time
            && (*upstream).keepalive() != 0
            && (*upstream).request_body_sent() != 0
            && ngx_terminate == 0
            && ngx_exiting == 0
            && ngx_handle_read_event(read, 0) == nginx::OK
    }
}

/// Asks the pool to keep a connection, and parks it if it does.
///
/// # Safety
///
/// All three are valid, and of each other.
unsafe fn save(peer: *mut Peer, pc: *mut ngx_peer_connection_t, c: NonNull<ngx_connection_t>) {
    // SAFETY: as promised. The pool is borrowed for one operation at a time, and not while a
    // connection is closed or parked.
    unsafe {
        let conf = (*peer).conf;
        let Some(key_length) = (*peer).key_length else { return };
        let idle_limit = idle_limit(peer, pc);
        if idle_limit == 0 {
            return;
        }
        let deadline = match idle_limit {
            FOREVER => Deadline::MAX,
            limit => (ngx_current_msec as Time).saturating_add(limit as Time),
        };
        let Some(slice_limit) = slice_limit(peer, pc) else { return };

        loop {
            let Some(pool) = (*conf.as_ptr()).pool.as_mut() else { return };
            let identity = move || identity(peer, pc, key_length);
            match pool.put(identity, &mut (*peer).lookup, c, deadline, slice_limit) {
                Put::Kept(slot) => {
                    log_debug_http!((*pc).log, "free keepalive peer: saving connection {:p}", c);
                    (*pc).connection = ptr::null_mut();
                    return idle::park(c, conf, slot, idle_limit);
                }
                Put::Close(victim) => idle::close(victim),
                Put::Refused(refused) => return log_refused(pc, conf, refused),
            }
        }
    }
}

/// # Safety
///
/// `pc` and `conf` are valid, and of each other.
#[cold]
#[inline(never)]
unsafe fn log_refused(pc: *mut ngx_peer_connection_t, conf: NonNull<ServerConf>, refused: Refused) {
    // SAFETY: as promised.
    unsafe {
        log_debug_http!((*pc).log, "free keepalive peer: not saved: {refused:?}");

        let logged = &raw mut (*conf.as_ptr()).address_logged;
        if refused == Refused::AddressLength && !logged.replace(true) {
            let name = NgxStr::from_ngx_str((*(*upstream_of(pc)).upstream).host);
            ngx_log_error!(
                NGX_LOG_WARN,
                (*pc).log,
                "address of a server that upstream \"{name}\" does not name is too long to keep \
                 connections to it"
            );
        }
    }
}

/// How long the connection may be idle, in milliseconds; [`FOREVER`] if there is no limit.
///
/// # Safety
///
/// `peer` and `pc` are valid, and of each other, and the connection is reusable.
unsafe fn idle_limit(peer: *mut Peer, pc: *mut ngx_peer_connection_t) -> ngx_msec_t {
    // SAFETY: both are valid. The response header was read, or the connection would not be
    // reusable (`keepalive`).
    unsafe {
        let conf = (*peer).conf.as_ptr();
        match (*conf).hints_margin {
            Some(margin) if has_hints(&*upstream_of(pc)) => {
                hinted_limit(pc, (*conf).timeout, margin)
            }
            _ => (*conf).timeout,
        }
    }
}

/// Whether the server's response has a `Keep-Alive` header.
///
/// # Safety
///
/// The response header was read.
unsafe fn has_hints(upstream: &ngx_http_upstream_t) -> bool {
    // SAFETY: as promised.
    let mut parts = unsafe { nginx::response_header(upstream) };
    parts.any(|lines| lines.iter().any(|line| nginx::is_named(line, KEEP_ALIVE)))
}

/// The smaller one of `timeout` and what the server's `Keep-Alive` header says.
///
/// # Safety
///
/// As for [`idle_limit`].
#[cold]
#[inline(never)]
unsafe fn hinted_limit(
    pc: *mut ngx_peer_connection_t,
    timeout: ngx_msec_t,
    margin: u64,
) -> ngx_msec_t {
    // SAFETY: as promised.
    unsafe {
        let upstream = &*upstream_of(pc);
        #[cfg(ngx_feature = "http_cache")]
        if upstream.cache_status() == NGX_HTTP_CACHE_REVALIDATED {
            // The header is now that of the cached response.
            return timeout;
        }
        let mut hints = Hints::default();
        let lines = nginx::response_header(upstream).flatten();
        for line in lines.filter(|line| nginx::is_named(line, KEEP_ALIVE)) {
            match Hints::parse(line.value.as_bytes()) {
                Ok(said) => hints = hints.and(said),
                Err(Malformed) => {
                    let line = NgxStr::from_ngx_str(line.value);
                    log_debug_http!((*pc).log, "malformed Keep-Alive header: \"{line}\"");
                }
            }
        }
        let hinted = hints.idle_limit(margin).and_then(|limit| limit.try_into().ok());
        timeout.min(hinted.unwrap_or(FOREVER))
    }
}

/// The most connections that the request's slice may hold; `None` if this one is not kept.
///
/// # Safety
///
/// `peer` and `pc` are valid, and of each other.
unsafe fn slice_limit(peer: *mut Peer, pc: *mut ngx_peer_connection_t) -> Option<u32> {
    // SAFETY: as promised. The variables' handlers do not touch this configuration.
    unsafe {
        let keepalive = keepalive((*peer).conf)?;
        let Some(value) = &keepalive.slice_dyn else {
            return Some(keepalive.slice_conn.unwrap_or(u32::MAX));
        };
        let text = value.evaluate((*peer).request)?;
        if text.is_empty() {
            return keepalive.slice_conn;
        }
        let limit = params::number(text.as_bytes());
        if limit.is_none() {
            log_invalid(peer, pc, text);
        }
        limit
    }
}

/// # Safety
///
/// `peer` and `pc` are valid, and of each other.
#[cold]
#[inline(never)]
unsafe fn log_invalid(peer: *mut Peer, pc: *mut ngx_peer_connection_t, text: ngx_str_t) {
    // SAFETY: as promised.
    unsafe {
        let text = NgxStr::from_ngx_str(text);
        let name = NgxStr::from_ngx_str((*(*upstream_of(pc)).upstream).host);
        ngx_log_error!(
            NGX_LOG_WARN,
            (*(*(*peer).request).connection).log,
            "invalid \"slice_dyn\" value \"{text}\" of upstream \"{name}\""
        );
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
    // SAFETY: as promised. The balancer has set the address, and `init` has copied the key behind
    // `peer`.
    unsafe {
        let upstream = upstream_of(pc);
        let local = keepalive((*peer).conf).is_some_and(|keepalive| keepalive.local);

        Identity {
            key: slice::from_raw_parts(peer.add(1).cast(), usize::from(key_length)),
            address: nginx::address((*pc).sockaddr, (*pc).socklen),
            protocol: Protocol {
                handler: (*upstream).create_request.map_or(0, |handler| handler as usize),
                location: if local { (*upstream).conf.addr() } else { 0 },
                tls: (*upstream).ssl() != 0,
            },
        }
    }
}

/// The upstream that a peer connection is the member of.
///
/// # Safety
///
/// `pc` is the `peer` of an upstream.
unsafe fn upstream_of(pc: *mut ngx_peer_connection_t) -> *mut ngx_http_upstream_t {
    // SAFETY: as promised.
    unsafe { pc.byte_sub(offset_of!(ngx_http_upstream_t, peer)).cast() }
}

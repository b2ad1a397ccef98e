//! The hooks around an upstream's balancer. The balancer chooses the server; this module looks for
//! an idle connection to it, and keeps the connection after the request.
//!
//! The callbacks make a view of the attempt, and leave the rest to safe code.

use core::ffi::c_void;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

use nginx_sys::{
    NGX_LOG_EMERG, ngx_http_request_t, ngx_http_upstream_srv_conf_t, ngx_int_t,
    ngx_peer_connection_t, ngx_uint_t,
};

use ngx::ngx_log_error;

use self::attempt::Attempt;
pub use self::data::Outcome;
use self::data::PeerData;
use crate::nginx::layout::OTHER_NGINX;
use crate::nginx::{self, layout, log_debug_http};
use crate::upstream::Upstream;

mod attempt;
mod attributes;
mod client;
mod data;
mod get;
mod key;
#[cfg(ngx_feature = "http_cache")]
mod replaced;
mod response;
mod save;
#[cfg(all(ngx_feature = "http_ssl", ngx_peer_session))]
mod sessions;

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
    // SAFETY: nginx passes a valid request and upstream.
    let (log, upstream) = unsafe { ((*(*r).connection).log, Upstream::of(&*us)) };
    log_debug_http!(log, "init keepalive peer");
    let Some(upstream) = upstream else { return nginx::ERROR };
    let Some(original) = upstream.original_init_peer() else { return nginx::ERROR };
    // SAFETY: nginx calls this one as `peer.init`.
    if !HAS_LAYOUT.load(Relaxed) && unsafe { !look_at_layout(r) } {
        return nginx::ERROR;
    }
    // SAFETY: the balancer's `peer.init` gets what nginx has called this one with.
    if unsafe { original(r, us) } != nginx::OK {
        return nginx::ERROR;
    }
    // SAFETY: the request is valid, and of this upstream.
    match unsafe { set_up(r, upstream) } {
        Some(()) => nginx::OK,
        None => nginx::ERROR,
    }
}

/// Whether a request has shown to this process that `ngx_http_upstream_t` is laid out as in the nginx
/// for which the module was built.
static HAS_LAYOUT: AtomicBool = AtomicBool::new(false);

/// Looks at it; `false` if it is not.
///
/// # Safety
///
/// As for [`init`].
#[cold]
unsafe fn look_at_layout(r: *mut ngx_http_request_t) -> bool {
    // SAFETY: as above.
    let (log, has) = unsafe { ((*(*r).connection).log, layout::has_upstream(r)) };
    HAS_LAYOUT.store(has, Relaxed);
    if !has {
        ngx_log_error!(NGX_LOG_EMERG, log, "{OTHER_NGINX} ngx_http_upstream_t differs");
    }
    has
}

/// Puts this module's callbacks around the balancer's. `None` if there is no memory.
///
/// # Safety
///
/// The request is valid, of this upstream, and its balancer was initialised.
unsafe fn set_up(r: *mut ngx_http_request_t, upstream: &Upstream) -> Option<()> {
    // SAFETY: the request is valid; nginx makes its array of states before.
    let data = unsafe {
        let key = key::slice_key(r, upstream).ok()?;
        PeerData::allocate(r, upstream, key)?
    };
    // SAFETY: the request has an upstream, and the data was made just now.
    unsafe {
        #[cfg(ngx_feature = "http_cache")]
        replaced::watch(r, data.as_ref());
        let pc = &raw mut (*(*r).upstream).peer;
        (*pc).data = data.as_ptr().cast();
        (*pc).get = Some(get);
        (*pc).free = Some(free);
        // A module that puts its own data there may know nothing of this one, as Tengine's dyups.
        #[cfg(ngx_peer_notify)]
        if (*pc).notify.is_some() {
            (*pc).notify = Some(notify);
        }
        #[cfg(ngx_peer_session)]
        {
            (*pc).set_session = Some(set_session);
            (*pc).save_session = Some(save_session);
        }
    }
    Some(())
}

/// `peer.get`: asks the balancer for a server, then the upstream for a connection to it.
///
/// # Safety
///
/// nginx calls it with a valid `pc` and the data that [`init`] has put there.
unsafe extern "C" fn get(pc: *mut ngx_peer_connection_t, data: *mut c_void) -> ngx_int_t {
    // SAFETY: nginx passes both.
    let attempt = unsafe { Attempt::new(pc, data) };
    log_debug_http!(attempt.log(), "get keepalive peer");
    get::get(attempt)
}

/// `peer.free`: keeps the connection if it can be used again, then tells the balancer.
///
/// # Safety
///
/// nginx calls it with a valid `pc` and the data that [`init`] has put there.
unsafe extern "C" fn free(pc: *mut ngx_peer_connection_t, data: *mut c_void, state: ngx_uint_t) {
    // SAFETY: nginx passes both.
    let attempt = unsafe { Attempt::new(pc, data) };
    log_debug_http!(attempt.log(), "free keepalive peer");
    attempt.data().outcome.set(Some(save::save(attempt, state)));
    attempt.balancer_free(state);
}

/// `peer.notify`, if the balancer has one.
///
/// # Safety
///
/// nginx calls it with a valid `pc` and the data that [`init`] has put there.
#[cfg(ngx_peer_notify)]
unsafe extern "C" fn notify(pc: *mut ngx_peer_connection_t, data: *mut c_void, kind: ngx_uint_t) {
    // SAFETY: nginx passes both.
    unsafe { Attempt::new(pc, data) }.balancer_notify(kind);
}

/// `peer.set_session`: the session is the upstream's or the balancer's.
///
/// # Safety
///
/// nginx calls it with a valid `pc` and the data that [`init`] has put there.
#[cfg(ngx_peer_session)]
unsafe extern "C" fn set_session(pc: *mut ngx_peer_connection_t, data: *mut c_void) -> ngx_int_t {
    // SAFETY: nginx passes both.
    let attempt = unsafe { Attempt::new(pc, data) };
    #[cfg(ngx_feature = "http_ssl")]
    if !sessions::are_the_balancers(attempt) {
        return if sessions::offer(attempt) { nginx::OK } else { nginx::ERROR };
    }
    attempt.balancer_set_session().unwrap_or(nginx::OK)
}

/// `peer.save_session`: the session is the upstream's or the balancer's.
///
/// # Safety
///
/// nginx calls it with a valid `pc` and the data that [`init`] has put there.
#[cfg(ngx_peer_session)]
unsafe extern "C" fn save_session(pc: *mut ngx_peer_connection_t, data: *mut c_void) {
    // SAFETY: nginx passes both.
    let attempt = unsafe { Attempt::new(pc, data) };
    #[cfg(ngx_feature = "http_ssl")]
    if !sessions::are_the_balancers(attempt) {
        return sessions::save(attempt);
    }
    attempt.balancer_save_session();
}

/// The slice key as used; `None` if the last upstream of the request has no `keepalive` of this
/// module, has no `slice_key`, or the key is too long.
///
/// # Safety
///
/// The request is valid while the answer is used.
pub unsafe fn slice<'a>(r: *mut ngx_http_request_t) -> Option<&'a [u8]> {
    // SAFETY: the request is valid, and so is its data.
    unsafe {
        let data: NonNull<PeerData> = PeerData::of(r)?;
        data.as_ref().upstream().settings().keepalive.slice_key.as_ref()?;
        PeerData::key(data)
    }
}

/// The outcome of the last connection of a request; `None` if it is still in use, or there is no
/// connection.
///
/// # Safety
///
/// The request is valid.
pub unsafe fn outcome(r: *mut ngx_http_request_t) -> Option<Outcome> {
    // SAFETY: the request is valid, and so is its data.
    unsafe { PeerData::of(r)?.as_ref().outcome.get() }
}

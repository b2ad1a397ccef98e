//! A cached response in place of the server's.
//!
//! When a server fails, or says that the cached response is still valid, nginx reads that one into
//! the same structures (`ngx_http_upstream_cache_send`), and what they then say about keeping a
//! connection is about the one over which the cached response once came. Before it does, it calls
//! `reinit_request`: that is the moment to remember what the server itself has said.

use core::ptr::NonNull;

use nginx_sys::{
    NGX_HTTP_CACHE_REVALIDATED, NGX_HTTP_CACHE_STALE, ngx_http_request_t, ngx_http_upstream_t,
    ngx_int_t,
};

use super::response::Response;
use super::{ERROR, Peer, of};

type ReinitRequest = Option<unsafe extern "C" fn(*mut ngx_http_request_t) -> ngx_int_t>;

/// What is remembered for a request with a cache.
#[derive(Default)]
pub struct Replaced {
    /// What `reinit_request` was.
    original: ReinitRequest,
    /// What the server has said. It counts only if [`is_replaced`]: nginx also calls
    /// `reinit_request` before another attempt.
    pub response: Response,
}

/// Whether nginx has put a cached response in place of the server's.
///
/// # Safety
///
/// `upstream` is valid.
#[inline(always)]
pub unsafe fn is_replaced(upstream: *const ngx_http_upstream_t) -> bool {
    // SAFETY: as promised.
    let status = unsafe { (*upstream).cache_status() };
    status == NGX_HTTP_CACHE_STALE || status == NGX_HTTP_CACHE_REVALIDATED
}

/// Has [`remember`] called before a response is replaced, if the request has a cache.
///
/// # Safety
///
/// The request is valid, and the peer is its own.
pub unsafe fn watch(r: *mut ngx_http_request_t, peer: NonNull<Peer>) {
    // SAFETY: as promised.
    unsafe {
        if !(*r).cache.is_null() {
            let (peer, upstream) = (peer.as_ptr(), (*r).upstream);
            (*peer).replaced.original = (*upstream).reinit_request;
            (*upstream).reinit_request = Some(remember);
        }
    }
}

/// `reinit_request` of an upstream.
///
/// # Safety
///
/// nginx calls it with a valid request, whose upstream [`watch`] has put this function into.
unsafe extern "C" fn remember(r: *mut ngx_http_request_t) -> ngx_int_t {
    // SAFETY: nginx passes a valid request, and the peer is that of its upstream.
    unsafe {
        let Some(peer) = of(r) else { return ERROR };
        let peer = peer.as_ptr();
        let (conf, log) = ((*peer).conf.as_ptr(), (*(*r).connection).log);
        (*peer).replaced.response =
            Response::of((*peer).upstream.as_ptr(), (*conf).hints_margin, log);
        match (*peer).replaced.original {
            Some(original) => original(r),
            None => ERROR,
        }
    }
}

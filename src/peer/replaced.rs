//! A cached response in place of the server's.
//!
//! When a server fails, or answers that the cached response is still valid, nginx reads the cached
//! response into the same structures (`ngx_http_upstream_cache_send`). They then describe the
//! connection on which the cached response once arrived. Immediately before, nginx calls
//! `reinit_request`: at that moment the module remembers what the server itself said.

use nginx_sys::{
    NGX_HTTP_CACHE_REVALIDATED, NGX_HTTP_CACHE_STALE, ngx_http_request_t, ngx_http_upstream_t,
    ngx_int_t,
};

use super::data::PeerData;
use super::response::Response;
use crate::nginx;

/// Whether nginx has put a cached response in place of the server's.
///
/// # Safety
///
/// `upstream` is valid.
pub unsafe fn is_replaced(upstream: *const ngx_http_upstream_t) -> bool {
    // SAFETY: the upstream is valid.
    let status = unsafe { (*upstream).cache_status() };
    status == NGX_HTTP_CACHE_STALE || status == NGX_HTTP_CACHE_REVALIDATED
}

/// Makes nginx call [`remember`] before it replaces a response, if the request has a cache.
///
/// # Safety
///
/// The request is valid, and has an upstream; the data is its own.
pub unsafe fn watch(r: *mut ngx_http_request_t, data: &PeerData) {
    // SAFETY: the request and its upstream are valid.
    unsafe {
        if !(*r).cache.is_null() {
            let upstream = (*r).upstream;
            data.replaced.original.set((*upstream).reinit_request.replace(remember));
        }
    }
}

/// `reinit_request` of an upstream.
///
/// # Safety
///
/// nginx calls it with a valid request, whose upstream [`watch`] has put this function into.
unsafe extern "C" fn remember(r: *mut ngx_http_request_t) -> ngx_int_t {
    // SAFETY: the request is valid, and the last data is that of its upstream.
    let (data, log) = unsafe { (PeerData::last(r), (*(*r).connection).log) };
    let Some(data) = data else { return nginx::ERROR };
    // SAFETY: the data is in the request's memory.
    let data = unsafe { data.as_ref() };
    let (upstream, margin) =
        (data.request_upstream, data.upstream().settings().hints.map(|hints| hints.margin));
    // SAFETY: the upstream of the request is valid, and so is the state of its last attempt.
    data.replaced.response.set(unsafe { Response::of(upstream.as_ptr(), margin, log) });
    // SAFETY: the original gets what nginx has called this function with.
    data.replaced.original.get().map_or(nginx::ERROR, |original| unsafe { original(r) })
}

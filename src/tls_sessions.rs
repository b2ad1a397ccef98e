//! A warning about TLS sessions: nginx saves one session for each server, for any name. If the name
//! differs by request and is verified, nginx offers the session of one name for another, and the
//! server's certificate, which is a part of the session, does not match.

use core::ffi::{CStr, c_void};
use core::{iter, ptr};

use nginx_sys::{
    ngx_conf_t, ngx_http_core_loc_conf_t, ngx_http_core_srv_conf_t, ngx_http_location_queue_t,
    ngx_http_upstream_conf_t, ngx_http_upstream_srv_conf_t, ngx_queue_t,
};
use ngx::http::{HttpModule, HttpModuleMainConf, NgxHttpCoreModule};

use crate::nginx;

/// The modules whose locations use TLS to upstreams, and the prefixes of their directives. In each,
/// the configuration of a location begins with that of its upstream.
const MODULES: [(&CStr, &str); 3] = [
    (c"ngx_http_proxy_module", "proxy"),
    (c"ngx_http_grpc_module", "grpc"),
    (c"ngx_http_uwsgi_module", "uwsgi"),
];

/// The prefix of the directives with which a location offers TLS sessions of one verified name for
/// another to an upstream; `None` if there is no such location. Only the module of the location
/// knows whether it uses TLS at all.
///
/// # Safety
///
/// The configuration file was read, and its locations are merged, but not yet sorted: `cf` is that
/// of an `init_main_conf` after those of [`MODULES`].
pub unsafe fn find(
    cf: *mut ngx_conf_t,
    upstream: *const ngx_http_upstream_srv_conf_t,
) -> Option<&'static str> {
    // SAFETY: `cf` is valid; the array holds pointers to servers, each with a context of its own.
    unsafe {
        let servers = NgxHttpCoreModule::main_conf(&*cf)?.servers;
        let servers = servers.as_slice::<*mut ngx_http_core_srv_conf_t>();
        let mixes = |conf: *const ngx_http_upstream_conf_t| mixes_sessions(conf, upstream);
        let found = MODULES.iter().find(|(name, _)| {
            nginx::module(cf, name).is_some_and(|module| {
                let index = (*module).ctx_index;
                servers.iter().any(|&server| any((*(*server).ctx).loc_conf, &mixes, index))
            })
        });
        found.map(|&(_, prefix)| prefix)
    }
}

/// Whether `is_such` is true for a module's configuration of a location, or of a location inside of
/// it.
///
/// # Safety
///
/// As for [`find`]; `confs` are the configurations of the location, by `ctx_index`.
unsafe fn any(
    confs: *mut *mut c_void,
    is_such: &dyn Fn(*const ngx_http_upstream_conf_t) -> bool,
    index: usize,
) -> bool {
    // SAFETY: the configurations are valid. Each entry of the queue is one of exactly two kinds.
    unsafe {
        let core: *mut ngx_http_core_loc_conf_t =
            (*confs.add(NgxHttpCoreModule::module().ctx_index)).cast();
        is_such((*confs.add(index)).cast())
            || entries((*core).locations).any(|entry| {
                let location: *mut ngx_http_location_queue_t = entry.cast();
                let (exact, inclusive) = ((*location).exact, (*location).inclusive);
                let inner = if exact.is_null() { inclusive } else { exact };
                any((*inner).loc_conf, is_such, index)
            })
    }
}

/// The entries of a queue, which may be missing.
///
/// # Safety
///
/// The queue is valid as long as the answer is used.
unsafe fn entries(queue: *mut ngx_queue_t) -> impl Iterator<Item = *mut ngx_queue_t> {
    // SAFETY: the queue is valid; the last entry is followed by the queue itself.
    unsafe {
        let first = queue.as_ref().map(|queue| queue.next);
        iter::successors(first, |entry| Some((**entry).next))
            .take_while(move |&entry| entry != queue)
    }
}

/// Whether TLS sessions of one verified name are offered for another to an upstream.
///
/// # Safety
///
/// `conf` is valid.
unsafe fn mixes_sessions(
    conf: *const ngx_http_upstream_conf_t,
    upstream: *const ngx_http_upstream_srv_conf_t,
) -> bool {
    // SAFETY: the configuration is valid; a value without variables has no lengths.
    unsafe {
        let varies = (*conf).ssl_name.as_ref().is_some_and(|name| !name.lengths.is_null());
        ptr::eq((*conf).upstream, upstream)
            && !(*conf).ssl.is_null()
            && (*conf).ssl_session_reuse == 1
            && (*conf).ssl_verify == 1
            && varies
    }
}

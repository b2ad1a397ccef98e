//! A warning about TLS sessions: nginx saves one for each server, whatever name it was begun for. With
//! a name that differs by request and is verified, the session of one name is offered for another,
//! and the server's certificate, which comes with the session, does not match.

use core::ffi::{CStr, c_void};
use core::iter;

use nginx_sys::{
    ngx_conf_t, ngx_http_conf_ctx_t, ngx_http_core_loc_conf_t, ngx_http_core_srv_conf_t,
    ngx_http_location_queue_t, ngx_http_upstream_conf_t, ngx_http_upstream_srv_conf_t, ngx_queue_t,
};
use ngx::http::{HttpModule, HttpModuleMainConf, NgxHttpCoreModule};

use crate::nginx;

/// The modules whose locations use TLS to upstreams, and how their directives begin. The
/// configuration of a location begins with that of its upstream in each.
const MODULES: [(&CStr, &str); 3] = [
    (c"ngx_http_proxy_module", "proxy"),
    (c"ngx_http_grpc_module", "grpc"),
    (c"ngx_http_uwsgi_module", "uwsgi"),
];

/// Calls `found` with the upstream of each location that offers TLS sessions of one verified name
/// for another, and how the names of the location's directives begin. Whether the location uses TLS
/// at all, only its module knows.
///
/// # Safety
///
/// The configuration file was read, and its locations are merged, but not yet sorted: `cf` is that
/// of an `init_main_conf` after those of [`MODULES`].
pub unsafe fn find(
    cf: *mut ngx_conf_t,
    mut found: impl FnMut(*mut ngx_http_upstream_srv_conf_t, &'static str),
) {
    // SAFETY: as promised; the array holds pointers to servers, each with a context of its own.
    unsafe {
        let Some(core) = NgxHttpCoreModule::main_conf(&*cf) else { return };
        for (name, prefix) in MODULES {
            let Some(module) = nginx::module(cf, name) else { continue };
            let index = (*module).ctx_index;
            for &server in core.servers.as_slice::<*mut ngx_http_core_srv_conf_t>() {
                let context: *mut ngx_http_conf_ctx_t = (*server).ctx;
                visit(
                    (*context).loc_conf,
                    &mut |conf: *mut ngx_http_upstream_conf_t| {
                        if mixes_sessions(conf) {
                            found((*conf).upstream, prefix);
                        }
                    },
                    index,
                );
            }
        }
    }
}

/// Calls `found` with a module's configuration of a location and of all inside of it.
///
/// # Safety
///
/// As for [`find`]; `confs` are the configurations of the location, by `ctx_index`.
unsafe fn visit(
    confs: *mut *mut c_void,
    found: &mut dyn FnMut(*mut ngx_http_upstream_conf_t),
    index: usize,
) {
    // SAFETY: as promised. Each entry of the queue is one of exactly two kinds.
    unsafe {
        found((*confs.add(index)).cast());
        let core: *mut ngx_http_core_loc_conf_t =
            (*confs.add(NgxHttpCoreModule::module().ctx_index)).cast();
        for entry in entries((*core).locations) {
            let location: *mut ngx_http_location_queue_t = entry.cast();
            let inner = match (*location).exact.is_null() {
                true => (*location).inclusive,
                false => (*location).exact,
            };
            visit((*inner).loc_conf, found, index);
        }
    }
}

/// The entries of a queue, which may be missing.
///
/// # Safety
///
/// The queue is valid as long as the answer is used.
unsafe fn entries(queue: *mut ngx_queue_t) -> impl Iterator<Item = *mut ngx_queue_t> {
    // SAFETY: as promised; the last entry is followed by the queue itself.
    unsafe {
        let first = queue.as_ref().map(|queue| queue.next);
        iter::successors(first, |entry| Some((**entry).next))
            .take_while(move |&entry| entry != queue)
    }
}

/// # Safety
///
/// `conf` is valid.
unsafe fn mixes_sessions(conf: *const ngx_http_upstream_conf_t) -> bool {
    // SAFETY: as promised; a value without variables has no lengths.
    unsafe {
        let varies = (*conf).ssl_name.as_ref().is_some_and(|name| !name.lengths.is_null());
        !(*conf).upstream.is_null()
            && !(*conf).ssl.is_null()
            && (*conf).ssl_session_reuse == 1
            && (*conf).ssl_verify == 1
            && varies
    }
}

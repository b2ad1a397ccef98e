//! Upstreams that another module makes in a running worker: it parses the block with a pool of its
//! own, calls `init_upstream`, and later destroys the pool.

use nginx_sys::{
    NGX_LOG_EMERG, ngx_conf_t, ngx_http_core_main_conf_t, ngx_http_upstream_init_round_robin,
    ngx_http_upstream_srv_conf_t, ngx_http_variable_t, ngx_int_t,
};
use ngx::core::{NgxStr, Status};
use ngx::http::{HttpModule, HttpModuleConfExt, NgxHttpCoreModule, NgxHttpUpstreamModule};
use ngx::ngx_conf_log_error;

use super::params::Params;
use super::{Keepalive, Module, ServerConf, upstream};
use crate::nginx;

/// Compiles the directive. In a running worker nginx does not look for the handlers of variables
/// any more, so only those can be used that the configuration file uses somewhere.
///
/// # Safety
///
/// `cf` is being read inside of an upstream, and the texts in `params` are its arguments.
pub unsafe fn compile(cf: *mut ngx_conf_t, params: &Params<'_>) -> Option<Keepalive> {
    // SAFETY: `cf` is valid, and nginx's core has a configuration of this type. Nothing refers to
    // the array while nginx may add to it.
    unsafe {
        let core = (*cf).http_main_conf_unchecked(NgxHttpCoreModule::module())?;
        let core: *mut ngx_http_core_main_conf_t = core.as_ptr();
        let known = (*core).variables.nelts;
        let keepalive = Keepalive::compile(cf, params);

        let variables = (*core).variables.as_slice::<ngx_http_variable_t>();
        let unknown = variables.get(known).map(|variable| variable.name);
        // The new ones are named by memory that goes with the upstream.
        (*core).variables.nelts = known;

        let Some(name) = unknown else { return keepalive };
        // Without a name if there was no memory for it, which nginx has logged.
        if !name.data.is_null() {
            let name = NgxStr::from_ngx_str(name);
            ngx_conf_log_error!(NGX_LOG_EMERG, cf, "unknown \"{name}\" variable");
        }
        None
    }
}

/// Puts this module around the upstream's balancer by its `init_upstream`, since `init_main_conf`
/// does not come again.
///
/// # Safety
///
/// `cf` is being read inside of the upstream with the configuration `conf`.
pub unsafe fn chain(cf: *mut ngx_conf_t, conf: *mut ServerConf) {
    // SAFETY: inside of an upstream, nginx's upstream module has a configuration of this type,
    // and it is this upstream. Nothing refers to it or to `conf` during the assignments.
    unsafe {
        let upstream = (*cf).http_server_conf_unchecked(NgxHttpUpstreamModule::module());
        if let Some(upstream) = upstream {
            let upstream: *mut ngx_http_upstream_srv_conf_t = upstream.as_ptr();
            let original = (*upstream).peer.init_upstream;
            (*conf).original_init_upstream = original.or(Some(ngx_http_upstream_init_round_robin));
            (*upstream).peer.init_upstream = Some(init);
        }
    }
}

/// `peer.init_upstream` of an upstream that is made at run time.
///
/// # Safety
///
/// `cf` is valid, and `upstream` is the one in which [`chain`] has put this function.
unsafe extern "C" fn init(
    cf: *mut ngx_conf_t,
    upstream: *mut ngx_http_upstream_srv_conf_t,
) -> ngx_int_t {
    // SAFETY: the caller passes a valid `cf` and upstream.
    unsafe {
        let original = Module::server_conf_of(&*upstream)
            .and_then(|conf| (*conf.as_ptr()).original_init_upstream);
        match original {
            Some(original) if original(cf, upstream) == nginx::OK => {}
            _ => return Status::NGX_ERROR.into(),
        }
        match upstream::init(cf, upstream) {
            Some(()) => nginx::OK,
            None => Status::NGX_ERROR.into(),
        }
    }
}

//! Upstreams that another module makes in a running worker: it parses the block with a pool of its
//! own, calls `init_upstream`, and later destroys the pool.

use nginx_sys::{
    NGX_LOG_EMERG, NGX_LOG_WARN, ngx_conf_t, ngx_http_core_main_conf_t,
    ngx_http_upstream_init_round_robin, ngx_http_upstream_srv_conf_t, ngx_http_variable_t,
    ngx_int_t,
};
use ngx::core::{NgxStr, Pool as Memory};
use ngx::http::{HttpModule, HttpModuleConfExt, NgxHttpCoreModule, NgxHttpUpstreamModule};
use ngx::ngx_conf_log_error;

use super::set_up;
use crate::conf::params::Params;
use crate::conf::{Keepalive, MainConf};
use crate::learned::Learned;
use crate::nginx;
use crate::upstream::{ServerConf, Upstream};
use crate::zone::CounterZone;

/// Compiles the directive. In a running worker, nginx no longer looks for the handlers of
/// variables, so the directive can use only variables that the configuration file also uses.
///
/// # Safety
///
/// `cf` is being read inside of an upstream, and the texts in `params` are its arguments.
pub unsafe fn compile(cf: *mut ngx_conf_t, params: &Params<'_>) -> Option<Keepalive> {
    // SAFETY: `cf` is valid, and nginx's core has a configuration of this type. Nothing refers to
    // the array while nginx may add to it.
    let (keepalive, unknown) = unsafe {
        let core = (*cf).http_main_conf_unchecked(NgxHttpCoreModule::module())?;
        let core: *mut ngx_http_core_main_conf_t = core.as_ptr();
        let known = (*core).variables.nelts;
        let keepalive = Keepalive::compile(cf, params);
        let unknown = (*core).variables.as_slice::<ngx_http_variable_t>().get(known);
        // The names of the new ones are in memory that is freed with the upstream.
        (*core).variables.nelts = known;
        (keepalive, unknown.map(|variable| variable.name))
    };
    if params.shared {
        ngx_conf_log_error!(
            NGX_LOG_WARN,
            cf,
            "parameter \"shared\" has no effect in an upstream that is created at run time"
        );
    }
    let Some(name) = unknown else { return keepalive };
    // Without a name if there was no memory for it, which nginx has logged.
    if !name.data.is_null() {
        // SAFETY: the name is an argument of the directive.
        let name = unsafe { NgxStr::from_ngx_str(name) };
        ngx_conf_log_error!(NGX_LOG_EMERG, cf, "unknown \"{name}\" variable");
    }
    None
}

/// Puts this module around the upstream's balancer in `init_upstream`, since nginx does not call
/// `init_main_conf` again.
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
    // SAFETY: the upstream is valid.
    let original = unsafe {
        ServerConf::of(&*upstream).and_then(|conf| (*conf.as_ptr()).original_init_upstream)
    };
    // SAFETY: the original gets what this function was called with.
    if original.is_none_or(|original| unsafe { original(cf, upstream) } != nginx::OK) {
        return nginx::ERROR;
    }
    // SAFETY: `cf` and the upstream are valid.
    match unsafe { set_up_alone(cf, upstream) } {
        Some(()) => nginx::OK,
        None => nginx::ERROR,
    }
}

/// Sets up an upstream that shares nothing with other workers. `None` if there is no memory.
///
/// # Safety
///
/// `cf` and `upstream` are valid.
unsafe fn set_up_alone(
    cf: *mut ngx_conf_t,
    upstream: *mut ngx_http_upstream_srv_conf_t,
) -> Option<()> {
    // SAFETY: `cf` and the upstream are valid.
    unsafe {
        // Only locations that choose the upstream by request can use it.
        let main = (*cf).http_main_conf_unchecked::<MainConf>(nginx::this_module())?;
        set_up::one(cf, upstream, main.as_ref().of_any, CounterZone::default())?;
        if let Some(live) = Upstream::of(&*upstream).filter(|live| live.settings().learns()) {
            live.learn(&Learned::own_in(Memory::from_ngx_pool((*cf).pool))?);
        }
        Some(())
    }
}

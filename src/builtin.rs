//! nginx's own keepalive module, which is in the same nginx.
//!
//! This module comes first in the order of modules, so the built-in one receives only directives
//! that are passed on here. Since nginx 1.29.7, it keeps the connections of every upstream unless
//! it is configured otherwise. It would then wrap this module and take connections without regard
//! to slices.

use core::ffi::{CStr, c_char, c_void};

use nginx_sys::{
    ngx_array_t, ngx_command_t, ngx_conf_t, ngx_http_conf_ctx_t, ngx_http_module_t, ngx_module_t,
    ngx_str_t,
};
use ngx::core::NGX_CONF_OK;
use ngx::ngx_string;

use crate::nginx;

const NAME: &CStr = c"ngx_http_upstream_keepalive_module";

/// Passes the directive that is being read on to the built-in module's handler of the same name.
///
/// # Safety
///
/// `cf` is being read inside of an upstream, and `cmd` is the directive.
pub unsafe fn pass_on(cf: *mut ngx_conf_t, cmd: *mut ngx_command_t) -> *mut c_char {
    // SAFETY: the configuration is being read, and the directive is valid.
    let (module, name) = unsafe { (nginx::module(cf, NAME), (*cmd).name) };
    // SAFETY: the module's directives of these names belong to upstreams.
    module.map_or(NGX_CONF_OK, |module| unsafe { call(cf, module, name.as_bytes()) })
}

/// Whether the built-in module keeps the connections of an upstream without a `keepalive`.
///
/// # Safety
///
/// `cf` is being read.
pub unsafe fn is_default(cf: *mut ngx_conf_t) -> bool {
    // SAFETY: the configuration is being read.
    unsafe { nginx::module(cf, NAME).is_some_and(|module| keeps_by_default(module)) }
}

/// # Safety
///
/// `module` is the built-in one.
unsafe fn keeps_by_default(module: *mut ngx_module_t) -> bool {
    // SAFETY: it is an HTTP module. Only versions that keep connections by default have this
    // handler.
    unsafe { (*(*module).ctx.cast::<ngx_http_module_t>()).init_main_conf.is_some() }
}

/// Switches the built-in module off for the upstream that is being read, if it keeps connections by
/// default.
///
/// # Safety
///
/// `cf` is being read inside of an upstream.
pub unsafe fn silence(cf: *mut ngx_conf_t) -> *mut c_char {
    // SAFETY: the configuration is being read.
    let (module, pool) = unsafe { (nginx::module(cf, NAME), (*cf).pool) };
    // SAFETY: the module is the built-in one.
    let Some(module) = module.filter(|&module| unsafe { keeps_by_default(module) }) else {
        return NGX_CONF_OK;
    };
    let mut words = [ngx_string!("keepalive"), ngx_string!("0")];
    let mut args = ngx_array_t {
        elts: (&raw mut words).cast(),
        nelts: words.len(),
        size: size_of::<ngx_str_t>(),
        nalloc: words.len(),
        pool,
    };
    // SAFETY: the built-in handler reads the arguments and keeps nothing of them; the old ones are
    // put back.
    unsafe {
        let original = core::mem::replace(&mut (*cf).args, &raw mut args);
        let rv = call(cf, module, b"keepalive");
        (*cf).args = original;
        rv
    }
}

/// Calls a module's handler of a directive, with its configuration of the upstream being read.
///
/// # Safety
///
/// `cf` is being read inside of an upstream, and `module` is an HTTP module whose directives of
/// this name belong to the upstream.
unsafe fn call(cf: *mut ngx_conf_t, module: *mut ngx_module_t, name: &[u8]) -> *mut c_char {
    // SAFETY: the module is valid.
    let mut commands = unsafe { nginx::commands(module) };
    // SAFETY: its commands are valid.
    let cmd = commands.find(|&cmd| unsafe { (*cmd).name.as_bytes() == name });
    // SAFETY: its commands are valid.
    let Some((cmd, set)) = cmd.and_then(|cmd| Some((cmd, unsafe { (*cmd).set }?))) else {
        return NGX_CONF_OK;
    };
    // SAFETY: inside of an upstream, the context holds the configurations of the upstream by
    // `ctx_index`, and the handler expects that of its module.
    unsafe {
        let context = (*cf).ctx.cast::<ngx_http_conf_ctx_t>();
        let conf: *mut c_void = *(*context).srv_conf.add((*module).ctx_index);
        set(cf, cmd, conf)
    }
}

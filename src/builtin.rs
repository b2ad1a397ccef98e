//! nginx's own keepalive module, beside which this one lives.
//!
//! This module comes first in the order of modules, so the built-in one sees none of the
//! directives unless they are passed on here. Since nginx 1.29.7 it keeps the connections of every
//! upstream unless it is told not to, and would then sit outside of this module and take
//! connections without looking at the slice.

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
    // SAFETY: as promised.
    unsafe {
        match nginx::module(cf, NAME) {
            Some(module) => call(cf, module, (*cmd).name.as_bytes()),
            None => NGX_CONF_OK,
        }
    }
}

/// Whether the built-in module keeps the connections of an upstream without a `keepalive`.
///
/// # Safety
///
/// `cf` is being read.
pub unsafe fn is_default(cf: *mut ngx_conf_t) -> bool {
    // SAFETY: as promised.
    unsafe { nginx::module(cf, NAME).is_some_and(|module| keeps_by_default(module)) }
}

/// # Safety
///
/// `module` is the built-in one.
unsafe fn keeps_by_default(module: *mut ngx_module_t) -> bool {
    // SAFETY: it is an HTTP module. Only versions that keep by default have this handler.
    unsafe { (*(*module).ctx.cast::<ngx_http_module_t>()).init_main_conf.is_some() }
}

/// Switches the built-in module off for the upstream that is being read, if it would otherwise
/// keep connections without being asked.
///
/// # Safety
///
/// `cf` is being read inside of an upstream.
pub unsafe fn silence(cf: *mut ngx_conf_t) -> *mut c_char {
    // SAFETY: as promised. The built-in handler reads the arguments and keeps nothing of them; the
    // old ones are put back.
    unsafe {
        let Some(module) = nginx::module(cf, NAME) else { return NGX_CONF_OK };
        if !keeps_by_default(module) {
            return NGX_CONF_OK;
        }
        let mut words = [ngx_string!("keepalive"), ngx_string!("0")];
        let mut args = ngx_array_t {
            elts: (&raw mut words).cast(),
            nelts: words.len(),
            size: size_of::<ngx_str_t>(),
            nalloc: words.len(),
            pool: (*cf).pool,
        };
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
    // SAFETY: the commands end with an empty one. Inside of an upstream, the context holds the
    // configurations of the upstream by `ctx_index`.
    unsafe {
        let mut cmd = (*module).commands;
        while !cmd.is_null() && !(*cmd).name.is_empty() {
            if (*cmd).name.as_bytes() == name {
                let context = (*cf).ctx.cast::<ngx_http_conf_ctx_t>();
                let conf: *mut c_void = *(*context).srv_conf.add((*module).ctx_index);
                return match (*cmd).set {
                    Some(set) => set(cf, cmd, conf),
                    None => NGX_CONF_OK,
                };
            }
            cmd = cmd.add(1);
        }
    }
    NGX_CONF_OK
}

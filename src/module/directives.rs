//! The handlers of the directives.

use core::ffi::{CStr, c_char, c_void};

use nginx_sys::{
    NGX_LOG_EMERG, NGX_LOG_WARN, ngx_command_t, ngx_conf_set_msec_slot, ngx_conf_set_num_slot,
    ngx_conf_t, ngx_http_core_loc_conf_t, ngx_msec_t, ngx_parse_time, ngx_str_t,
};
use ngx::core::{NGX_CONF_ERROR, NGX_CONF_OK, NgxStr};
use ngx::http::{HttpModule, HttpModuleConfExt, NgxHttpCoreModule};
use ngx::ngx_conf_log_error;

use super::run_time;
use crate::builtin;
use crate::conf::params::{self, Error, Params};
use crate::conf::status::parse_status;
use crate::conf::{Keepalive, MainConf};
use crate::location::LocationConf;
use crate::nginx;
use crate::status;
use crate::upstream::ServerConf;

/// The handler of `keepalive`.
///
/// # Safety
///
/// nginx calls it while it reads the directive, with the configuration that `create_srv_conf` made.
pub unsafe extern "C" fn set_keepalive(
    cf: *mut ngx_conf_t,
    cmd: *mut ngx_command_t,
    conf: *mut c_void,
) -> *mut c_char {
    let conf: *mut ServerConf = conf.cast();
    // SAFETY: `create_srv_conf` has made the configuration.
    if unsafe { (*conf).directives.keepalive.is_some() } {
        return message(c"is duplicate");
    }
    // SAFETY: the directive is being read.
    let params = match params::parse(unsafe { arguments(cf) }) {
        Ok(params) => params,
        // SAFETY: the directive is being read.
        Err(error) => return unsafe { log_error(cf, cmd, error) },
    };
    warn(cf, &params);
    // SAFETY: the directive, inside of the upstream, has these parameters.
    let Some(keepalive) = (unsafe { compile(cf, conf, &params) }) else { return NGX_CONF_ERROR };
    // SAFETY: `create_srv_conf` has made the configuration, and the upstream is being read.
    unsafe {
        (*conf).directives.keepalive = Some(keepalive);
        builtin::silence(cf)
    }
}

/// Compiles the directive. `None` if nginx has logged an error.
///
/// # Safety
///
/// `cf` is being read inside of the upstream with the configuration `conf`, and the texts in
/// `params` are its arguments.
unsafe fn compile(
    cf: *mut ngx_conf_t,
    conf: *mut ServerConf,
    params: &Params<'_>,
) -> Option<Keepalive> {
    // SAFETY: the configuration is being read.
    unsafe {
        let main = (*cf).http_main_conf_unchecked::<MainConf>(nginx::this_module());
        if !main.is_some_and(|main| main.as_ref().configured) {
            return Keepalive::compile(cf, params);
        }
        let keepalive = run_time::compile(cf, params)?;
        run_time::chain(cf, conf);
        Some(keepalive)
    }
}

/// Warns of parameters that have no effect.
fn warn(cf: *mut ngx_conf_t, params: &Params<'_>) {
    if params.single {
        ngx_conf_log_error!(NGX_LOG_WARN, cf, "the \"single\" parameter is deprecated");
    }
    for name in params.without_key() {
        ngx_conf_log_error!(
            NGX_LOG_WARN,
            cf,
            "parameter \"{name}\" has no effect without \"slice_key\""
        );
    }
}

/// The handler of `keepalive_requests`.
///
/// # Safety
///
/// nginx calls it while it reads the directive, with the configuration that `create_srv_conf` made.
pub unsafe extern "C" fn set_number(
    cf: *mut ngx_conf_t,
    cmd: *mut ngx_command_t,
    conf: *mut c_void,
) -> *mut c_char {
    // SAFETY: nginx passes all three for this directive, whose offset is that of a number.
    unsafe {
        let rv = ngx_conf_set_num_slot(cf, cmd, conf);
        if rv == NGX_CONF_OK { builtin::pass_on(cf, cmd) } else { rv }
    }
}

/// The handler of `keepalive_time` and `keepalive_timeout`.
///
/// # Safety
///
/// nginx calls it while it reads the directive, with the configuration that `create_srv_conf` made.
pub unsafe extern "C" fn set_msec(
    cf: *mut ngx_conf_t,
    cmd: *mut ngx_command_t,
    conf: *mut c_void,
) -> *mut c_char {
    // SAFETY: nginx passes all three for this directive, whose offset is that of a time.
    unsafe {
        let rv = ngx_conf_set_msec_slot(cf, cmd, conf);
        if rv == NGX_CONF_OK { builtin::pass_on(cf, cmd) } else { rv }
    }
}

/// The handler of `keepalive_hints`.
///
/// # Safety
///
/// nginx calls it while it reads the directive, with the configuration that `create_srv_conf` made.
pub unsafe extern "C" fn set_hints(
    cf: *mut ngx_conf_t,
    cmd: *mut ngx_command_t,
    conf: *mut c_void,
) -> *mut c_char {
    let conf: *mut ServerConf = conf.cast();
    // SAFETY: `create_srv_conf` has made the configuration.
    if unsafe { (*conf).directives.hints.is_some() } {
        return message(c"is duplicate");
    }
    // SAFETY: the directive is being read.
    match params::parse_hints(unsafe { arguments(cf) }, parse_msec) {
        // SAFETY: `create_srv_conf` has made the configuration.
        Ok(hints) => unsafe { (*conf).directives.hints = Some(hints) },
        // SAFETY: the directive is being read.
        Err(error) => return unsafe { log_error(cf, cmd, error) },
    }
    NGX_CONF_OK
}

/// The handler of `ntlm`.
///
/// # Safety
///
/// nginx calls it while it reads the directive, with the configuration that `create_srv_conf` made.
pub unsafe extern "C" fn set_ntlm(
    cf: *mut ngx_conf_t,
    _cmd: *mut ngx_command_t,
    conf: *mut c_void,
) -> *mut c_char {
    let conf: *mut ServerConf = conf.cast();
    // SAFETY: `create_srv_conf` has made the configuration, and the directive is being read.
    unsafe {
        if core::mem::replace(&mut (*conf).directives.ntlm, true) {
            return message(c"is duplicate");
        }
        let main = (*cf).http_main_conf_unchecked::<MainConf>(nginx::this_module());
        let at_run_time = main.is_some_and(|main| main.as_ref().configured);
        if at_run_time && (*conf).directives.keepalive.is_none() {
            return message(
                c"must follow \"keepalive\" in an upstream that is created at run time",
            );
        }
    }
    NGX_CONF_OK
}

/// A time as nginx writes it, in milliseconds.
fn parse_msec(text: &[u8]) -> Option<ngx_msec_t> {
    let mut text = nginx::as_ngx_str(text);
    // SAFETY: nginx reads the text, by its length.
    let time = unsafe { ngx_parse_time(&raw mut text, 0) };
    ngx_msec_t::try_from(time).ok()
}

/// The handler of `keepalive_status`.
///
/// # Safety
///
/// nginx calls it while it reads the directive, with the configuration that `create_loc_conf` made.
pub unsafe extern "C" fn set_status(
    cf: *mut ngx_conf_t,
    cmd: *mut ngx_command_t,
    conf: *mut c_void,
) -> *mut c_char {
    let conf: *mut LocationConf = conf.cast();
    // SAFETY: `create_loc_conf` has made the configuration.
    if unsafe { (*conf).status.is_some() } {
        return message(c"is duplicate");
    }
    // SAFETY: the directive is being read.
    match parse_status(unsafe { arguments(cf) }) {
        // SAFETY: `create_loc_conf` has made the configuration.
        Ok(params) => unsafe { (*conf).status = Some(params) },
        // SAFETY: the directive is being read.
        Err(error) => return unsafe { log_error(cf, cmd, error) },
    }
    // SAFETY: inside of a location, nginx's core has a configuration of this type, and this module
    // has one of all upstreams. Nothing else refers to them.
    unsafe {
        let main = (*cf).http_main_conf_unchecked::<MainConf>(nginx::this_module());
        let core = (*cf)
            .http_location_conf_unchecked::<ngx_http_core_loc_conf_t>(NgxHttpCoreModule::module());
        let (Some(main), Some(core)) = (main, core) else { return NGX_CONF_ERROR };
        (*main.as_ptr()).status = true;
        (*core.as_ptr()).handler = Some(status::handler);
    }
    NGX_CONF_OK
}

/// The arguments of the directive, without its name. They live as long as the configuration.
///
/// # Safety
///
/// The directive is being read.
unsafe fn arguments<'a>(cf: *mut ngx_conf_t) -> impl Iterator<Item = &'a [u8]> {
    // SAFETY: the array is one of texts.
    let args = unsafe { (*(*cf).args).as_slice::<ngx_str_t>() };
    args.iter().skip(1).map(ngx_str_t::as_bytes)
}

/// Logs the error in a directive's arguments.
///
/// # Safety
///
/// The directive is being read.
unsafe fn log_error(cf: *mut ngx_conf_t, cmd: *mut ngx_command_t, error: Error<'_>) -> *mut c_char {
    match error {
        Error::Value(value) => {
            let value = NgxStr::from_bytes(value);
            // SAFETY: the directive is valid.
            let name = unsafe { NgxStr::from_ngx_str((*cmd).name) };
            ngx_conf_log_error!(
                NGX_LOG_EMERG,
                cf,
                "invalid value \"{value}\" in \"{name}\" directive"
            );
        }
        Error::Parameter(param) => {
            let param = NgxStr::from_bytes(param);
            ngx_conf_log_error!(NGX_LOG_EMERG, cf, "invalid parameter \"{param}\"");
        }
        Error::Duplicate(param) => {
            let param = NgxStr::from_bytes(param);
            ngx_conf_log_error!(NGX_LOG_EMERG, cf, "duplicate parameter \"{param}\"");
        }
    }
    NGX_CONF_ERROR
}

/// The return value with which a directive's handler lets nginx log `"keepalive" directive …`.
fn message(text: &'static CStr) -> *mut c_char {
    text.as_ptr().cast_mut()
}

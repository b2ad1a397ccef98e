//! Warnings about the configuration as a whole.

use core::ffi::CStr;
use core::fmt::{self, Display, Formatter};

use nginx_sys::{NGX_LOG_WARN, ngx_conf_t, ngx_http_upstream_srv_conf_t, ngx_uint_t};
use ngx::core::NgxStr;
use ngx::http::{HttpModuleMainConf, NgxHttpUpstreamModule};
use ngx::ngx_log_error;

use crate::builtin;
use crate::nginx;
use crate::upstream::ServerConf;

/// Warns of directives without effect.
///
/// # Safety
///
/// The configuration file was read, and no upstream is set up yet; `cf` is valid.
pub unsafe fn warn(cf: *mut ngx_conf_t) {
    // SAFETY: the array holds pointers to upstreams.
    unsafe {
        let Some(conf) = NgxHttpUpstreamModule::main_conf(&*cf) else { return };
        let default = builtin::is_default(cf);
        for &upstream in nginx::upstreams(conf) {
            warn_without_keepalive(cf, &*upstream, default);
        }
    }
}

/// Warns of directives that have no effect in an upstream. `default`: whether the built-in module
/// keeps connections by default.
///
/// # Safety
///
/// `cf` is valid.
unsafe fn warn_without_keepalive(
    cf: *mut ngx_conf_t,
    upstream: &ngx_http_upstream_srv_conf_t,
    default: bool,
) {
    // SAFETY: nothing changes the configuration meanwhile.
    let Some(conf) = ServerConf::of(upstream).map(|conf| unsafe { conf.as_ref() }) else { return };
    for directive in conf.directives.without_keepalive(default) {
        let place = Place::of(upstream);
        // SAFETY: `cf` is valid.
        let log = unsafe { (*cf).log };
        ngx_log_error!(
            NGX_LOG_WARN,
            log,
            "\"{directive}\" has no effect without \"keepalive\" in {place}"
        );
    }
}

/// The place of an upstream, for messages after it was read.
pub struct Place<'a> {
    name: &'a NgxStr,
    file: &'a NgxStr,
    line: ngx_uint_t,
}

impl<'a> Place<'a> {
    /// The place of an upstream that was read from a configuration file.
    pub fn of(upstream: &'a ngx_http_upstream_srv_conf_t) -> Self {
        // SAFETY: the file's name ends with a null byte, and both live as long as the upstream.
        let (name, file) = unsafe {
            (NgxStr::from_ngx_str(upstream.host), CStr::from_ptr(upstream.file_name.cast()))
        };
        Place { name, file: NgxStr::from_bytes(file.to_bytes()), line: upstream.line }
    }
}

impl Display for Place<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Place { name, file, line } = self;
        write!(f, "upstream \"{name}\" in {file}:{line}")
    }
}

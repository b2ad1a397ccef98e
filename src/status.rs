//! The directive `keepalive_status`: a location that shows what was counted.

use core::ffi::{c_char, c_void};
use core::mem;
use core::ptr;

use allocator_api2::vec::Vec;
use nginx_sys::{
    NGX_CONF_NOARGS, NGX_CONF_TAKE12, NGX_HTTP_BAD_REQUEST, NGX_HTTP_GET, NGX_HTTP_HEAD,
    NGX_HTTP_INTERNAL_SERVER_ERROR, NGX_HTTP_LOC_CONF, NGX_HTTP_LOC_CONF_OFFSET,
    NGX_HTTP_NOT_ALLOWED, NGX_HTTP_OK, NGX_LOG_INFO, ngx_command_t, ngx_conf_t, ngx_http_arg,
    ngx_http_complex_value_t, ngx_http_core_loc_conf_t, ngx_http_request_t, ngx_http_send_response,
    ngx_int_t, ngx_pid, ngx_str_t, ngx_uint_t,
};
use ngx::core::{NGX_CONF_ERROR, NGX_CONF_OK, NgxStr, Pool};
use ngx::http::{
    HttpModule, HttpModuleConfExt, HttpModuleLocationConf, HttpModuleMainConf, Merge,
    MergeConfigError, NgxHttpCoreModule, NgxHttpUpstreamModule,
};
use ngx::{ngx_log_error, ngx_string};

use self::body::Body;
use self::format::Format;
use self::params::StatusParams;
use self::report::{MOST_SLICES, Report, Text, Upstream};
use crate::conf::{self, Module, ServerConf};
use crate::counters::{Counts, Pid};
use crate::nginx;
use crate::pool::Slice;

mod body;
mod format;
mod html;
mod json;
mod params;
mod prometheus;
pub mod report;

/// The module's configuration of a location.
#[derive(Debug, Default)]
pub struct LocationConf {
    status: Option<StatusParams>,
}

impl Merge for LocationConf {
    /// The handler stays the same inside of an `if`, where the configuration is another one.
    fn merge(&mut self, outer: &Self) -> Result<(), MergeConfigError> {
        self.status = self.status.or(outer.status);
        Ok(())
    }
}

/// The directive.
pub const COMMAND: ngx_command_t = ngx_command_t {
    name: ngx_string!("keepalive_status"),
    type_: (NGX_HTTP_LOC_CONF | NGX_CONF_NOARGS | NGX_CONF_TAKE12) as ngx_uint_t,
    set: Some(set),
    conf: NGX_HTTP_LOC_CONF_OFFSET,
    offset: 0,
    post: ptr::null_mut(),
};

/// The handler of the directive.
///
/// # Safety
///
/// nginx calls it while it reads the directive, with the configuration that `create_loc_conf` made.
unsafe extern "C" fn set(
    cf: *mut ngx_conf_t,
    cmd: *mut ngx_command_t,
    conf: *mut c_void,
) -> *mut c_char {
    let conf: *mut LocationConf = conf.cast();
    // SAFETY: nginx passes a valid `cf` and `cmd`, and the configuration that `create_loc_conf`
    // made. Inside of a location, nginx's core has a configuration of this type.
    unsafe {
        if (*conf).status.is_some() {
            return conf::message(c"is duplicate");
        }
        let args = (*(*cf).args).as_slice::<ngx_str_t>();
        match params::parse_status(args.iter().skip(1).map(ngx_str_t::as_bytes)) {
            Ok(params) => (*conf).status = Some(params),
            Err(error) => {
                conf::log_error(cf, cmd, error);
                return NGX_CONF_ERROR;
            }
        }
        let main = (*cf).http_main_conf_unchecked::<conf::MainConf>(Module::module());
        let core = (*cf)
            .http_location_conf_unchecked::<ngx_http_core_loc_conf_t>(NgxHttpCoreModule::module());
        let (Some(main), Some(core)) = (main, core) else { return NGX_CONF_ERROR };
        (*main.as_ptr()).status = true;
        (*core.as_ptr()).handler = Some(handler);
    }
    NGX_CONF_OK
}

/// The content handler of the location.
///
/// # Safety
///
/// nginx calls it with a valid request.
unsafe extern "C" fn handler(r: *mut ngx_http_request_t) -> ngx_int_t {
    // SAFETY: nginx passes a valid request.
    unsafe {
        if (*r).method & (NGX_HTTP_GET | NGX_HTTP_HEAD) as ngx_uint_t == 0 {
            return NGX_HTTP_NOT_ALLOWED as ngx_int_t;
        }
        let conf = Module::location_conf(&*r).and_then(|conf| conf.status).unwrap_or_default();
        let Some(format) = conf.format.map_or_else(|| requested_format(r), Some) else {
            return NGX_HTTP_BAD_REQUEST as ngx_int_t;
        };
        match write(r, format, conf.slices) {
            Some(body) => send(r, format, body),
            None => NGX_HTTP_INTERNAL_SERVER_ERROR as ngx_int_t,
        }
    }
}

/// The format that a client asks for by the `format` argument, JSON if it does not; `None` if there
/// is none of that name.
///
/// # Safety
///
/// The request is valid.
unsafe fn requested_format(r: *mut ngx_http_request_t) -> Option<Format> {
    const NAME: &[u8] = b"format";
    let mut value = ngx_str_t::empty();
    // SAFETY: the request is valid; nginx reads the name by its length.
    unsafe {
        let rc = ngx_http_arg(r, NAME.as_ptr().cast_mut(), NAME.len(), &raw mut value);
        if rc != nginx::OK {
            return Some(Format::Json);
        }
        let format = Format::named(value.as_bytes());
        if format.is_none() {
            let value = NgxStr::from_ngx_str(value);
            let log = (*(*r).connection).log;
            ngx_log_error!(NGX_LOG_INFO, log, "client sent invalid \"format\" \"{value}\"");
        }
        format
    }
}

/// Writes the status. `None` if there is no memory.
///
/// # Safety
///
/// The request is valid, and has the configuration of this worker.
unsafe fn write<'a>(r: *mut ngx_http_request_t, format: Format, slices: bool) -> Option<&'a [u8]> {
    // SAFETY: as promised.
    unsafe {
        let pool = Pool::from_ngx_pool((*r).pool);
        let mut upstreams = Vec::new_in(pool.clone());
        for &upstream in conf::upstreams_of(NgxHttpUpstreamModule::main_conf(&*r)?) {
            let Some(conf) = Module::server_conf_of(&*upstream) else { continue };
            let name = Text((*upstream).host.as_bytes());
            if let Some(keepalive) = &(*conf.as_ptr()).keepalive {
                let limits = keepalive.shown_limits();
                let counts = Counts::sum((*conf.as_ptr()).counters.blocks(), lives);
                let slices =
                    if slices { Some(busiest(conf.as_ptr(), pool.clone())?) } else { None };
                upstreams.try_reserve(1).ok()?;
                upstreams.push(Upstream { name, counts, limits, slices });
            }
        }
        let report = Report { worker: ngx_pid as Pid, upstreams: &upstreams };
        let mut body = Body::new_in(pool);
        match format {
            Format::Json => json::write(&report, &mut body).ok(),
            Format::Prometheus => prometheus::write(&report, &mut body).ok(),
            Format::Html => html::write(&report, &mut body).ok(),
        }?;
        body.finish()
    }
}

/// The busiest slices of an upstream in this worker.
///
/// # Safety
///
/// `conf` is valid, and its pool is not used as long as the answer.
unsafe fn busiest<'a>(conf: *mut ServerConf, pool: Pool) -> Option<&'a [Slice<'a>]> {
    let mut list = Vec::new_in(pool);
    list.try_reserve_exact(MOST_SLICES).ok()?;
    // SAFETY: as promised.
    if let Some(idle) = unsafe { (*conf).pool.as_mut() } {
        report::list_busiest(idle.slices(), &mut list);
    }
    Some(list.leak())
}

/// Whether there is such a worker: a process of the master's group, of which all workers are. Another
/// program may have got the number of one that was killed.
fn lives(process: Pid) -> bool {
    // SAFETY: both only ask.
    unsafe { libc::getpgid(process as libc::pid_t) == libc::getpgrp() }
}

/// Sends the status, by a function of nginx's for texts of the configuration, which a body is to it.
///
/// # Safety
///
/// The request is valid, and the body is in its memory.
unsafe fn send(r: *mut ngx_http_request_t, format: Format, body: &[u8]) -> ngx_int_t {
    let mut content_type = nginx::as_ngx_str(format.content_type().as_bytes());
    // SAFETY: as promised. A value without variables is zeroes and its text.
    unsafe {
        let mut text: ngx_http_complex_value_t = mem::zeroed();
        text.value = nginx::as_ngx_str(body);
        (*r).headers_out.charset = nginx::as_ngx_str(format.charset().as_bytes());
        ngx_http_send_response(r, NGX_HTTP_OK as ngx_uint_t, &raw mut content_type, &raw mut text)
    }
}

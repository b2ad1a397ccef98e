//! The status: a location that shows the counters of all upstreams.

use core::mem;

use allocator_api2::vec::Vec;
use nginx_sys::{
    NGX_HTTP_BAD_REQUEST, NGX_HTTP_GET, NGX_HTTP_HEAD, NGX_HTTP_INTERNAL_SERVER_ERROR,
    NGX_HTTP_NOT_ALLOWED, NGX_HTTP_OK, NGX_LOG_INFO, ngx_http_arg, ngx_http_complex_value_t,
    ngx_http_request_t, ngx_http_send_response, ngx_int_t, ngx_pid, ngx_str_t, ngx_uint_t,
};
use ngx::core::{NgxStr, Pool as Memory};
use ngx::http::{HttpModuleConfExt, HttpModuleMainConf, NgxHttpUpstreamModule};
use ngx::ngx_log_error;

use self::body::Body;
use self::report::{MOST_SLICES, Milliseconds, Printable, Report, ServerReport};
use crate::conf::format::Format;
use crate::counters::{Pid, Totals};
use crate::handover;
use crate::learned::Learned;
use crate::location::LocationConf;
use crate::nginx::{self, AddressText};
use crate::pool::UsedSlice;
use crate::upstream;

mod body;
mod html;
mod json;
mod prometheus;
mod report;

/// The content handler of the location.
///
/// # Safety
///
/// nginx calls it with a valid request.
pub unsafe extern "C" fn handler(r: *mut ngx_http_request_t) -> ngx_int_t {
    // SAFETY: nginx passes a valid request, whose location has a configuration of this type.
    let (method, conf) = unsafe {
        ((*r).method, (*r).http_location_conf_unchecked::<LocationConf>(nginx::this_module()))
    };
    if method & (NGX_HTTP_GET | NGX_HTTP_HEAD) as ngx_uint_t == 0 {
        return NGX_HTTP_NOT_ALLOWED as ngx_int_t;
    }
    // SAFETY: the configuration does not change any more.
    let params = conf.and_then(|conf| unsafe { conf.as_ref().status }).unwrap_or_default();
    // SAFETY: the request is valid.
    let format = params.format.or_else(|| unsafe { requested_format(r) });
    let Some(format) = format else { return NGX_HTTP_BAD_REQUEST as ngx_int_t };
    // SAFETY: the request is valid, and the body is in its memory.
    unsafe {
        match write(r, format, params.slices) {
            Some(body) => send(r, format, body),
            None => NGX_HTTP_INTERNAL_SERVER_ERROR as ngx_int_t,
        }
    }
}

/// The format of the client's `format` argument, JSON without it; `None` if there is no format of
/// that name.
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
    // SAFETY: the request is valid; nothing uses upstreams until the status is written.
    let (memory, conf) =
        unsafe { (Memory::from_ngx_pool((*r).pool), NgxHttpUpstreamModule::main_conf(&*r)?) };
    let mut reports = Vec::new_in(memory.clone());
    for upstream in upstream::all(conf) {
        reports.try_reserve(1).ok()?;
        let totals = upstream.totals(nginx::now(), handover::lives);
        let slices = match slices {
            true => Some(busiest(upstream, memory.clone())?),
            false => None,
        };
        reports.push(report(upstream, totals, slices));
    }
    // SAFETY: nginx sets its number when a process starts.
    let worker = unsafe { ngx_pid } as Pid;
    let idle_timeouts = match upstream::all(conf).find_map(upstream::Upstream::learned) {
        Some(learned) => Some(servers(learned, memory.clone())?),
        None => None,
    };
    let report = Report { worker, upstreams: reports.leak(), idle_timeouts };
    let mut body = Body::new_in(memory);
    match format {
        Format::Json => json::write(&report, &mut body).ok(),
        Format::Prometheus => prometheus::write(&report, &mut body).ok(),
        Format::Html => html::write(&report, &mut body).ok(),
    }?;
    body.finish()
}

/// The report of an upstream.
fn report<'a>(
    upstream: &'a upstream::Upstream,
    totals: Totals,
    slices: Option<&'a [UsedSlice<'a>]>,
) -> report::UpstreamReport<'a> {
    let keepalive = &upstream.settings().keepalive;
    report::UpstreamReport {
        name: Printable(upstream.name().as_bytes()),
        totals,
        limits: report::ShownLimits {
            connections: keepalive.connections,
            slice_conn: keepalive.slice_conn,
            slice_poolsize: keepalive.slice_key.as_ref().map(|_| keepalive.slice_poolsize),
            shared: upstream.is_shared(),
        },
        slices,
    }
}

/// The servers whose idle timeouts are known. `None` if there is no memory.
fn servers<'a>(learned: &Learned, memory: Memory) -> Option<&'a [ServerReport<'a>]> {
    let mut count = 0;
    learned.read(|all| count = all.count());
    // All memory is there before they are read: the workers wait meanwhile.
    let mut list = Vec::new_in(memory.clone());
    list.try_reserve_exact(count).ok()?;
    learned.read(|all| {
        list.extend(all.take(count).map(|(address, time)| (AddressText::of(address), time)));
    });
    let mut reports = Vec::new_in(memory);
    reports.try_reserve_exact(list.len()).ok()?;
    let report = |(address, time): &'a (AddressText, u32)| ServerReport {
        address: Printable(address.as_bytes()),
        idle_timeout: Milliseconds(*time),
    };
    reports.extend(list.leak().iter().map(report));
    Some(reports.leak())
}

/// The busiest slices of an upstream. `None` if there is no memory.
fn busiest<'a>(upstream: &upstream::Upstream, memory: Memory) -> Option<&'a [UsedSlice<'a>]> {
    // All memory is there before the slices are read: those of all workers are locked meanwhile.
    let longest = usize::from(upstream.settings().keepalive.slice_keylen);
    let mut keys = Vec::new_in(memory.clone());
    keys.try_reserve_exact(MOST_SLICES.checked_mul(longest)?).ok()?;
    let mut list = Vec::new_in(memory.clone());
    list.try_reserve_exact(MOST_SLICES).ok()?;
    upstream.read_slices(|slices| {
        let mut busiest = [UsedSlice { key: &[], idle: 0, hits: 0 }; MOST_SLICES];
        let count = report::list_busiest(slices, &mut busiest);
        for slice in busiest.iter().take(count) {
            keys.extend_from_slice(slice.key);
            list.push((slice.key.len(), slice.idle, slice.hits));
        }
    })?;
    let mut copied = Vec::new_in(memory);
    copied.try_reserve_exact(list.len()).ok()?;
    let mut keys: &[u8] = keys.leak();
    for (length, idle, hits) in list {
        let (key, rest) = keys.split_at_checked(length)?;
        copied.push(UsedSlice { key, idle, hits });
        keys = rest;
    }
    Some(copied.leak())
}

/// Sends the status, with a function of nginx for texts of the configuration; it treats the body as
/// one.
///
/// # Safety
///
/// The request is valid, and the body is in its memory.
unsafe fn send(r: *mut ngx_http_request_t, format: Format, body: &[u8]) -> ngx_int_t {
    let mut content_type = nginx::as_ngx_str(format.content_type().as_bytes());
    // SAFETY: the request is valid. A value without variables is zeroes and its text.
    unsafe {
        let mut text: ngx_http_complex_value_t = mem::zeroed();
        text.value = nginx::as_ngx_str(body);
        (*r).headers_out.charset = nginx::as_ngx_str(format.charset().as_bytes());
        ngx_http_send_response(r, NGX_HTTP_OK as ngx_uint_t, &raw mut content_type, &raw mut text)
    }
}

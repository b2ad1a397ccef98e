//! The slice key of a request.

use nginx_sys::{NGX_LOG_WARN, ngx_http_request_t, ngx_str_t};
use ngx::core::NgxStr;
use ngx::ngx_log_error;

use crate::upstream::Upstream;

/// There is no memory for the key.
pub struct NoMemory;

/// Evaluates the slice key. `Ok(None)`: it is too long, and connections are not kept. The key may
/// be the variable's own bytes: copy it before another variable is evaluated.
///
/// # Safety
///
/// The request is valid, and of this upstream.
pub unsafe fn slice_key<'a>(
    r: *mut ngx_http_request_t,
    upstream: &Upstream,
) -> Result<Option<&'a [u8]>, NoMemory> {
    let keepalive = &upstream.settings().keepalive;
    let Some(value) = &keepalive.slice_key else { return Ok(Some(&[])) };
    // SAFETY: the request is valid, and the value was compiled for its configuration.
    let mut key = unsafe { value.evaluate(r) }.ok_or(NoMemory)?;

    let longest = usize::from(keepalive.slice_keylen);
    if key.len > longest {
        if keepalive.slice_strict {
            return Ok(None);
        }
        if upstream.is_first_cut() {
            // SAFETY: the request is valid.
            unsafe { log_cut(r, upstream, key, longest) };
        }
        key.len = longest;
    }
    // SAFETY: the bytes live as long as the request.
    Ok(Some(unsafe { NgxStr::from_ngx_str(key) }.as_bytes()))
}

/// Logs that keys of an upstream are cut.
///
/// # Safety
///
/// The request is valid.
unsafe fn log_cut(r: *mut ngx_http_request_t, upstream: &Upstream, key: ngx_str_t, longest: usize) {
    let name = upstream.name();
    // SAFETY: the request is valid, and the key as long as it.
    let (key, log) = unsafe { (NgxStr::from_ngx_str(key), (*(*r).connection).log) };
    ngx_log_error!(
        NGX_LOG_WARN,
        log,
        "slice key \"{key}\" of upstream \"{name}\" is cut to {longest} bytes"
    );
}

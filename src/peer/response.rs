//! What a server's response says about its connection.

use nginx_sys::{ngx_http_upstream_t, ngx_log_t};
use ngx::core::NgxStr;

use crate::hints::{Hints, Malformed};
use crate::nginx::{self, log_debug_http};

const KEEP_ALIVE: &[u8] = b"Keep-Alive";

/// What a response says about its connection. The default is for a response that was not read.
#[derive(Clone, Copy, Default)]
pub struct Response {
    /// Whether the connection can carry another request: the response was read to its end, and the
    /// server does not close.
    pub reusable: bool,
    /// The time for which the connection may be idle by the `Keep-Alive` header, in milliseconds,
    /// minus the margin; `None` without such a header.
    pub hint: Option<u64>,
}

impl Response {
    /// The response that nginx last read into `upstream`. The `Keep-Alive` header is read only with
    /// a `margin`, in milliseconds.
    ///
    /// # Safety
    ///
    /// `upstream` is valid, and so is its state; the response was not replaced by a cached one.
    #[inline(always)]
    pub unsafe fn of(
        upstream: *const ngx_http_upstream_t,
        margin: Option<u64>,
        log: *mut ngx_log_t,
    ) -> Self {
        // SAFETY: `upstream` is valid. nginx sets `keepalive` only once it has read the header.
        unsafe {
            if (*upstream).keepalive() == 0 || has_surplus(upstream) {
                return Response::default();
            }
            let hint = match margin {
                Some(margin) if has_hints(upstream) => hint(upstream, margin, log),
                _ => None,
            };
            Response { reusable: true, hint }
        }
    }
}

/// Whether bytes followed a header without a body: nginx does not read them if it sends only the
/// header (HEAD, 204, 304, `X-Accel-Redirect`, an error page). More of them may be on their
/// way, and the next request would get them as its response. Whatever reads a body, buffered or not,
/// counts it in `response_length` before `peer.free`, with what came behind the header.
///
/// # Safety
///
/// As for [`Response::of`].
#[inline(always)]
unsafe fn has_surplus(upstream: *const ngx_http_upstream_t) -> bool {
    // SAFETY: `upstream` and its state are valid.
    unsafe {
        (*upstream).buffer.pos < (*upstream).buffer.last
            && (*(*upstream).state).response_length == 0
    }
}

/// Whether the response has a `Keep-Alive` header.
///
/// # Safety
///
/// The response header was read.
#[inline(never)]
unsafe fn has_hints(upstream: *const ngx_http_upstream_t) -> bool {
    // SAFETY: the header was read.
    let mut parts = unsafe { nginx::header_lines(&(*upstream).headers_in.headers) };
    parts.any(|lines| lines.iter().any(|line| nginx::is_named(line, KEEP_ALIVE)))
}

/// The time for which the connection may be idle by the `Keep-Alive` header, minus the margin.
///
/// # Safety
///
/// The response header was read, and `log` is valid.
unsafe fn hint(
    upstream: *const ngx_http_upstream_t,
    margin: u64,
    log: *mut ngx_log_t,
) -> Option<u64> {
    let mut hints = Hints::default();
    // SAFETY: the header was read.
    let lines = unsafe { nginx::header_lines(&(*upstream).headers_in.headers) }.flatten();
    for line in lines.filter(|line| nginx::is_named(line, KEEP_ALIVE)) {
        match Hints::parse(line.value.as_bytes()) {
            Ok(said) => hints = hints.and(said),
            Err(Malformed) => {
                // SAFETY: the value is valid as long as its line.
                let line = unsafe { NgxStr::from_ngx_str(line.value) };
                log_debug_http!(log, "malformed Keep-Alive header: \"{line}\"");
            }
        }
    }
    hints.idle_limit(margin)
}

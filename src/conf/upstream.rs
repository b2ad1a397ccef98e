//! An upstream that has a `keepalive`: its pool, its counters, and its place around the balancer.

use core::ffi::CStr;

use nginx_sys::{
    NGX_LOG_EMERG, ngx_addr_t, ngx_conf_t, ngx_http_upstream_main_conf_t,
    ngx_http_upstream_server_t, ngx_http_upstream_srv_conf_t,
};
use ngx::core::NgxStr;
use ngx::{ngx_conf_log_error, ngx_log_error};

use super::Module;
use crate::idle::{self, Idle};
use crate::nginx;
use crate::peer;
use crate::pool::{Length, Pool, Seed};
use crate::zone::Counters;

/// The upstreams of a configuration.
pub fn upstreams_of(conf: &ngx_http_upstream_main_conf_t) -> &[*mut ngx_http_upstream_srv_conf_t] {
    // SAFETY: `upstreams` is an array of these.
    unsafe { conf.upstreams.as_slice() }
}

/// Puts this module around an upstream's balancer, if the upstream has a `keepalive`. `None` if
/// there is no memory.
///
/// # Safety
///
/// `cf` and `upstream` are valid.
pub unsafe fn init(cf: *mut ngx_conf_t, upstream: *mut ngx_http_upstream_srv_conf_t) -> Option<()> {
    // SAFETY: `cf` and the upstream are valid; an implicit one, made by `proxy_pass`, has no
    // configuration. Nothing else refers to the configuration during the assignments.
    unsafe {
        let Some(conf) = Module::server_conf_of(&*upstream) else { return Some(()) };
        let conf = conf.as_ptr();
        let Some(keepalive) = (*conf).keepalive() else { return Some(()) };
        let limits = keepalive.limits(longest_address(&*upstream));
        (*conf).set_defaults();

        let allocator = ngx::core::Pool::from_ngx_pool((*cf).pool);
        let size = (limits.connections as usize).checked_mul(size_of::<Idle>())?;
        (*conf).idle = allocator.alloc(size).cast();
        if (*conf).idle.is_null() {
            return None;
        }
        (*conf).pool = Some(Pool::new_in(limits, &seed(cf)?, allocator).ok()?);
        nginx::add_cleanup((*cf).pool, Some(idle::close_all), conf.cast())?;

        (*conf).counters = Counters::private(cf)?;
        (*conf).original_init_peer = (*upstream).peer.init;
        (*upstream).peer.init = Some(peer::init);
    }
    Some(())
}

/// Has all workers count together for an upstream, if it has a `keepalive`. nginx has logged the
/// error if the answer is `None`.
///
/// # Safety
///
/// `cf` is being read, and [`init`] was called for the upstream.
pub unsafe fn share(
    cf: *mut ngx_conf_t,
    upstream: *mut ngx_http_upstream_srv_conf_t,
) -> Option<()> {
    // SAFETY: as promised.
    unsafe {
        match Module::server_conf_of(&*upstream) {
            Some(conf) if (*conf.as_ptr()).keepalive().is_some() => {
                (*conf.as_ptr()).counters.share(cf, (*upstream).host.as_bytes())
            }
            _ => Some(()),
        }
    }
}

/// A seed that clients do not know; `None` if there is none.
///
/// # Safety
///
/// `cf` is valid.
unsafe fn seed(cf: *mut ngx_conf_t) -> Option<Seed> {
    let mut seed = Seed::default();
    match getrandom::fill(&mut seed) {
        Ok(()) => Some(seed),
        Err(error) => {
            ngx_conf_log_error!(NGX_LOG_EMERG, cf, "getrandom() failed: {error}");
            None
        }
    }
}

/// Says for which upstream there is no memory, since nginx itself names but the size, if anything.
///
/// # Safety
///
/// `cf` is valid, and so is the upstream, which was read from a configuration file.
pub unsafe fn log_no_memory(cf: *mut ngx_conf_t, upstream: *mut ngx_http_upstream_srv_conf_t) {
    // SAFETY: as promised; the file's name ends with a null byte.
    unsafe {
        let name = NgxStr::from_ngx_str((*upstream).host);
        let file = NgxStr::from_bytes(CStr::from_ptr((*upstream).file_name.cast()).to_bytes());
        let line = (*upstream).line;
        ngx_log_error!(
            NGX_LOG_EMERG,
            (*cf).log,
            "could not allocate memory for \"keepalive\" in upstream \"{name}\" in {file}:{line}"
        );
    }
}

/// The length of the longest address among an upstream's servers, in bytes. Names may turn out to
/// be IPv6 addresses later.
///
/// # Safety
///
/// The upstream is valid.
unsafe fn longest_address(upstream: &ngx_http_upstream_srv_conf_t) -> Length {
    let mut longest = size_of::<libc::sockaddr_in6>();
    // SAFETY: the servers and their addresses are arrays of these; either may be missing.
    unsafe {
        let servers = upstream.servers.as_ref();
        for server in
            servers.map_or(&[][..], |servers| servers.as_slice::<ngx_http_upstream_server_t>())
        {
            for i in 0..server.naddrs {
                let ngx_addr_t { sockaddr, socklen, .. } = *server.addrs.add(i);
                longest = longest.max(nginx::address(sockaddr, socklen).len());
            }
        }
    }
    Length::try_from(longest).unwrap_or(Length::MAX)
}

//! An upstream that has a `keepalive`: its pool, its counters, and its place around the balancer.

use core::ffi::CStr;
use core::fmt::{self, Display, Formatter};

use nginx_sys::{
    NGX_LOG_EMERG, NGX_LOG_WARN, ngx_addr_t, ngx_conf_t, ngx_http_upstream_main_conf_t,
    ngx_http_upstream_server_t, ngx_http_upstream_srv_conf_t, ngx_uint_t,
};
use ngx::core::NgxStr;
use ngx::{ngx_conf_log_error, ngx_log_error};

use super::{Module, ServerConf};
use crate::builtin;
use crate::idle::{self, Idle};
use crate::nginx;
use crate::peer;
use crate::pool::{Length, Pool, Seed};
#[cfg(ngx_feature = "http_ssl")]
use crate::tls_sessions;
use crate::zone::Counters;

/// The upstreams of a configuration.
pub fn upstreams_of(conf: &ngx_http_upstream_main_conf_t) -> &[*mut ngx_http_upstream_srv_conf_t] {
    // SAFETY: `upstreams` is an array of these.
    unsafe { conf.upstreams.as_slice() }
}

/// Says which directives of an upstream have no effect.
///
/// # Safety
///
/// `cf` is valid, and so is the upstream, which was read from a configuration file.
pub unsafe fn warn(cf: *mut ngx_conf_t, upstream: *mut ngx_http_upstream_srv_conf_t) {
    // SAFETY: as promised; an implicit upstream has no configuration.
    unsafe {
        let Some(conf) = Module::server_conf_of(&*upstream) else { return };
        let conf: &ServerConf = conf.as_ref();
        for directive in conf.without_keepalive(builtin::is_default(cf)) {
            let place = Place::of(&*upstream);
            ngx_log_error!(
                NGX_LOG_WARN,
                (*cf).log,
                "\"{directive}\" has no effect without \"keepalive\" in {place}"
            );
        }
    }
}

/// Says once for each upstream that nginx offers TLS sessions of one verified name for another.
///
/// # Safety
///
/// As for [`tls_sessions::find`].
#[cfg(ngx_feature = "http_ssl")]
pub unsafe fn warn_sessions(cf: *mut ngx_conf_t) {
    // SAFETY: as promised. An upstream made by `proxy_pass` has no configuration.
    unsafe {
        tls_sessions::find(cf, |upstream, prefix| {
            let Some(conf) = Module::server_conf_of(&*upstream) else { return };
            let conf = conf.as_ptr();
            if (*conf).keepalive.is_some() && !(*conf).sessions_logged {
                (*conf).sessions_logged = true;
                let place = Place::of(&*upstream);
                ngx_log_error!(
                    NGX_LOG_WARN,
                    (*cf).log,
                    "\"{prefix}_ssl_session_reuse\" should be off with \"{prefix}_ssl_verify\" \
                     and variables in \"{prefix}_ssl_name\": the TLS session of one name is \
                     offered for another, and fails, in {place}"
                );
            }
        });
    }
}

/// Where an upstream is, for messages after it was read.
struct Place<'a> {
    name: &'a NgxStr,
    file: &'a NgxStr,
    line: ngx_uint_t,
}

impl<'a> Place<'a> {
    /// # Safety
    ///
    /// The upstream was read from a configuration file.
    unsafe fn of(upstream: &'a ngx_http_upstream_srv_conf_t) -> Self {
        // SAFETY: as promised; the file's name ends with a null byte.
        let file = unsafe { CStr::from_ptr(upstream.file_name.cast()) };
        Place {
            // SAFETY: the name lives as long as the upstream.
            name: unsafe { NgxStr::from_ngx_str(upstream.host) },
            file: NgxStr::from_bytes(file.to_bytes()),
            line: upstream.line,
        }
    }
}

impl Display for Place<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Place { name, file, line } = self;
        write!(f, "upstream \"{name}\" in {file}:{line}")
    }
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
        let Some(keepalive) = &(*conf).keepalive else { return Some(()) };
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
            Some(conf) if (*conf.as_ptr()).keepalive.is_some() => {
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
    // SAFETY: as promised.
    unsafe {
        let place = Place::of(&*upstream);
        ngx_log_error!(
            NGX_LOG_EMERG,
            (*cf).log,
            "could not allocate memory for \"keepalive\" in {place}"
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

//! Sets up an upstream that has a `keepalive`: makes it live, and puts it around its balancer.

use core::ptr::NonNull;

use nginx_sys::{NGX_LOG_EMERG, ngx_conf_t, ngx_http_upstream_srv_conf_t};
use ngx::core::Pool as Memory;
use ngx::http::{HttpModuleMainConf, NgxHttpUpstreamModule};
use ngx::{ngx_conf_log_error, ngx_log_error};

use super::varieties::Varieties;
use super::warnings::Place;
use crate::attributes::Variety;
use crate::conf::{Keepalive, MainConf};
use crate::handover;
use crate::idle;
use crate::learned;
use crate::nginx;
use crate::peer;
use crate::pool::{Length, Seed};
use crate::upstream::{ServerConf, Upstream};
use crate::zone::{CounterZone, SharedLimits};

/// Sets up all upstreams. Their connections differ by the locations that use them. If there is a
/// `status`, the workers share counters. `None` if there is an error, which was logged.
///
/// # Safety
///
/// The configuration file was read, and `main` is this module's configuration; `cf` is as for
/// [`Varieties::read`].
pub unsafe fn all(cf: *mut ngx_conf_t, main: *mut MainConf) -> Option<()> {
    let mut learned = None;
    // SAFETY: `cf` is valid; the array holds pointers to upstreams.
    unsafe {
        let Some(varieties) = Varieties::read(cf) else {
            ngx_log_error!(NGX_LOG_EMERG, (*cf).log, "could not allocate memory");
            return None;
        };
        (*main).of_any = varieties.of_any;
        for &upstream in nginx::upstreams(NgxHttpUpstreamModule::main_conf(&*cf)?) {
            let Some(conf) = ServerConf::of(&*upstream) else { continue };
            let mut counters = CounterZone::default();
            let variety = varieties.of(upstream);
            let directives = &(*conf.as_ptr()).directives;
            if directives.ntlm && directives.keepalive.is_none() {
                let place = Place::of(&*upstream);
                let log = (*cf).log;
                ngx_log_error!(
                    NGX_LOG_EMERG,
                    log,
                    "no \"keepalive\" is defined for the \"ntlm\" directive in {place}"
                );
                return None;
            }
            if let Some(keepalive) = &directives.keepalive {
                let connections = shared_limits(cf, keepalive, variety.longest(directives.ntlm))?;
                (*main).stable_locations |= connections.is_some() && keepalive.local;
                if (*main).status || connections.is_some() {
                    counters.share(cf, (*upstream).host.as_bytes(), connections)?;
                }
            }
            if one(cf, upstream, variety, counters).is_none() {
                log_no_memory(cf, upstream);
                return None;
            }
            if Upstream::of(&*upstream).is_some_and(|live| live.settings().learns()) {
                let servers = nginx::server_addresses(&*upstream).flatten().count();
                learned = Some(learned.unwrap_or(0usize).saturating_add(servers));
            }
        }
        if let Some(servers) = learned {
            (*main).learned = Some(learned::add_zone(cf, servers)?);
        }
    }
    Some(())
}

/// The connections for which the workers of an upstream share memory: `Some(None)` if they do not,
/// or nothing is kept. `None` if there is an error, which was logged.
///
/// # Safety
///
/// `cf` is valid.
unsafe fn shared_limits<'a>(
    cf: *mut ngx_conf_t,
    keepalive: &'a Keepalive,
    attributes_length: Length,
) -> Option<Option<SharedLimits<'a>>> {
    // So that a reload with other servers keeps the connections: as long as any address.
    let limits = keepalive.limits(size_of::<libc::sockaddr_un>() as Length, attributes_length);
    let keeps = limits.connections != 0 && limits.slices.is_none_or(|limits| limits.slices != 0);
    if !keepalive.shared || !keeps {
        return Some(None);
    }
    if let Err(error) = handover::make_mailbox() {
        ngx_conf_log_error!(NGX_LOG_EMERG, cf, "socketpair() failed: {error}");
        return None;
    }
    // SAFETY: `cf` is valid.
    let seed = unsafe { seed(cf)? };
    let (is_variable, text) = &keepalive.key_text;
    let strict = keepalive.slice_strict;
    Some(Some(SharedLimits { limits, key_text: (*is_variable, text.as_bytes()), strict, seed }))
}

/// Sets up an upstream, if it has a `keepalive`. Its connections can differ in `variety`. `None` if
/// there is no memory.
///
/// # Safety
///
/// `cf` and `upstream` are valid.
pub unsafe fn one(
    cf: *mut ngx_conf_t,
    upstream: *mut ngx_http_upstream_srv_conf_t,
    variety: Variety,
    mut counters: CounterZone,
) -> Option<()> {
    // SAFETY: `cf` and the upstream are valid, and nothing else refers to the configuration.
    unsafe {
        let Some(conf) = ServerConf::of(&*upstream) else { return Some(()) };
        let conf = conf.as_ptr();
        let Some(settings) = (*conf).directives.settings() else { return Some(()) };
        counters.begin(cf)?;

        let memory = Memory::from_ngx_pool((*cf).pool);
        let pool = (longest_address(&*upstream), variety, &seed(cf)?);
        let live = Upstream::new_in(&*upstream, settings, pool, counters, memory)?;
        let live: NonNull<Upstream> = nginx::allocate((*cf).pool, live)?;
        nginx::add_cleanup((*cf).pool, Some(idle::close_all), live.as_ptr().cast())?;

        (*conf).live = Some(live);
        (*upstream).peer.init = Some(peer::init);
    }
    Some(())
}

/// A seed that clients do not know; `None` if the system provides none.
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

/// Logs for which upstream there is no memory, since nginx itself logs only the size, or nothing.
///
/// # Safety
///
/// `cf` is valid, and so is the upstream, which was read from a configuration file.
unsafe fn log_no_memory(cf: *mut ngx_conf_t, upstream: *mut ngx_http_upstream_srv_conf_t) {
    // SAFETY: both are valid.
    let (place, log) = unsafe { (Place::of(&*upstream), (*cf).log) };
    ngx_log_error!(NGX_LOG_EMERG, log, "could not allocate memory for \"keepalive\" in {place}");
}

/// The length of the longest address among an upstream's servers, in bytes. Names may resolve to
/// IPv6 addresses later.
fn longest_address(upstream: &ngx_http_upstream_srv_conf_t) -> Length {
    let lengths = nginx::server_addresses(upstream).flatten().map(<[u8]>::len);
    let longest = lengths.fold(size_of::<libc::sockaddr_in6>(), usize::max);
    Length::try_from(longest).unwrap_or(Length::MAX)
}

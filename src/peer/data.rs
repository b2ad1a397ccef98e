//! The data that a request needs from `peer.init` to its last `peer.free`, and the variables after
//! that.

use core::cell::Cell;
use core::ffi::c_void;
use core::ptr::NonNull;
use core::slice;

#[cfg(ngx_peer_notify)]
use nginx_sys::ngx_event_notify_peer_pt;
use nginx_sys::{
    ngx_event_free_peer_pt, ngx_event_get_peer_pt, ngx_http_request_t, ngx_http_upstream_conf_t,
    ngx_http_upstream_state_t, ngx_http_upstream_t, ngx_int_t, ngx_module_t, ngx_peer_connection_t,
};
#[cfg(ngx_peer_session)]
use nginx_sys::{ngx_event_save_peer_session_pt, ngx_event_set_peer_session_pt};
use ngx::http::HttpModuleConfExt;

#[cfg(ngx_feature = "http_cache")]
use super::response::Response;
use crate::counters::Refused;
use crate::location::{LocationConf, UNKNOWN};
use crate::nginx;
use crate::pool::{Length, Lookup, Protocol};
use crate::trace::{self, Trace};
use crate::upstream::Upstream;

/// The outcome of a connection after a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// It is kept.
    Saved,
    /// It is not kept.
    Refused(Refused),
}

/// The data of `ngx_peer_connection_t`, in the request's memory. The slice key follows it there.
#[repr(C)]
pub struct PeerData {
    /// The first member, so a pointer to the trace is one to the data.
    pub trace: Trace,
    upstream: NonNull<Upstream>,
    /// nginx's upstream of the request. `ngx_peer_connection_t` may be another module's copy.
    pub request_upstream: NonNull<ngx_http_upstream_t>,
    /// The configuration with which the request's module has set the upstream up. A balancer may put
    /// a copy with other timeouts in its place.
    module_conf: *const ngx_http_upstream_conf_t,
    /// The outcome of the last attempt's connection; `None` if it is still in use, or there is no
    /// connection.
    pub outcome: Cell<Option<Outcome>>,
    /// The length of the slice key as used; `None` if it is too long, and connections are not kept.
    key_length: Option<Length>,
    /// The protocol of the attempt's connection.
    pub protocol: Cell<Protocol>,
    /// The attributes of the attempt's connection, in the request's memory; `None` if they are not
    /// known, and it is not kept.
    attributes: Cell<Option<NonNull<[u8]>>>,
    /// The time for which the connection of the last attempt was idle before, in milliseconds; 0 for
    /// a new one.
    pub idle: Cell<u32>,
    /// Of the server that the balancer chose last.
    pub lookup: Cell<Lookup>,
    /// The server's own response, before a cached one took its place.
    #[cfg(ngx_feature = "http_cache")]
    pub replaced: Replaced,
    pub balancer: Balancer,
}

type ReinitRequest = Option<unsafe extern "C" fn(*mut ngx_http_request_t) -> ngx_int_t>;

/// Remembered data for a request with a cache.
#[cfg(ngx_feature = "http_cache")]
#[derive(Default)]
pub struct Replaced {
    /// The original `reinit_request` of nginx's upstream.
    pub original: Cell<ReinitRequest>,
    /// What the server's own response said before nginx put a cached one in its place. A retry leaves
    /// here what the attempt before it said, which nothing uses.
    pub response: Cell<Response>,
}

#[cfg(ngx_feature = "http_cache")]
impl Replaced {
    /// Whether the request has a cache.
    #[inline(always)]
    pub fn is_watched(&self) -> bool {
        self.original.get().is_some()
    }
}

/// The callbacks and data that the balancer has put into `ngx_peer_connection_t`.
pub struct Balancer {
    pub data: *mut c_void,
    pub get: ngx_event_get_peer_pt,
    pub free: ngx_event_free_peer_pt,
    #[cfg(ngx_peer_notify)]
    pub notify: ngx_event_notify_peer_pt,
    #[cfg(ngx_peer_session)]
    pub set_session: ngx_event_set_peer_session_pt,
    #[cfg(ngx_peer_session)]
    pub save_session: ngx_event_save_peer_session_pt,
}

impl Balancer {
    fn of(pc: &ngx_peer_connection_t) -> Self {
        Balancer {
            data: pc.data,
            get: pc.get,
            free: pc.free,
            #[cfg(ngx_peer_notify)]
            notify: pc.notify,
            #[cfg(ngx_peer_session)]
            set_session: pc.set_session,
            #[cfg(ngx_peer_session)]
            save_session: pc.save_session,
        }
    }
}

/// The protocol of a request's connections.
///
/// Its numbers are the same in all workers, and after a reload: the address of the handler that
/// creates requests may differ then, if its module is a dynamic one, but not its distance from the
/// module, which is in the same object. An upstream's `output.tag` is its module.
///
/// # Safety
///
/// The request is valid, and its module has set its upstream up.
unsafe fn protocol(r: *mut ngx_http_request_t, upstream: &Upstream) -> Protocol {
    // SAFETY: the request and its upstream are valid. A module without a tag has no number.
    unsafe {
        let request_upstream = (*r).upstream;
        let tag: *const ngx_module_t = (*request_upstream).output.tag.cast();
        let handler = (*request_upstream).create_request.map_or(0, |handler| handler as usize);
        Protocol {
            module: tag.as_ref().map_or(u16::MAX, |module| module.ctx_index as u16),
            handler: handler.wrapping_sub(tag.addr()) as u32,
            location: if upstream.settings().keepalive.local { location(r) } else { 0 },
            // Known when the balancer has been asked.
            tls: 0,
        }
    }
}

/// The number of a request's location.
///
/// # Safety
///
/// The request is valid.
unsafe fn location(r: *mut ngx_http_request_t) -> u64 {
    // SAFETY: the request's location has a configuration of this type, which does not change.
    unsafe {
        let conf = (*r).http_location_conf_unchecked::<LocationConf>(nginx::this_module());
        conf.map_or(0, |conf| conf.as_ref().number)
    }
}

/// The number of the TLS settings of a request, whose module has set its upstream up with this
/// configuration.
///
/// # Safety
///
/// The request and the configuration are valid.
unsafe fn tls(r: *mut ngx_http_request_t, module_conf: *const ngx_http_upstream_conf_t) -> u16 {
    // SAFETY: the request's location has a configuration of this type, which does not change. If
    // another configuration is in the place of the module's, it is valid as well.
    unsafe {
        #[cfg(ngx_feature = "http_ssl")]
        if !nginx::tls::agree(&*(*(*r).upstream).conf, &*module_conf) {
            return UNKNOWN;
        }
        let conf = (*r).http_location_conf_unchecked::<LocationConf>(nginx::this_module());
        conf.map_or(UNKNOWN, |conf| conf.as_ref().tls.number(module_conf.addr()))
    }
}

impl PeerData {
    /// Puts the data, for a request that the balancer was initialised for, into the request's
    /// memory. `None` if there is no memory.
    ///
    /// # Safety
    ///
    /// The request is valid, and has an upstream and its array of states.
    pub unsafe fn allocate(
        r: *mut ngx_http_request_t,
        upstream: &Upstream,
        key: Option<&[u8]>,
    ) -> Option<NonNull<Self>> {
        // SAFETY: the request is valid.
        let (memory, request_upstream) = unsafe { ((*r).pool, NonNull::new((*r).upstream)?) };
        // SAFETY: the request has an upstream, which its module has set up.
        let protocol = unsafe { protocol(r, upstream) };
        // SAFETY: the request has its array of states and an upstream, which nothing changes
        // meanwhile.
        let (trace, balancer, module_conf) = unsafe {
            let upstream = request_upstream.as_ref();
            (Trace::new(r), Balancer::of(&upstream.peer), upstream.conf.cast_const())
        };
        let data = || PeerData {
            trace,
            upstream: NonNull::from(upstream),
            request_upstream,
            module_conf,
            outcome: Cell::new(None),
            key_length: key.map(|key| key.len() as Length),
            protocol: Cell::new(protocol),
            attributes: Cell::new(None),
            idle: Cell::new(0),
            lookup: Cell::new(Lookup::default()),
            #[cfg(ngx_feature = "http_cache")]
            replaced: Replaced::default(),
            balancer,
        };
        // SAFETY: the request's memory is valid; the trace is in it, and was made just now.
        unsafe {
            let data = nginx::allocate_with(memory, data, key.unwrap_or_default())?;
            Trace::link(data.cast());
            Some(data)
        }
    }

    /// Forgets the data of the previous attempt: the balancer may answer with a connection of its
    /// own, for which the upstream is not asked.
    #[inline(always)]
    pub fn begin_attempt(&self) {
        self.outcome.set(None);
        self.idle.set(0);
        self.lookup.set(Lookup::default());
        self.attributes.set(Some(NonNull::from(&[])));
        #[cfg(ngx_feature = "http_cache")]
        if self.replaced.is_watched() {
            self.replaced.response.set(Response::default());
        }
    }

    /// The upstream.
    pub fn upstream(&self) -> &Upstream {
        // SAFETY: it lives as long as the configuration, and so longer than a request.
        unsafe { self.upstream.as_ref() }
    }

    /// Whether the attempt's connection may be kept, by its key and its attributes.
    ///
    /// # Errors
    ///
    /// Why it may not.
    #[inline(always)]
    pub fn may_be_kept(&self) -> Result<(), Refused> {
        match (self.attributes.get(), self.key_length) {
            (None, _) => Err(Refused::Identity),
            (_, None) => Err(Refused::Keylen),
            _ => Ok(()),
        }
    }

    /// Sets the attributes of the attempt's connection, which live as long as the request; `None` if
    /// they are not known.
    pub fn set_attributes(&self, attributes: Option<&[u8]>) {
        self.attributes.set(attributes.map(NonNull::from));
    }

    /// The attributes of the attempt's connection; `None` if they are not known.
    #[inline(always)]
    pub fn attributes(&self) -> Option<&[u8]> {
        // SAFETY: they live as long as the request, as the data does.
        self.attributes.get().map(|attributes| unsafe { attributes.as_ref() })
    }

    /// Whether the attempt's connection has attributes.
    #[inline(always)]
    pub fn has_attributes(&self) -> bool {
        self.attributes().is_some_and(|attributes| !attributes.is_empty())
    }

    /// Looks at the TLS settings of the attempt: a balancer may have switched TLS on or off, or put
    /// another configuration in the place of the module's.
    #[inline(always)]
    pub fn look_at_tls(&self) {
        let protocol = self.protocol.get();
        // SAFETY: the request and its upstream are valid.
        let is_used = unsafe { (*self.request_upstream.as_ptr()).ssl() != 0 };
        if is_used || protocol.tls != 0 {
            // SAFETY: the request is valid, and its configuration does not change.
            let settings = || unsafe { tls(self.trace.request(), self.module_conf) };
            let tls = if is_used { settings() } else { 0 };
            self.protocol.set(Protocol { tls, ..protocol });
        }
    }

    /// The slice key as used; `None` if connections are not kept.
    ///
    /// # Safety
    ///
    /// [`Self::allocate`] has made the data, and the request is valid while the answer is used.
    pub unsafe fn key<'a>(data: NonNull<Self>) -> Option<&'a [u8]> {
        // SAFETY: the key lies behind the data, in the same piece of memory.
        unsafe {
            let length = usize::from((*data.as_ptr()).key_length?);
            Some(slice::from_raw_parts(data.add(1).cast().as_ptr(), length))
        }
    }

    /// The data of the last upstream of this module that a request has come to.
    ///
    /// # Safety
    ///
    /// The request is valid.
    #[cfg(ngx_feature = "http_cache")]
    pub unsafe fn last(r: *mut ngx_http_request_t) -> Option<NonNull<Self>> {
        // SAFETY: the request is valid.
        unsafe { trace::last(r).map(|(last, _)| last.cast()) }
    }

    /// The data of the upstream that a request has come to last, if that is one of this module.
    ///
    /// # Safety
    ///
    /// The request is valid.
    pub unsafe fn of(r: *mut ngx_http_request_t) -> Option<NonNull<Self>> {
        // SAFETY: the request is valid.
        let (last, end) = unsafe { trace::last(r)? };
        // SAFETY: the array is one of states.
        let states =
            unsafe { (*r).upstream_states.as_ref()?.as_slice::<ngx_http_upstream_state_t>() };
        // Any later attempt is of an upstream that is not one of this module.
        let later = states.get(end..)?.iter().any(|state| !state.peer.is_null());
        (!later).then(|| last.cast())
    }
}

//! One attempt of a request to reach a server, as the callbacks of `ngx_peer_connection_t` see it.

use core::ffi::CStr;
use core::ptr::{self, NonNull};

use nginx_sys::{
    NGX_LOG_WARN, NGX_PEER_FAILED, ngx_connection_t, ngx_http_request_t, ngx_int_t, ngx_log_t,
    ngx_peer_connection_t, ngx_uint_t,
};
use ngx::core::NgxStr;
use ngx::ngx_log_error;

use super::data::PeerData;
#[cfg(ngx_feature = "http_cache")]
use super::replaced;
use super::response::Response;
use crate::idle;
#[cfg(all(ngx_feature = "http_ssl", ngx_peer_session))]
use crate::nginx::tls::TlsSession;
use crate::nginx::{self, Connection};
use crate::policy::Time;
use crate::pool::Identity;
use crate::upstream::Upstream;

/// A close that is due to an idle timeout meets a request within this time, in milliseconds.
const SOON: Time = 1000;

/// A view of an attempt: it reads values, and makes single changes. The values of the balancer's
/// choice are valid until the balancer is asked again.
#[derive(Clone, Copy)]
pub struct Attempt {
    data: NonNull<PeerData>,
    pc: NonNull<ngx_peer_connection_t>,
}

impl Attempt {
    /// The attempt of a callback.
    ///
    /// # Safety
    ///
    /// nginx has passed both to the callback, and the view is not used after it.
    pub unsafe fn new(pc: *mut ngx_peer_connection_t, data: *mut core::ffi::c_void) -> Self {
        // SAFETY: nginx passes no null pointers; `peer.init` has set the data.
        unsafe {
            Attempt { data: NonNull::new_unchecked(data.cast()), pc: NonNull::new_unchecked(pc) }
        }
    }

    /// The module's data of the request.
    #[inline(always)]
    pub fn data(&self) -> &PeerData {
        // SAFETY: the data is in the request's memory, and only changed by shared references.
        unsafe { self.data.as_ref() }
    }

    /// The upstream.
    pub fn upstream(&self) -> &Upstream {
        self.data().upstream()
    }

    /// The request.
    pub fn request(&self) -> *mut ngx_http_request_t {
        self.data().trace.request()
    }

    /// The log.
    pub fn log(&self) -> *mut ngx_log_t {
        // SAFETY: the peer connection is valid.
        unsafe { (*self.pc.as_ptr()).log }
    }

    /// Closes connections that other workers have taken away or want closed, and logs, once in a
    /// worker, that connections of other workers cannot be used.
    #[cold]
    pub fn answer_calls(&self) {
        idle::close_called(self.upstream());
        if let Some(error) = self.upstream().first_refusal() {
            let (name, code) = (self.upstream().name(), error.raw_os_error());
            // SAFETY: the text is valid until the next call.
            let text = unsafe { CStr::from_ptr(libc::strerror(code)) };
            let text = NgxStr::from_bytes(text.to_bytes());
            ngx_log_error!(
                NGX_LOG_WARN,
                self.log(),
                "connections of other workers to upstream \"{name}\" cannot be used ({code}: {text})"
            );
        }
    }

    /// Ends the connection of the request, which is not kept: by the balancer neither, if that has
    /// connections of its own, and not by other workers, which may have descriptors of it.
    pub fn end_connection(&self) {
        // SAFETY: the upstream of the request is valid. Only modules that keep connections read it
        // from here on.
        unsafe { (*self.data().request_upstream.as_ptr()).set_keepalive(0) };
        if self.upstream().is_shared() {
            self.connection(0).into_iter().for_each(idle::end);
        }
    }

    /// The connection; `None` if there is no connection, or the attempt has failed.
    pub fn connection(&self, state: ngx_uint_t) -> Option<Connection> {
        if state & NGX_PEER_FAILED as ngx_uint_t != 0 {
            return None;
        }
        // SAFETY: the peer connection is valid, and its connection is open during a callback.
        unsafe { NonNull::new((*self.pc.as_ptr()).connection).map(|c| Connection::new(c)) }
    }

    /// The request uses an idle connection.
    #[inline(always)]
    pub fn set_connection(&self, c: NonNull<ngx_connection_t>) {
        let pc = self.pc.as_ptr();
        // SAFETY: the peer connection is valid.
        unsafe {
            (*pc).connection = c.as_ptr();
            (*pc).set_cached(1);
        }
    }

    /// Takes the connection from the request.
    pub fn leave_connection(&self) {
        // SAFETY: the peer connection is valid.
        unsafe { (*self.pc.as_ptr()).connection = ptr::null_mut() }
    }

    /// The identity under which the attempt's connection is saved. The balancer has chosen a
    /// server, and connections of the request [may be kept](PeerData::may_be_kept).
    #[inline(always)]
    pub fn identity(&self) -> Identity<'_> {
        // SAFETY: `init` has made the data.
        let key = unsafe { PeerData::key(self.data) }.unwrap_or_default();
        let data = self.data();
        let attributes = data.attributes().unwrap_or_default();
        Identity { key, address: self.address(), attributes, protocol: data.protocol.get() }
    }

    /// The address of the server. The balancer has chosen one.
    #[inline(always)]
    pub fn address(&self) -> &[u8] {
        let pc = self.pc.as_ptr();
        // SAFETY: the peer connection is valid, and the balancer has set the address.
        unsafe { nginx::address((*pc).sockaddr, (*pc).socklen) }
    }

    /// The local address from which a new connection is made, and whether it is another host's; `None`
    /// if the system chooses it.
    #[inline(always)]
    pub fn local_address(&self) -> Option<(&[u8], bool)> {
        // SAFETY: the peer connection is valid, and so is its address, if there is one.
        unsafe {
            let pc = self.pc.as_ref();
            let local = pc.local.as_ref()?;
            Some((nginx::address(local.sockaddr, local.socklen), pc.transparent() != 0))
        }
    }

    /// Runs an operation while the state of the attempt says which server the balancer has chosen,
    /// for `$upstream_addr`, as nginx does it once the attempt has begun.
    pub fn with_server<R>(&self, operation: impl FnOnce() -> R) -> R {
        let upstream = self.data().request_upstream.as_ptr();
        // SAFETY: the upstream of the request is valid, and has a state for the attempt.
        let state = unsafe { (*upstream).state };
        // SAFETY: as above.
        unsafe { (*state).peer = self.pc.as_ref().name };
        let result = operation();
        // SAFETY: as above.
        unsafe { (*state).peer = ptr::null_mut() };
        result
    }

    /// Whether the server has closed the connection of a failed attempt without an answer, and soon:
    /// it did not fail while it was working on the request.
    pub fn was_closed(&self) -> bool {
        let Some(c) = self.connection(0) else { return false };
        // SAFETY: the upstream of the request is valid, and an attempt with a connection has a
        // state.
        let (received, start) = unsafe {
            let upstream = self.data().request_upstream.as_ptr();
            ((*(*upstream).state).bytes_received, (*upstream).start_time)
        };
        let is_soon = nginx::now().saturating_sub(start as Time) < SOON;
        (c.is_eof() || c.is_broken()) && received == 0 && is_soon
    }

    /// Whether the request was sent to its end.
    pub fn is_request_sent(&self) -> bool {
        // SAFETY: the upstream of the request is valid.
        unsafe { (*self.data().request_upstream.as_ptr()).request_body_sent() != 0 }
    }

    /// What the server's response says about the connection.
    #[inline(always)]
    pub fn response(&self) -> Response {
        let upstream = self.data().request_upstream.as_ptr();
        let margin = self.upstream().settings().hints.map(|hints| hints.margin);
        // SAFETY: the upstream of the request is valid, and an attempt with a connection has a
        // state.
        unsafe {
            #[cfg(ngx_feature = "http_cache")]
            if self.data().replaced.is_watched() && replaced::is_replaced(upstream) {
                return self.data().replaced.response.get();
            }
            Response::of(upstream, margin, self.log())
        }
    }

    /// Asks the balancer for a server.
    #[inline(always)]
    pub fn balancer_get(&self) -> Option<ngx_int_t> {
        let balancer = &self.data().balancer;
        // SAFETY: the balancer's callback gets the balancer's data.
        balancer.get.map(|get| unsafe { get(self.pc.as_ptr(), balancer.data) })
    }

    /// Tells the balancer that the attempt is over.
    #[inline(always)]
    pub fn balancer_free(&self, state: ngx_uint_t) {
        let balancer = &self.data().balancer;
        if let Some(free) = balancer.free {
            // SAFETY: the balancer's callback gets the balancer's data.
            unsafe { free(self.pc.as_ptr(), balancer.data, state) }
        }
    }

    /// Passes a notification of nginx on to the balancer.
    #[cfg(ngx_peer_notify)]
    pub fn balancer_notify(&self, kind: ngx_uint_t) {
        let balancer = &self.data().balancer;
        if let Some(notify) = balancer.notify {
            // SAFETY: the balancer's callback gets the balancer's data.
            unsafe { notify(self.pc.as_ptr(), balancer.data, kind) }
        }
    }

    /// Has the new connection resume a TLS session; `false` if that fails.
    #[cfg(all(ngx_feature = "http_ssl", ngx_peer_session))]
    pub fn offer_session(&self, session: &TlsSession) -> bool {
        // SAFETY: nginx has it set for a connection before the handshake.
        unsafe { session.offer((*self.pc.as_ptr()).connection) }
    }

    /// The TLS session of the connection, which nginx asks to save.
    #[cfg(all(ngx_feature = "http_ssl", ngx_peer_session))]
    pub fn session(&self) -> Option<TlsSession> {
        // SAFETY: nginx has it saved for a connection that is open.
        unsafe { TlsSession::of((*self.pc.as_ptr()).connection) }
    }

    /// Lets the balancer set a TLS session; `None` if it has no callback for that.
    #[cfg(ngx_peer_session)]
    pub fn balancer_set_session(&self) -> Option<ngx_int_t> {
        let balancer = &self.data().balancer;
        // SAFETY: the balancer's callback gets the balancer's data.
        balancer.set_session.map(|set| unsafe { set(self.pc.as_ptr(), balancer.data) })
    }

    /// Lets the balancer save a TLS session.
    #[cfg(ngx_peer_session)]
    pub fn balancer_save_session(&self) {
        let balancer = &self.data().balancer;
        if let Some(save) = balancer.save_session {
            // SAFETY: the balancer's callback gets the balancer's data.
            unsafe { save(self.pc.as_ptr(), balancer.data) }
        }
    }
}

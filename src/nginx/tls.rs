//! TLS to servers: what a location says about it, and sessions.

use core::ptr::{self, NonNull};

use nginx_sys::{
    NGX_OK, SSL_SESSION, SSL_SESSION_free, SSL_SESSION_up_ref, ngx_connection_t,
    ngx_http_complex_value_t, ngx_http_upstream_conf_t, ngx_int_t, ngx_ssl_get_session,
    ngx_ssl_set_session,
};

/// Whether a value has variables.
///
/// # Safety
///
/// The value is valid or null.
unsafe fn varies(value: *const ngx_http_complex_value_t) -> bool {
    // SAFETY: it is valid or null; a value without variables has no lengths.
    unsafe { value.as_ref().is_some_and(|value| !value.lengths.is_null()) }
}

/// Whether the name of the server is used: sent or verified.
pub fn uses_name(conf: &ngx_http_upstream_conf_t) -> bool {
    conf.ssl_server_name == 1 || conf.ssl_verify == 1
}

/// Whether the name of the server is used, and has variables.
///
/// # Safety
///
/// The configuration is merged.
pub unsafe fn has_variable_name(conf: &ngx_http_upstream_conf_t) -> bool {
    // SAFETY: its values are valid.
    uses_name(conf) && unsafe { varies(conf.ssl_name) }
}

/// Whether there is a client certificate that nginx loads for each connection, since its name or
/// that of its key has variables.
///
/// # Safety
///
/// The configuration is merged.
pub unsafe fn has_variable_certificate(conf: &ngx_http_upstream_conf_t) -> bool {
    // SAFETY: its values are valid.
    unsafe {
        conf.ssl_certificate.as_ref().is_some_and(|certificate| !certificate.value.is_empty())
            && (varies(conf.ssl_certificate) || varies(conf.ssl_certificate_key))
    }
}

/// Whether two configurations say the same about TLS, of which one may be a copy of the other with
/// other values.
pub fn agree(one: &ngx_http_upstream_conf_t, other: &ngx_http_upstream_conf_t) -> bool {
    let all = |conf: &ngx_http_upstream_conf_t| {
        let flags = (conf.ssl_server_name, conf.ssl_verify);
        (conf.ssl, flags, conf.ssl_name, conf.ssl_certificate, conf.ssl_certificate_key)
    };
    ptr::eq(one, other) || all(one) == all(other)
}

/// The name as nginx uses it: without a port.
pub fn without_port(name: &[u8]) -> &[u8] {
    // The colons of an IPv6 address are in brackets.
    let bracket = name.iter().position(|&byte| byte == b']').filter(|_| name.starts_with(b"["));
    let from = bracket.unwrap_or(0);
    let colon = name.iter().skip(from).position(|&byte| byte == b':');
    let end = colon.and_then(|colon| colon.checked_add(from)).unwrap_or(name.len());
    name.get(..end).unwrap_or(name)
}

/// A TLS session to a server.
pub struct TlsSession(NonNull<SSL_SESSION>);

impl TlsSession {
    /// The session of a connection, if it has one that can be resumed.
    ///
    /// # Safety
    ///
    /// The connection is open, and has TLS.
    pub unsafe fn of(c: *mut ngx_connection_t) -> Option<Self> {
        // SAFETY: as above; the answer is a reference of its own.
        NonNull::new(unsafe { ngx_ssl_get_session(c) }).map(TlsSession)
    }

    /// Has a new connection resume the session; `false` if that fails.
    ///
    /// # Safety
    ///
    /// The connection is open, has TLS, and no handshake has begun.
    pub unsafe fn offer(&self, c: *mut ngx_connection_t) -> bool {
        // SAFETY: as above; the connection takes a reference of its own.
        unsafe { ngx_ssl_set_session(c, self.0.as_ptr()) == NGX_OK as ngx_int_t }
    }
}

impl Clone for TlsSession {
    fn clone(&self) -> Self {
        // SAFETY: the session is valid.
        unsafe { SSL_SESSION_up_ref(self.0.as_ptr()) };
        TlsSession(self.0)
    }
}

impl Drop for TlsSession {
    fn drop(&mut self) {
        // SAFETY: the session is valid, and this was its reference.
        unsafe { SSL_SESSION_free(self.0.as_ptr()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_of_a_name_is_cut() {
        for (name, cut) in [
            ("", ""),
            ("a.example", "a.example"),
            ("a.example:443", "a.example"),
            ("a:b:c", "a"),
            (":443", ""),
            ("[::1]:443", "[::1]"),
            ("[::1]", "[::1]"),
            ("[::1", "["),
            ("a]b:1", "a]b"),
        ] {
            assert_eq!(without_port(name.as_bytes()), cut.as_bytes(), "{name}");
        }
    }
}

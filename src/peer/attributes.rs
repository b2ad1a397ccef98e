//! The attributes with which a request makes connections: see [`crate::attributes`].
//!
//! nginx evaluates the name and the client certificate for a new connection some time after the
//! balancer has chosen the server, and not at all for one that is used again. Here they are evaluated
//! right after the choice. Before a new connection is saved, they are looked at once more: a variable
//! may have had another value when nginx used it. nginx leaves the name that it has used; the
//! certificate is evaluated again.

use core::ptr;

use ngx::core::Pool;

use super::attempt::Attempt;
use super::client;
use crate::attributes::{Attribute, Kind, encode};
#[cfg(ngx_feature = "http_ssl")]
use crate::location::UNKNOWN;
#[cfg(ngx_feature = "http_ssl")]
use crate::nginx::{self, tls};

/// Evaluates the attributes of an attempt for which the balancer has chosen a server.
#[inline(always)]
pub fn set(attempt: Attempt) {
    if may_be_any(attempt) {
        // A variable that is evaluated here may keep its value.
        let attributes = attempt.with_server(|| evaluate(&attempt, false));
        attempt.data().set_attributes(attributes);
    }
}

/// Sets the attributes of an attempt for which the balancer has a connection of its own: nobody knows
/// what that was made with, so it is of this module only if all connections are alike.
pub fn set_unknown(attempt: Attempt) {
    if may_be_any(attempt) || attempt.upstream().longest_attributes() != 0 {
        attempt.data().set_attributes(None);
    }
}

/// Whether the connection of an attempt may have attributes.
#[inline(always)]
fn may_be_any(attempt: Attempt) -> bool {
    attempt.data().protocol.get().tls != 0
        || attempt.local_address().is_some()
        || attempt.upstream().settings().ntlm
}

/// Makes sure that a new connection was made with the attributes that were evaluated before.
/// Otherwise they are not known.
pub fn confirm(attempt: Attempt) {
    let data = attempt.data();
    if evaluate(&attempt, true) != data.attributes() {
        data.set_attributes(None);
    }
}

/// The attributes with which nginx would make a connection now, or `is_made` one, in the request's
/// memory; `None` if they are not known, there is no room for them, or the connection is for this
/// request alone.
#[inline(never)]
fn evaluate(attempt: &Attempt, is_made: bool) -> Option<&[u8]> {
    let local = attempt.local_address();
    let tls = of_tls(attempt, is_made)?;
    let ntlm = attempt.upstream().settings().ntlm;
    if local.is_none() && tls.is_none() && !ntlm {
        return Some(&[]);
    }
    let local = local.map(|(address, is_transparent)| {
        (if is_transparent { Kind::Transparent } else { Kind::Local }, address)
    });
    let [name, certificate, key] = tls.unwrap_or_default();
    let client = if ntlm { client::number(*attempt)? } else { None };
    let client = client.as_ref().map(|number| (Kind::Client, &number[..]));
    let all = [local, name, certificate, key, client];
    let longest = attempt.upstream().longest_attributes();
    // SAFETY: the request of an attempt is valid.
    let memory = unsafe { Pool::from_ngx_pool((*attempt.request()).pool) };
    Some(encode(all.into_iter().flatten(), longest, memory)?.leak())
}

/// The name, the client certificate and its key, where they differ by request. `None` if they are not
/// known, or there is no memory.
#[inline(always)]
#[cfg(ngx_feature = "http_ssl")]
fn of_tls(attempt: &Attempt, is_made: bool) -> Option<Option<[Option<Attribute<'_>>; 3]>> {
    match attempt.data().protocol.get().tls {
        0 => return Some(None),
        UNKNOWN => return None,
        _ => {}
    }
    let r = attempt.request();
    // SAFETY: the request of an attempt is valid, and so is the configuration of its upstream. Texts
    // live as long as the request.
    unsafe {
        let conf = (*(*r).upstream).conf.as_ref()?;
        let name = if tls::has_variable_name(conf) {
            let used = || Some((*(*r).upstream).ssl_name.as_bytes());
            let name = if is_made { used() } else { nginx::evaluate(r, conf.ssl_name) };
            Some(tls::without_port(name?))
        } else if tls::uses_name(conf) && conf.ssl_name.is_null() {
            other_name(attempt, (*(*r).upstream).ssl_name.as_bytes())
        } else {
            None
        };
        let name = name.map(|name| (Kind::Name, name));
        if !tls::has_variable_certificate(conf) {
            return Some(name.map(|name| [Some(name), None, None]));
        }
        let certificate = (Kind::Certificate, nginx::evaluate(r, conf.ssl_certificate)?);
        let key = (Kind::CertificateKey, nginx::evaluate(r, conf.ssl_certificate_key)?);
        Some(Some([name, Some(certificate), Some(key)]))
    }
}

/// The name in TLS of a location that says none: mostly that of the upstream, and then `None`. A
/// balancer can set another one.
#[cfg(ngx_feature = "http_ssl")]
fn other_name<'a>(attempt: &Attempt, name: &'a [u8]) -> Option<&'a [u8]> {
    let default = attempt.upstream().name().as_bytes();
    if ptr::eq(name, default) {
        return None;
    }
    // nginx cuts the port, and copies the name, when it makes a connection.
    let (name, default) = (tls::without_port(name), tls::without_port(default));
    (name != default).then_some(name)
}

/// nginx was built without TLS.
#[cfg(not(ngx_feature = "http_ssl"))]
fn of_tls(_: &Attempt, _: bool) -> Option<Option<[Option<Attribute<'_>>; 3]>> {
    Some(None)
}

//! The variables, which describe the actions of the module for each request.

use allocator_api2::vec::Vec;
use nginx_sys::{
    NGX_HTTP_VAR_CHANGEABLE, ngx_conf_t, ngx_http_add_variable, ngx_http_get_variable_pt,
    ngx_http_request_t, ngx_http_upstream_state_t, ngx_http_variable_value_t, ngx_int_t, ngx_str_t,
    ngx_uint_t,
};
use ngx::core::Pool;
use ngx::ngx_string;

use crate::nginx;
use crate::peer::{self, Outcome};
use crate::trace::{self, Attempt};

const VARIABLES: [(ngx_str_t, ngx_http_get_variable_pt); 3] = [
    (ngx_string!("upstream_keepalive"), Some(attempts)),
    (ngx_string!("upstream_keepalive_save"), Some(save)),
    (ngx_string!("upstream_keepalive_slice"), Some(slice)),
];

/// Adds the variables, before a configuration is read. If a `map`, `set` or `geo` of the
/// configuration defines variables of the same names, these take precedence.
///
/// # Safety
///
/// `cf` is valid.
pub unsafe fn add(cf: *mut ngx_conf_t) -> ngx_int_t {
    for (mut name, handler) in VARIABLES {
        let flags = NGX_HTTP_VAR_CHANGEABLE as ngx_uint_t;
        // SAFETY: `cf` is valid; what nginx returns is a valid variable or null.
        match unsafe { ngx_http_add_variable(cf, &raw mut name, flags).as_mut() } {
            Some(variable) => variable.get_handler = handler,
            None => return nginx::ERROR,
        }
    }
    nginx::OK
}

/// `$upstream_keepalive`: the result of each attempt, separated as in `$upstream_addr`.
///
/// # Safety
///
/// nginx calls it with a valid request and value.
unsafe extern "C" fn attempts(
    r: *mut ngx_http_request_t,
    value: *mut ngx_http_variable_value_t,
    _data: usize,
) -> ngx_int_t {
    // SAFETY: nginx passes both; the text is in memory of the request.
    unsafe {
        let states = (*r).upstream_states.as_ref();
        match states.map(|states| states.as_slice()).filter(|states| !states.is_empty()) {
            Some(states) => match words(r, states, Pool::from_ngx_pool((*r).pool)) {
                Some(text) => answer(value, Some(text)),
                None => nginx::ERROR,
            },
            None => answer(value, None),
        }
    }
}

/// The result of each attempt. `None` if there is no memory.
///
/// # Safety
///
/// The request is valid, and these are its states.
unsafe fn words<'a>(
    r: *mut ngx_http_request_t,
    states: &[ngx_http_upstream_state_t],
    memory: Pool,
) -> Option<&'a [u8]> {
    let mut text = Vec::new_in(memory);
    // The longest text of an attempt and its separator.
    text.try_reserve_exact(states.len().saturating_mul("BORROWED : ".len())).ok()?;
    let mut states = states.iter().enumerate().peekable();
    while let Some((index, state)) = states.next() {
        // An attempt without a server is empty.
        if !state.peer.is_null() {
            // SAFETY: the request is valid.
            text.extend_from_slice(word(unsafe { trace::attempt(r, index) }).as_bytes());
        }
        // A state without a server that follows is between two upstreams.
        match states.peek() {
            Some((_, next)) if !next.peer.is_null() => text.extend_from_slice(b", "),
            Some(_) => {
                text.extend_from_slice(b" : ");
                states.next();
            }
            None => {}
        }
    }
    Some(text.leak())
}

fn word(attempt: Option<Attempt>) -> &'static str {
    match attempt {
        Some(Attempt::Hit) => "HIT",
        Some(Attempt::Borrowed) => "BORROWED",
        Some(Attempt::Miss) => "MISS",
        Some(Attempt::None) | None => "-",
    }
}

/// `$upstream_keepalive_slice`: the key, as used.
///
/// # Safety
///
/// nginx calls it with a valid request and value.
unsafe extern "C" fn slice(
    r: *mut ngx_http_request_t,
    value: *mut ngx_http_variable_value_t,
    _data: usize,
) -> ngx_int_t {
    // SAFETY: nginx passes both. The key is in memory of the request.
    unsafe { answer(value, peer::slice(r)) }
}

/// `$upstream_keepalive_save`: whether the connection was saved, or why not.
///
/// # Safety
///
/// nginx calls it with a valid request and value.
unsafe extern "C" fn save(
    r: *mut ngx_http_request_t,
    value: *mut ngx_http_variable_value_t,
    _data: usize,
) -> ngx_int_t {
    // SAFETY: nginx passes a valid request.
    let text = unsafe { peer::outcome(r) }.map(|outcome| match outcome {
        Outcome::Saved => "saved",
        Outcome::Refused(why) => why.name(),
    });
    // SAFETY: nginx passes a valid value, and the text lives for ever.
    unsafe { answer(value, text.map(str::as_bytes)) }
}

/// Sets the value of a variable; `None` if it is not found.
///
/// # Safety
///
/// The value is valid, and the text lives as long as its request.
unsafe fn answer(value: *mut ngx_http_variable_value_t, text: Option<&[u8]>) -> ngx_int_t {
    let found = text.is_some();
    let text = nginx::as_ngx_str(text.unwrap_or_default());
    // SAFETY: the value is valid.
    unsafe {
        (*value).set_valid(found.into());
        // The flag of that name would be one of the user's variable of the same name.
        (*value).set_no_cacheable(1);
        (*value).set_not_found((!found).into());
        (*value).set_len(text.len as u32);
        (*value).data = text.data;
    }
    nginx::OK
}

//! The `keepalive` directive, compiled.

use nginx_sys::{ngx_conf_t, ngx_str_t};

use super::params::{Params, Value};
use crate::nginx::{self, ComplexValue};
use crate::pool::{Length, Limits, SliceLimits};

/// The default of `slice_poolsize`.
const SLICE_POOLSIZE: u32 = 20;
/// The default of `slice_keylen`.
const SLICE_KEYLEN: Length = 40;

/// The `keepalive` directive.
pub(crate) struct Keepalive {
    pub(crate) connections: u32,
    /// `None`: one slice holds everything.
    pub(crate) slice_key: Option<ComplexValue>,
    pub(crate) slice_conn: Option<u32>,
    pub(crate) slice_dyn: Option<ComplexValue>,
    pub(crate) slice_poolsize: u32,
    pub(crate) slice_keylen: Length,
    pub(crate) slice_strict: bool,
    pub(crate) local: bool,
    /// The limits hold over all workers.
    pub(crate) shared: bool,
    /// Whether `slice_key` is the name of a variable, and its text, without the dollar sign then.
    pub(crate) key_text: (bool, ngx_str_t),
}

impl Keepalive {
    /// Compiles the texts with variables.
    ///
    /// # Safety
    ///
    /// `cf` is being read inside of an upstream, and the texts in `params` are its arguments.
    pub unsafe fn compile(cf: *mut ngx_conf_t, params: &Params<'_>) -> Option<Self> {
        let keyed = params.slice_key.is_some();
        let compile = |value: Option<Value<'_>>| match value {
            // SAFETY: the configuration is being read.
            Some(Value::Variable(name)) => unsafe { ComplexValue::variable(cf, name).map(Some) },
            // SAFETY: it is being read, and arguments of a directive are followed by a null byte.
            Some(Value::Text(text)) => unsafe { ComplexValue::compile(cf, text).map(Some) },
            None => Some(None),
        };

        Some(Keepalive {
            connections: params.connections,
            slice_key: compile(params.slice_key)?,
            slice_conn: params.slice_conn.filter(|_| keyed),
            slice_dyn: compile(params.slice_dyn.filter(|_| keyed))?,
            slice_poolsize: params.slice_poolsize.unwrap_or(SLICE_POOLSIZE),
            slice_keylen: params.slice_keylen.unwrap_or(SLICE_KEYLEN),
            slice_strict: params.slice_strict,
            local: params.local,
            shared: params.shared,
            key_text: match params.slice_key {
                Some(Value::Variable(text)) => (true, nginx::as_ngx_str(text)),
                Some(Value::Text(text)) => (false, nginx::as_ngx_str(text)),
                None => (false, ngx_str_t::empty()),
            },
        })
    }

    /// The limits of the pool, for server addresses and attributes of these lengths.
    pub fn limits(&self, address_length: Length, attributes_length: Length) -> Limits {
        Limits {
            connections: self.connections,
            address_length,
            attributes_length,
            slices: self.slice_key.is_some().then_some(SliceLimits {
                slices: self.slice_poolsize,
                key_length: self.slice_keylen,
            }),
        }
    }
}

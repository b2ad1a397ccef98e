//! The `keepalive` directive, compiled.

use nginx_sys::ngx_conf_t;

use super::params::{Params, Value};
use crate::nginx::Text;
use crate::pool::{Length, Limits, SliceLimits};
use crate::status::report;

/// The default of `slice_poolsize`.
const SLICE_POOLSIZE: u32 = 20;
/// The default of `slice_keylen`.
const SLICE_KEYLEN: Length = 40;

/// The `keepalive` directive.
pub(crate) struct Keepalive {
    connections: u32,
    /// `None`: one slice holds everything.
    pub(crate) slice_key: Option<Text>,
    pub(crate) slice_conn: Option<u32>,
    pub(crate) slice_dyn: Option<Text>,
    slice_poolsize: u32,
    pub(crate) slice_keylen: Length,
    pub(crate) slice_strict: bool,
    pub(crate) local: bool,
}

impl Keepalive {
    /// Compiles the texts with variables.
    ///
    /// # Safety
    ///
    /// `cf` is being read inside of an upstream, and the texts in `params` are its arguments.
    pub unsafe fn compile(cf: *mut ngx_conf_t, params: &Params<'_>) -> Option<Self> {
        let keyed = params.slice_key.is_some();
        // SAFETY: as promised; arguments of a directive are followed by a null byte.
        let compile = |value: Option<Value<'_>>| unsafe {
            Some(match value {
                Some(Value::Variable(name)) => Some(Text::variable(cf, name)?),
                Some(Value::Text(text)) => Some(Text::compile(cf, text)?),
                None => None,
            })
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
        })
    }

    /// The limits as the status shows them.
    pub fn shown_limits(&self) -> report::Limits {
        let keyed = self.slice_key.is_some();
        report::Limits {
            connections: self.connections,
            slice_conn: self.slice_conn,
            slice_poolsize: keyed.then_some(self.slice_poolsize),
        }
    }

    /// The limits of the pool, for server addresses of this length.
    pub fn limits(&self, address_length: Length) -> Limits {
        Limits {
            connections: self.connections,
            address_length,
            slices: self.slice_key.is_some().then_some(SliceLimits {
                slices: self.slice_poolsize,
                key_length: self.slice_keylen,
            }),
        }
    }
}

//! The `keepalive` directive, compiled.

use core::ptr::NonNull;

use nginx_sys::{ngx_conf_t, ngx_http_complex_value_t, ngx_pnalloc, ngx_str_t};

use super::params::{Params, SliceDyn};
use crate::nginx;
use crate::pool::{Length, Limits, SliceLimits};

/// The default of `slice_poolsize`.
const SLICE_POOLSIZE: u32 = 20;
/// The default of `slice_keylen`.
const SLICE_KEYLEN: Length = 40;

/// The `keepalive` directive.
pub(crate) struct Keepalive {
    connections: u32,
    /// `None`: one slice holds everything.
    pub(crate) slice_key: Option<ngx_http_complex_value_t>,
    pub(crate) slice_conn: Option<u32>,
    pub(crate) slice_dyn: Option<ngx_http_complex_value_t>,
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
        // SAFETY: `cf` is being read; the texts are the ends of arguments of the directive, and
        // `dollar` puts a null byte behind the name.
        let (slice_key, slice_dyn) = unsafe {
            let slice_key = match params.slice_key {
                Some(text) => Some(nginx::compile(cf, nginx::as_ngx_str(text))?),
                None => None,
            };
            let slice_dyn = match params.slice_dyn.filter(|_| keyed) {
                Some(SliceDyn::Text(text)) => Some(nginx::compile(cf, nginx::as_ngx_str(text))?),
                Some(SliceDyn::Variable(name)) => Some(nginx::compile(cf, dollar(cf, name)?)?),
                None => None,
            };
            (slice_key, slice_dyn)
        };

        Some(Keepalive {
            connections: params.connections,
            slice_key,
            slice_conn: params.slice_conn.filter(|_| keyed),
            slice_dyn,
            slice_poolsize: params.slice_poolsize.unwrap_or(SLICE_POOLSIZE),
            slice_keylen: params.slice_keylen.unwrap_or(SLICE_KEYLEN),
            slice_strict: params.slice_strict,
            local: params.local,
        })
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

/// A variable's name with `$` before it and a null byte behind.
///
/// # Safety
///
/// `cf` is valid.
unsafe fn dollar(cf: *mut ngx_conf_t, name: &[u8]) -> Option<ngx_str_t> {
    let len = name.len().checked_add(1)?;
    // SAFETY: `cf` is valid.
    let data = NonNull::new(unsafe { ngx_pnalloc((*cf).pool, len.checked_add(1)?) })?;
    let data: *mut u8 = data.as_ptr().cast();
    // SAFETY: the memory is new and holds a `$`, the name and a null byte.
    unsafe {
        data.write(b'$');
        data.add(1).copy_from_nonoverlapping(name.as_ptr(), name.len());
        data.add(len).write(0);
    }
    Some(ngx_str_t { len, data })
}

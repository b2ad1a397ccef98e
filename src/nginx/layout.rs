//! Whether nginx's structures lie in memory as this module takes for granted. What the compiler can
//! compare, it compares: see `build_layout.rs`.

use core::mem::{MaybeUninit, offset_of};
use core::{iter, ptr, slice};

#[allow(clippy::wildcard_imports)]
use nginx_sys::*;

/// What a refusal begins with; the name of a structure and "differs" follow.
pub const OTHER_NGINX: &str = "ngx_http_upstream_sliced_keepalive_module was built from the sources of \
                               another nginx, or of a fork:";

/// The name of a bit field, and whether bindgen and the C compiler agree on it.
type BitField = (&'static str, fn() -> bool);

include!(concat!(env!("OUT_DIR"), "/layout.rs"));

/// The first bit field that bindgen lays out otherwise than the C compiler, if there is one.
pub fn wrong_bit_field() -> Option<&'static str> {
    BIT_FIELDS.iter().find(|(_, agrees)| !agrees()).map(|(name, _)| *name)
}

/// Whether a structure has just these bytes that are not 0, once a bit field is set in it.
fn agrees<T>(set: impl FnOnce(&mut T), bytes: &[(usize, u8)]) -> bool {
    let mut value = MaybeUninit::<T>::zeroed();
    // SAFETY: nginx's structures are of numbers and pointers, for which zeroes are valid.
    set(unsafe { value.assume_init_mut() });
    // SAFETY: each byte was set to 0.
    let all = unsafe { slice::from_raw_parts(value.as_ptr().cast::<u8>(), size_of::<T>()) };
    let is = all.iter().enumerate().filter(|&(_, &byte)| byte != 0);
    is.map(|(at, &byte)| (at, byte)).eq(bytes.iter().copied())
}

/// Whether the upstream of a request has its last pointer where the running nginx has put it: nginx
/// has set it to a cleanup of the request before `peer.init`. Patches insert members before it, as
/// OpenResty's do, and nothing else shows that.
///
/// # Safety
///
/// The request is valid, and nginx calls `peer.init` for it.
pub unsafe fn has_upstream(r: *mut ngx_http_request_t) -> bool {
    // SAFETY: the request is valid, and so are its cleanups; what lies in the place of the upstream's
    // is only compared.
    unsafe {
        let cleanup: *const ngx_http_cleanup_t = (*(*r).upstream).cleanup.cast();
        let first: *const ngx_http_cleanup_t = (*(*r).main).cleanup;
        let mut all = iter::successors(first.as_ref(), |cleanup| cleanup.next.as_ref());
        all.any(|other| ptr::eq(other, cleanup))
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects)]
mod tests {
    use super::*;

    #[test]
    fn bit_fields_lie_where_the_c_compiler_has_them() {
        assert_eq!((BIT_FIELDS.len() > 10, wrong_bit_field()), (true, None));
    }

    #[test]
    fn a_bit_field_that_lies_elsewhere_is_noticed() {
        let set = |value: &mut ngx_addr_t| value.name.data = ptr::without_provenance_mut(0x1111);
        let at = offset_of!(ngx_addr_t, name.data);
        let at = if cfg!(target_endian = "big") { at + size_of::<usize>() - 2 } else { at };
        let both = [(at, 0x11), (at + 1, 0x11)];
        assert!(agrees(set, &both));
        for bytes in [&both[..1], &both[1..], &[(at, 0x11), (at + 1, 0x10)], &[(0, 0x11), both[1]]]
        {
            assert!(!agrees(set, bytes), "{bytes:?}");
        }
    }
}

//! The few wrappers around nginx's functions that the `ngx` crate lacks.

use core::ffi::{CStr, c_void};
use core::mem;
use core::ptr;

use nginx_sys::{
    NGX_OK, ngx_conf_t, ngx_http_compile_complex_value, ngx_http_compile_complex_value_t,
    ngx_http_complex_value, ngx_http_complex_value_t, ngx_http_request_t, ngx_http_upstream_t,
    ngx_int_t, ngx_list_part_t, ngx_module_t, ngx_palloc, ngx_pool_cleanup_add,
    ngx_pool_cleanup_pt, ngx_pool_t, ngx_str_t, ngx_table_elt_t,
};

/// `NGX_OK` as a status that a callback returns.
pub const OK: ngx_int_t = NGX_OK as ngx_int_t;

/// Writes a debug message of the `debug_http` kind, as `ngx_log_debug()` does. Nothing is
/// formatted unless such messages are logged.
macro_rules! log_debug_http {
    ($log:expr, $($arg:tt)+) => {
        ngx::ngx_log_debug_mask!(DebugMask::Http, $log, $($arg)+)
    };
}
pub(crate) use log_debug_http;

/// A module by its name, if nginx has it.
///
/// # Safety
///
/// `cf` is being read.
pub unsafe fn module(cf: *mut ngx_conf_t, name: &CStr) -> Option<*mut ngx_module_t> {
    // SAFETY: the array of modules ends with a null pointer, and modules have names once a
    // configuration is read.
    unsafe {
        let mut module = (*(*cf).cycle).modules;
        while !(*module).is_null() {
            if CStr::from_ptr((**module).name) == name {
                return Some(*module);
            }
            module = module.add(1);
        }
    }
    None
}

/// Allocates memory for a value from a pool and moves the value there. The value is never
/// dropped. `None` if there is no memory.
///
/// # Safety
///
/// `pool` is a valid pool.
pub unsafe fn allocate<T>(pool: *mut ngx_pool_t, value: T) -> Option<ptr::NonNull<T>> {
    const { assert!(align_of::<T>() <= nginx_sys::NGX_ALIGNMENT) };
    // SAFETY: the pool is valid.
    let place = unsafe { ngx_palloc(pool, size_of::<T>()) };
    let place = ptr::NonNull::new(place.cast::<T>())?;
    // SAFETY: the memory is new, large enough, and aligned for `T`, as checked above.
    unsafe { place.write(value) };
    Some(place)
}

/// Has `handler` called with `data` when a pool is destroyed. `None` if there is no memory.
///
/// # Safety
///
/// `pool` is a valid pool, and `data` is what `handler` expects for as long as the pool exists.
pub unsafe fn add_cleanup(
    pool: *mut ngx_pool_t,
    handler: ngx_pool_cleanup_pt,
    data: *mut c_void,
) -> Option<()> {
    // SAFETY: the pool is valid; what it returns is a valid cleanup or null.
    let cleanup = unsafe { ngx_pool_cleanup_add(pool, 0).as_mut() }?;
    cleanup.handler = handler;
    cleanup.data = data;
    Some(())
}

/// A text as nginx has them.
pub fn as_ngx_str(text: &[u8]) -> ngx_str_t {
    ngx_str_t { len: text.len(), data: text.as_ptr().cast_mut() }
}

/// Compiles text with variables. nginx has logged the error if the answer is `None`.
///
/// # Safety
///
/// `cf` is the configuration being read, and `text` is followed by a null byte and lives as long
/// as the configuration, as directive arguments do.
pub unsafe fn compile(
    cf: *mut ngx_conf_t,
    mut text: ngx_str_t,
) -> Option<ngx_http_complex_value_t> {
    // SAFETY: both are structures of numbers and pointers, for which zeroes are valid.
    let (mut value, mut compile): (ngx_http_complex_value_t, ngx_http_compile_complex_value_t) =
        unsafe { (mem::zeroed(), mem::zeroed()) };
    compile.cf = cf;
    compile.value = &raw mut text;
    compile.complex_value = &raw mut value;
    // SAFETY: all that `compile` points to is valid during the call. nginx copies the text's
    // pointer, not the pointer to it, so `value` may be moved and `text` may go.
    let rc = unsafe { ngx_http_compile_complex_value(&raw mut compile) };
    (rc == OK).then_some(value)
}

/// Calls `f` with the value of each line of a response header from the upstream.
///
/// # Safety
///
/// The upstream's response header was read, which initialises the list of lines.
pub unsafe fn for_each_response_header(
    upstream: &ngx_http_upstream_t,
    name: &[u8],
    mut f: impl FnMut(&[u8]),
) {
    let mut next: *const ngx_list_part_t = &raw const upstream.headers_in.headers.part;
    // SAFETY: the list is initialised: each part holds `nelts` lines, and the last points to none.
    while let Some(part) = unsafe { next.as_ref() } {
        let mut line = part.elts.cast::<ngx_table_elt_t>();
        for _ in 0..part.nelts {
            // SAFETY: as above, and the line's texts are valid.
            let (key, value) = unsafe { (&(*line).key, &(*line).value) };
            if key.len == name.len() && key.as_bytes().eq_ignore_ascii_case(name) {
                f(value.as_bytes());
            }
            // SAFETY: the next line, or the end of the part.
            line = unsafe { line.add(1) };
        }
        next = part.next;
    }
}

/// Evaluates text with variables for a request; `None` if there is no memory.
///
/// # Safety
///
/// `request` is a valid request, and `value` was compiled for its configuration.
pub unsafe fn evaluate(
    request: *mut ngx_http_request_t,
    value: &ngx_http_complex_value_t,
) -> Option<ngx_str_t> {
    let mut text = ngx_str_t::empty();
    // SAFETY: the request is valid; nginx only reads the compiled value.
    let rc =
        unsafe { ngx_http_complex_value(request, ptr::from_ref(value).cast_mut(), &raw mut text) };
    (rc == OK).then_some(text)
}

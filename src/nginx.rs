//! The few wrappers around nginx's functions that the `ngx` crate lacks.

use core::ffi::{CStr, c_void};
use core::mem::{self, offset_of};
use core::ptr::{self, NonNull};
use core::{iter, slice};

use libc::sa_family_t;
use nginx_sys::{
    NGX_ERROR, NGX_OK, ngx_addr_t, ngx_command_t, ngx_conf_t, ngx_current_msec, ngx_exiting,
    ngx_http_compile_complex_value, ngx_http_compile_complex_value_t, ngx_http_complex_value,
    ngx_http_complex_value_t, ngx_http_get_flushed_variable, ngx_http_get_variable_index,
    ngx_http_request_t, ngx_http_upstream_main_conf_t, ngx_http_upstream_server_t,
    ngx_http_upstream_srv_conf_t, ngx_int_t, ngx_list_part_t, ngx_list_t, ngx_module_t, ngx_palloc,
    ngx_pool_cleanup_add, ngx_pool_cleanup_pt, ngx_pool_t, ngx_sock_ntop, ngx_str_t,
    ngx_table_elt_t, ngx_terminate, ngx_uint_t, sockaddr, socklen_t,
};
use ngx::core::NgxStr;

pub use self::connection::{Connection, cycle_log};
use crate::policy::Time;

mod connection;
pub mod layout;
#[cfg(ngx_feature = "http_ssl")]
pub mod tls;

/// `NGX_OK` as a status that a callback returns.
pub const OK: ngx_int_t = NGX_OK as ngx_int_t;

/// `NGX_ERROR` as a status that a callback returns.
pub const ERROR: ngx_int_t = NGX_ERROR as ngx_int_t;

/// Writes a debug message of the `debug_http` kind, as `ngx_log_debug()` does. Nothing is
/// formatted unless such messages are logged.
macro_rules! log_debug_http {
    ($log:expr, $($arg:tt)+) => {
        ngx::ngx_log_debug_mask!(DebugMask::Http, $log, $($arg)+)
    };
}
pub(crate) use log_debug_http;

unsafe extern "C" {
    /// This module. It is defined beside its tables, which use all of the code, and declared here
    /// for code that needs its address: as the tag of a zone, and for its `ctx_index`.
    static mut ngx_http_upstream_sliced_keepalive_module: ngx_module_t;
}

/// The address of this module.
pub fn this_module_ptr() -> *mut ngx_module_t {
    &raw mut ngx_http_upstream_sliced_keepalive_module
}

/// This module.
pub fn this_module() -> &'static ngx_module_t {
    // SAFETY: nginx writes to the module only while it starts or reads its configuration, and no
    // reference is held then.
    unsafe { &*this_module_ptr() }
}

/// The upstreams of a configuration.
pub fn upstreams(conf: &ngx_http_upstream_main_conf_t) -> &[*mut ngx_http_upstream_srv_conf_t] {
    // SAFETY: `upstreams` is an array of these.
    unsafe { conf.upstreams.as_slice() }
}

/// The time, in milliseconds, as nginx last read it.
pub fn now() -> Time {
    // SAFETY: nginx sets it.
    unsafe { ngx_current_msec as Time }
}

/// The addresses of an upstream's servers. A server whose name is resolved later has none.
pub fn server_addresses(
    upstream: &ngx_http_upstream_srv_conf_t,
) -> impl Iterator<Item = impl Iterator<Item = &[u8]>> {
    // SAFETY: the servers are an array of these, which may be missing.
    let servers = unsafe {
        let servers = upstream.servers.as_ref();
        servers.map_or(&[][..], |servers| servers.as_slice::<ngx_http_upstream_server_t>())
    };
    servers.iter().map(|server| {
        (0..server.naddrs).map(|i| {
            // SAFETY: a server has so many addresses.
            unsafe {
                let ngx_addr_t { sockaddr, socklen, .. } = *server.addrs.add(i);
                address(sockaddr, socklen)
            }
        })
    })
}

/// Whether an upstream has a server of this address, or one whose addresses are not known.
pub fn has_server(upstream: &ngx_http_upstream_srv_conf_t, address: &[u8]) -> bool {
    server_addresses(upstream).any(|mut addresses| {
        let first = addresses.next();
        first.is_none_or(|first| first == address || addresses.any(|other| other == address))
    })
}

/// Whether the worker is shutting down.
pub fn is_exiting() -> bool {
    // SAFETY: nginx sets both.
    unsafe { ngx_terminate != 0 || ngx_exiting != 0 }
}

/// A module by its name, if nginx has it.
///
/// # Safety
///
/// `cf` is being read.
pub unsafe fn module(cf: *mut ngx_conf_t, name: &CStr) -> Option<*mut ngx_module_t> {
    // SAFETY: modules have names once a configuration is read.
    unsafe { modules(cf).find(|&module| CStr::from_ptr((*module).name) == name) }
}

/// The modules of nginx.
///
/// # Safety
///
/// `cf` is being read.
pub unsafe fn modules(cf: *mut ngx_conf_t) -> impl Iterator<Item = *mut ngx_module_t> {
    // SAFETY: the array of modules ends with a null pointer.
    let modules = unsafe {
        let first = (*(*cf).cycle).modules;
        iter::successors(Some(first), |&module| Some(module.add(1))).map(|module| *module)
    };
    modules.take_while(|module| !module.is_null())
}

/// The directives of a module.
///
/// # Safety
///
/// The module is valid.
pub unsafe fn commands(module: *const ngx_module_t) -> impl Iterator<Item = *mut ngx_command_t> {
    // SAFETY: the module is valid. There is one more directive after each that is not empty.
    let commands =
        unsafe { iter::successors(Some((*module).commands), |&command| Some(command.add(1))) };
    // SAFETY: the directives before an empty one are valid, and so is that.
    commands.take_while(|&command| !command.is_null() && unsafe { !(*command).name.is_empty() })
}

/// Allocates memory for a value from a pool and moves the value there. The value is never
/// dropped. `None` if there is no memory.
///
/// # Safety
///
/// `pool` is a valid pool.
pub unsafe fn allocate<T>(pool: *mut ngx_pool_t, value: T) -> Option<NonNull<T>> {
    // SAFETY: the pool is valid.
    unsafe { allocate_with(pool, || value, &[]) }
}

/// Like [`allocate`], for a value that is made in its place, and copies bytes behind it.
///
/// # Safety
///
/// `pool` is a valid pool.
pub unsafe fn allocate_with<T>(
    pool: *mut ngx_pool_t,
    value: impl FnOnce() -> T,
    bytes: &[u8],
) -> Option<NonNull<T>> {
    // If `NGX_ALIGNMENT` is 4, the pool aligns less than a `u64` needs.
    let slack = align_of::<T>().saturating_sub(nginx_sys::NGX_ALIGNMENT);
    let size = size_of::<T>().checked_add(bytes.len())?.checked_add(slack)?;
    // SAFETY: the pool is valid.
    let place = NonNull::new(unsafe { ngx_palloc(pool, size) }.cast::<u8>())?;
    // SAFETY:
    // 1. Both alignments are powers of two, so what is missing is `slack` at most.
    // 2. The memory is new, large enough, and aligned for `T`.
    unsafe {
        let missing = if slack == 0 { 0 } else { place.align_offset(align_of::<T>()) };
        let place = place.add(missing).cast::<T>();
        place.write(value());
        if !bytes.is_empty() {
            let rest: *mut u8 = place.as_ptr().add(1).cast();
            rest.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        }
        Some(place)
    }
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

/// The significant bytes of a server address: the path of a Unix domain socket counts up to its
/// end.
///
/// # Safety
///
/// The address is valid, and the answer is used no longer than it is.
pub unsafe fn address<'a>(sockaddr: *const sockaddr, socklen: socklen_t) -> &'a [u8] {
    // SAFETY: the address is of this length.
    let address = unsafe { slice::from_raw_parts(sockaddr.cast::<u8>(), socklen as usize) };
    // SAFETY: any address has a family.
    if unsafe { (*sockaddr).sa_family } != libc::AF_UNIX as u16 {
        return address;
    }
    let path = offset_of!(libc::sockaddr_un, sun_path);
    let end = address.iter().skip(path).position(|&byte| byte == 0);
    end.and_then(|end| address.get(..path.checked_add(end)?)).unwrap_or(address)
}

/// The text of a server address, as nginx writes it, with its port.
pub struct AddressText {
    text: [u8; AddressText::LONGEST],
    length: usize,
}

impl AddressText {
    /// `unix:` and a path.
    const LONGEST: usize = 5 + size_of::<libc::sockaddr_un>();

    /// The text of an address, which is one that [`address`] gives.
    pub fn of(address: &[u8]) -> Self {
        let mut text = [0; AddressText::LONGEST];
        // nginx looks for the end of a path.
        let mut copy = mem::MaybeUninit::<libc::sockaddr_storage>::zeroed();
        let length = address.len().min(size_of::<libc::sockaddr_un>());
        // SAFETY: there is room for so many bytes, and zeroes follow them; nginx writes at most as many
        // bytes as there is room for.
        let length = unsafe {
            ptr::copy_nonoverlapping(address.as_ptr(), copy.as_mut_ptr().cast(), length);
            let length = length as socklen_t;
            ngx_sock_ntop(copy.as_mut_ptr().cast(), length, text.as_mut_ptr(), text.len(), 1)
        };
        AddressText { text, length: length.min(text.len()) }
    }

    /// The text.
    pub fn as_bytes(&self) -> &[u8] {
        self.text.get(..self.length).unwrap_or_default()
    }
}

/// Whether an address is of a Unix domain socket.
pub fn is_unix(address: &[u8]) -> bool {
    let family = address.get(offset_of!(libc::sockaddr, sa_family)..);
    let family =
        family.and_then(<[u8]>::first_chunk).map(|&bytes| sa_family_t::from_ne_bytes(bytes));
    family == Some(libc::AF_UNIX as sa_family_t)
}

/// A text in nginx's form.
pub fn as_ngx_str(text: &[u8]) -> ngx_str_t {
    ngx_str_t { len: text.len(), data: text.as_ptr().cast_mut() }
}

/// The lines of a header, in nginx's parts of a list.
///
/// # Safety
///
/// The list is one of lines, and initialised: of a request, or of an upstream whose response header
/// was read.
pub unsafe fn header_lines(header: &ngx_list_t) -> impl Iterator<Item = &[ngx_table_elt_t]> {
    let first: *const ngx_list_part_t = &raw const header.part;
    // SAFETY: the list is initialised: each part holds `nelts` lines, and the last points to none.
    let parts = iter::successors(unsafe { first.as_ref() }, |part| unsafe { part.next.as_ref() });
    parts.filter(|part| part.nelts != 0).map(|part| {
        // SAFETY: as above.
        unsafe { slice::from_raw_parts(part.elts.cast(), part.nelts) }
    })
}

/// Whether a line of a header has this name.
pub fn is_named(line: &ngx_table_elt_t, name: &[u8]) -> bool {
    line.key.len == name.len() && line.key.as_bytes().eq_ignore_ascii_case(name)
}

/// Evaluates text with variables for a request; `None` if there is no memory. The answer lives as
/// long as the request.
///
/// # Safety
///
/// The request is valid, and the text was compiled for its configuration.
pub unsafe fn evaluate<'a>(
    request: *mut ngx_http_request_t,
    value: *const ngx_http_complex_value_t,
) -> Option<&'a [u8]> {
    let mut text = ngx_str_t::empty();
    // SAFETY: both are valid; nginx only reads the compiled value. A text with variables is copied
    // into the request's memory.
    unsafe {
        let rc = ngx_http_complex_value(request, value.cast_mut(), &raw mut text);
        (rc == OK).then_some(NgxStr::from_ngx_str(text).as_bytes())
    }
}

/// Text with variables, compiled.
pub enum ComplexValue {
    /// One variable and no other text, by nginx's index: no text is composed.
    Variable(ngx_uint_t),
    /// Any text.
    Text(ngx_http_complex_value_t),
}

impl ComplexValue {
    /// Compiles a variable. If the answer is `None`, nginx has logged the error.
    ///
    /// # Safety
    ///
    /// `cf` is the configuration being read.
    pub unsafe fn variable(cf: *mut ngx_conf_t, name: &[u8]) -> Option<Self> {
        let mut name = as_ngx_str(name);
        // SAFETY: `cf` is being read; nginx copies the name.
        let index = unsafe { ngx_http_get_variable_index(cf, &raw mut name) };
        ngx_uint_t::try_from(index).ok().map(ComplexValue::Variable)
    }

    /// Compiles text with variables. If the answer is `None`, nginx has logged the error.
    ///
    /// # Safety
    ///
    /// `cf` is the configuration being read, and `text` is followed by a null byte and lives as
    /// long as the configuration, as directive arguments do.
    pub unsafe fn compile(cf: *mut ngx_conf_t, text: &[u8]) -> Option<Self> {
        let mut text = as_ngx_str(text);
        // SAFETY: both are structures of numbers and pointers, for which zeroes are valid.
        let (mut value, mut compile): (ngx_http_complex_value_t, ngx_http_compile_complex_value_t) =
            unsafe { (mem::zeroed(), mem::zeroed()) };
        compile.cf = cf;
        compile.value = &raw mut text;
        compile.complex_value = &raw mut value;
        // SAFETY: all that `compile` points to is valid during the call. nginx copies the text's
        // pointer, not the pointer to it, so `value` may be moved and `text` may go.
        let rc = unsafe { ngx_http_compile_complex_value(&raw mut compile) };
        (rc == OK).then_some(ComplexValue::Text(value))
    }

    /// Evaluates the text for a request; `None` if there is no memory. The bytes may be the
    /// variable's own: do not use them after another variable was evaluated.
    ///
    /// # Safety
    ///
    /// `request` is a valid request, and the text was compiled for its configuration.
    pub unsafe fn evaluate(&self, request: *mut ngx_http_request_t) -> Option<ngx_str_t> {
        let mut text = ngx_str_t::empty();
        match self {
            ComplexValue::Variable(index) => {
                // SAFETY: the request is valid, and nginx has given the index.
                let value = unsafe { ngx_http_get_flushed_variable(request, *index).as_ref() }?;
                // As in any text, a variable that is not found is empty.
                if value.not_found() == 0 {
                    text = ngx_str_t { len: value.len() as usize, data: value.data };
                }
                Some(text)
            }
            ComplexValue::Text(value) => {
                // SAFETY: the request is valid, and so is the value.
                let value = unsafe { evaluate(request, value)? };
                Some(as_ngx_str(value))
            }
        }
    }
}

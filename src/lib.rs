//! An nginx module that replaces the `keepalive` directive of `upstream {}` and keeps idle
//! connections in slices: a connection is only ever reused under the same slice key.
//!
//! The rooms, from top to bottom; each uses only those below it:
//!
//! - `module`: tables, directive handlers, process hooks. It sets upstreams up, and warns.
//! - `variables`: what the module did for a request, for logs. `status`: the counters of upstreams.
//! - `peer`: the callbacks around the balancer. `trace` remembers a request's attempts.
//! - `idle`: a parked connection: park, wake, close.
//! - `upstream`: the live upstream of a worker, which owns every change of state.
//! - [`conf`]: arguments become settings; [`conf::params`] is their grammar.
//! - `zone`: shared memory for the counters.
//! - [`policy`]: the rules of reuse. [`counters`]: what happens to connections. [`pool`]: the slots
//!   of idle connections, in slices. [`hints`]: the grammar of the `Keep-Alive` response header.
//! - `builtin`: nginx's own keepalive module. `tls_sessions`: where nginx mixes TLS sessions.
//! - `nginx`: the few wrappers that the `ngx` crate lacks.
//!
//! A request's way: settings → `peer` → `upstream.find` → `upstream.take` → `idle::wake`; and back:
//! `peer` → `policy` → `upstream.keep` → `idle::park`.
//!
//! `policy`, `pool`, `hints`, `conf::params`, `counters` and the formats of the status are pure: no
//! unsafe code, nothing of nginx, the time as an argument. The rest is the border to nginx: it has
//! no policy, and its callbacks never panic.

mod builtin;
pub mod conf;
pub mod counters;
pub mod hints;
mod idle;
mod module;
mod nginx;
mod peer;
pub mod policy;
pub mod pool;
mod status;
#[cfg(ngx_feature = "http_ssl")]
mod tls_sessions;
mod trace;
mod upstream;
mod variables;
mod zone;

/// What nginx looks for in a shared object.
#[cfg(feature = "export-modules")]
#[allow(non_upper_case_globals)]
mod exports {
    use core::ffi::{CStr, c_char};
    use core::ptr;

    use nginx_sys::ngx_module_t;

    const NAME: &CStr = c"ngx_http_upstream_sliced_keepalive_module";

    /// The built-in module. The first module that accepts a directive wins, so ours is put
    /// before this one.
    const BEFORE: &CStr = c"ngx_http_upstream_keepalive_module";

    #[unsafe(no_mangle)]
    static mut ngx_modules: [*const ngx_module_t; 2] =
        [&raw const crate::module::ngx_http_upstream_sliced_keepalive_module, ptr::null()];

    #[unsafe(no_mangle)]
    static mut ngx_module_names: [*const c_char; 2] = [NAME.as_ptr(), ptr::null()];

    #[unsafe(no_mangle)]
    static mut ngx_module_order: [*const c_char; 3] = [NAME.as_ptr(), BEFORE.as_ptr(), ptr::null()];
}

//! An nginx module that replaces the `keepalive` directive of `upstream {}` and keeps idle
//! connections in slices: a connection is only ever reused under the same slice key.
//!
//! The map of the house:
//!
//! - [`conf`]: the directives and the configuration of an upstream; [`conf::params`] is the
//!   grammar of the directive's arguments.
//! - [`pool`]: the sliced idle pool. It decides everything: what is reused, what is kept, what is
//!   closed.
//! - [`hints`]: the grammar of the `Keep-Alive` response header.
//! - `peer`: the hooks around the balancer, which ask the pool and do what it says.
//! - `idle`: a connection while it is idle.
//! - `builtin`: nginx's own keepalive module: find it, silence it, pass directives on.
//! - [`counters`]: what happens to connections, counted; `zone` is the memory in which the workers
//!   share it.
//! - `status`: the directive `keepalive_status`, which shows it, and the formats.
//! - `tls_sessions`: a warning about a configuration in which nginx mixes TLS sessions.
//! - `variables`: what a request did, for logs; `trace` remembers it.
//! - `nginx`: the few wrappers that the `ngx` crate lacks.
//!
//! A request's way through: `conf` → `peer::init` → `peer::get` → `pool.take` → `idle::wake`; and
//! back: `peer::free` → `pool.put` → `idle::park`.
//!
//! `pool`, `hints`, `conf::params`, `counters` and the formats are pure: no unsafe code, nothing of nginx, tested by
//! themselves. The rest is the border to nginx: it has no policy, and its callbacks never panic.

mod builtin;
pub mod conf;
pub mod counters;
pub mod hints;
mod idle;
mod nginx;
mod peer;
pub mod pool;
mod status;
#[cfg(ngx_feature = "http_ssl")]
mod tls_sessions;
mod trace;
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
        [&raw const crate::conf::ngx_http_upstream_sliced_keepalive_module, ptr::null()];

    #[unsafe(no_mangle)]
    static mut ngx_module_names: [*const c_char; 2] = [NAME.as_ptr(), ptr::null()];

    #[unsafe(no_mangle)]
    static mut ngx_module_order: [*const c_char; 3] = [NAME.as_ptr(), BEFORE.as_ptr(), ptr::null()];
}

//! An nginx module that replaces the `keepalive` directive of `upstream {}` and keeps idle
//! connections in slices: a connection is reused only under the same slice key.
//!
//! The rooms, from top to bottom; each uses only rooms below it:
//!
//! - `module`: tables, directive handlers, process hooks. It sets upstreams up, and warns.
//! - `variables`: the actions of the module for a request, for logs. `status`: the counters of
//!   upstreams. `sharing`: what a worker that shares connections does beside its requests.
//! - `peer`: the callbacks around the balancer. `trace`: the attempts of a request.
//! - `idle`: a connection while it is idle: park, wake, close.
//! - `upstream`: the live upstream of a worker, which owns every change of state.
//! - [`conf`]: arguments become settings; [`conf::params`] is their grammar.
//! - `location`: the configuration of a location, its number, and those of its TLS settings.
//! - [`attributes`]: what a connection was made with, where that can differ by request.
//! - `learned`: the learned idle timeouts of servers, in shared memory.
//! - `zone`: shared memory for the counters, and for connections. `handover`: descriptors on their
//!   way from one worker to another. `builtin`: nginx's own keepalive module.
//! - `nginx`: the few wrappers that the `ngx` crate lacks.
//! - [`shared`]: the idle connections of all workers together. [`guarded`]: memory in which a process
//!   can die.
//! - [`policy`]: the rules of reuse, and the estimate of a server's idle timeout. [`hints`]: the
//!   grammar of the `Keep-Alive` response header.
//! - [`counters`]: the events of connections, counted.
//! - [`pool`]: the slots of idle connections, in slices.
//!
//! The path of a request: `peer` → `upstream.take` → `idle::wake`; and after it:
//! `peer` → `policy` → `upstream.keep` → `idle::park`.
//!
//! `policy`, `pool`, `shared`, `guarded`, `attributes`, `hints`, `conf::params`, `counters` and the
//! formats of the status are pure: they have no unsafe code, do not use nginx, and take the time as an
//! argument. The rest is the border to nginx: it has no policy, and its callbacks never panic.

// In an nginx without TLS, what is about TLS has no user.
#![cfg_attr(not(ngx_feature = "http_ssl"), allow(dead_code, unused_imports, unused_mut))]

pub mod attributes;
mod builtin;
pub mod conf;
pub mod counters;
pub mod guarded;
mod handover;
pub mod hints;
mod idle;
mod learned;
mod location;
mod module;
mod nginx;
mod peer;
pub mod policy;
pub mod pool;
pub mod shared;
mod sharing;
mod status;
mod trace;
mod upstream;
mod variables;
mod zone;

/// The symbols that nginx looks for in a shared object.
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

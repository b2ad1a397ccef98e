//! Whether the nginx that runs is one like that for which the module was built. nginx compares its
//! version and a signature of its options, but a fork or a patched nginx can have both of another one,
//! and structures of its own.
//!
//! nginx's directives and variables say where values lie in the structures of the running nginx, and
//! its arrays of connections and events, how large these are. What is left is
//! `ngx_http_upstream_t`: see [`crate::nginx::layout`].

use core::mem::offset_of;
use core::ptr;

use nginx_sys::{
    ngx_command_t, ngx_conf_set_flag_slot, ngx_conf_set_msec_slot, ngx_conf_set_num_slot,
    ngx_conf_t, ngx_cycle_t, ngx_hash_key_t, ngx_http_core_loc_conf_t, ngx_http_core_main_conf_t,
    ngx_http_core_srv_conf_t, ngx_http_request_t, ngx_http_upstream_conf_t, ngx_http_variable_t,
    ngx_module_t,
};
use ngx::http::{HttpModule as _, HttpModuleMainConf as _, NgxHttpCoreModule};

use super::upstream_modules::{self, Set};
use crate::nginx;

/// A directive, and where its value is to lie.
type Place = (&'static [u8], usize);

const MAIN: [Place; 2] = [
    (b"variables_hash_max_size", offset_of!(ngx_http_core_main_conf_t, variables_hash_max_size)),
    (
        b"server_names_hash_bucket_size",
        offset_of!(ngx_http_core_main_conf_t, server_names_hash_bucket_size),
    ),
];

const SERVER: [Place; 2] = [
    (b"client_header_timeout", offset_of!(ngx_http_core_srv_conf_t, client_header_timeout)),
    (b"underscores_in_headers", offset_of!(ngx_http_core_srv_conf_t, underscores_in_headers)),
];

const LOCATION: [Place; 4] = [
    (b"client_body_timeout", offset_of!(ngx_http_core_loc_conf_t, client_body_timeout)),
    (b"log_not_found", offset_of!(ngx_http_core_loc_conf_t, log_not_found)),
    (b"open_file_cache_events", offset_of!(ngx_http_core_loc_conf_t, open_file_cache_events)),
    (b"types_hash_bucket_size", offset_of!(ngx_http_core_loc_conf_t, types_hash_bucket_size)),
];

/// Of the modules whose locations pass requests to upstreams, without the prefix.
const UPSTREAM: [Place; 6] = [
    (b"connect_timeout", offset_of!(ngx_http_upstream_conf_t, connect_timeout)),
    (b"read_timeout", offset_of!(ngx_http_upstream_conf_t, read_timeout)),
    (b"next_upstream_tries", offset_of!(ngx_http_upstream_conf_t, next_upstream_tries)),
    (b"buffering", offset_of!(ngx_http_upstream_conf_t, buffering)),
    (b"intercept_errors", offset_of!(ngx_http_upstream_conf_t, intercept_errors)),
    (b"socket_keepalive", offset_of!(ngx_http_upstream_conf_t, socket_keepalive)),
];

/// Variables, and where in a request their values are to lie.
const REQUEST: [Place; 2] = [
    (b"http_host", offset_of!(ngx_http_request_t, headers_in.host)),
    (b"request_uri", offset_of!(ngx_http_request_t, unparsed_uri)),
];

/// A structure that differs in the running nginx, if there is one: for the configuration.
///
/// # Safety
///
/// `cf` is being read.
pub unsafe fn other_structure(cf: *mut ngx_conf_t) -> Option<&'static str> {
    let core = NgxHttpCoreModule::module();
    let of_core = [
        ("ngx_http_core_main_conf_t", &MAIN[..]),
        ("ngx_http_core_srv_conf_t", &SERVER),
        ("ngx_http_core_loc_conf_t", &LOCATION),
    ];
    for (name, places) in of_core {
        // SAFETY: a module of nginx is valid.
        if unsafe { differ(core, b"", 0, places) } {
            return Some(name);
        }
    }
    // SAFETY: `cf` is being read.
    if unsafe { differs_in_variables(cf) } {
        return Some("ngx_http_request_t");
    }
    // SAFETY: `cf` is being read.
    for module in unsafe { upstream_modules::all(cf) } {
        // SAFETY: as above.
        if unsafe { differ(module.module, module.prefix, module.offset, &UPSTREAM) } {
            return Some("ngx_http_upstream_conf_t");
        }
    }
    None
}

/// Whether the values of a module's directives lie elsewhere, in a structure at this offset. Those
/// that nginx's usual handlers do not set are not looked at.
///
/// # Safety
///
/// The module is valid.
unsafe fn differ(module: &ngx_module_t, prefix: &[u8], offset: usize, places: &[Place]) -> bool {
    const USUAL: [Set; 3] = [ngx_conf_set_flag_slot, ngx_conf_set_msec_slot, ngx_conf_set_num_slot];
    // SAFETY: the directives of a module live as long as it.
    let mut commands = unsafe { nginx::commands(module).map(|command| &*command) };
    let is_usual = |command: &ngx_command_t| {
        command.set.is_some_and(|set| USUAL.iter().any(|&usual| ptr::fn_addr_eq(set, usual)))
    };
    commands.any(|command| {
        let name = command.name.as_bytes().strip_prefix(prefix).unwrap_or_default();
        let place = places.iter().find(|(directive, _)| *directive == name);
        place.is_some_and(|(_, at)| is_usual(command) && command.offset.wrapping_sub(offset) != *at)
    })
}

/// Whether variables of nginx lie elsewhere in a request.
///
/// # Safety
///
/// `cf` is being read, and nginx has added its variables.
unsafe fn differs_in_variables(cf: *mut ngx_conf_t) -> bool {
    // SAFETY: `cf` is being read. The names of variables have them as their values.
    unsafe {
        let core = NgxHttpCoreModule::main_conf(&*cf);
        let Some(all) = core.and_then(|core| core.variables_keys.as_ref()) else { return false };
        all.keys.as_slice::<ngx_hash_key_t>().iter().any(|key| {
            let place = REQUEST.iter().find(|(name, _)| *name == key.key.as_bytes());
            let variable = key.value.cast::<ngx_http_variable_t>().as_ref();
            place.zip(variable).is_some_and(|((_, at), variable)| variable.data != *at)
        })
    }
}

/// Whether connections and events are as large in the running nginx: for a worker, which has some.
///
/// # Safety
///
/// The cycle is that of the worker.
pub unsafe fn has_other_connections(cycle: &ngx_cycle_t) -> bool {
    // One that is larger than nginx's is still in the array.
    if cycle.connection_n < 8 {
        return false;
    }
    // SAFETY: there are as many events of each kind as connections, and each has its own.
    unsafe {
        let second = &*cycle.connections.add(1);
        let (read, write) = (cycle.read_events.add(1), cycle.write_events.add(1));
        !ptr::eq(second.read, read) || !ptr::eq(second.write, write)
    }
}

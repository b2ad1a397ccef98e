//! The module as nginx sees it: its tables, configurations and process hooks. It knows all rooms,
//! and no room knows it.

use core::ffi::{c_char, c_void};
use core::mem::{self, offset_of};
use core::ptr;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use nginx_sys::{
    NGX_CONF_1MORE, NGX_CONF_NOARGS, NGX_CONF_TAKE1, NGX_CONF_TAKE12, NGX_CONF_TAKE123,
    NGX_HTTP_LOC_CONF, NGX_HTTP_LOC_CONF_OFFSET, NGX_HTTP_MODULE, NGX_HTTP_SRV_CONF_OFFSET,
    NGX_HTTP_UPS_CONF, NGX_LOG_EMERG, NGX_PROCESS_HELPER, ngx_command_t, ngx_conf_t, ngx_cycle_t,
    ngx_http_module_t, ngx_int_t, ngx_module_t, ngx_pid, ngx_process, ngx_str_t, ngx_uint_t,
};
use ngx::core::{NGX_CONF_ERROR, NGX_CONF_OK, Pool as Memory};
use ngx::http::{
    HttpModule, HttpModuleConfExt, HttpModuleLocationConf, HttpModuleMainConf,
    HttpModuleServerConf, Merge, NgxHttpUpstreamModule,
};
use ngx::{ngx_conf_log_error, ngx_log_error, ngx_string};

use crate::conf::MainConf;
use crate::counters::Pid;
use crate::handover;
use crate::learned::Learned;
use crate::location::LocationConf;
use crate::nginx::layout::OTHER_NGINX;
use crate::nginx::{self, layout};
use crate::sharing;
use crate::upstream::{self, ServerConf, Upstream};
use crate::variables;

mod directives;
mod locations;
mod run_time;
mod running;
mod set_up;
mod upstream_modules;
mod varieties;
mod warnings;

/// The HTTP module.
#[derive(Debug)]
struct Module;

impl HttpModule for Module {
    fn module() -> &'static ngx_module_t {
        nginx::this_module()
    }

    unsafe extern "C" fn create_main_conf(cf: *mut ngx_conf_t) -> *mut c_void {
        // SAFETY: nginx passes a valid `cf`.
        unsafe { create::<MainConf>(cf) }
    }

    unsafe extern "C" fn create_srv_conf(cf: *mut ngx_conf_t) -> *mut c_void {
        // SAFETY: nginx passes a valid `cf`.
        unsafe { create::<ServerConf>(cf) }
    }

    unsafe extern "C" fn create_loc_conf(cf: *mut ngx_conf_t) -> *mut c_void {
        // SAFETY: nginx passes a valid `cf`.
        unsafe { create::<LocationConf>(cf) }
    }

    /// Merges the configuration of a location into that of one inside of it, and gives that one its
    /// number.
    unsafe extern "C" fn merge_loc_conf(
        cf: *mut ngx_conf_t,
        outer: *mut c_void,
        inner: *mut c_void,
    ) -> *mut c_char {
        let (outer, inner): (*mut LocationConf, *mut LocationConf) = (outer.cast(), inner.cast());
        // SAFETY: nginx passes two configurations that `create_loc_conf` has made, to which nothing
        // else refers, and sets the context to that of the inner one.
        unsafe {
            if (*inner).merge(&*outer).is_err() {
                return NGX_CONF_ERROR;
            }
            match locations::number(cf, (*outer).number) {
                Some(number) => (*inner).number = number,
                None => {
                    ngx_log_error!(NGX_LOG_EMERG, (*cf).log, "could not allocate memory");
                    return NGX_CONF_ERROR;
                }
            }
        }
        NGX_CONF_OK
    }

    /// Refuses an nginx for which the module was not built, before it uses more of its structures.
    unsafe extern "C" fn preconfiguration(cf: *mut ngx_conf_t) -> ngx_int_t {
        if let Some(bit_field) = layout::wrong_bit_field() {
            ngx_conf_log_error!(
                NGX_LOG_EMERG,
                cf,
                "ngx_http_upstream_sliced_keepalive_module was built wrongly: bindgen and the C \
                 compiler disagree on {bit_field}"
            );
            return nginx::ERROR;
        }
        // SAFETY: nginx passes a `cf` that is being read.
        if let Some(structure) = unsafe { running::other_structure(cf) } {
            ngx_conf_log_error!(NGX_LOG_EMERG, cf, "{OTHER_NGINX} {structure} differs");
            return nginx::ERROR;
        }
        // SAFETY: `cf` is valid.
        unsafe { variables::add(cf) }
    }

    /// Frees what is needed only while the configuration is read.
    unsafe extern "C" fn postconfiguration(cf: *mut ngx_conf_t) -> ngx_int_t {
        // SAFETY: `create_main_conf` has made the configuration, to which nothing else refers.
        unsafe {
            let main = (*cf).http_main_conf_unchecked::<MainConf>(nginx::this_module());
            main.map(|main| mem::take(&mut (*main.as_ptr()).locations));
        }
        nginx::OK
    }

    /// Sets up the upstreams that have a `keepalive`. `ngx_http_upstream_module` comes before this
    /// module, so it has called each `init_upstream`, and `peer.init` is the balancer's, wherever
    /// in the block its directive stands.
    unsafe extern "C" fn init_main_conf(cf: *mut ngx_conf_t, conf: *mut c_void) -> *mut c_char {
        #[cfg(not(ngx_feature = "http_ssl"))]
        // SAFETY: nginx passes a valid `cf`.
        if unsafe { nginx::module(cf, c"ngx_openssl_module").is_some() } {
            ngx_conf_log_error!(
                NGX_LOG_EMERG,
                cf,
                "ngx_http_upstream_sliced_keepalive_module was built without \
                 --with-http_ssl_module, and this nginx with it"
            );
            return NGX_CONF_ERROR;
        }
        let conf: *mut MainConf = conf.cast();
        // SAFETY: `create_main_conf` has made `conf`, to which nothing else refers; `cf` is valid,
        // and this module comes after those that have locations of upstreams.
        unsafe {
            (*conf).configured = true;
            (*conf).number = NUMBER.fetch_add(1, Relaxed).saturating_add(1);
            warnings::warn(cf);
            match set_up::all(cf, conf) {
                Some(()) => NGX_CONF_OK,
                None => NGX_CONF_ERROR,
            }
        }
    }
}

/// Makes a configuration; null if there is no memory.
///
/// # Safety
///
/// `cf` is valid.
unsafe fn create<T: Default>(cf: *mut ngx_conf_t) -> *mut c_void {
    // SAFETY: `cf` has a pool.
    let conf = unsafe { nginx::allocate((*cf).pool, T::default()) };
    conf.map_or(ptr::null_mut(), |conf| conf.as_ptr().cast())
}

// SAFETY: `create_main_conf` makes a `MainConf`.
unsafe impl HttpModuleMainConf for Module {
    type MainConf = MainConf;
}

// SAFETY: `create_loc_conf` makes a `LocationConf`.
unsafe impl HttpModuleLocationConf for Module {
    type LocationConf = LocationConf;
}

// SAFETY: `create_srv_conf` makes a `ServerConf`.
unsafe impl HttpModuleServerConf for Module {
    type ServerConf = ServerConf;
}

static MODULE_CTX: ngx_http_module_t = ngx_http_module_t {
    preconfiguration: Some(Module::preconfiguration),
    postconfiguration: Some(Module::postconfiguration),
    create_main_conf: Some(Module::create_main_conf),
    init_main_conf: Some(Module::init_main_conf),
    create_srv_conf: Some(Module::create_srv_conf),
    merge_srv_conf: None,
    create_loc_conf: Some(Module::create_loc_conf),
    merge_loc_conf: Some(Module::merge_loc_conf),
};

static mut COMMANDS: [ngx_command_t; 8] = [
    command(ngx_string!("keepalive"), NGX_CONF_1MORE, Some(directives::set_keepalive), 0),
    command(ngx_string!("keepalive_hints"), NGX_CONF_TAKE123, Some(directives::set_hints), 0),
    command(
        ngx_string!("keepalive_requests"),
        NGX_CONF_TAKE1,
        Some(directives::set_number),
        offset_of!(ServerConf, directives.requests),
    ),
    command(
        ngx_string!("keepalive_time"),
        NGX_CONF_TAKE1,
        Some(directives::set_msec),
        offset_of!(ServerConf, directives.time),
    ),
    command(
        ngx_string!("keepalive_timeout"),
        NGX_CONF_TAKE1,
        Some(directives::set_msec),
        offset_of!(ServerConf, directives.timeout),
    ),
    command(ngx_string!("ntlm"), NGX_CONF_NOARGS, Some(directives::set_ntlm), 0),
    ngx_command_t {
        name: ngx_string!("keepalive_status"),
        type_: (NGX_HTTP_LOC_CONF | NGX_CONF_NOARGS | NGX_CONF_TAKE12) as ngx_uint_t,
        set: Some(directives::set_status),
        conf: NGX_HTTP_LOC_CONF_OFFSET,
        offset: 0,
        post: ptr::null_mut(),
    },
    ngx_command_t::empty(),
];

type Set = unsafe extern "C" fn(*mut ngx_conf_t, *mut ngx_command_t, *mut c_void) -> *mut c_char;

/// A directive of an upstream.
const fn command(name: ngx_str_t, args: u32, set: Option<Set>, offset: usize) -> ngx_command_t {
    ngx_command_t {
        name,
        type_: (NGX_HTTP_UPS_CONF | args) as ngx_uint_t,
        set,
        conf: NGX_HTTP_SRV_CONF_OFFSET,
        offset,
        post: ptr::null_mut(),
    }
}

/// The module.
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals)]
pub static mut ngx_http_upstream_sliced_keepalive_module: ngx_module_t = ngx_module_t {
    ctx: (&raw const MODULE_CTX).cast_mut().cast(),
    commands: (&raw mut COMMANDS).cast(),
    type_: NGX_HTTP_MODULE as ngx_uint_t,
    init_process: Some(init_process),
    exit_process: Some(exit_process),
    ..ngx_module_t::default()
};

/// The number of the last configuration.
static NUMBER: AtomicU64 = AtomicU64::new(0);

/// A worker begins.
///
/// # Safety
///
/// nginx calls it in each worker with its configuration.
unsafe extern "C" fn init_process(cycle: *mut ngx_cycle_t) -> ngx_int_t {
    // SAFETY: nginx sets the kind of the process before. The cache manager and the cache loader
    // serve no requests.
    if unsafe { ngx_process } == NGX_PROCESS_HELPER as ngx_uint_t {
        return nginx::OK;
    }
    // SAFETY: nginx passes a valid cycle, which is the worker's.
    let (log, is_other) = unsafe { ((*cycle).log, running::has_other_connections(&*cycle)) };
    if is_other {
        ngx_log_error!(NGX_LOG_EMERG, log, "{OTHER_NGINX} ngx_connection_t differs");
        return nginx::ERROR;
    }
    // SAFETY: nginx passes a valid cycle.
    match unsafe { begin(cycle) } {
        Some(()) => nginx::OK,
        None => nginx::ERROR,
    }
}

/// Begins all upstreams. `None` if there is not enough memory.
///
/// # Safety
///
/// The cycle is valid.
unsafe fn begin(cycle: *mut ngx_cycle_t) -> Option<()> {
    // SAFETY: the cycle is valid, and has a pool.
    let (memory, cycle) = unsafe { (Memory::from_ngx_pool((*cycle).pool), &*cycle) };
    let number = Module::main_conf(cycle).map_or(0, |conf| conf.number);
    if upstreams(cycle).any(|upstream| upstream.settings().keepalive.shared) {
        handover::begin();
    }
    let zone = Module::main_conf(cycle).and_then(|conf| conf.learned);
    let learned = match zone {
        // SAFETY: the zone is that of this worker's configuration.
        Some(zone) => Some(unsafe { Learned::open(zone, memory.clone())? }),
        None => None,
    };
    for upstream in upstreams(cycle) {
        upstream.begin(number, memory.clone())?;
        learned.iter().for_each(|learned| upstream.learn(learned));
    }
    if upstreams(cycle).any(Upstream::is_shared) {
        sharing::begin(&memory)?;
    }
    Some(())
}

/// A worker ends. Another process may get its number.
///
/// # Safety
///
/// nginx calls it in each worker with its configuration.
unsafe extern "C" fn exit_process(cycle: *mut ngx_cycle_t) {
    // SAFETY: nginx passes a valid cycle, and sets its number when a process starts.
    let (upstreams, process) = unsafe { (upstreams(&*cycle), ngx_pid as Pid) };
    upstreams.for_each(|upstream| upstream.end(process));
    sharing::end();
}

/// The live upstreams; there may be no `http` block.
fn upstreams(cycle: &ngx_cycle_t) -> impl Iterator<Item = &Upstream> {
    NgxHttpUpstreamModule::main_conf(cycle).into_iter().flat_map(upstream::all)
}

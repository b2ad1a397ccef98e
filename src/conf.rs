//! The directives, and the configuration of an upstream.

use core::ffi::{CStr, c_char, c_void};
use core::mem::offset_of;
use core::ptr::{self, NonNull};

use nginx_sys::{
    NGX_CONF_1MORE, NGX_CONF_TAKE1, NGX_CONF_TAKE12, NGX_HTTP_MODULE, NGX_HTTP_SRV_CONF_OFFSET,
    NGX_HTTP_UPS_CONF, NGX_LOG_EMERG, NGX_LOG_WARN, ngx_command_t, ngx_conf_set_msec_slot,
    ngx_conf_set_num_slot, ngx_conf_t, ngx_connection_t, ngx_http_module_t,
    ngx_http_upstream_init_peer_pt, ngx_http_upstream_init_pt, ngx_http_upstream_srv_conf_t,
    ngx_module_t, ngx_msec_t, ngx_parse_time, ngx_str_t, ngx_uint_t,
};
use ngx::core::{NGX_CONF_ERROR, NGX_CONF_OK, NgxStr};
use ngx::http::{
    HttpModule, HttpModuleConfExt, HttpModuleLocationConf, HttpModuleMainConf,
    HttpModuleServerConf, NgxHttpUpstreamModule,
};
use ngx::{ngx_conf_log_error, ngx_string};

pub(crate) use self::keepalive::Keepalive;
use self::params::{Error, HintsParams, Params};
pub(crate) use self::upstream::upstreams_of;
use crate::builtin;
use crate::idle::Idle;
use crate::nginx;
use crate::pool::Pool;
use crate::status::{self, LocationConf};
use crate::variables;
use crate::zone::{self, Counters};

mod keepalive;
pub mod params;
mod run_time;
mod upstream;

/// The pool of an upstream: pointers to connections, in the memory of the configuration.
pub(crate) type IdlePool = Pool<NonNull<ngx_connection_t>, ngx::core::Pool>;

/// The default of `keepalive_requests`, as in nginx.
const REQUESTS: ngx_uint_t = 1000;
/// The default of `keepalive_time`, as in nginx: 1 hour, in milliseconds.
const TIME: ngx_msec_t = 3_600_000;

/// The default of `margin` of `keepalive_hints`, in milliseconds.
const HINTS_MARGIN: u64 = 1000;

/// `NGX_CONF_UNSET_MSEC` and `NGX_CONF_UNSET_UINT`.
const UNSET: usize = usize::MAX;
/// No limit for how long a connection may be idle.
pub(crate) const FOREVER: ngx_msec_t = UNSET;

/// The module's configuration of all upstreams together.
#[derive(Debug, Default)]
pub struct MainConf {
    /// Whether there is a `keepalive_status` somewhere, or else nobody asks what was counted.
    pub(crate) status: bool,
    /// Whether the upstreams of the configuration file are set up. An upstream that is read later
    /// is made at run time.
    configured: bool,
}

/// The module's configuration of one upstream.
#[repr(C)]
pub struct ServerConf {
    /// `keepalive_requests`: most requests through one connection. [`UNSET`] until the upstream is
    /// initialised.
    pub(crate) requests: ngx_uint_t,
    /// `keepalive_time`: the age up to which a connection is kept, in milliseconds. [`UNSET`] until
    /// the upstream is initialised.
    pub(crate) time: ngx_msec_t,
    /// `keepalive_timeout`: how long a connection may be idle, in milliseconds; [`FOREVER`] if it
    /// is not set.
    pub(crate) timeout: ngx_msec_t,
    hints: Option<HintsParams>,
    /// By how much nginx closes before the server, if it follows the server's `Keep-Alive` header;
    /// in milliseconds. Set when the upstream is initialised.
    pub(crate) hints_margin: Option<u64>,
    /// The `keepalive` directive, if the upstream has one.
    pub(crate) keepalive: Option<Keepalive>,
    /// What `peer.init_upstream` was; only for an upstream that is made at run time.
    original_init_upstream: ngx_http_upstream_init_pt,
    /// What `peer.init` was.
    pub(crate) original_init_peer: ngx_http_upstream_init_peer_pt,
    /// Set when the upstream is initialised.
    pub(crate) pool: Option<IdlePool>,
    /// As many as the pool has slots, each initialised while its slot is in use.
    pub(crate) idle: *mut Idle,
    /// What happens to connections, counted.
    pub(crate) counters: Counters,
    /// Whether this worker has said that a slice key was cut.
    pub(crate) cut_logged: bool,
    /// Whether it was said that TLS sessions of different names are mixed.
    sessions_logged: bool,
    /// Whether this worker has said that a server's address is too long.
    pub(crate) address_logged: bool,
}

impl Default for ServerConf {
    fn default() -> Self {
        ServerConf {
            requests: UNSET,
            time: UNSET,
            timeout: FOREVER,
            hints: None,
            hints_margin: None,
            keepalive: None,
            original_init_upstream: None,
            original_init_peer: None,
            pool: None,
            idle: ptr::null_mut(),
            counters: Counters::default(),
            cut_logged: false,
            sessions_logged: false,
            address_logged: false,
        }
    }
}

impl ServerConf {
    /// The directives that the upstream has, and that have no effect without `keepalive`. Of the
    /// built-in module's, nothing is said if it keeps connections by `default`.
    fn without_keepalive(&self, default: bool) -> impl Iterator<Item = &'static str> + use<> {
        let alone = self.keepalive.is_none();
        [
            (self.hints.is_some(), "keepalive_hints"),
            (!default && self.requests != UNSET, "keepalive_requests"),
            (!default && self.time != UNSET, "keepalive_time"),
            (!default && self.timeout != UNSET, "keepalive_timeout"),
        ]
        .into_iter()
        .filter_map(move |(given, name)| (alone && given).then_some(name))
    }

    /// Sets what the configuration does not say.
    fn set_defaults(&mut self) {
        if self.requests == UNSET {
            self.requests = REQUESTS;
        }
        if self.time == UNSET {
            self.time = TIME;
        }
        self.hints_margin = match self.hints {
            None | Some(HintsParams::On(None)) => Some(HINTS_MARGIN),
            Some(HintsParams::On(Some(margin))) => Some(margin as u64),
            Some(HintsParams::Off) => None,
        };
    }
}

/// The HTTP module.
#[derive(Debug)]
pub struct Module;

impl Module {
    /// The configuration of an upstream, as nginx holds it: it may be written to.
    pub(crate) fn server_conf_of(
        upstream: &ngx_http_upstream_srv_conf_t,
    ) -> Option<NonNull<ServerConf>> {
        // SAFETY: `create_srv_conf` makes a `ServerConf`.
        unsafe { upstream.http_server_conf_unchecked(Self::module()) }
    }
}

impl HttpModule for Module {
    fn module() -> &'static ngx_module_t {
        // SAFETY: nginx writes to the module only while it starts or reads its configuration, and
        // no reference is held then.
        unsafe { &*ptr::addr_of!(ngx_http_upstream_sliced_keepalive_module) }
    }

    unsafe extern "C" fn create_main_conf(cf: *mut ngx_conf_t) -> *mut c_void {
        // SAFETY: nginx passes a valid `cf`.
        let conf = unsafe { nginx::allocate((*cf).pool, MainConf::default()) };
        conf.map_or(ptr::null_mut(), |conf| conf.as_ptr().cast())
    }

    unsafe extern "C" fn create_srv_conf(cf: *mut ngx_conf_t) -> *mut c_void {
        // SAFETY: nginx passes a valid `cf`.
        let conf = unsafe { nginx::allocate((*cf).pool, ServerConf::default()) };
        conf.map_or(ptr::null_mut(), |conf| conf.as_ptr().cast())
    }

    unsafe extern "C" fn create_loc_conf(cf: *mut ngx_conf_t) -> *mut c_void {
        // SAFETY: nginx passes a valid `cf`.
        let conf = unsafe { nginx::allocate((*cf).pool, LocationConf::default()) };
        conf.map_or(ptr::null_mut(), |conf| conf.as_ptr().cast())
    }

    /// Sets up the upstreams that have a `keepalive`. `ngx_http_upstream_module` comes before this
    /// module, so it has called each `init_upstream`, and `peer.init` is the balancer's, wherever
    /// in the block its directive stands.
    unsafe extern "C" fn init_main_conf(cf: *mut ngx_conf_t, conf: *mut c_void) -> *mut c_char {
        // SAFETY: nginx passes a valid `cf`, and `conf` comes from `create_main_conf`.
        let upstreams = unsafe {
            #[cfg(not(ngx_feature = "http_ssl"))]
            if nginx::module(cf, c"ngx_openssl_module").is_some() {
                ngx_conf_log_error!(
                    NGX_LOG_EMERG,
                    cf,
                    "ngx_http_upstream_sliced_keepalive_module was built without \
                     --with-http_ssl_module, and this nginx with it"
                );
                return NGX_CONF_ERROR;
            }
            (*conf.cast::<MainConf>()).configured = true;
            NgxHttpUpstreamModule::main_conf(&*cf)
        };
        let Some(upstreams) = upstreams else { return NGX_CONF_ERROR };

        for &upstream in upstreams_of(upstreams) {
            // SAFETY: the array holds pointers to upstreams, and `conf` is as above.
            unsafe {
                upstream::warn(cf, upstream);
                if upstream::init(cf, upstream).is_none() {
                    upstream::log_no_memory(cf, upstream);
                    return NGX_CONF_ERROR;
                }
                let shared = (*conf.cast::<MainConf>()).status;
                if shared && upstream::share(cf, upstream).is_none() {
                    return NGX_CONF_ERROR;
                }
            }
        }
        // SAFETY: `cf` is valid, and this module comes after those that have locations of upstreams.
        #[cfg(ngx_feature = "http_ssl")]
        unsafe {
            upstream::warn_sessions(cf);
        }
        NGX_CONF_OK
    }
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
    preconfiguration: Some(variables::add),
    postconfiguration: None,
    create_main_conf: Some(Module::create_main_conf),
    init_main_conf: Some(Module::init_main_conf),
    create_srv_conf: Some(Module::create_srv_conf),
    merge_srv_conf: None,
    create_loc_conf: Some(Module::create_loc_conf),
    merge_loc_conf: Some(Module::merge_loc_conf),
};

static mut COMMANDS: [ngx_command_t; 7] = [
    command(ngx_string!("keepalive"), NGX_CONF_1MORE, Some(set_keepalive), 0),
    command(ngx_string!("keepalive_hints"), NGX_CONF_TAKE12, Some(set_hints), 0),
    command(
        ngx_string!("keepalive_requests"),
        NGX_CONF_TAKE1,
        Some(set_number),
        offset_of!(ServerConf, requests),
    ),
    command(
        ngx_string!("keepalive_time"),
        NGX_CONF_TAKE1,
        Some(set_msec),
        offset_of!(ServerConf, time),
    ),
    command(
        ngx_string!("keepalive_timeout"),
        NGX_CONF_TAKE1,
        Some(set_msec),
        offset_of!(ServerConf, timeout),
    ),
    status::COMMAND,
    ngx_command_t::empty(),
];

/// The module.
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals)]
pub static mut ngx_http_upstream_sliced_keepalive_module: ngx_module_t = ngx_module_t {
    ctx: (&raw const MODULE_CTX).cast_mut().cast(),
    commands: (&raw mut COMMANDS).cast(),
    type_: NGX_HTTP_MODULE as ngx_uint_t,
    init_process: Some(zone::init_process),
    exit_process: Some(zone::exit_process),
    ..ngx_module_t::default()
};

type Set = unsafe extern "C" fn(*mut ngx_conf_t, *mut ngx_command_t, *mut c_void) -> *mut c_char;

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

/// The handler of `keepalive`.
///
/// # Safety
///
/// nginx calls it while it reads the directive, with the configuration that `create_srv_conf` made.
unsafe extern "C" fn set_keepalive(
    cf: *mut ngx_conf_t,
    cmd: *mut ngx_command_t,
    conf: *mut c_void,
) -> *mut c_char {
    let conf: *mut ServerConf = conf.cast();
    // SAFETY: nginx passes the configuration that `create_srv_conf` made.
    if unsafe { (*conf).keepalive.is_some() } {
        return message(c"is duplicate");
    }
    // SAFETY: nginx passes a valid `cf` and `cmd`; the arguments, the first of which is the
    // directive's name, live as long as the configuration. Nothing else refers to `conf` during
    // the assignment.
    unsafe {
        let args = (*(*cf).args).as_slice::<ngx_str_t>();
        let params = match params::parse(args.iter().skip(1).map(ngx_str_t::as_bytes)) {
            Ok(params) => params,
            Err(error) => {
                log_error(cf, cmd, error);
                return NGX_CONF_ERROR;
            }
        };
        warn(cf, &params);

        let at_run_time = Module::main_conf(&*cf).is_some_and(|main| main.configured);
        let keepalive = if at_run_time {
            run_time::compile(cf, &params)
        } else {
            Keepalive::compile(cf, &params)
        };
        if keepalive.is_none() {
            return NGX_CONF_ERROR;
        }
        (*conf).keepalive = keepalive;

        if at_run_time {
            run_time::chain(cf, conf);
        }
        builtin::silence(cf)
    }
}

/// # Safety
///
/// `cf` is being read, and `cmd` is the directive.
pub(crate) unsafe fn log_error(cf: *mut ngx_conf_t, cmd: *mut ngx_command_t, error: Error<'_>) {
    match error {
        Error::Value(value) => {
            let value = NgxStr::from_bytes(value);
            // SAFETY: the directive is valid.
            let name = unsafe { NgxStr::from_ngx_str((*cmd).name) };
            ngx_conf_log_error!(
                NGX_LOG_EMERG,
                cf,
                "invalid value \"{value}\" in \"{name}\" directive"
            );
        }
        Error::Parameter(param) => {
            let param = NgxStr::from_bytes(param);
            ngx_conf_log_error!(NGX_LOG_EMERG, cf, "invalid parameter \"{param}\"");
        }
        Error::Duplicate(param) => {
            let param = NgxStr::from_bytes(param);
            ngx_conf_log_error!(NGX_LOG_EMERG, cf, "duplicate parameter \"{param}\"");
        }
    }
}

/// # Safety
///
/// `cf` is being read.
unsafe fn warn(cf: *mut ngx_conf_t, params: &Params<'_>) {
    if params.single {
        ngx_conf_log_error!(NGX_LOG_WARN, cf, "the \"single\" parameter is deprecated");
    }
    for name in params.without_key() {
        ngx_conf_log_error!(
            NGX_LOG_WARN,
            cf,
            "parameter \"{name}\" has no effect without \"slice_key\""
        );
    }
}

/// The handler of `keepalive_requests`.
///
/// # Safety
///
/// nginx calls it while it reads the directive, with the configuration that `create_srv_conf` made.
unsafe extern "C" fn set_number(
    cf: *mut ngx_conf_t,
    cmd: *mut ngx_command_t,
    conf: *mut c_void,
) -> *mut c_char {
    // SAFETY: nginx passes all three for this directive, whose offset is that of a number.
    unsafe {
        let rv = ngx_conf_set_num_slot(cf, cmd, conf);
        if rv == NGX_CONF_OK { builtin::pass_on(cf, cmd) } else { rv }
    }
}

/// The handler of `keepalive_time` and `keepalive_timeout`.
///
/// # Safety
///
/// nginx calls it while it reads the directive, with the configuration that `create_srv_conf` made.
unsafe extern "C" fn set_msec(
    cf: *mut ngx_conf_t,
    cmd: *mut ngx_command_t,
    conf: *mut c_void,
) -> *mut c_char {
    // SAFETY: nginx passes all three for this directive, whose offset is that of a time.
    unsafe {
        let rv = ngx_conf_set_msec_slot(cf, cmd, conf);
        if rv == NGX_CONF_OK { builtin::pass_on(cf, cmd) } else { rv }
    }
}

/// The handler of `keepalive_hints`.
///
/// # Safety
///
/// nginx calls it while it reads the directive, with the configuration that `create_srv_conf` made.
unsafe extern "C" fn set_hints(
    cf: *mut ngx_conf_t,
    cmd: *mut ngx_command_t,
    conf: *mut c_void,
) -> *mut c_char {
    let conf: *mut ServerConf = conf.cast();
    // SAFETY: nginx passes a valid `cf` and the configuration that `create_srv_conf` made.
    unsafe {
        if (*conf).hints.is_some() {
            return message(c"is duplicate");
        }
        let args = (*(*cf).args).as_slice::<ngx_str_t>();
        let args = args.iter().skip(1).map(ngx_str_t::as_bytes);
        match params::parse_hints(args, parse_msec) {
            Ok(hints) => (*conf).hints = Some(hints),
            Err(error) => {
                log_error(cf, cmd, error);
                return NGX_CONF_ERROR;
            }
        }
    }
    NGX_CONF_OK
}

/// A time as nginx writes it, in milliseconds.
fn parse_msec(text: &[u8]) -> Option<ngx_msec_t> {
    let mut text = nginx::as_ngx_str(text);
    // SAFETY: nginx reads the text, by its length.
    let time = unsafe { ngx_parse_time(&raw mut text, 0) };
    ngx_msec_t::try_from(time).ok()
}

/// What a directive's handler returns for nginx to say: `"keepalive" directive …`.
pub(crate) fn message(text: &'static CStr) -> *mut c_char {
    text.as_ptr().cast_mut()
}

//! The modules whose locations pass requests to upstreams. Their configurations of a location are
//! private structures, but the public table of a module's directives says where each value lies.

use core::ffi::{c_char, c_void};
use core::mem::offset_of;
use core::ptr;

use nginx_sys::{
    NGX_HTTP_LOC_CONF_OFFSET, NGX_HTTP_MODULE, ngx_array_t, ngx_command_t,
    ngx_conf_set_bitmask_slot, ngx_conf_set_flag_slot, ngx_conf_set_keyval_slot,
    ngx_conf_set_num_slot, ngx_conf_set_str_slot, ngx_conf_t, ngx_http_complex_value_t,
    ngx_http_set_complex_value_slot, ngx_http_set_complex_value_zero_slot,
    ngx_http_upstream_bind_set_slot, ngx_http_upstream_conf_t, ngx_keyval_t, ngx_module_t,
    ngx_str_t, ngx_uint_t,
};

use crate::nginx;
#[cfg(ngx_feature = "http_ssl")]
use crate::nginx::tls;

/// A handler of a directive.
pub type Set =
    unsafe extern "C" fn(*mut ngx_conf_t, *mut ngx_command_t, *mut c_void) -> *mut c_char;

/// A module whose locations pass requests to upstreams.
pub struct UpstreamModule {
    /// nginx's table of it.
    pub module: &'static ngx_module_t,
    /// Where in its configuration of a location that of the upstream begins, in bytes.
    pub offset: usize,
    /// What the names of its directives begin with: `proxy_`.
    pub prefix: &'static [u8],
}

/// The modules of this kind that have merged their configurations of locations.
///
/// # Safety
///
/// `cf` is that of an `init_main_conf`: nginx merges the configurations of one module after the
/// other.
pub unsafe fn all(cf: *mut ngx_conf_t) -> impl Iterator<Item = UpstreamModule> {
    // SAFETY: `cf` is being read, and modules are never freed.
    let modules = unsafe { nginx::modules(cf).map(|module| &*module) };
    let merged = modules.take_while(|module| !ptr::eq(*module, nginx::this_module()));
    let is_http = |module: &&ngx_module_t| module.type_ == NGX_HTTP_MODULE as ngx_uint_t;
    merged.filter(is_http).filter_map(UpstreamModule::new)
}

impl UpstreamModule {
    /// A module, if it has a directive like `proxy_bind`.
    fn new(module: &'static ngx_module_t) -> Option<Self> {
        // SAFETY: the directives of a module live as long as it.
        let mut commands = unsafe { nginx::commands(module).map(|command| &*command) };
        let bind = commands.find(|command| is(command, ngx_http_upstream_bind_set_slot))?;
        Some(UpstreamModule {
            module,
            offset: bind.offset.checked_sub(offset_of!(ngx_http_upstream_conf_t, local))?,
            prefix: bind.name.as_bytes().strip_suffix(b"bind")?,
        })
    }

    /// Its configuration of the upstream of a location.
    ///
    /// # Safety
    ///
    /// `confs` are the configurations of the location, by `ctx_index`.
    pub unsafe fn conf(&self, confs: *mut *mut c_void) -> *const ngx_http_upstream_conf_t {
        // SAFETY: there is one of each module, and it has one of an upstream at this offset.
        unsafe { (*confs.add(self.module.ctx_index)).byte_add(self.offset).cast() }
    }

    /// Writes the TLS settings of a location as text: the names and the values of all directives
    /// whose names begin with `proxy_ssl_`. Settings that mean the same have the same text, as far as
    /// that can be seen: a file is known by its name alone. `Some(None)` if they differ by request in
    /// a way that is not known; `None` if there is no memory.
    ///
    /// # Safety
    ///
    /// As for [`Self::conf`]; the configuration has TLS.
    #[cfg(ngx_feature = "http_ssl")]
    pub unsafe fn tls_settings(&self, confs: *mut *mut c_void) -> Option<Option<Vec<u8>>> {
        let mut text = Text::default();
        // The protocols of two modules differ, and so do their sessions.
        text.push(self.prefix)?;
        // SAFETY: the configurations are valid, and so are the directives.
        unsafe {
            let conf = self.conf(confs);
            let base: *const u8 = (*confs.add(self.module.ctx_index)).cast();
            for command in nginx::commands(self.module).map(|command| &*command) {
                let name = command.name.as_bytes().strip_prefix(self.prefix).unwrap_or_default();
                let is_tls = name.starts_with(b"ssl_") || name == ENABLE_NTLS;
                let is_unused = name == b"ssl_name" && !tls::uses_name(&*conf);
                if !is_tls || is_unused || NOT_OF_CONNECTIONS.contains(&name) {
                    continue;
                }
                text.push(name)?;
                match text.push_value(command, base)? {
                    Value::Constant => {}
                    Value::Variable if BY_REQUEST.contains(&name) => {}
                    Value::Variable => return Some(None),
                    // Only locations that inherit the same structure from the same place agree.
                    Value::Unknown => text.push(&(*conf).ssl.addr().to_ne_bytes())?,
                }
            }
        }
        Some(Some(text.0))
    }
}

/// The directives that do not change what a connection is: how it resumes a session, and where the
/// client certificate comes from.
const NOT_OF_CONNECTIONS: [&[u8]; 3] =
    [b"ssl_session_reuse", b"ssl_password_file", b"ssl_certificate_cache"];

/// The directives whose values are evaluated for each request, if they have variables.
const BY_REQUEST: [&[u8]; 3] = [b"ssl_name", b"ssl_certificate", b"ssl_certificate_key"];

/// Tengine's directive for the Chinese variant of TLS.
const ENABLE_NTLS: &[u8] = b"enable_ntls";

/// The value of a directive.
enum Value {
    /// One that is the same for all requests.
    Constant,
    /// One with variables.
    Variable,
    /// One of a kind that is not known.
    Unknown,
}

/// Whether a directive of locations has this handler.
fn is(command: &ngx_command_t, handler: Set) -> bool {
    command.conf == NGX_HTTP_LOC_CONF_OFFSET
        && command.set.is_some_and(|set| ptr::fn_addr_eq(set, handler))
}

/// Strings, each with its length.
#[derive(Default)]
struct Text(Vec<u8>);

impl Text {
    fn push(&mut self, string: &[u8]) -> Option<()> {
        self.0.try_reserve(size_of::<usize>().checked_add(string.len())?).ok()?;
        self.0.extend_from_slice(&string.len().to_ne_bytes());
        self.0.extend_from_slice(string);
        Some(())
    }

    /// Writes the value of a directive, if its kind is known. `None` if there is no memory.
    ///
    /// # Safety
    ///
    /// `conf` is the configuration of the directive's module, and merged.
    unsafe fn push_value(&mut self, command: &ngx_command_t, conf: *const u8) -> Option<Value> {
        let any = |handlers: &[Set]| handlers.iter().any(|&handler| is(command, handler));
        // SAFETY: nginx's handlers write values of these types to the offset.
        unsafe {
            let place = conf.add(command.offset);
            if any(&[ngx_conf_set_flag_slot, ngx_conf_set_num_slot, ngx_conf_set_bitmask_slot]) {
                self.push(&place.cast::<ngx_uint_t>().read().to_ne_bytes())?;
            } else if any(&[ngx_conf_set_str_slot]) {
                self.push((*place.cast::<ngx_str_t>()).as_bytes())?;
            } else if any(&[ngx_http_set_complex_value_slot, ngx_http_set_complex_value_zero_slot])
            {
                let value = place.cast::<*const ngx_http_complex_value_t>().read().as_ref();
                self.push(&[u8::from(value.is_some())])?;
                self.push(value.map_or(b"", |value| value.value.as_bytes()))?;
                if value.is_some_and(|value| !value.lengths.is_null()) {
                    return Some(Value::Variable);
                }
            } else if any(&[ngx_conf_set_keyval_slot]) {
                let pairs = place.cast::<*const ngx_array_t>().read().as_ref();
                let pairs = pairs.map_or(&[][..], |pairs| pairs.as_slice::<ngx_keyval_t>());
                self.push(&pairs.len().to_ne_bytes())?;
                for pair in pairs {
                    self.push(pair.key.as_bytes())?;
                    self.push(pair.value.as_bytes())?;
                }
            } else {
                return Some(Value::Unknown);
            }
        }
        Some(Value::Constant)
    }
}

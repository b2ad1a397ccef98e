//! In what the connections to each upstream can differ, by the locations of the configuration that
//! pass requests to it.

use core::ffi::c_void;
use core::iter;
use std::collections::HashMap;

use foldhash::fast::FixedState;
use nginx_sys::{
    ngx_conf_t, ngx_http_core_loc_conf_t, ngx_http_core_srv_conf_t, ngx_http_location_queue_t,
    ngx_http_upstream_srv_conf_t, ngx_queue_t,
};
use ngx::http::{HttpModule, HttpModuleMainConf, NgxHttpCoreModule};

use super::upstream_modules::{self, UpstreamModule};
use crate::attributes::Variety;
use crate::location::TlsNumbers;
#[cfg(ngx_feature = "http_ssl")]
use crate::location::{LocationConf, UNKNOWN};
#[cfg(ngx_feature = "http_ssl")]
use crate::nginx::{self, tls};

/// In what the connections to each upstream can differ.
#[derive(Default)]
pub struct Varieties {
    by_upstream: HashMap<*const ngx_http_upstream_srv_conf_t, Variety, FixedState>,
    /// Those of locations that choose the upstream by request.
    pub of_any: Variety,
    numbers: TlsNumbers,
}

impl Varieties {
    /// Those of an upstream.
    pub fn of(&self, upstream: *const ngx_http_upstream_srv_conf_t) -> Variety {
        let mut variety = self.by_upstream.get(&upstream).copied().unwrap_or_default();
        variety.add(self.of_any);
        variety
    }

    /// Reads the configurations of all locations, and gives their TLS settings numbers. `None` if
    /// there is no memory.
    ///
    /// # Safety
    ///
    /// The configuration file was read, and its locations are merged, but not yet sorted: `cf` is
    /// that of an `init_main_conf`.
    pub unsafe fn read(cf: *mut ngx_conf_t) -> Option<Self> {
        let mut all = Varieties::default();
        // SAFETY: `cf` is valid; the array holds pointers to servers, each with a context of its own.
        unsafe {
            let mut modules = vec![];
            for module in upstream_modules::all(cf) {
                modules.try_reserve(1).ok()?;
                modules.push(module);
            }
            let servers = NgxHttpCoreModule::main_conf(&*cf)?.servers;
            for &server in servers.as_slice::<*mut ngx_http_core_srv_conf_t>() {
                all.read_location((*(*server).ctx).loc_conf, &modules)?;
            }
        }
        Some(all)
    }

    /// Reads the configurations of a location and of those inside of it.
    ///
    /// # Safety
    ///
    /// As for [`Self::read`]; `confs` are the configurations of the location, by `ctx_index`.
    unsafe fn read_location(
        &mut self,
        confs: *mut *mut c_void,
        modules: &[UpstreamModule],
    ) -> Option<()> {
        // SAFETY: the configurations are valid. Each entry of the queue is one of exactly two kinds.
        unsafe {
            let core: *mut ngx_http_core_loc_conf_t =
                (*confs.add(NgxHttpCoreModule::module().ctx_index)).cast();
            for module in modules {
                self.read_module(confs, module, (*core).handler.is_some())?;
            }
            for entry in entries((*core).locations) {
                let location: *mut ngx_http_location_queue_t = entry.cast();
                let (exact, inclusive) = ((*location).exact, (*location).inclusive);
                let inner = if exact.is_null() { inclusive } else { exact };
                self.read_location((*inner).loc_conf, modules)?;
            }
        }
        Some(())
    }

    /// Reads a module's configuration of a location, which may have a handler of requests.
    ///
    /// # Safety
    ///
    /// As for [`Self::read_location`].
    unsafe fn read_module(
        &mut self,
        confs: *mut *mut c_void,
        module: &UpstreamModule,
        has_handler: bool,
    ) -> Option<()> {
        // SAFETY: the configurations are valid.
        unsafe {
            let conf = module.conf(confs);
            let mut variety = Variety { local: !(*conf).local.is_null(), ..Variety::default() };
            #[cfg(ngx_feature = "http_ssl")]
            if (*conf).ssl.as_ref().is_some_and(|ssl| !ssl.ctx.is_null()) {
                let number = match module.tls_settings(confs)? {
                    Some(settings) => self.numbers.number(settings)?,
                    None => UNKNOWN,
                };
                let own: *mut LocationConf = (*confs.add(nginx::this_module().ctx_index)).cast();
                (*own).tls.insert(conf.addr(), number);
                variety.tls = number;
                variety.name = tls::has_variable_name(&*conf);
                variety.certificate = tls::has_variable_certificate(&*conf);
            }
            self.by_upstream.try_reserve(1).ok()?;
            match (*conf).upstream {
                // A location that passes no requests on has what it inherits, too.
                upstream if upstream.is_null() && !has_handler => {}
                upstream if upstream.is_null() => self.of_any.add(variety),
                upstream => self.by_upstream.entry(upstream).or_default().add(variety),
            }
        }
        Some(())
    }
}

/// The entries of a queue, which may be missing.
///
/// # Safety
///
/// The queue is valid as long as the answer is used.
unsafe fn entries(queue: *mut ngx_queue_t) -> impl Iterator<Item = *mut ngx_queue_t> {
    // SAFETY: the queue is valid; the last entry is followed by the queue itself.
    unsafe {
        let first = queue.as_ref().map(|queue| queue.next);
        iter::successors(first, |entry| Some((**entry).next))
            .take_while(move |&entry| entry != queue)
    }
}

//! The numbers of locations.

use core::ptr;

use nginx_sys::{
    ngx_array_t, ngx_conf_t, ngx_http_conf_addr_t, ngx_http_conf_port_t, ngx_http_core_loc_conf_t,
    ngx_http_core_srv_conf_t, ngx_http_server_name_t,
};
use ngx::http::{HttpModule, HttpModuleConfExt, HttpModuleMainConf, NgxHttpCoreModule};

use crate::conf::MainConf;
use crate::nginx;

/// The number of the location whose configuration is being merged, inside of the one with the number
/// `outer`. `None` if there is no memory.
///
/// # Safety
///
/// The configuration file was read, and nginx merges the configurations of locations; `cf` has the
/// context of this one.
pub unsafe fn number(cf: *mut ngx_conf_t, outer: u64) -> Option<u64> {
    let core = NgxHttpCoreModule::module();
    // SAFETY: the context has configurations of these types, which nothing changes meanwhile.
    unsafe {
        let main = (*cf).http_main_conf_unchecked::<MainConf>(nginx::this_module())?;
        let server = (*cf).http_server_conf_unchecked::<ngx_http_core_srv_conf_t>(core)?;
        let location = (*cf).http_location_conf_unchecked::<ngx_http_core_loc_conf_t>(core)?;
        let numbers = &mut (*main.as_ptr()).locations;
        let of_server = *(*server.as_ref().ctx).loc_conf.add(core.ctx_index);
        if !ptr::eq(of_server.cast(), location.as_ptr()) {
            let location = location.as_ref();
            let kind = [kind(location)];
            return numbers.number(outer, [location.name.as_bytes(), &kind].into_iter());
        }
        let addresses = addresses(cf, server.as_ptr(), (*main.as_ptr()).stable_locations);
        numbers.number(outer, names(server.as_ref()).chain(addresses))
    }
}

/// The kind of a location: two of different kinds can have the same name.
fn kind(location: &ngx_http_core_loc_conf_t) -> u8 {
    #[cfg(ngx_feature = "pcre")]
    let is_regex = !location.regex.is_null();
    #[cfg(not(ngx_feature = "pcre"))]
    let is_regex = false;
    let flags = [
        location.exact_match(),
        location.noregex(),
        location.named(),
        location.noname(),
        location.lmt_excpt(),
        is_regex.into(),
    ];
    flags.iter().fold(0, |kind, &flag| kind << 1 | u8::from(flag != 0))
}

/// The names of a server.
fn names(server: &ngx_http_core_srv_conf_t) -> impl Iterator<Item = &[u8]> + Clone {
    // SAFETY: the array holds names.
    let names = unsafe { server.server_names.as_slice::<ngx_http_server_name_t>() };
    names.iter().map(|name| name.name.as_bytes())
}

/// The addresses on which a server listens, if they are `wanted`: to look for them takes long if
/// there are many servers.
///
/// # Safety
///
/// As for [`number`].
unsafe fn addresses<'a>(
    cf: *mut ngx_conf_t,
    server: *mut ngx_http_core_srv_conf_t,
    wanted: bool,
) -> impl Iterator<Item = &'a [u8]> + Clone {
    // SAFETY: nginx has made the array of ports when it read the first `listen`, and each port has
    // an array of addresses, each with its servers.
    unsafe {
        let ports: *const ngx_array_t =
            NgxHttpCoreModule::main_conf(&*cf).map_or(ptr::null_mut(), |main| main.ports);
        let ports = ports.as_ref().filter(|_| wanted);
        let ports = ports.map_or(&[][..], |ports| ports.as_slice::<ngx_http_conf_port_t>());
        let all = ports.iter().flat_map(|port| port.addrs.as_slice::<ngx_http_conf_addr_t>());
        let of_server = all.filter(move |address| {
            address.servers.as_slice::<*mut ngx_http_core_srv_conf_t>().contains(&server)
        });
        of_server.map(|address| nginx::address(address.opt.sockaddr, address.opt.socklen))
    }
}

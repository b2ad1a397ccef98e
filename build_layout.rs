//! The layout of nginx's structures as the C compiler sees it, for those that the module uses. The
//! module uses them as bindgen lays them out, by libclang; where the two disagree, as they can about
//! bit fields, it would read and write something else than nginx.
//!
//! The compiler only compiles, since the result may be for another architecture: it writes what it
//! knows into an object file, which is read here.

use std::fmt::Write as _;
use std::iter;

/// A structure; the feature or capability without which nginx does not have the members, or nothing;
/// its members; its bit fields.
pub type Structure = (&'static str, &'static str, &'static str, &'static str);

#[rustfmt::skip]
const STRUCTURES: &[Structure] = &[
    ("ngx_addr_t", "", "sockaddr socklen", ""),
    ("ngx_array_t", "", "elts nelts size nalloc pool", ""),
    ("ngx_buf_t", "", "pos last", ""),
    ("ngx_command_t", "", "name type set conf offset post", ""),
    ("ngx_conf_t", "", "args cycle pool log ctx", ""),
    ("ngx_connection_t", "",
        "data read write fd recv send recv_chain send_chain sent log pool type queue number start_time requests",
        "log_error idle reusable close sendfile tcp_nodelay tcp_nopush"),
    ("ngx_connection_t", "http_ssl", "ssl", ""),
    ("ngx_cycle_t", "",
        "conf_ctx pool log modules connections read_events write_events connection_n \
         reusable_connections_queue reusable_connections_n", ""),
    ("ngx_event_actions_t", "", "add_conn del_conn", ""),
    ("ngx_event_t", "", "data handler log timer",
        "ready delayed eof error timedout timer_set cancelable"),
    ("ngx_hash_key_t", "", "key value", ""),
    ("ngx_hash_keys_arrays_t", "", "keys", ""),
    ("ngx_http_cleanup_t", "", "handler data next", ""),
    ("ngx_http_compile_complex_value_t", "", "cf value complex_value", ""),
    ("ngx_http_complex_value_t", "", "value lengths values", ""),
    ("ngx_http_conf_addr_t", "", "opt.sockaddr opt.socklen servers", ""),
    ("ngx_http_conf_ctx_t", "", "main_conf srv_conf loc_conf", ""),
    ("ngx_http_conf_port_t", "", "addrs", ""),
    ("ngx_http_core_loc_conf_t", "", "name loc_conf handler locations client_body_timeout log_not_found open_file_cache_events \
         types_hash_bucket_size",
        "noname lmt_excpt named exact_match noregex"),
    ("ngx_http_core_loc_conf_t", "pcre", "regex", ""),
    ("ngx_http_core_main_conf_t", "", "servers ports variables variables_keys variables_hash_max_size server_names_hash_bucket_size", ""),
    ("ngx_http_core_srv_conf_t", "", "server_names ctx client_header_timeout underscores_in_headers", ""),
    ("ngx_http_location_queue_t", "", "queue exact inclusive", ""),
    ("ngx_http_module_t", "",
        "preconfiguration postconfiguration create_main_conf init_main_conf create_srv_conf merge_srv_conf \
         create_loc_conf merge_loc_conf", ""),
    ("ngx_http_request_t", "",
        "connection main_conf srv_conf loc_conf upstream upstream_states pool headers_in.authorization \
         headers_out.charset method http_version main cleanup headers_in.host unparsed_uri", ""),
    ("ngx_http_request_t", "http_cache", "cache", ""),
    ("ngx_http_server_name_t", "", "name", ""),
    ("ngx_http_upstream_conf_t", "",
        "upstream local connect_timeout read_timeout next_upstream_tries buffering intercept_errors \
         socket_keepalive", ""),
    ("ngx_http_upstream_conf_t", "http_ssl",
        "ssl ssl_name ssl_server_name ssl_verify ssl_certificate ssl_certificate_key", ""),
    ("ngx_http_upstream_main_conf_t", "", "upstreams", ""),
    ("ngx_http_upstream_server_t", "", "addrs naddrs", ""),
    ("ngx_http_upstream_srv_conf_t", "", "peer.init_upstream peer.init srv_conf servers host", ""),
    ("ngx_http_upstream_state_t", "", "peer response_length bytes_received", ""),
    ("ngx_http_upstream_t", "",
        "peer output.tag conf create_request reinit_request headers_in.headers buffer state start_time cleanup",
        "keepalive request_body_sent"),
    ("ngx_http_upstream_t", "http_ssl", "ssl_name", "ssl"),
    ("ngx_http_upstream_t", "http_cache", "", "cache_status"),
    ("ngx_http_variable_t", "", "name get_handler data", ""),
    ("ngx_http_variable_value_t", "", "data", "len valid no_cacheable not_found"),
    ("ngx_keyval_t", "", "key value", ""),
    ("ngx_list_t", "", "part", ""),
    ("ngx_list_part_t", "", "elts nelts next", ""),
    ("ngx_log_t", "", "log_level", ""),
    ("ngx_module_t", "",
        "ctx_index name version signature ctx commands type init_process exit_process", ""),
    ("ngx_os_io_t", "", "recv send recv_chain send_chain", ""),
    ("ngx_peer_connection_t", "",
        "connection sockaddr socklen name get free data local log", "cached transparent"),
    ("ngx_peer_connection_t", "ngx_peer_notify", "notify", ""),
    ("ngx_peer_connection_t", "ngx_peer_session", "set_session save_session", ""),
    ("ngx_pool_t", "", "cleanup log", ""),
    ("ngx_pool_cleanup_t", "", "handler data next", ""),
    ("ngx_queue_t", "", "prev next", ""),
    ("ngx_rbtree_node_t", "", "key left right parent", ""),
    ("ngx_shm_zone_t", "", "data shm.addr init", ""),
    ("ngx_ssl_t", "http_ssl", "ctx", ""),
    ("ngx_ssl_connection_t", "http_ssl", "connection handler", "no_wait_shutdown no_send_shutdown"),
    ("ngx_str_t", "", "len data", ""),
    ("ngx_table_elt_t", "", "hash key value", ""),
];

/// What each number takes in the object file, in decimal digits.
const DIGITS: usize = 6;

/// What each marker takes there, in bytes: as much as a structure may have to be aligned to.
const MARKER: usize = 32;

/// What an nginx with these features and capabilities has.
pub fn structures(has_feature: impl Fn(&str) -> bool) -> Vec<&'static Structure> {
    let structures = STRUCTURES.iter();
    structures.filter(|(_, feature, ..)| feature.is_empty() || has_feature(feature)).collect()
}

/// The names in a list.
fn names(list: &str) -> impl Iterator<Item = &str> {
    list.split_ascii_whitespace()
}

/// The marker before a number or a structure.
fn marker(i: usize) -> String {
    format!("{:<width$}", format!("sliced keepalive layout {i}"), width = MARKER - 1)
}

/// C code for an object file with numbers in decimal digits, and for each bit field a structure in
/// which only that one is set.
pub fn probe(structures: &[&Structure]) -> String {
    let mut source = format!(
        "#include <ngx_config.h>\n#include <ngx_core.h>\n#include <ngx_http.h>\n\
         #define DIGIT(n, i) (char) ('0' + (n) / (i) % 10)\n\
         #define NUMBER(n) {{ DIGIT(n, 100000), DIGIT(n, 10000), DIGIT(n, 1000), DIGIT(n, 100), \
         DIGIT(n, 10), DIGIT(n, 1) }}\n\
         const struct {{ char marker[{MARKER}]; char numbers[][{DIGITS}]; }} probe = {{ \"{}\", {{\n",
        marker(0)
    );
    for (name, _, members, _) in structures {
        let _ = writeln!(source, "NUMBER(sizeof({name})),");
        for member in names(members) {
            let _ = writeln!(source, "NUMBER(offsetof({name}, {member})),");
        }
    }
    source.push_str("} };\n");
    let bit_fields =
        structures.iter().flat_map(|(name, .., fields)| iter::repeat(name).zip(names(fields)));
    for (i, (name, field)) in (1..).zip(bit_fields) {
        let _ = writeln!(
            source,
            "const struct {{ char marker[{MARKER}]; {name} value; }} probe_{i} = {{ \"{}\", {{ .{field} = -1 }} }};",
            marker(i)
        );
    }
    source
}

/// The bytes after a marker in the object file.
fn after(object: &[u8], i: usize) -> Option<&[u8]> {
    let marker = marker(i);
    let mut rest = (0..object.len()).filter_map(|at| object.get(at..));
    rest.find_map(|rest| rest.strip_prefix(marker.as_bytes()))?.get(1..)
}

fn number(digits: &[u8]) -> Option<usize> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// In Rust, with what bindgen must agree: assertions about numbers, and a table of the bit fields.
/// `None` if the object file is not that of the probe.
pub fn checks(structures: &[&Structure], object: &[u8]) -> Option<String> {
    let mut numbers = after(object, 0)?.chunks(DIGITS).map(number);
    let (mut code, mut table, mut bit_fields) = (String::new(), String::new(), 1..);
    for (name, _, members, fields) in structures {
        let size = numbers.next()??;
        code += &assertion(name, &format!("size_of::<{name}>()"), size);
        for member in names(members) {
            let of_rust = if member == "type" { "type_" } else { member };
            let offset = format!("offset_of!({name}, {of_rust})");
            code += &assertion(&format!("{name}.{member}"), &offset, numbers.next()??);
        }
        for (field, i) in names(fields).zip(&mut bit_fields) {
            let bytes = after(object, i)?.get(..size)?.iter().enumerate();
            let bytes: Vec<_> = bytes.filter(|&(_, &byte)| byte != 0).collect();
            table += &format!(
                "(\"{name}.{field}\", || agrees::<{name}>(|value| value.set_{field}(!0), &{bytes:?})),\n"
            );
        }
    }
    Some(format!("{code}const BIT_FIELDS: &[BitField] = &[\n{table}];\n"))
}

fn assertion(what: &str, is: &str, number: usize) -> String {
    format!(
        "const _: () = assert!({is} == {number}, \"bindgen lays {what} out otherwise than the C compiler\");\n"
    )
}

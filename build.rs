//! Hands on what is known about the nginx tree in use, as cfgs named for the capability.

use std::path::Path;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    atomics();
    features();
    peer_connection()
}

/// The counters are shared by the workers, as 64-bit atomics.
fn atomics() {
    let widths = env::var("CARGO_CFG_TARGET_HAS_ATOMIC").unwrap_or_default();
    assert!(
        widths.split(',').any(|width| width == "64"),
        "this architecture is not supported: it has no 64-bit atomic operations"
    );
}

/// What the `nginx-sys` crate found out: `ngx_feature = "http_ssl"` and so on.
fn features() {
    println!("cargo::rerun-if-env-changed=DEP_NGINX_FEATURES_CHECK");
    println!("cargo::rerun-if-env-changed=DEP_NGINX_FEATURES");

    let known = env::var("DEP_NGINX_FEATURES_CHECK").unwrap_or_else(|_| "any()".to_owned());
    println!("cargo::rustc-check-cfg=cfg(ngx_feature, values({known}))");

    for feature in env::var("DEP_NGINX_FEATURES").unwrap_or_default().split(',') {
        if !feature.trim().is_empty() {
            println!("cargo::rustc-cfg=ngx_feature=\"{}\"", feature.trim());
        }
    }
}

/// What forks and options may leave out of `ngx_peer_connection_t`, by asking the compiler, as
/// nginx's own configure does: `ngx_peer_session` (callbacks for TLS sessions) and
/// `ngx_peer_notify`.
fn peer_connection() -> io::Result<()> {
    // Without an answer to this, the others mean nothing.
    assert!(has_member("get")?, "cannot compile with the headers of nginx");

    for (member, name) in [("set_session", "ngx_peer_session"), ("notify", "ngx_peer_notify")] {
        println!("cargo::rustc-check-cfg=cfg({name})");
        if has_member(member)? {
            println!("cargo::rustc-cfg={name}");
        }
    }
    Ok(())
}

fn has_member(member: &str) -> io::Result<bool> {
    println!("cargo::rerun-if-env-changed=DEP_NGINX_INCLUDE");
    println!("cargo::rerun-if-env-changed=DEP_NGINX_CFLAGS");

    let probe = Path::new(&env::var_os("OUT_DIR").unwrap_or_default()).join("probe.c");
    let source = format!(
        "#include <ngx_config.h>\n#include <ngx_core.h>\n#include <ngx_event.h>\n\
         #include <ngx_event_connect.h>\n\
         size_t probe = offsetof(ngx_peer_connection_t, {member});\n"
    );
    fs::write(&probe, source)?;

    let mut compiler = cc::Build::new();
    compiler.file(probe).warnings(false).cargo_metadata(false).cargo_warnings(false);
    for include in env::split_paths(&env::var_os("DEP_NGINX_INCLUDE").unwrap_or_default()) {
        compiler.include(include);
    }
    for flag in env::var("DEP_NGINX_CFLAGS").unwrap_or_default().split_whitespace() {
        compiler.flag(flag);
    }
    Ok(compiler.try_compile("probe").is_ok())
}

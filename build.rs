//! Hands on what is known about the nginx tree in use, as cfgs named for the capability.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

mod build_layout;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=build_layout.rs");
    for variable in ["DEP_NGINX_INCLUDE", "DEP_NGINX_CFLAGS"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    // As the cc crate looks for them.
    let target = env::var("TARGET")?;
    for variable in ["CC", "CFLAGS"] {
        println!("cargo::rerun-if-env-changed={variable}");
        println!("cargo::rerun-if-env-changed=TARGET_{variable}");
        println!("cargo::rerun-if-env-changed={variable}_{target}");
        println!("cargo::rerun-if-env-changed={variable}_{}", target.replace('-', "_"));
    }
    atomics();
    features();
    layout(&peer_connection())
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

fn has_feature(name: &str) -> bool {
    let features = env::var("DEP_NGINX_FEATURES").unwrap_or_default();
    features.split(',').any(|feature| feature.trim() == name)
}

/// What forks and options may leave out of `ngx_peer_connection_t`, by asking the compiler, as
/// nginx's own configure does: `ngx_peer_session` (callbacks for TLS sessions) and
/// `ngx_peer_notify`.
fn peer_connection() -> Vec<&'static str> {
    let mut found = vec![];
    for (member, name) in [("set_session", "ngx_peer_session"), ("notify", "ngx_peer_notify")] {
        println!("cargo::rustc-check-cfg=cfg({name})");
        let probe = format!(
            "#include <ngx_config.h>\n#include <ngx_core.h>\n#include <ngx_event.h>\n\
             #include <ngx_event_connect.h>\n\
             size_t probe = offsetof(ngx_peer_connection_t, {member});\n"
        );
        if compile(&probe).is_ok() {
            println!("cargo::rustc-cfg={name}");
            found.push(name);
        }
    }
    found
}

/// The layout of nginx's structures, for the compiler to compare with bindgen's. Without it, the
/// answers about members mean nothing: an error may be another one.
fn layout(capabilities: &[&str]) -> Result<(), Box<dyn Error>> {
    let structures =
        build_layout::structures(|name| has_feature(name) || capabilities.contains(&name));
    let object = compile(&build_layout::probe(&structures))
        .map_err(|error| format!("cannot compile with the headers of nginx: {error}"))?;
    let checks = build_layout::checks(&structures, &fs::read(object)?);
    fs::write(
        out_dir().join("layout.rs"),
        checks.ok_or("the C compiler's answer is not understood")?,
    )?;
    Ok(())
}

fn out_dir() -> PathBuf {
    env::var_os("OUT_DIR").unwrap_or_default().into()
}

/// Compiles a source with the headers of nginx to an object file. The error is what the compiler
/// says.
fn compile(source: &str) -> Result<PathBuf, Box<dyn Error>> {
    let (probe, object) = (out_dir().join("probe.c"), out_dir().join("probe.o"));
    fs::write(&probe, source)?;

    let mut compiler = cc::Build::new();
    compiler.warnings(false).cargo_metadata(false);
    for include in env::split_paths(&env::var_os("DEP_NGINX_INCLUDE").unwrap_or_default()) {
        compiler.include(include);
    }
    for flag in env::var("DEP_NGINX_CFLAGS").unwrap_or_default().split_whitespace() {
        compiler.flag(flag);
    }
    let mut command = compiler.try_get_compiler()?.to_command();
    // After the flags of the environment: the object file is to have what it says, and not only
    // what a linker makes of it.
    command.args(["-fno-lto", "-c", "-o"]).arg(&object).arg(&probe);
    let output = command.output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    Ok(object)
}

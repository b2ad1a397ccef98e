# Sourced by the scripts in ci/: messages, what a script needs, and, from the project's
# root, the nginx tree that the module is built against.
# shellcheck shell=bash

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() { say "$*"; exit 1; }

# shellcheck source=ci/needs.sh
. "$(dirname "${BASH_SOURCE[0]}")/needs.sh"

# The folder of a crate's sources.
crate_source() {
    cargo metadata --format-version 1 --locked --all-features |
        python3 -c 'import json, os, sys
for package in json.load(sys.stdin)["packages"]:
    if package["name"] == sys.argv[1]:
        print(os.path.dirname(package["manifest_path"]))' "$1"
}

# How nginx is compiled, more options of its configure, and what the name of the
# vendored one's folder ends with.
nginx_cc_opt='-O2 -g'
nginx_options=()
vendored_suffix=

# nginx_version SOURCES
nginx_version() {
    sed -n 's/^#define NGINX_VERSION *"\(.*\)"/\1/p' "$1/src/core/nginx.h"
}

# build_nginx FOLDER: configures and builds the nginx whose sources these are, in its
# objs, unless that was done with the same options. The log is FOLDER.log.
build_nginx() {
    local tree=$1
    local flags=(--with-compat "--with-cc-opt=$nginx_cc_opt" --with-threads
        --with-http_ssl_module --with-http_v2_module --with-http_realip_module
        --with-http_auth_request_module --with-http_stub_status_module
        "${nginx_options[@]}")
    if [ -x "$tree/objs/nginx" ] && [ "$(cat "$tree/flags" 2>/dev/null)" = "${flags[*]}" ]; then
        return
    fi
    say "building nginx in $tree"
    rm -rf "$tree/objs" "$tree/flags"
    (cd "$tree" && auto/configure "${flags[@]}" && make -j"$(nproc)") >"$tree.log" 2>&1 || {
        tail -n 20 "$tree.log" >&2
        die "nginx was not built; see $tree.log"
    }
    printf '%s\n' "${flags[*]}" >"$tree/flags"
}

# Configures and builds the nginx inside the nginx-src crate, once, in a folder
# of its own under target/.
build_vendored_nginx() {
    local source tree
    source=$(crate_source nginx-src)/nginx
    tree=$PWD/target/nginx-$(nginx_version "$source")$vendored_suffix
    if [ ! -d "$tree" ]; then
        rm -rf "$tree.new"
        mkdir -p target
        cp -R "$source" "$tree.new"
        chmod -R u+w "$tree.new"
        mv "$tree.new" "$tree"
    fi
    build_nginx "$tree"
    NGINX_SOURCE_DIR=$tree
    NGINX_BUILD_DIR=$tree/objs
}

# Sets what cargo needs to build against an nginx tree: the one that the
# environment names, or else the vendored one.
use_nginx_tree() {
    needs build
    if [ -z "${NGINX_SOURCE_DIR:-}" ] && [ -z "${NGINX_BUILD_DIR:-}" ]; then
        build_vendored_nginx
    fi
    NGINX_SOURCE_DIR=$(cd "${NGINX_SOURCE_DIR:-$NGINX_BUILD_DIR/..}" && pwd) ||
        die "NGINX_SOURCE_DIR is no folder"
    NGINX_BUILD_DIR=$(cd "${NGINX_BUILD_DIR:-$NGINX_SOURCE_DIR/objs}" && pwd) ||
        die "NGINX_BUILD_DIR is no folder"

    # Each tree has a target folder, so that going from one to another and back
    # does not build everything again.
    CARGO_TARGET_DIR=$PWD/target/module-$(printf '%s' "$NGINX_BUILD_DIR" | cksum | cut -d' ' -f1)
    export NGINX_SOURCE_DIR NGINX_BUILD_DIR CARGO_TARGET_DIR
    leave_paths_out
}

# The same sources make the same module wherever they lie: what the compiler notes down
# of paths, for backtraces, begins at the project's root, or at /cargo for other crates.
# RUSTFLAGS stay in force; with their encoded form, paths may have spaces.
leave_paths_out() {
    local flags=() cargo_home=${CARGO_HOME:-$HOME/.cargo}
    read -ra flags <<<"${RUSTFLAGS-}"
    # The last one that matches counts.
    flags+=("--remap-path-prefix=$cargo_home=/cargo" "--remap-path-prefix=$PWD=."
        "--remap-path-prefix=$CARGO_TARGET_DIR=./target")
    CARGO_ENCODED_RUSTFLAGS=$(IFS=$'\037'; printf '%s' "${flags[*]}")
    export CARGO_ENCODED_RUSTFLAGS
}

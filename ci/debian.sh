# Sourced by the scripts in ci/, after ci/lib.sh: Debian's own nginx and Rust of any
# suite, unpacked into a folder, whatever suite the machine itself has.
# shellcheck shell=bash

debian=$PWD/target/debian

# Of which architecture it is, if not the machine's; what starts its programs if the
# machine cannot; and more packages to unpack with nginx.
architecture=
emulator=
more_packages=()

# suite_apt SUITE COMMAND...: apt-get with lists and a cache of its own.
suite_apt() {
    local suite=$1 root=$debian/$1 of=${architecture:-$(dpkg --print-architecture)}
    shift
    mkdir -p "$root/apt/lists/partial" "$root/apt/cache/archives/partial"
    printf 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n' \
        http://deb.debian.org/debian "$suite" >"$root/apt/sources.list"
    : >"$root/apt/status"
    apt-get -qq \
        -o Dir::Etc::SourceList="$root/apt/sources.list" -o Dir::Etc::SourceParts=/dev/null \
        -o Dir::State::Lists="$root/apt/lists" -o Dir::State::Status="$root/apt/status" \
        -o Dir::Cache="$root/apt/cache" -o APT::Sandbox::User=root \
        -o APT::Architecture="$of" -o APT::Architectures="$of" "$@"
}

# wrapper TREE PROGRAM: makes a file of the program's name beside the tree, which starts
# it with the tree's own loader and libraries.
wrapper() {
    local tree=$1 file=${1%/*}/${2##*/} loader libraries
    loader=$(find "$tree" -name 'ld-linux*.so.*' -type f -print -quit)
    [ -n "$loader" ] || die "no loader in $tree"
    libraries=$(find "$tree" -name 'libc.so.6' -printf '%h:' -quit)
    libraries+=$(find "$tree" -name 'libssl.so.*' -printf '%h' -quit)
    cat >"$file" <<WRAPPER
#!/bin/sh
tree=\$(dirname "\$(readlink -f "\$0")")/${tree##*/}
exec ${emulator:+$emulator }"\$tree${loader#"$tree"}" --library-path "${libraries//"$tree"/\$tree}" "\$tree$2" "\$@"
WRAPPER
    chmod +x "$file"
}

# The packages of a suite: nginx, its Lua module, and the libraries that they are linked with.
suite_download() {
    local suite=$1 package
    suite_apt "$suite" update
    for package in nginx nginx-common nginx-dev libc6 libpcre2-8-0 zlib1g libcrypt1 libzstd1 \
        libnginx-mod-http-lua libnginx-mod-http-ndk lua-resty-core lua-resty-lrucache libgcc-s1 \
        "${more_packages[@]}"; do
        suite_apt "$suite" download "$package"
    done
    suite_apt "$suite" download libssl3t64 2>/dev/null || suite_apt "$suite" download libssl3
    # In bookworm, Lua's module is linked with the first PCRE, and its Lua code with LuaJIT 2.
    suite_apt "$suite" download libluajit2-5.1-2 libpcre3 2>/dev/null ||
        suite_apt "$suite" download libluajit-5.1-2
}

# suite_nginx SUITE: leaves ROOT/nginx, which starts the suite's nginx with the
# suite's own loader and libraries, ROOT/src, the configured tree, and ROOT/tree, where
# the packages are unpacked.
suite_nginx() {
    local suite=$1 root=$debian/$1 deb
    if [ -x "$root/nginx" ] && [ -d "$root/tree/usr/share/lua" ]; then
        return
    fi
    rm -rf "$root"/{nginx,packages,tree,src}
    mkdir -p "$root/packages" "$root/tree"
    say "downloading nginx of $suite"
    (cd "$root/packages" && suite_download "$suite") >&2
    for deb in "$root"/packages/*.deb; do
        dpkg -x "$deb" "$root/tree"
    done

    cp -R "$root/tree/usr/share/nginx/src" "$root/src"
    (
        cd "$root/src"
        # shellcheck source=/dev/null
        . ./conf_flags
        ./configure --with-cc-opt='-O2 -g -fPIC' "${NGX_CONF_FLAGS[@]}"
    ) >"$root/configure.log" 2>&1 || die "nginx of $suite was not configured; see $root/configure.log"

    wrapper "$root/tree" /usr/sbin/nginx
}

# As apt writes it down, a package that is there.
installed() {
    printf 'Package: %s\nStatus: install ok installed\nArchitecture: %s\nVersion: 9999\n' \
        "$1" "$(dpkg --print-architecture)"
    printf 'Maintainer: none\nProvides: %s\nDescription: none\n\n' "$2"
}

# suite_rust SUITE: leaves ROOT/rust/cargo and ROOT/rust/rustc, which start the suite's
# own. The compiler and linker for C are the machine's.
suite_rust() {
    local suite=$1 root=$debian/$1/rust deb
    if [ -x "$root/cargo" ]; then
        return
    fi
    rm -rf "$root"
    mkdir -p "$root/archives/partial" "$root/tree"
    say "downloading Rust of $suite"
    suite_apt "$suite" update >&2
    { installed gcc c-compiler; installed binutils ld; installed libc6-dev libc-dev; } >"$root/status"
    suite_apt "$suite" -o Dir::State::Status="$root/status" -o Dir::Cache::Archives="$root/archives" \
        --no-install-recommends --download-only -y install rustc cargo >&2
    for deb in "$root"/archives/*.deb; do
        dpkg -x "$deb" "$root/tree"
    done
    rm -r "$root/archives"
    wrapper "$root/tree" /usr/bin/rustc
    wrapper "$root/tree" /usr/bin/cargo
}

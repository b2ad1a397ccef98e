# Sourced by the scripts in ci/ that make packages, after ci/lib.sh, in the project's root:
# an archive of the crates, for a build without network.
# shellcheck shell=bash

# Linux wherever the module can be built.
linux_targets=({x86_64,i686,aarch64,riscv64gc,powerpc64le,s390x}-unknown-linux-gnu
    armv7-unknown-linux-gnueabihf {x86_64,aarch64}-unknown-linux-musl)

# module_crates: NAME-VERSION of each crate that a build of the module compiles.
module_crates() {
    cargo tree --quiet --locked --no-default-features --edges normal,build --prefix none \
        --format '{p}' "${linux_targets[@]/#/--target=}" |
        sed -nE 's/^([^ ]+) v([^ ]+).*/\1-\2/p' | sort -u
}

# empty_crate FOLDER: leaves what cargo reads before it compiles anything. It wants to know
# every crate in Cargo.lock, for tests and for other systems, too.
empty_crate() {
    local crate=$1 checksum
    checksum=$(sed -E 's/.*("package":"[0-9a-f]+").*/{"files":{},\1}/' "$crate/.cargo-checksum.json")
    find "$crate" -mindepth 1 -not -path "$crate/Cargo.toml" -delete
    mkdir "$crate/src"
    : >"$crate/src/lib.rs"
    printf '%s\n' "$checksum" >"$crate/.cargo-checksum.json"
}

# without_trouble VENDOR: programs of Windows, which are there for tests of crates, are left
# out, as a distribution takes sources; and so is *.orig, which debhelper deletes as what a
# patch left, so that cargo would miss it.
without_trouble() {
    find "$1" '(' -name '*.dll' -o -name '*.orig' ')' -delete
    sed -E -i 's/"[^"]*\.(dll|orig)":"[0-9a-f]+",?//g; s/,\}/}/' "$1"/*/.cargo-checksum.json
}

# vendor_crates ARCHIVE: makes ARCHIVE, a .tar.xz. Unpacked in the root of the sources, its
# .cargo/config.toml makes cargo take all crates from its vendor/: in full those that the
# module is made of on Linux, and nothing but the manifest of the others, which are most.
# The same Cargo.lock gives the same archive.
vendor_crates() {
    local archive=$1 folder=$1.new wanted crate
    wanted=$(module_crates)
    rm -rf "$folder"
    mkdir -p "$folder/.cargo"
    cargo vendor --quiet --locked --versioned-dirs "$folder/vendor" >/dev/null ||
        die "the crates cannot be fetched"
    for crate in "$folder"/vendor/*; do
        grep -qxF "${crate##*/}" <<<"$wanted" || empty_crate "$crate"
    done
    without_trouble "$folder/vendor"
    cat >"$folder/.cargo/config.toml" <<'END_OF_CONFIG'
[source.crates-io]
replace-with = "vendor"

[source.vendor]
directory = "vendor"
END_OF_CONFIG
    tar -C "$folder" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner \
        --mode=u+rw,go=rX -cJf "$archive.partial" .cargo vendor
    rm -r "$folder"
    mv "$archive.partial" "$archive"
}

# Sourced by the scripts in ci/, after ci/lib.sh: sources of nginx, or of what was made
# of it, and of nginx's tests, that are at hand as archives in the folder NGINX_SOURCES,
# which may be relative to the project's root.
# shellcheck shell=bash

# Sets archives to their names, which are those of the files without .tar.xz or .tar.gz.
find_archives() {
    local file name
    archives=()
    if [ -z "${NGINX_SOURCES-}" ]; then
        return
    fi
    [ -d "$NGINX_SOURCES" ] || die "NGINX_SOURCES is no folder: $NGINX_SOURCES"
    for file in "$NGINX_SOURCES"/*.tar.[gx]z; do
        [ -f "$file" ] || die "no *.tar.xz and no *.tar.gz in NGINX_SOURCES: $NGINX_SOURCES"
        name=${file##*/}
        archives+=("${name%.tar.*}")
    done
}

# unpack NAME: sets unpacked to the archive's sources, in a folder under target/ that
# stays as long as the archive is the same.
unpack() {
    local archive folder=$PWD/target/sources/$1 stamp
    for archive in "$NGINX_SOURCES/$1".tar.[gx]z; do
        stamp=$(cksum <"$archive") || die "$archive cannot be read"
    done
    if [ "$(cat "$folder/stamp" 2>/dev/null)" != "$stamp" ]; then
        rm -rf "$folder"
        mkdir -p "$folder"
        tar -xf "$archive" -C "$folder" --no-same-owner || die "$archive cannot be unpacked"
        printf '%s\n' "$stamp" >"$folder/stamp"
    fi
    # What is in it is in one folder, as a rule.
    unpacked=$(find "$folder" -mindepth 1 -maxdepth 1 -type d)
    if [[ $unpacked = *$'\n'* ]] || [ -z "$unpacked" ]; then
        unpacked=$folder
    fi
}

# holds FOLDER: nginx, tests or nothing that is known.
holds() {
    if [ -f "$1/src/core/nginx.h" ]; then
        echo nginx
    elif [ -f "$1/lib/Test/Nginx.pm" ]; then
        echo tests
    fi
}

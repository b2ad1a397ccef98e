# Sourced by the scripts in ci/ that look at what a person or another program gets
# to see, after ci/lib.sh: tools that are fetched on first use.
# shellcheck shell=bash

tools=$PWD/target/tools

# use_promtool: sets promtool to the path of Prometheus' checker. It is taken out of
# the package, which would otherwise bring a service.
use_promtool() {
    promtool=$(command -v promtool || echo "$tools/promtool")
    if [ -x "$promtool" ]; then
        return
    fi
    say "fetching promtool"
    rm -rf "$tools/prometheus"
    mkdir -p "$tools/prometheus"
    (
        cd "$tools/prometheus" || exit
        apt-get update -qq -o DPkg::Lock::Timeout=120
        apt-get download -qq -o APT::Sandbox::User=root prometheus
        dpkg --fsys-tarfile ./*.deb | tar -x ./usr/bin/promtool
    ) >&2 || die "promtool cannot be fetched"
    mv "$tools/prometheus/usr/bin/promtool" "$promtool"
    rm -r "$tools/prometheus"
}

# use_chromium: sees to it that there is a browser, and letters for it.
use_chromium() {
    need chromium-headless-shell chromium-headless-shell
    need_file fonts-dejavu-core '/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf'
    install_needs
}

# screenshot URL WIDTH,HEIGHT FILE: a picture, as PNG, of a page on this machine once its
# scripts have run for three seconds of its own time. Fails if nobody answers.
screenshot() {
    local log=$tools/chromium.log
    mkdir -p "$tools"
    rm -f "$3"
    timeout 60 chromium-headless-shell --no-sandbox --hide-scrollbars \
        --host-resolver-rules='MAP * ~NOTFOUND, EXCLUDE 127.0.0.1' --virtual-time-budget=3000 \
        --window-size="$2" --screenshot="$3" "$1" >"$log" 2>&1 || true
    if [ ! -s "$3" ]; then
        grep -o 'Page load failed.*' "$log" >&2 || true
        die "no picture of $1; see $log"
    fi
}

# Sourced by the scripts in ci/ that run those of t/, after ci/lib.sh: what the scripts need
# besides nginx. Run one by one without it, those that find something missing skip.
# shellcheck shell=bash

use_tools_of_scripts() {
    need openssl openssl
    need memcached memcached
    # Not apache2: that package brings the service and its configuration.
    need_file apache2-bin /usr/lib/apache2/modules/mod_mpm_prefork.so
    need_file php-fpm '/usr/sbin/php-fpm*'
    need chromium-headless-shell chromium-headless-shell
    need_file fonts-dejavu-core '/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf'
    install_needs
    use_promtool
    export TEST_NGINX_PROMTOOL=$promtool TEST_NGINX_BROWSER=chromium-headless-shell
}

# Sets promtool to the path of Prometheus' checker, which is taken out of the package: that
# would bring a service.
use_promtool() {
    local folder=$PWD/target/tools/prometheus
    promtool=$(command -v promtool || echo "$folder/promtool")
    if [ -x "$promtool" ]; then
        return
    fi
    say "fetching promtool"
    rm -rf "$folder"
    mkdir -p "$folder"
    (
        cd "$folder" || exit
        apt-get update -qq -o DPkg::Lock::Timeout=120
        apt-get download -qq -o APT::Sandbox::User=root prometheus
        dpkg --fsys-tarfile ./*.deb | tar -x --strip-components=3 ./usr/bin/promtool
        rm ./*.deb
    ) >&2 || die "promtool cannot be fetched"
}

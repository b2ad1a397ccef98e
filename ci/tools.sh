# Sourced by the scripts in ci/ that run those of t/, after ci/lib.sh: what the scripts are
# told of their tools and of nginx.
# shellcheck shell=bash

TEST_NGINX_PROMTOOL=$(promtool_file)
TEST_NGINX_MPM_ITK=$(mpm_itk_file)
TEST_NGINX_NTLM_PYTHON=$(spnego_python)
export TEST_NGINX_PROMTOOL TEST_NGINX_MPM_ITK TEST_NGINX_NTLM_PYTHON TEST_NGINX_BROWSER=chromium-headless-shell

# test_globals MODULE: the value of TEST_NGINX_GLOBALS with this module, or with none. For
# nginx's own Test::Nginx, it has to say that workers can read the folder of a test that is
# root's.
test_globals() {
    if [ -n "${NGINX_TESTS_DIR-}" ] && [ "$(id -u)" -eq 0 ]; then printf 'user root; '; fi
    if [ -n "$1" ]; then printf 'load_module %s;' "$1"; fi
}

# Sourced by the scripts in ci/ that start servers of their own, after ci/lib.sh:
# a temporary folder, processes that end with the script, and a build of nginx and
# the module.
# shellcheck shell=bash

export LC_ALL=C
PATH=$PATH:/usr/sbin:/sbin

dir=
users=()
servers=()
job=

# background COMMAND...: starts it in a process group of its own, $!, so that
# all of it can be ended at once, and Apache, which signals its whole group
# when it ends, does not hit anyone else. It ends too if this script is killed.
background() {
    set -m
    setpriv --pdeathsig TERM "$@" </dev/null &
    set +m
}

# serve COMMAND...: like background, for what runs until end_server or the end.
serve() {
    background "$@"
    servers+=("$!")
}

# run COMMAND...: like background, and waits for it. Unlike with a command in
# the foreground, a signal to this script takes effect immediately.
run() {
    local status=0
    background "$@"
    job=$!
    wait "$job" || status=$?
    job=
    return "$status"
}

# until_true SECONDS COMMAND...: waits for the command to succeed.
until_true() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        if [ "$SECONDS" -gt "$end" ]; then
            return 1
        fi
        sleep 0.1
    done
}

group_gone() { ! kill -0 -- "-$1" 2>/dev/null; }

# end_group SIGNAL GROUP: signals its leader; kills what is left after a while.
end_group() {
    kill "-$1" "$2" 2>/dev/null || true
    if ! until_true 10 group_gone "$2"; then
        say "process group $2 did not end, killing it"
        kill -KILL -- "-$2" 2>/dev/null || true
        return 1
    fi
}

# end_server SIGNAL GROUP: ends one of the servers, with its exit status.
end_server() {
    local status=0 server left=()
    end_group "$1" "$2" || true
    wait "$2" || status=$?
    for server in "${servers[@]}"; do
        if [ "$server" != "$2" ]; then left+=("$server"); fi
    done
    servers=("${left[@]}")
    return "$status"
}

clean_up() {
    trap '' INT TERM HUP
    set +e
    if [ -n "$job" ]; then
        kill -TERM -- "-$job" 2>/dev/null
        end_group TERM "$job"
    fi
    # The last one first: nginx before what is behind it.
    local i user
    for ((i = ${#servers[@]} - 1; i >= 0; i--)); do
        end_group TERM "${servers[i]}"
    done
    for user in "${users[@]}"; do
        if id "$user" >/dev/null 2>&1; then
            userdel "$user" || say "user $user was not removed"
        fi
    done
    if [ -n "$dir" ]; then rm -rf "$dir"; fi
}

# Makes the folder, and sees to it that nothing is left at the end.
set_up() {
    trap clean_up EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
    dir=$(mktemp -d "/tmp/sliced-${0##*/}.XXXXXX")
    chmod 755 "$dir"
}

# build CI_BUILD: runs it; sets nginx and module.
build() {
    run bash -c 'set -o pipefail; "$1" | tee "$2" >&2' - "$1" "$dir/build" ||
        die "ci/build failed"
    nginx=$(tail -n 2 "$dir/build" | sed -n 's/^nginx=//p')
    module=$(tail -n 2 "$dir/build" | sed -n 's/^module=//p')
    if [ ! -x "$nginx" ] || [ ! -f "$module" ]; then
        die "ci/build gave no nginx to run (nginx=$nginx, module=$module)"
    fi
}

ports=()

# Sets port to one that nobody listens on, and that was not chosen before. It is
# below those that the kernel gives to outgoing connections.
choose_port() {
    while :; do
        port=$((20000 + RANDOM % 10000))
        if [[ " ${ports[*]} " != *" $port "* ]] &&
            ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            ports+=("$port")
            return
        fi
    done
}

# percent PART WHOLE: a part that is not nothing never shows as 0.
percent() {
    awk -v part="$1" -v whole="$2" 'BEGIN {
        p = 100 * part / whole
        if (part == 0 || part == whole) printf "%d %%", p
        else printf "%.1f %%", (p < 0.1 ? 0.1 : (p > 99.9 ? 99.9 : p))
    }'
}

thousands() { echo "$1" | sed ':a; s/^\([0-9]*[0-9]\)\([0-9]\{3\}\)/\1,\2/; ta'; }

# server_versions: nginx, Apache and mpm-itk, and the machine's cores.
server_versions() {
    local nginx_version apache_version itk_version
    nginx_version=$("$nginx" -v 2>&1 | sed 's|.*nginx/||; s| .*||')
    apache_version=$(apache2 -v | sed -n 's|.*Apache/\([^ ]*\).*|\1|p')
    itk_version=$(grep -aoE 'mpm-itk/[0-9][0-9.]*[0-9]' "$(mpm_itk_file)" | head -n 1 | sed 's|.*/||')
    echo "nginx $nginx_version, Apache $apache_version, mpm-itk ${itk_version:-unknown}," \
        "$(nproc) cores"
}

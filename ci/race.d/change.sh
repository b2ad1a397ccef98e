# Sourced by ci/race: a server whose idle timeout changes under load.
# shellcheck shell=bash
# shellcheck disable=SC2154  # ci/race and ci/servers.sh set them

# Seconds: in which the first timeout must be learned, and of a phase after that.
learning=180
phase=100

# sample SECONDS [until]: notes down once a second what has been learned, until something has been, or
# for all of the time.
sample() {
    local end=$((SECONDS + $1)) value
    while [ "$SECONDS" -lt "$end" ]; do
        value=$(learned_timeout)
        echo "$EPOCHREALTIME $value" >>"$dir/samples"
        if [ -n "$value" ] && [ -n "${2-}" ]; then return; fi
        sleep 1
    done
    [ -z "${2-}" ]
}

# begin_phase SECONDS: the server starts, or starts again with this idle timeout.
begin_phase() {
    local now=$EPOCHREALTIME
    say "idle timeout $1 s"
    if [ -n "${backend_pids[$changing]-}" ]; then
        echo "$now" >>"$dir/phases"
        stop_backend "$changing"
        run_backend "$changing" "$1"
    else
        start_backend "$changing" "$1"
    fi
    printf '%s %s %s ' "$1" "$now" "$EPOCHREALTIME" >>"$dir/phases"
}

# The server is a silent one.
change() {
    local changing=node-silent seconds status=0
    begin_phase 5
    start_nginx "$changing" learn
    serve python3 "$here/traffic.py" "$port" "$dir/requests"
    local traffic=$!
    sample "$learning" until || die "nothing was learned in $learning s"
    for seconds in 2 10 10; do
        sample "$phase"
        begin_phase "$seconds"
    done
    sample "$phase"
    echo "$EPOCHREALTIME" >>"$dir/phases"
    end_server TERM "$traffic" || true
    stop_nginx
    stop_backend "$changing"
    cp "$dir/$changing/learn/error.log" "$dir/error.log"
    echo
    run python3 "$here/phases.py" "$dir" || status=$?
    echo
    return "$status"
}

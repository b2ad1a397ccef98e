# Sourced by ci/race: nginx in front of a server, in variants.
# shellcheck shell=bash
# shellcheck disable=SC2154  # ci/race and ci/servers.sh set them

nginx_pids=()
declare -A nginx_ports

# upstreams VARIANT BACKEND: each client has a connection of its own, so that this is idle for as long
# as the client waits. nginx's own keepalive needs an upstream for each.
upstreams() {
    local client server="server 127.0.0.1:${backend_ports[$2]};"
    # shellcheck disable=SC2016  # it is nginx's variable
    local slices='keepalive 64 slice_key=$http_x_client slice_poolsize=64;'
    case $1 in
        builtin)
            for client in {0..49}; do echo "    upstream u$client { $server keepalive 1; }"; done
            ;;
        hints) echo "    upstream u { $server $slices keepalive_hints on; }" ;;
        learn) echo "    upstream u { $server $slices keepalive_hints on learn; }" ;;
    esac
}

# pass VARIANT BACKEND: the directives of the location.
pass() {
    local upstream=u
    if [ "$1" = builtin ]; then upstream=u\$http_x_client; fi
    if is_fastcgi "$2"; then
        cat <<END_OF_PASS
            fastcgi_pass $upstream;
            fastcgi_keep_conn on;
            fastcgi_bind \$http_x_local;
            fastcgi_param SCRIPT_FILENAME $dir/$2/index.php;
            fastcgi_param REQUEST_METHOD \$request_method;
            fastcgi_param CONTENT_TYPE \$content_type;
            fastcgi_param CONTENT_LENGTH \$content_length;
END_OF_PASS
    else
        cat <<END_OF_PASS
            proxy_pass http://$upstream;
            proxy_http_version 1.1;
            proxy_set_header Host \$host;
            proxy_set_header Connection keep-alive;
            proxy_bind \$http_x_local;
END_OF_PASS
    fi
}

nginx_conf() {
    if [ "$1" != builtin ]; then echo "load_module $module;"; fi
    cat <<END_OF_CONF
daemon off;
pid nginx.pid;
user nobody nogroup;
worker_processes 1;
error_log error.log info;

events {
    worker_connections 2048;
}

http {
    access_log off;

$(upstreams "$@")

    server {
        listen 127.0.0.1:${nginx_ports[$1]};

        location / {
$(pass "$@")
        }
$(if [ "$1" != builtin ]; then echo '        location = /status { keepalive_status prometheus; }'; fi)
    }
}
END_OF_CONF
}

answering() {
    curl -sf -m 5 --noproxy '*' -o "$dir/body" -H 'X-Client: 0' -d name=value "http://127.0.0.1:$1/"
}

# start_nginx BACKEND VARIANT: sets port to its port.
start_nginx() {
    local folder=$dir/$1/$2
    choose_port
    nginx_ports[$2]=$port
    mkdir "$folder"
    nginx_conf "$2" "$1" >"$folder/nginx.conf"
    serve "$nginx" -p "$folder/" -c "$folder/nginx.conf" -e "$folder/error.log" 2>"$folder/stderr"
    nginx_pids+=("$!")
    if ! until_true 10 answering "$port"; then
        tail -n 10 "$folder/stderr" "$folder/error.log" >&2 || true
        die "nginx ($2) does not answer on port $port"
    fi
}

# Ends all of them gracefully, and looks whether it was well.
stop_nginx() {
    local pid status=0
    for pid in "${nginx_pids[@]}"; do
        end_server QUIT "$pid" || status=$?
    done
    nginx_pids=()
    if grep -hE '\[(alert|crit|emerg)\]|exited on signal' "$dir"/*/*/error.log >&2; then
        die "nginx logged this"
    fi
    if [ "$status" -ne 0 ]; then
        die "nginx did not quit as it should (exit status $status)"
    fi
}

# logged BACKEND VARIANT PATTERN: how many lines of nginx's log match.
logged() { grep -cE "$3" "$dir/$1/$2/error.log" || true; }

# errors_before_learned BACKEND: errors in the log before the line that says what was learned.
errors_before_learned() {
    awk -v server="idle timeout of server \"127.0.0.1:${backend_ports[$1]}\"" '
        index($0, server) { exit }
        / \[error\] / { errors++ }
        END { print errors + 0 }' "$dir/$1/learn/error.log"
}

# learned_timeout: what nginx has learned, in seconds; nothing without the variant.
learned_timeout() {
    if [ -z "${nginx_ports[learn]-}" ]; then return; fi
    curl -s -m 5 --noproxy '*' "http://127.0.0.1:${nginx_ports[learn]}/status" |
        sed -n 's/^nginx_upstream_keepalive_idle_timeout_seconds{.*} //p'
}

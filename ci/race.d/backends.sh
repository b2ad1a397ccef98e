# Sourced by ci/race: the servers behind nginx.
# shellcheck shell=bash
# shellcheck disable=SC2154  # ci/race and ci/servers.sh set them

# shellcheck disable=SC2034  # for ci/race
backends=(apache itk node node-silent gunicorn gunicorn-uvicorn uvicorn puma go php-fpm
    php-fpm-limit nginx)
declare -A backend_names=(
    [apache]='Apache, mpm_event'
    [itk]='Apache, mpm-itk'
    [node]="Node's http server"
    [node-silent]="Node's http server, silent"
    [gunicorn]='gunicorn, gthread'
    [gunicorn-uvicorn]='gunicorn, uvicorn'
    [uvicorn]='uvicorn'
    [puma]='Puma'
    [go]="Go's net/http"
    [php-fpm]='php-fpm'
    [php-fpm-limit]='php-fpm, time limit'
    [nginx]='nginx'
)
declare -A backend_ports backend_pids

# No files of bytecode in the sources.
export PYTHONDONTWRITEBYTECODE=1

# Those of Debian's packages, whatever the first python3 is.
python=/usr/bin/python3

php_fpm() { compgen -G '/usr/sbin/php-fpm*' | sort -V | tail -n 1; }

# backend_command BACKEND FOLDER PORT SECONDS: prepares the folder; sets command to what starts it.
# It may set limit, too. Only Node's idle timeout is other than 2 seconds on request.
backend_command() {
    local folder=$2 port=$3 gunicorn=(gunicorn --chdir "$here" --bind "127.0.0.1:$3" --workers 2 --keep-alive 2)
    case $1 in
        apache | itk)
            mkdir -p "$folder/www"
            head -c 1000 /dev/zero | tr '\0' x >"$folder/www/index.html"
            command=(apache2 -f "$here/apache.conf" -DFOREGROUND)
            if [ "$1" = itk ]; then command+=(-DITK); fi
            ;;
        node) command=(node "$here/node.js" "$port" "$4") ;;
        node-silent) command=(node "$here/node.js" "$port" "$4" silent) ;;
        gunicorn) command=("${gunicorn[@]}" --worker-class gthread --threads 8 wsgi:app) ;;
        gunicorn-uvicorn) command=("${gunicorn[@]}" --worker-class uvicorn.workers.UvicornWorker asgi:app) ;;
        uvicorn)
            command=("$python" -m uvicorn --app-dir "$here" --host 127.0.0.1 --port "$port"
                --timeout-keep-alive 2 --no-access-log asgi:app)
            ;;
        puma) command=(puma --config "$here/puma.rb") ;;
        go)
            GO111MODULE=off CGO_ENABLED=0 GOPATH=$folder GOCACHE=$top/target/race/go \
                run go build -o "$folder/server" "$here/server.go" || die "server.go cannot be built"
            command=("$folder/server" "127.0.0.1:$port")
            ;;
        php-fpm | php-fpm-limit)
            if [ "$1" = php-fpm-limit ]; then limit=2; fi
            cp "$here/index.php" "$folder/"
            command=("$(php_fpm)" --fpm-config "$here/php-fpm.conf")
            ;;
        nginx)
            sed "s/PORT/$port/" "$here/nginx.conf" >"$folder/nginx.conf"
            command=("$nginx" -p "$folder/" -c "$folder/nginx.conf" -e "$folder/error.log")
            ;;
    esac
}

is_fastcgi() { [[ $1 = php-fpm* ]]; }

listening() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# start_backend BACKEND [SECONDS]
start_backend() {
    choose_port
    backend_ports[$1]=$port
    mkdir "$dir/$1"
    chmod 755 "$dir/$1"
    run_backend "$1" "${2-2}"
}

# run_backend BACKEND SECONDS: on its port; also again.
run_backend() {
    local folder=$dir/$1 port=${backend_ports[$1]} command limit=0
    backend_command "$1" "$folder" "$port" "$2"
    RACE_DIR=$folder RACE_PORT=$port RACE_MPM_ITK=$(mpm_itk_file) RACE_LIMIT=$limit \
        serve "${command[@]}" >"$folder/output" 2>&1
    backend_pids[$1]=$!
    if ! until_true 15 listening "$port"; then
        tail -n 10 "$folder/output" "$folder/error.log" >&2 || true
        die "${backend_names[$1]} does not listen on port $port"
    fi
}

stop_backend() { end_server TERM "${backend_pids[$1]}" || true; }

# announced BACKEND: what it announces of its idle timeout.
announced() {
    local header=
    if ! is_fastcgi "$1"; then
        header=$(curl -s -m 5 --noproxy '*' -o "$dir/body" -D - -H 'Connection: keep-alive' \
            -d name=value "http://127.0.0.1:${backend_ports[$1]}/" |
            tr -d '\r' | sed -n 's/^Keep-Alive: /"/Ip' | tr '\n' '"')
    fi
    echo "${header:-nothing}"
}

#!/usr/bin/perl

# Tests for keepalive_hints with learn in an upstream that is made in a running
# worker, which learns alone.

###############################################################################

use warnings;
use strict;

use Test::More;

use FindBin;
use lib ($ENV{NGINX_TESTS_DIR} ? "$ENV{NGINX_TESTS_DIR}/lib" : ()),
	"$FindBin::Bin/lib";

use Time::HiRes qw/ sleep /;

use Test::Nginx;
use Test::Backend::Idle;
use Test::Module;
use Test::Requests;
use Test::Wait;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

my $t = Test::Nginx->new()->has(qw/http proxy/);

compile_module($t, 'runtime_upstream');

$t->plan(8);

$t->write_file_expand('nginx.conf', <<'EOF');

load_module %%TESTDIR%%/runtime_upstream.so;

%%TEST_GLOBALS%%

daemon off;

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    proxy_http_version 1.1;
    proxy_set_header Connection "";

    log_format slice $host;
    access_log access.log slice;

    server {
        listen       127.0.0.1:8080;
        server_name  localhost;

        location /made {
            runtime_upstream %%TESTDIR%%/upstream.conf;
        }

        location / {
            set $name runtime;
            proxy_pass http://$name;
        }
    }
}

EOF

my $port = port(8081);

$t->write_file('upstream.conf', "server 127.0.0.1:$port;
keepalive 100 slice_key=\$host slice_poolsize=100;
keepalive_hints on margin=500ms learn;\n");

$t->run_daemon(\&serve_idle, $port);
$t->waitforsocket("127.0.0.1:$port") or die "Can't start backend\n";
$t->run();

###############################################################################

for my $time ('first', 'again') {
	like(http_get('/made?add'), qr/ 204 /, "$time made");

	my $conn = get('/', 'before');

	sleep(1.2);
	is(get('/', 'before'), $conn, "$time, used before");

	get('/', "close$_", "X-Close: 1.5\n"), sleep(0.15) for 1 .. 6;
	sleep(1.6);

	get('/', 'after');
	sleep(1.2);
	is_new(get('/', 'after'), "$time, not used half a second before");

	like(http_get('/made?delete'), qr/ 204 /, "$time deleted");
}

###############################################################################

#!/usr/bin/perl

# Tests for keepalive_hints with learn in a process that is its own master, which
# learns alone.

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
use Test::Requests;
use Test::Status;
use Test::Wait;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

my $t = Test::Nginx->new()->has(qw/http proxy/)->plan(4);

$t->write_file_expand('nginx.conf', <<'EOF');

%%TEST_GLOBALS%%

daemon off;
master_process off;

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    proxy_http_version 1.1;
    proxy_set_header Connection "";

    upstream u {
        server 127.0.0.1:8081;
        server unix:%%TESTDIR%%/backup.sock backup;
        keepalive 100 slice_key=$host slice_poolsize=100;
        keepalive_hints on margin=500ms learn;
    }

    upstream other {
        server 127.0.0.1:8081;
        keepalive 100;
        keepalive_hints on margin=500ms learn;
    }

    server {
        listen       127.0.0.1:8080;
        server_name  localhost;

        location / {
            proxy_pass http://u;
        }

        location /other/ {
            proxy_pass http://other;
        }

        location = /status {
            keepalive_status;
        }
    }
}

EOF

port(8081);

$t->run_daemon(\&serve_idle, port(8081));
$t->waitforsocket('127.0.0.1:' . port(8081)) or die "Can't start backend\n";
$t->run();

###############################################################################

get('/', "close$_", "X-Close: 1.5\n"), sleep(0.15) for 1 .. 6;
sleep(1.4);
wait_for(sub { !json()->{upstreams}{u}{idle} });

cmp_ok(timeout(), '>', 1.4, 'learned');
cmp_ok(timeout(), '<', 1.8, 'as it is');

my $conn = get('/other/', 'other');

is(get('/other/', 'other'), $conn, 'used at once');
sleep(1.2);
is_new(get('/other/', 'other'), 'not used half a second before');

###############################################################################

sub timeout {
	return json()->{idle_timeouts}{'127.0.0.1:' . port(8081)};
}

###############################################################################

#!/usr/bin/perl

# Tests for worker_connections running short: idle connections are given up for
# those in use, the least recently used ones first.

###############################################################################

use warnings;
use strict;

use Test::More;

use FindBin;
use lib ($ENV{NGINX_TESTS_DIR} ? "$ENV{NGINX_TESTS_DIR}/lib" : ()),
	"$FindBin::Bin/lib";

use Test::Nginx;
use Test::Backend;
use Test::Status;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

my $t = Test::Nginx->new()->has(qw/http proxy/)->plan(11);

$t->write_file_expand('nginx.conf', <<'EOC');

%%TEST_GLOBALS%%

daemon off;

events {
    worker_connections 64;
}

http {
    %%TEST_GLOBALS_HTTP%%

    proxy_http_version 1.1;
    proxy_set_header Connection "";

    upstream idle {
        server 127.0.0.1:8081;
        keepalive 64 slice_key=$host slice_poolsize=64;
    }

    upstream busy {
        server 127.0.0.1:8082;
        keepalive 64 slice_key=$host slice_poolsize=64;
    }

    server {
        listen       127.0.0.1:8080;
        server_name  localhost;

        location /idle/ {
            proxy_pass http://idle;
        }

        location /busy/ {
            proxy_pass http://busy;
        }

        location /status {
            keepalive_status;
        }
    }
}

EOC

start_backend($t, 8081, 8082);
$t->run();

###############################################################################

# a few of the 64 are nginx's own, and it keeps a few in reserve

my @conns = map { get('/idle/', "h$_") } 1 .. 50;

is(scalar(grep { /^\d+$/ } @conns), 50, 'answered');
is(open_conns(), 50, 'idle');
is(get('/idle/', 'h50'), $conns[-1], 'reused');

# one that is used again is not given up, although it was the first

my $used = hold('/idle/', 'h1');

# each needs one for the client and one for the server

my (@held, @answers);

eval {
	push @held, hold('/busy/', "n$_") for 1 .. 12;
	1;
} or note($@);

@answers = map { release($_) } @held;

is(scalar(grep { /^\d+$/ } @answers), 12, 'answered when short');
cmp_ok(open_conns(8081), '<', 50, 'idle ones given up');
cmp_ok(open_conns(8081), '>', 0, 'but not all');

my $idle = json()->{upstreams}{idle};
is($idle->{closed}{worker_connections}, 50 - 1 - $idle->{idle}, 'counted');
is($idle->{idle}, open_conns(8081) - 1, 'the others are idle');

is(release($used), $conns[0], 'used one not given up');
is(get('/busy/', 'n12'), $answers[11], 'new one reused');
is(get('/idle/', 'h50'), $conns[-1], 'recently used one reused');

###############################################################################

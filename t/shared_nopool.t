#!/usr/bin/perl

# Tests for a connection that gets no pool, since there is no memory: one that
# nginx makes, and one that was another worker's.  Only the request fails that
# needs it, if it has no other way.

###############################################################################

use warnings;
use strict;

use Test::More;

use FindBin;
use lib ($ENV{NGINX_TESTS_DIR} ? "$ENV{NGINX_TESTS_DIR}/lib" : ()),
	"$FindBin::Bin/lib";

use Test::Nginx qw/ :DEFAULT http_end /;
use Test::Allocator;
use Test::Backend;
use Test::Status;
use Test::Workers;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

# the size of the pool of a connection to a server

use constant POOL => 128;

my $t = Test::Nginx->new()->has(qw/http proxy rewrite/);

plan(skip_all => 'no such allocator') unless allocator($t);

$t->plan(32);

$t->write_file_expand('nginx.conf', <<'EOC');

%%TEST_GLOBALS%%

daemon off;
worker_processes 3;

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_next_upstream off;

    add_header X-Worker $pid always;
    add_header X-Keepalive $upstream_keepalive always;

    upstream shared {
        server 127.0.0.1:8081;
        keepalive 16 slice_key=$host shared;
    }

    upstream plain {
        server 127.0.0.1:8082;
        keepalive 16 slice_key=$host;
    }

    server {
        listen       127.0.0.1:8080 reuseport;
        server_name  localhost;

        location /shared {
            proxy_pass http://shared;
        }

        location /plain {
            proxy_pass http://plain;
        }

        location = /pid {
            return 204;
        }

        location = /status {
            keepalive_status;
        }
    }
}

EOC

start_backend($t, 8081, 8082);
$t->run();

my @w = workers($t, 3);

###############################################################################

for my $name ('shared', 'plain') {
	my $port = $name eq 'shared' ? 8081 : 8082;

	# a new connection

	my ($r, $calls) = failing(1, $w[0], "/$name", 'a');
	is(code($r), 500, "$name: answered");
	is($calls, 1, "$name: no pool");
	is(wait_open(0, $port), 0, "$name: closed");

	my $u = json()->{upstreams}{$name};
	is("$u->{idle} $u->{saved}", '0 0', "$name: not saved");

	$r = by($w[0], "/$name", 'a');
	is(code($r), 200, "$name: next one");
	is(conn_by($w[0], "/$name", 'a'), conn($r), "$name: kept");
	is(open_conns($port), 1, "$name: one");
}

# one of another worker, instead of which another one is made

my ($r, $calls) = failing(1, $w[1], '/shared', 'a');
is(code($r), 200, 'borrowed: answered');
is_new(my $conn = conn($r), 'borrowed: by another one');
is($calls, 2, 'borrowed: no pool, and one');
is(wait_open(1, 8081), 1, 'borrowed: closed');
is(json()->{upstreams}{shared}{idle}, 1, 'borrowed: forgotten');

# nor is there memory for that

($r, $calls) = failing(2, $w[0], '/shared', 'a');
is(code($r), 500, 'borrowed: answered without');
is($calls, 2, 'borrowed: no pools');
is(wait_open(0, 8081), 0, 'borrowed: both closed');
is(json()->{upstreams}{shared}{idle}, 0, 'borrowed: both forgotten');

is_new($conn = conn_by($w[0], '/shared', 'a'), 'borrowed: next one');
is(conn_by($w[1], '/shared', 'a'), $conn, 'borrowed: of another worker');

# A third worker takes it, while another one finds that it has no memory for
# it: then it is the third one's.

spare_for($_) for @w;
arm(1, 1, $w[0], POOL, 1);

my $s = Test::Workers::to($w[0]);
http(request('GET', '/shared', 'a'), socket => $s, start => 1);
ok(wait_for(sub { failed() }), 'taken: without memory');

my $held = hold_by($w[2], '/shared', 'a');
disarm();

is(code($r = http_end($s)), 200, 'taken: answered');
is_new(conn($r), 'taken: by another one');
is(release($held), $conn, 'taken: used');
is(open_conns(8081), 2, 'taken: none closed');
is(json()->{upstreams}{shared}{idle}, 2, 'taken: both idle');

is(join(' ', workers($t, 3)), join(' ', @w), 'same workers');

###############################################################################

# a request to a worker that gets no memory for so many pools; and how many it
# wanted

sub failing {
	my ($number, $worker, @request) = @_;

	my $s = Test::Workers::to($worker);

	arm(1, $number, $worker, POOL);
	my $r = http(request('GET', @request), socket => $s);
	my $calls = calls();
	disarm();

	return defined $r ? $r : '', $calls;
}

sub code {
	my ($response) = @_;
	return $response =~ m!^HTTP/1\.1 (\d+) ! ? $1 : "none: '$response'";
}

# it ends with the script, although functions refer to it

END { undef $t; }

###############################################################################

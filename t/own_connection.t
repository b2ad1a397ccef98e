#!/usr/bin/perl

# Tests for a balancer that keeps a connection itself, and answers with it: the
# pool is not asked then, and what it knows of the attempt before, to another
# server, does not count for this one.  The balancer is compiled here, see
# module/own_connection.c.

###############################################################################

use warnings;
use strict;

use Test::More;

use FindBin;
use lib ($ENV{NGINX_TESTS_DIR} ? "$ENV{NGINX_TESTS_DIR}/lib" : ()),
	"$FindBin::Bin/lib";

use Test::Nginx;
use Test::Backend;
use Test::Module;
use Test::Status;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

my $t = Test::Nginx->new()->has(qw/http proxy upstream_hash/);

compile_module($t, 'own_connection');

$t->plan(17);

$t->write_file_expand('nginx.conf', <<'EOC');

load_module %%TESTDIR%%/own_connection.so;

%%TEST_GLOBALS%%

daemon off;

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    proxy_http_version 1.1;
    proxy_set_header Connection "";

    upstream u {
        hash $arg_s;
        server 127.0.0.1:8081 max_fails=0;
        server 127.0.0.1:8082 max_fails=0;
        own_connection;
        keepalive 8 slice_key=$host slice_dyn=$arg_n;
    }

    server {
        listen       127.0.0.1:8080;
        server_name  localhost;

        add_header X-Addr $upstream_addr;
        add_header X-Keepalive $upstream_keepalive;

        location / {
            proxy_pass http://u;
            proxy_next_upstream http_500;
        }

        location /status {
            keepalive_status;
        }
    }
}

EOC

my $first = port(8081);

# the first server fails if that is asked for

on_request(sub {
	my ($c, $head) = @_;

	return $c->{port} == $first && $head =~ m!^GET /fails! ? '500 E' : '200 OK';
});

start_backend($t, 8081, 8082);
$t->run();

###############################################################################

# requests that were sent; one of them goes to two servers

my $sent = 0;

# arguments by which the balancer chooses each server

my ($a) = grep { addr("/?s=$_&n=") eq address(8081) } 1 .. 100;
my ($b) = grep { addr("/?s=$_&n=") eq address(8082) } 1 .. 100;

is(keepalive("/?s=$a&n=5"), 'MISS', 'first server');
is(keepalive("/?s=$b&n=&own=1"), 'MISS', 'second, kept by the balancer');

# the first one fails, and the balancer answers with the second's connection

my $r = ask("/fails?s=$a&n=5");

is(header($r, 'X-Addr'), address(8081) . ', ' . address(8082), 'next server');
is(header($r, 'X-Keepalive'), 'HIT, -', 'connection of the balancer');
is(server($r), address(8082), 'answered by the second');

# it was saved as what it is

for my $case ([ $a, 8081, 'MISS' ], [ $a, 8081, 'HIT' ], [ $b, 8082, 'HIT' ]) {
	my ($s, $port, $expected) = @$case;

	$r = ask("/?s=$s&n=5");

	is(header($r, 'X-Addr'), address($port), "address $port");
	is(server($r), address($port), "the server of that address answers");
	is(header($r, 'X-Keepalive'), $expected, "$expected");
}

# and counted as what it is

my $u = json()->{upstreams}{u};

is($u->{balancer}, 1, 'counted');
is($u->{requests}, $sent + 1, 'each attempt is a request');
is($u->{idle}, 2, 'idle');

###############################################################################

sub ask {
	my ($uri) = @_;

	$sent++;

	return http(request('GET', $uri, 'h'));
}

sub address {
	my ($port) = @_;

	return '127.0.0.1:' . port($port);
}

sub header {
	my ($r, $name) = @_;

	return $r =~ /^$name: ([^\r\n]*)/m ? $1 : "none: $r";
}

sub addr {
	my ($uri) = @_;

	return header(ask($uri), 'X-Addr');
}

sub keepalive {
	my ($uri) = @_;

	return header(ask($uri), 'X-Keepalive');
}

# as the server itself says

sub server {
	my ($r) = @_;

	return '127.0.0.1:' . header($r, 'X-Server');
}

###############################################################################

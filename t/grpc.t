#!/usr/bin/perl

# Tests for grpc_pass, to nginx's own HTTP/2 server.

###############################################################################

use warnings;
use strict;

use Test::More;

use FindBin;
use lib ($ENV{NGINX_TESTS_DIR} ? "$ENV{NGINX_TESTS_DIR}/lib" : ()),
	"$FindBin::Bin/lib";

use Test::Nginx;
use Test::Backend;
use Test::Switch;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

my $t = Test::Nginx->new()->has(qw/http http_v2 proxy grpc rewrite/)
	->plan(21);

$t->write_file_expand('nginx.conf', <<'EOC');

%%TEST_GLOBALS%%

daemon off;

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    proxy_http_version 1.1;
    proxy_set_header Connection "";

    upstream sliced {
        server 127.0.0.1:8081;
        keepalive 8 slice_key=$host;
    }

    upstream plain {
        server 127.0.0.1:8081;
        keepalive 8;
    }

    upstream last {
        server 127.0.0.1:8084;
        keepalive 8 slice_key=$host;
    }

    server {
        listen       127.0.0.1:8080;
        server_name  localhost;

        location /grpc/ {
            grpc_pass sliced;
        }

        location /last/ {
            grpc_pass last;
        }

        location /proxy/ {
            proxy_pass http://sliced;
        }

        location /plain/grpc/ {
            grpc_pass plain;
        }

        location /plain/proxy/ {
            proxy_pass http://plain;
        }
    }

    server {
        listen       127.0.0.1:8082 http2;
        listen       127.0.0.1:8083;
        server_name  localhost;

        location / {
            add_header X-Connection $connection;
            add_header X-Protocol $server_protocol;
            return 200 OK;
        }

        location /grpc/big {
            add_header X-Connection $connection;
            alias %%TESTDIR%%/big;
        }

        location /grpc/body {
            proxy_pass http://127.0.0.1:8083/;
            proxy_hide_header X-Connection;
            add_header X-Connection $connection;
        }
    }

    server {
        listen       127.0.0.1:8084 http2;
        server_name  localhost;

        keepalive_requests 4;

        location / {
            add_header X-Connection $connection;
            return 200 OK;
        }
    }
}

EOC

$t->write_file('big', 'x' x 300000);

start_switch($t, 8081, qr/^PRI / => 8082, qr/^/ => 8083);
$t->run();

###############################################################################

my $ca = get('/grpc/', 'a');
is(get('/grpc/', 'a'), $ca, 'same host');
is_new(my $cb = get('/grpc/', 'b'), 'other host');
is(get('/grpc/', 'b'), $cb, 'other host again');
is(get('/grpc/', 'a'), $ca, 'first host again');
is(post('/grpc/body', 'b', 'body'), $cb, 'POST');
is(post('/grpc/body', 'a', 'body'), $ca, 'POST first host');

# windows are those of the connection

my $big = http(request('GET', '/grpc/big', 'a'));
ok($big =~ /\r\n\r\nx+$/ && length $big > 300000, 'big');
is(conn($big), $ca, 'big reused');
is(get('/grpc/', 'a'), $ca, 'after big');

# GOAWAY: a few requests by each connection

my (@a, @b, %a, %b);

for (1 .. 12) {
	push @a, get('/last/', 'a');
	push @b, get('/last/', 'b');
}

@a{@a} = @b{@b} = ();

is(scalar(grep { /^\d+$/ } @a, @b), 24, 'last');
cmp_ok(scalar keys %a, '>', 1, 'last new ones');
cmp_ok(scalar keys %a, '<', 12, 'last reused');
is(scalar(grep { exists $b{$_} } @a), 0, 'last other host');

# two protocols over one server

like(http(request('GET', '/grpc/', 'a')), qr{X-Protocol: HTTP/2}i,
	'grpc protocol');

is_new(my $pa = by('proxy', ''), 'proxy after grpc');
is(by('grpc', ''), $ca, 'grpc after proxy');
is(by('proxy', ''), $pa, 'proxy again');

my $pp = by('proxy', '/plain');
is_new(my $pg = by('grpc', '/plain'), 'grpc after proxy without slice key');
is(by('proxy', '/plain'), $pp, 'proxy again without slice key');
is(by('grpc', '/plain'), $pg, 'grpc again without slice key');
is(by('proxy', '/plain'), $pp, 'proxy once more without slice key');

###############################################################################

# the connection, if the protocol was right

sub by {
	my ($protocol, $prefix) = @_;

	my $r = http(request('GET', "$prefix/$protocol/", 'a'));
	my $want = $protocol eq 'grpc' ? 'HTTP/2.0' : 'HTTP/1.1';
	my $conn = conn($r);

	return $r =~ m{^X-Protocol: $want\r?$}mi ? $conn : "not $want: $conn";
}

###############################################################################

#!/usr/bin/perl

# Tests for keepalive_requests of an upstream: requests through one
# connection.

###############################################################################

use warnings;
use strict;

use Test::More;

use FindBin;
use lib ($ENV{NGINX_TESTS_DIR} ? "$ENV{NGINX_TESTS_DIR}/lib" : ()),
	"$FindBin::Bin/lib";

use Test::Nginx;
use Test::Backend;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

my $t = Test::Nginx->new()->has(qw/http proxy/)->plan(20);

$t->write_file_expand('nginx.conf', <<'EOF');

%%TEST_GLOBALS%%

daemon off;

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    proxy_http_version 1.1;
    proxy_set_header Connection "";

    upstream u {
        server 127.0.0.1:8081;
        keepalive 4 slice_key=$host;
        keepalive_requests 3;
    }

    upstream plain {
        server 127.0.0.1:8081;
        keepalive 4;
        keepalive_requests 2;
    }

    upstream one {
        server 127.0.0.1:8081;
        keepalive 4 slice_key=$host;
        keepalive_requests 1;
    }

    upstream before {
        server 127.0.0.1:8081;
        keepalive_requests 2;
        keepalive 4 slice_key=$host;
    }

    upstream default {
        server 127.0.0.1:8081;
        keepalive 4 slice_key=$host;
    }

    server {
        listen       127.0.0.1:8080;
        server_name  localhost;

        location /u/ {
            proxy_pass http://u/;
        }

        location /plain/ {
            proxy_pass http://plain/;
        }

        location /one/ {
            proxy_pass http://one/;
        }

        location /before/ {
            proxy_pass http://before/;
        }

        location /default/ {
            proxy_pass http://default/;
        }
    }
}

EOF

start_backend($t, 8081);
$t->run();

###############################################################################

my $c = get('/u/', 'a');
is(get('/u/', 'a'), $c, 'second');
is(get('/u/', 'a'), $c, 'third');
is(wait_open(0), 0, 'closed after third');
is_new(my $d = get('/u/', 'a'), 'fourth');
is(get('/u/', 'a'), $d, 'fifth');

# each connection by itself

my $e = get('/u/', 'b');
is(get('/u/', 'a'), $d, 'sixth');
is(wait_open(1), 1, 'closed after sixth');
is(get('/u/', 'b'), $e, 'other host second');
is(get('/u/', 'b'), $e, 'other host third');
is(wait_open(0), 0, 'closed after other host third');

for my $uri ('/plain/', '/before/') {
	$c = get($uri, 'a');
	is(get($uri, 'a'), $c, "$uri second");
	is(wait_open(0), 0, "$uri closed after second");
	is_new(get($uri, 'a'), "$uri third");
	get($uri, 'a');
}

get('/one/', 'a');
is(wait_open(0), 0, 'one');

$c = get('/default/', 'a');
is(scalar(grep { get('/default/', 'a') eq $c } 2 .. 1000), 999, 'default');
is(wait_open(0), 0, 'closed after default');
is_new(get('/default/', 'a'), 'more than default');

###############################################################################

#!/usr/bin/perl

# Tests for keepalive_timeout of an upstream: how long a connection stays
# idle.

###############################################################################

use warnings;
use strict;

use Test::More;

use FindBin;
use lib ($ENV{NGINX_TESTS_DIR} ? "$ENV{NGINX_TESTS_DIR}/lib" : ()),
	"$FindBin::Bin/lib";

use Time::HiRes qw/ sleep time /;

use Test::Nginx;
use Test::Backend;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

my $t = Test::Nginx->new()->has(qw/http proxy/)->plan(25);

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
        keepalive_timeout 1500ms;
    }

    upstream plain {
        server 127.0.0.1:8081;
        keepalive 4;
        keepalive_timeout 500ms;
    }

    upstream none {
        server 127.0.0.1:8081;
        keepalive 4 slice_key=$host;
    }

    upstream zero {
        server 127.0.0.1:8081;
        keepalive 4 slice_key=$host;
        keepalive_timeout 0;
    }

    upstream before {
        server 127.0.0.1:8081;
        keepalive_timeout 500ms;
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

        location /none/ {
            proxy_pass http://none/;
        }

        location /zero/ {
            proxy_pass http://zero/;
        }

        location /before/ {
            proxy_pass http://before/;
        }
    }
}

EOF

start_backend($t, 8081);
$t->run();

###############################################################################

# zero

get('/zero/', 'a');
is(wait_open(0), 0, 'zero');
is_new(get('/zero/', 'a'), 'zero not reused');
is(wait_open(0), 0, 'zero again');

# no limit if not given

my $none = get('/none/', 'a');

# each use starts the time anew

my $c = get('/u/', 'a');
is(get('/u/', 'a'), $c, 'reused at once');

sleep(0.9);
is(get('/u/', 'a'), $c, 'reused in time');

sleep(0.9);
is(get('/u/', 'a'), $c, 'reused in time again');

my $begin = time();
is(wait_open(1), 1, 'timed out');
my $idle = time() - $begin;

cmp_ok($idle, '>', 1.2, 'not too early');
cmp_ok($idle, '<', 4, 'not too late');

is_new(get('/u/', 'a'), 'not reused after timeout');
is(wait_open(1), 1, 'timed out again');

# each connection has its own time

get('/u/', 'b');
sleep(0.8);
my $later = get('/u/', 'c');
is(wait_open(2), 2, 'first timed out');
is(get('/u/', 'c'), $later, 'second still there');

# not while in use

my $held = hold('/u/', 'c');
sleep(1.8);
is(release($held), $later, 'in use for longer');
is(get('/u/', 'c'), $later, 'reused after longer use');
is(wait_open(1), 1, 'timed out after longer use');

# without slices, and before keepalive

for my $uri ('/plain/', '/before/') {
	$c = get($uri, 'a');
	is(get($uri, 'a'), $c, "$uri reused");
	is(wait_open(1), 1, "$uri timed out");
	is_new(get($uri, 'a'), "$uri not reused after timeout");
	is(wait_open(1), 1, "$uri timed out again");
}

is(get('/none/', 'a'), $none, 'no limit');

###############################################################################

#!/usr/bin/perl

# Tests for another module around this one, which calls the callbacks with a copy
# of nginx's peer connection, and answers by itself now and then.  The module is
# compiled here, see module/copied_peer.c.

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

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

my $t = Test::Nginx->new()->has(qw/http proxy cache/);

compile_module($t, 'copied_peer');

$t->plan(9);

$t->write_file_expand('nginx.conf', <<'EOC');

%%TEST_GLOBALS%%

load_module %%TESTDIR%%/copied_peer.so;

daemon off;

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    proxy_cache_path %%TESTDIR%%/cache keys_zone=c:1m;

    proxy_http_version 1.1;
    proxy_set_header Connection "";

    upstream u {
        server 127.0.0.1:8081 max_fails=0;
        server 127.0.0.1:8081 max_fails=0;
        keepalive 8 slice_key=$host local;
    }

    server {
        listen       127.0.0.1:8080;
        server_name  localhost;

        location / {
            proxy_pass http://u;
        }

        location /other/ {
            proxy_pass http://u;
        }

        location /cached/ {
            proxy_pass http://u;
            proxy_cache c;
            proxy_cache_key $uri;
            proxy_cache_use_stale http_500;
            proxy_next_upstream http_500;
            add_header X-Cache $upstream_cache_status;
        }
    }
}

EOC

# fails as often as the arguments say

my %failed;

on_request(sub {
	my ($c, $head) = @_;

	my ($uri, $fail) = $head =~ m!^GET (\S+?(?:fail=(\d))?) !;

	return '500 E' if $fail && $failed{$uri}++ < $fail;
	return ('200 OK', 'X-Accel-Expires: @1');
});

start_backend($t, 8081);
$t->run();

###############################################################################

# what a connection is saved under is not read from around the copy

my $a = get('/', 'a');
is_new($a, 'first');
is(get('/', 'a'), $a, 'kept');
is(post('/', 'a', 'body'), $a, 'kept for POST');

my $b = get('/', 'b');
is_new($b, 'another key');
is_new(get('/other/', 'a'), 'another location');
is(get('/', 'b'), $b, 'another key again');

# a retry that this module is not asked for: it passes on what nginx does
# before it

like(http_get('/cached/x'), qr/ 200 .*X-Cache: MISS/s, 'stored');
like(http_get('/cached/x?answer=1&fail=1'), qr/ 200 .*X-Cache: EXPIRED/s,
	'the other module answers');
like(http_get('/cached/x?answer=1&fail=2'), qr/ 200 .*X-Cache: STALE/s,
	'the cache answers');

###############################################################################

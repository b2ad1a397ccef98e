#!/usr/bin/perl

# Tests for a cached response in place of the server's over HTTP/2: whether a
# connection is kept depends on the server's own response.

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

my $t = Test::Nginx->new()->has(qw/http http_v2 proxy cache rewrite/);

$t->write_file_expand('nginx.conf', <<'EOC');

%%TEST_GLOBALS%%

daemon off;

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    proxy_cache_path %%TESTDIR%%/cache keys_zone=c:1m;

    upstream u {
        server 127.0.0.1:8081;
        keepalive 8 slice_key=$host;
    }

    server {
        listen       127.0.0.1:8080;
        server_name  localhost;

        add_header X-Cache $upstream_cache_status;

        location / {
            proxy_pass http://u;
            proxy_http_version 2;
        }

        location /cached/ {
            proxy_pass http://u;
            proxy_http_version 2;
            proxy_cache c;
            proxy_cache_key $uri;
            proxy_cache_use_stale http_500;
            proxy_cache_revalidate on;
        }
    }

    server {
        listen       127.0.0.1:8081 http2;
        server_name  localhost;

        location / {
            add_header X-Connection $connection;
            add_header X-Accel-Expires @1;
            add_header Last-Modified "Mon, 28 Sep 1970 06:00:00 GMT";

            if ($args = body) {
                return 500 "a body that is not read";
            }

            if ($args = same) {
                return 304;
            }

            return 200 OK;
        }
    }
}

EOC

$t->try_run('no proxy_http_version 2')->plan(7);

###############################################################################

my $c = get('/', 'localhost');
is(get('/', 'localhost'), $c, 'kept');

replaced('body', 'STALE', 0);
replaced('same', 'REVALIDATED', 1);

# the connection of the request that gets the cached response, and the next

sub replaced {
	my ($args, $status, $kept) = @_;

	http_get("/cached/$args");

	my $before = get('/', 'localhost');
	my $r = http_get("/cached/$args?$args");
	my $after = get('/', 'localhost');

	like($r, qr/X-Cache: $status/, "$args $status");
	is($after eq $before ? 1 : 0, $kept, "$args " . ($kept ? '' : 'not ') . 'kept');
	unlike($r, qr/ 500 /, "$args answered from the cache");
}

###############################################################################

END { undef $t; }

###############################################################################

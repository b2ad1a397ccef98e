#!/usr/bin/perl

# Tests for a configuration that has variables of the same names as this
# module's already: they are its own.

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

my $t = Test::Nginx->new()->has(qw/http proxy rewrite map geo/)->plan(8);

$t->write_file_expand('nginx.conf', <<'EOF');

%%TEST_GLOBALS%%

daemon off;

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    proxy_http_version 1.1;
    proxy_set_header Connection "";

    # when the key is made there is no address yet; the value stays

    map $host:$upstream_addr $upstream_keepalive {
        a:       "map of a";
        default  map;
    }

    geo $upstream_keepalive_slice {
        default  geo;
    }

    upstream u {
        server 127.0.0.1:8081;
        keepalive 8 slice_key=$upstream_keepalive;
    }

    add_header X-Attempts $upstream_keepalive;
    add_header X-Slice $upstream_keepalive_slice;
    add_header X-Save $upstream_keepalive_save;

    log_format save '$uri [$upstream_keepalive_save]';
    access_log %%TESTDIR%%/save.log save;

    server {
        listen       127.0.0.1:8080;
        server_name  localhost;

        location /set {
            set $upstream_keepalive_save own;
            proxy_pass http://u;
        }

        location / {
            proxy_pass http://u;
        }
    }
}

EOF

start_backend($t, 8081);
$t->run();

###############################################################################

my $r = http(request('GET', '/set', 'a'));

like($r, qr/^X-Attempts: map of a\r$/m, 'map');
like($r, qr/^X-Slice: geo\r$/m, 'geo');
like($r, qr/^X-Save: own\r$/m, 'set');

# the values are used as any others, and the module does what it does

my $c = conn($r);
is(get('/', 'a'), $c, 'key');
is_new(get('/', 'b'), 'another key');

$t->stop();

my $log = $t->read_file('save.log');

like($log, qr!^/set \[own\]$!m, 'set when logged');
like($log, qr!^/ \[saved\]$!m, 'not set');
unlike($t->read_file('error.log'), qr/duplicate/, 'no error');

###############################################################################

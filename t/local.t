#!/usr/bin/perl

# Tests for local: connections are reused within a location only.

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

my $t = Test::Nginx->new()->has(qw/http proxy/)->plan(18);

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
        keepalive 8 slice_key=$host local;
    }

    upstream plain {
        server 127.0.0.1:8081;
        keepalive 8 local;
    }

    upstream first {
        server 127.0.0.1:8081;
        keepalive 8 local slice_conn=2 slice_key=$host;
    }

    upstream all {
        server 127.0.0.1:8081;
        keepalive 8 slice_key=$host;
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

        location /first/ {
            proxy_pass http://first/;
        }

        location /all/ {
            proxy_pass http://all/;
        }

        location /u2/ {
            proxy_pass http://u/;
        }

        location /plain2/ {
            proxy_pass http://plain/;
        }

        location /first2/ {
            proxy_pass http://first/;
        }

        location /all2/ {
            proxy_pass http://all/;
        }
    }
}

EOF

start_backend($t, 8081);
$t->run();

###############################################################################

# with a key

my $c = get('/u/', 'a');
is(get('/u/', 'a'), $c, 'same location');
is(get('/u/other', 'a'), $c, 'same location other URI');

my $d = get('/u2/', 'a');
is_new($d, 'other location');
is(get('/u2/', 'a'), $d, 'other location again');
is(get('/u/', 'a'), $c, 'first location again');

is_new(my $e = get('/u/', 'b'), 'same location other host');
is_new(get('/u2/', 'b'), 'other location other host');
is(get('/u/', 'b'), $e, 'same location other host again');
is(get('/u/', 'a'), $c, 'first host again');

# without a key

$c = get('/plain/', 'a');
is(get('/plain/', 'b'), $c, 'no key same location');
$d = get('/plain2/', 'a');
is_new($d, 'no key other location');
is(get('/plain2/', 'b'), $d, 'no key other location again');
is(get('/plain/', 'a'), $c, 'no key first location again');

# first of the parameters

$c = get('/first/', 'a');
is(get('/first/', 'a'), $c, 'parameter first, same location');
is_new(get('/first2/', 'a'), 'parameter first, other location');
is_new(get('/first/', 'b'), 'parameter first, other host');

# not given

$c = get('/all/', 'a');
is(get('/all2/', 'a'), $c, 'not local');
is_new(get('/all2/', 'b'), 'not local other host');

###############################################################################

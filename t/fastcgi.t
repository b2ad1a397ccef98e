#!/usr/bin/perl

# Tests for fastcgi_pass: connections are kept if fastcgi_keep_conn is on, and
# are not for proxy_pass to the same server.

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

my $t = Test::Nginx->new()->has(qw/http proxy fastcgi/)->plan(21);

$t->write_file_expand('nginx.conf', <<'EOC');

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
        keepalive 8 slice_key=$host;
    }

    upstream plain {
        server 127.0.0.1:8081;
        keepalive 8;
    }

    upstream off {
        server 127.0.0.1:8082;
        keepalive 8 slice_key=$host;
    }

    server {
        listen       127.0.0.1:8080;
        server_name  localhost;

        location /fastcgi/ {
            fastcgi_pass u;
            fastcgi_keep_conn on;
        }

        location /proxy/ {
            proxy_pass http://u/;
        }

        location /plain/fastcgi/ {
            fastcgi_pass plain;
            fastcgi_keep_conn on;
        }

        location /plain/proxy/ {
            proxy_pass http://plain/;
        }

        location /off/ {
            fastcgi_pass off;
        }
    }
}

EOC

start_backend($t, 8081, 8082);
$t->run();

###############################################################################

my $ca = get('/fastcgi/', 'a');
is(get('/fastcgi/', 'a'), $ca, 'same host');
is_new(my $cb = get('/fastcgi/', 'b'), 'other host');
is(get('/fastcgi/', 'b'), $cb, 'other host again');
is(get('/fastcgi/', 'a'), $ca, 'first host again');
is(post('/fastcgi/', 'a', 'body'), $ca, 'POST');
is(post('/fastcgi/', 'b', 'body'), $cb, 'POST other host');
is_new(my $cc = post('/fastcgi/', 'c', 'body'), 'POST new host');
is(get('/fastcgi/', 'c'), $cc, 'GET after POST');

# two protocols over one server

is_new(my $pa = get('/proxy/', 'a'), 'proxy after fastcgi');
is(get('/fastcgi/', 'a'), $ca, 'fastcgi after proxy');
is(get('/proxy/', 'a'), $pa, 'proxy again');
is_new(my $pf = get('/proxy/', 'f'), 'proxy first');
is_new(my $cf = get('/fastcgi/', 'f'), 'fastcgi second');
is(get('/proxy/', 'f'), $pf, 'proxy first again');
is(get('/fastcgi/', 'f'), $cf, 'fastcgi second again');

my $plain = get('/plain/fastcgi/', 'a');
is_new(my $proxy = get('/plain/proxy/', 'a'), 'without slice key');
is(get('/plain/fastcgi/', 'b'), $plain, 'fastcgi without slice key');
is(get('/plain/proxy/', 'b'), $proxy, 'proxy without slice key');

# fastcgi_keep_conn off

is_new(get('/off/', 'a'), 'off');
is(wait_open(0, 8082), 0, 'off closed');
is_new(get('/off/', 'a'), 'off not reused');

###############################################################################

#!/usr/bin/perl

# Tests for keepalive_time of an upstream: a connection's age.

###############################################################################

use warnings;
use strict;

use Test::More;

use FindBin;
use lib ($ENV{NGINX_TESTS_DIR} ? "$ENV{NGINX_TESTS_DIR}/lib" : ()),
	"$FindBin::Bin/lib";

use Time::HiRes qw/ sleep /;

use Test::Nginx;
use Test::Backend;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

my $t = Test::Nginx->new()->has(qw/http proxy/)->plan(15);

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
        keepalive_time 1s;
    }

    upstream plain {
        server 127.0.0.1:8081;
        keepalive 4;
        keepalive_time 1s;
    }

    upstream before {
        server 127.0.0.1:8081;
        keepalive_time 1s;
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

my @uris = ('/u/', '/plain/', '/before/', '/default/');
my %c = map { $_ => get($_, 'a') } @uris;

is(get($_, 'a'), $c{$_}, "$_ young") for @uris;
is(open_conns(), 4, 'all kept');

sleep(1.2);

# it lasts until the end of the next request

is(open_conns(), 4, 'all kept while idle');
is(get($_, 'a'), $c{$_}, "$_ too old") for @uris;
is(wait_open(1), 1, 'closed');

is_new(get($_, 'a'), "$_ new") for @uris[0 .. 2];
is(get('/default/', 'a'), $c{'/default/'}, 'default');

###############################################################################

#!/usr/bin/perl

# Tests for a balancer that keeps a connection itself, with TLS: nobody knows with
# which settings it was made, so the pool does not take it, even if all of the
# configuration are the same.  The balancer is compiled here, see
# module/own_connection.c.

###############################################################################

use warnings;
use strict;

use Test::More;

use FindBin;
use lib ($ENV{NGINX_TESTS_DIR} ? "$ENV{NGINX_TESTS_DIR}/lib" : ()),
	"$FindBin::Bin/lib";

use Test::Nginx;
use Test::Certificates;
use Test::Module;
use Test::Requests;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

my $t = Test::Nginx->new()
	->has(qw/http http_ssl proxy upstream_least_conn rewrite/)
	->has_daemon('openssl');

compile_module($t, 'own_connection');

$t->plan(4);

certificate($t, 'localhost');

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
    log_format save "$upstream_keepalive $upstream_keepalive_save";

    upstream u {
        least_conn;
        server 127.0.0.1:8081;
        own_connection;
        keepalive 8 slice_key=$host slice_dyn=$arg_n;
    }

    server {
        listen       127.0.0.1:8080;
        server_name  localhost;

        access_log %%TESTDIR%%/save.log save;

        location / {
            proxy_pass https://u;

            # the balancer does not say whose sessions it has

            proxy_ssl_session_reuse off;
        }
    }

    server {
        listen       127.0.0.1:8081 ssl;

        ssl_certificate %%TESTDIR%%/localhost.crt;
        ssl_certificate_key %%TESTDIR%%/localhost.key;

        add_header X-Connection $connection always;
        return 200;
    }
}

EOC

$t->run();

###############################################################################

my $c = conn(http_get('/?own=1&n=0'));
is(conn(http_get('/?n=8')), $c, 'used by the balancer');
is(last_log($t), '- identity', 'not kept');
isnt(conn(http_get('/?n=8')), $c, 'another one');
is(last_log($t), 'MISS saved', 'which is kept');

###############################################################################

sub last_log {
	my ($t) = @_;

	my ($last) = $t->read_file('save.log') =~ /([^\n]*)\n\z/;

	return $last;
}

###############################################################################

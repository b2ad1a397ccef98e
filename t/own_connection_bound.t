#!/usr/bin/perl

# Tests for a balancer that keeps a connection itself, where connections can be
# bound to a local address: nobody knows to which one that connection is, so the
# pool does not take it.  The balancer is compiled here, see
# module/own_connection.c.

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

my $t = Test::Nginx->new()->has(qw/http proxy upstream_least_conn/);

compile_module($t, 'own_connection');

$t->plan(8);

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
            proxy_pass http://u;
        }

        location /bound {
            proxy_pass http://u;
            proxy_bind 127.0.0.2;
        }
    }
}

EOC

start_backend($t, 8081);
$t->run();

###############################################################################

is_new(my $bound = get('/bound?own=1&n=0', 'a'), 'kept by the balancer');
is(get('/?n=8', 'a'), $bound, 'used by the balancer');
is(last_log($t), '- identity', 'not kept');
is_new(my $c = get('/?n=8', 'a'), 'another one');
is(last_log($t), 'MISS saved', 'which is kept');

# also where the request is bound itself

break_idle('finish');
wait_open(0);
is_new($c = get('/?own=1&n=0', 'a'), 'kept by the balancer');
is(get('/bound?n=8', 'a'), $c, 'used for a bound request');
is(last_log($t), '- identity', 'not kept either');

###############################################################################

sub last_log {
	my ($t) = @_;

	my ($last) = $t->read_file('save.log') =~ /([^\n]*)\n\z/;

	return $last;
}

###############################################################################

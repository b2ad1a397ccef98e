#!/usr/bin/perl

# Tests for a server that the upstream does not name: its address may be longer
# than those for which memory was allocated.  Then connections to it are not
# kept, which is said once.  The module that chooses the server is compiled here,
# see module/other_address.c.

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
use Test::Status;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

my $t = Test::Nginx->new()->has(qw/http proxy/);

compile_module($t, 'other_address');

$t->plan(9);

my $d = $t->testdir();

$t->write_file_expand('nginx.conf', <<"EOC");

load_module %%TESTDIR%%/other_address.so;

%%TEST_GLOBALS%%

daemon off;

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    proxy_http_version 1.1;
    proxy_set_header Connection "";

    upstream named {
        server unix:$d/server.sock;
        server 127.0.0.1:8082;
        other_address unix:$d/server.sock;
        keepalive 8 slice_key=\$host;
    }

    upstream u {
        server 127.0.0.1:8082;
        other_address unix:$d/server.sock;
        keepalive 8 slice_key=\$host;
    }

    server {
        listen       127.0.0.1:8080;
        server_name  localhost;

        location /named {
            proxy_pass http://named;
        }

        location / {
            proxy_pass http://u;
        }

        location /status {
            keepalive_status;
        }
    }

    server {
        listen unix:$d/server.sock;

        add_header X-Connection \$connection;

        location / {
            return 200;
        }
    }
}

EOC

$t->run();

###############################################################################

my $named = get('/named', 'a');
is(get('/named', 'a'), $named, 'address that is named');

my $first = get('/', 'a');
is_new($first, 'address that is not named');
is_new(get('/', 'a'), 'not kept');
is_new(get('/', 'b'), 'not kept with another key');
is(get('/named', 'a'), $named, 'address that is named again');

my $u = json()->{upstreams}{u};
is($u->{refused}{address}, 3, 'counted');
is("$u->{misses} $u->{saved} $u->{idle}", '3 0 0', 'and nothing else');

my $log = $t->read_file('error.log');
my $said = () = $log =~ /\[warn\].*server that upstream "u" does not name/g;
is($said, 1, 'said once');
unlike($log, qr/\[warn\].*upstream "named"/, 'of this upstream only');

###############################################################################

#!/usr/bin/perl

# Tests for worker_shutdown_timeout: idle connections do not wait for it, those in
# use are closed by it.

###############################################################################

use warnings;
use strict;

use Test::More;

use FindBin;
use lib ($ENV{NGINX_TESTS_DIR} ? "$ENV{NGINX_TESTS_DIR}/lib" : ()),
	"$FindBin::Bin/lib";

use Test::Nginx;
use Test::Backend;
use Test::Processes;

use Time::HiRes qw/ time /;

use Test::Nginx qw/ http_end /;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

my $t = Test::Nginx->new()->has(qw/http proxy/)->plan(8);

$t->write_file_expand('nginx.conf', <<'EOC');

%%TEST_GLOBALS%%

daemon off;
worker_shutdown_timeout 2s;

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    proxy_http_version 1.1;
    proxy_set_header Connection "";

    upstream u {
        server 127.0.0.1:8081;
        keepalive 16 slice_key=$host;
        keepalive_timeout 60s;
    }

    server {
        listen       127.0.0.1:8080;
        server_name  localhost;

        location / {
            proxy_pass http://u;
        }
    }
}

EOC

start_backend($t, 8081);
$t->run();

###############################################################################

together('/', qw/ a b c /);

my $held = hold('/', 'a');
is(open_conns(), 3, 'idle and in use');

my ($old) = started($t, 1);
my $start = time();

reload($t);

is(wait_open(1), 1, 'idle closed');
cmp_ok(time() - $start, '<', 1.5, 'idle closed at once');
ok(kill(0, $old), 'worker stays');

ok(wait_for(sub { !kill(0, $old) }), 'worker exited');
cmp_ok(time() - $start, '>', 1.5, 'worker exited by the timeout');

# a new one has a connection of the same key

is_new(get('/', 'a'), 'new worker');
http_end($held->{socket});
is(wait_open(1), 1, 'the new connection');

###############################################################################

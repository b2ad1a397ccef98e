#!/usr/bin/perl

# Tests for stub_status: idle connections to servers do not count as waiting
# clients, although nginx may close both when it runs short of connections.

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

my $t = Test::Nginx->new()->has(qw/http proxy stub_status/)->plan(6);

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
        keepalive 5 slice_key=$host;
    }

    server {
        listen       127.0.0.1:8080;
        server_name  localhost;

        location / {
            proxy_pass http://u;
        }

        location /status {
            stub_status;
        }
    }
}

EOF

start_backend($t, 8081);
$t->run();

###############################################################################

is(waiting(), 0, 'nobody');

get('/', "h$_") for 1 .. 8;
is(open_conns(), 5, 'idle connections');
is(waiting(), 0, 'idle connections do not wait');

my $held = hold('/', 'h8');
is(waiting(), 0, 'one in use again');
release($held);

break_idle('finish');
is(wait_open(0), 0, 'closed');
is(waiting(), 0, 'nobody again');

###############################################################################

sub waiting {
	return http_get('/status') =~ /Waiting: (\d+)/ ? $1 : 'none';
}

###############################################################################

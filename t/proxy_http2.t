#!/usr/bin/perl

# Tests for HTTP/2 to the server: HTTP/1.1 and HTTP/2 locations over one
# upstream share nothing.

###############################################################################

use warnings;
use strict;

use Test::More;

use FindBin;
use lib ($ENV{NGINX_TESTS_DIR} ? "$ENV{NGINX_TESTS_DIR}/lib" : ()),
	"$FindBin::Bin/lib";

use Test::Nginx;
use Test::Backend;
use Test::Switch;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

my $t = Test::Nginx->new()->has(qw/http http_v2 proxy grpc rewrite/);

$t->write_file_expand('nginx.conf', <<'EOC');

%%TEST_GLOBALS%%

daemon off;

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    upstream sliced {
        server 127.0.0.1:8081;
        keepalive 8 slice_key=$host;
    }

    upstream plain {
        server 127.0.0.1:8081;
        keepalive 8;
    }

    server {
        listen       127.0.0.1:8080;
        server_name  localhost;

        proxy_read_timeout 2s;
        grpc_read_timeout 2s;

        location /one/ {
            proxy_pass http://sliced;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }

        location /two/ {
            proxy_pass http://sliced;
            proxy_http_version 2;
        }

        location /grpc/ {
            grpc_pass sliced;
        }

        location /plain/one/ {
            proxy_pass http://plain;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }

        location /plain/two/ {
            proxy_pass http://plain;
            proxy_http_version 2;
        }
    }

    server {
        listen       127.0.0.1:8082 http2;
        listen       127.0.0.1:8083;
        server_name  localhost;

        location / {
            add_header X-Connection $connection;
            add_header X-Protocol $server_protocol;
            return 200 OK;
        }

        location /two/body {
            proxy_pass http://127.0.0.1:8083/;
            proxy_hide_header X-Connection;
            add_header X-Connection $connection;
        }
    }
}

EOC

start_switch($t, 8081, qr/^PRI / => 8082, qr/^/ => 8083);
$t->try_run('no proxy_http_version 2')->plan(21);

###############################################################################

my $ca = by('two', 'a');
is(by('two', 'a'), $ca, 'same host');
is_new(my $cb = by('two', 'b'), 'other host');
is(by('two', 'b'), $cb, 'other host again');
is(by('two', 'a'), $ca, 'first host again');
is(post('/two/body', 'a', 'body'), $ca, 'POST');
is(post('/two/body', 'b', 'body'), $cb, 'POST other host');

# three protocols over one server

is_new(my $oa = by('one', 'a'), 'HTTP/1.1 after HTTP/2');
is(by('two', 'a'), $ca, 'HTTP/2 again');
is(by('one', 'a'), $oa, 'HTTP/1.1 again');

is_new(my $oc = by('one', 'c'), 'HTTP/1.1');
is_new(my $cc = by('two', 'c'), 'HTTP/2 after HTTP/1.1');
is(by('one', 'c'), $oc, 'HTTP/1.1 after HTTP/2 again');
is(by('two', 'c'), $cc, 'HTTP/2 after HTTP/1.1 again');

is_new(my $ga = by('grpc', 'a'), 'grpc after HTTP/2');
is(by('two', 'a'), $ca, 'HTTP/2 after grpc');
is(by('grpc', 'a'), $ga, 'grpc again');
is(by('one', 'a'), $oa, 'HTTP/1.1 after grpc');

# without a slice key

my $plain = by('plain/one', 'a');
is_new(my $plain_two = by('plain/two', 'a'), 'without slice key');
is(by('plain/one', 'b'), $plain, 'HTTP/1.1 without slice key');
is(by('plain/two', 'b'), $plain_two, 'HTTP/2 without slice key');
is(by('plain/one', 'c'), $plain, 'HTTP/1.1 without slice key again');

###############################################################################

# the connection, if the protocol was right

sub by {
	my ($location, $host) = @_;

	my $r = http(request('GET', "/$location/", $host));
	my $want = $location =~ /one/ ? 'HTTP/1.1' : 'HTTP/2.0';
	my $conn = conn($r);

	return $r =~ m{^X-Protocol: $want\r?$}mi ? $conn : "not $want: $conn";
}

###############################################################################

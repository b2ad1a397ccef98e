#!/usr/bin/perl

# Tests for http and https locations over the same server: a connection stays
# with what it was made for.

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

my $t = Test::Nginx->new()->has(qw/http http_ssl proxy rewrite/)
	->has_daemon('openssl')->plan(8);

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
        keepalive 16 slice_key=$host;
    }

    upstream plain {
        server 127.0.0.1:8081;
        keepalive 16;
    }

    server {
        listen       127.0.0.1:8080;
        server_name  localhost;

        location /http/ {
            proxy_pass http://u/;
        }

        location /https/ {
            proxy_pass https://u/;
        }

        location /plain_http/ {
            proxy_pass http://plain/;
        }

        location /plain_https/ {
            proxy_pass https://plain/;
        }
    }

    server {
        listen       127.0.0.1:8082 ssl;
        listen       127.0.0.1:8083;
        server_name  localhost;

        ssl_certificate %%TESTDIR%%/localhost.crt;
        ssl_certificate_key %%TESTDIR%%/localhost.key;

        location / {
            add_header X-Connection $connection;
            add_header X-Scheme $scheme;
            return 200;
        }
    }
}

EOC

my $d = $t->testdir();

system('openssl req -x509 -new -nodes -newkey rsa:2048 -days 3650 '
	. "-subj /CN=localhost/ -keyout $d/localhost.key "
	. "-out $d/localhost.crt >>$d/openssl.out 2>&1") == 0
	or die "Can't create certificate: $!\n";

start_switch($t, 8081, qr/^\x16/ => 8082, qr/^/ => 8083);
$t->run();

###############################################################################

for my $order ([ 'http', 'https' ], [ 'https', 'http' ]) {
	my ($first, $second) = @$order;

	my $c = conn_by($first, '', $first);
	is_new(my $n = conn_by($second, '', $first), "$second after $first");
	is(conn_by($first, '', $first), $c, "$first again");
	is(conn_by($second, '', $first), $n, "$second again");
}

# without a slice key

my $c = conn_by('http', 'plain_', 'a');
my $n = conn_by('https', 'plain_', 'a');

is(conn_by('http', 'plain_', 'b'), $c, 'http without slice key');
is(conn_by('https', 'plain_', 'b'), $n, 'https without slice key');

###############################################################################

# the connection, if it was of the right scheme

sub conn_by {
	my ($scheme, $prefix, $host) = @_;

	my $r = http(request('GET', "/$prefix$scheme/", $host));
	my $conn = conn($r);

	return $r =~ /^X-Scheme: $scheme\r?$/m ? $conn : "not $scheme: $conn";
}

###############################################################################

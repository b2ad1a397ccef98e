#!/usr/bin/perl

# Tests for local with shared: a reload that removes one of two servers of the
# same name does not give its connections to the other one, nor that of one of two
# locations.

###############################################################################

use warnings;
use strict;

use Test::More;

use FindBin;
use lib ($ENV{NGINX_TESTS_DIR} ? "$ENV{NGINX_TESTS_DIR}/lib" : ()),
	"$FindBin::Bin/lib";

use IO::Socket::INET;

use Test::Nginx;
use Test::Backend;
use Test::Workers;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

my $t = Test::Nginx->new()->has(qw/http proxy/)->plan(15);

my $server = <<'EOC';
    server {
        listen       127.0.0.1:%d;
        server_name  localhost;

        location / {
            proxy_pass http://u;
        }
    }
EOC

my ($first, $second) = map { sprintf($server, $_) } 8082, 8083;

$t->write_file_expand('nginx.conf', <<'EOC' . "$first$second\n}\n");

%%TEST_GLOBALS%%

daemon off;
worker_processes 1;

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    proxy_http_version 1.1;
    proxy_set_header Connection "";

    upstream u {
        server 127.0.0.1:8081;
        keepalive 8 local shared;
    }

    server {
        listen       127.0.0.1:8080;
        server_name  other;

        location = /a {
            proxy_pass http://u;
        }

        location /a {
            proxy_pass http://u;
        }

        location = "/b" {
            proxy_pass http://u;
        }

        location ~ /b {
            proxy_pass http://u;
        }

        location = /pid {
            return 204;
        }
    }
EOC

start_backend($t, 8081);
$t->run();

###############################################################################

my $of_first = conn_of(8082);
my $of_second = conn_of(8083);

like($of_first, qr/^\d+$/, 'first server');
isnt($of_second, $of_first, 'second server');
is(conn_of(8083), $of_second, 'second server again');

my $conf = $t->read_file('nginx.conf');
my ($written) = $conf =~ /(    server \{\s+listen\s+127.0.0.1:\d+;\s+server_name\s+localhost;.*?\n    \}\n)/s;
renew($t, 1, $written => '');

is(conn_of(8083), $of_second, 'second server after reload');
is(open_conns(), 2, 'connection of the first server is kept');

renew($t, 1, 'worker_processes 1;' => "worker_processes 1;\n");
is(conn_of(8083), $of_second, 'second server after another reload');

# locations of the same text, of which others than the last one are removed

my ($exact, $prefix) = map { get($_) } '/a', '/a/x';
my ($exact_b, $regex) = map { get($_) } '/b', '/b/x';
my %other = map { $_ => 1 } $exact, $exact_b;

isnt($prefix, $exact, 'location = /a and location /a');
isnt($regex, $exact_b, 'location = /b and location ~ /b');
is(get('/a'), $exact, 'location = /a again');

renew($t, 1, "        location = /a {\n            proxy_pass http://u;\n"
	. "        }\n" => '', "        location = \"/b\" {\n"
	. "            proxy_pass http://u;\n        }\n" => '');

for my $uri ('/a', '/b') {
	my $own = $uri eq '/a' ? $prefix : $regex;

	is(get("$uri/x"), $own, "location $uri after reload");

	# two at the same time, so none that is idle is left

	my @conns = together($uri, ('localhost') x 2);
	is(scalar(grep { $_ eq $own } @conns), 1, "location $uri, its own");
	is(scalar(grep { $other{$_} } @conns), 0, "location $uri, not the other");
}

###############################################################################

# the connection of a request to one of the servers

sub conn_of {
	my ($port) = @_;

	my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1:' . port($port))
		or die "Can't connect to nginx: $!\n";

	return conn(http(request('GET', '/', 'localhost'), socket => $s));
}

END { undef $t; }

###############################################################################

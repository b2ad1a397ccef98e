#!/usr/bin/perl

# Tests for keepalive before and after sticky: the client's cookie chooses the
# server, its key the connection.

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

my $t = Test::Nginx->new()->has(qw/http proxy upstream_zone upstream_least_conn/);

$t->write_file_expand('nginx.conf', <<'EOC');

%%TEST_GLOBALS%%

daemon off;

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    proxy_http_version 1.1;
    proxy_set_header Connection "";

    upstream before {
        sticky cookie srv;
        server 127.0.0.1:8081;
        server 127.0.0.1:8082;
        keepalive 16 slice_key=$host;
    }

    upstream after {
        server 127.0.0.1:8081;
        server 127.0.0.1:8082;
        keepalive 16 slice_key=$host;
        sticky cookie srv;
    }

    upstream least {
        keepalive 16 slice_key=$host;
        zone least 64k;
        least_conn;
        sticky cookie srv;
        server 127.0.0.1:8081;
        server 127.0.0.1:8082;
    }

    server {
        listen       127.0.0.1:8080;
        server_name  localhost;

        location /before/ {
            proxy_pass http://before;
        }

        location /after/ {
            proxy_pass http://after;
        }

        location /least/ {
            proxy_pass http://least;
        }
    }
}

EOC

start_backend($t, 8081, 8082);
$t->try_run('no sticky')->plan(19);

###############################################################################

for my $u (qw/ before after least /) {
	my ($r1, $r2) = two_servers("/$u/");

	isnt(server($r1), server($r2), "$u two servers");

	my @same = map { ask("/$u/", 'a', cookie($r1)) } 1 .. 4;
	my @other = map { ask("/$u/", 'a', cookie($r2)) } 1 .. 4;

	is(scalar(grep { server($_) eq server($r1) } @same), 4,
		"$u first server");
	is(scalar(grep { server($_) eq server($r2) } @other), 4,
		"$u other server");

	my %conns = map { conn($_) => 1 } @same, @other;
	is(scalar(keys %conns), 2, "$u reused");

	my @host = map { ask("/$u/", 'b', cookie($r1)) } 1 .. 4;

	is(join(' ', map { server($_) } @host),
		join(' ', (server($r1)) x 4), "$u server of other host");

	subtest "$u other host" => sub {
		plan(tests => 4);
		ok(!$conns{conn($_)}, 'not shared') for @host;
	};

	break_idle('finish');
	wait_open(0);
}

is(join("\n", $t->read_file('error.log') =~ /^.*\[warn\].*$/mg), '',
	'no warnings');

###############################################################################

sub two_servers {
	my ($uri) = @_;

	my @held = map {
		http(request('GET', $uri, 'a'))
	} 1 .. 2;

	return @held;
}

sub ask {
	my ($uri, $host, $cookie) = @_;

	return http(request('GET', $uri, $host, "Cookie: $cookie\n"));
}

sub cookie {
	my ($r) = @_;

	return $r =~ /^Set-Cookie: (srv=[^;\r\n]*)/mi ? $1 : 'srv=none';
}

sub server {
	my ($r) = @_;

	return $r =~ /^X-Server: (\d+)/m ? $1 : 'none';
}

###############################################################################

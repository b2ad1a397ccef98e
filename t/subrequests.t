#!/usr/bin/perl

# Tests for subrequests and internal redirects: mirror, SSI, auth_request and
# X-Accel-Redirect use connections of their slices.

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

my $t = Test::Nginx->new()
	->has(qw/http proxy ssi mirror auth_request rewrite/)->plan(35);

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

    upstream by_uri {
        server 127.0.0.1:8081;
        keepalive 16 slice_key=$uri;
    }

    upstream accel {
        server 127.0.0.1:8082;
        keepalive 16 slice_key=$host;
    }

    server {
        listen       127.0.0.1:8080;
        server_name  localhost;

        location / {
            proxy_pass http://u;
        }

        location /auth/ {
            auth_request /checked;
            auth_request_set $checked $upstream_http_x_connection;
            add_header X-Checked $checked;
            proxy_pass http://u;
        }

        location = /checked {
            proxy_pass http://u/empty;
            proxy_pass_request_body off;
            proxy_set_header Content-Length "";
        }

        location /auth_uri/ {
            auth_request /checked_uri;
            auth_request_set $checked $upstream_http_x_connection;
            add_header X-Checked $checked;
            proxy_pass http://by_uri;
        }

        location = /checked_uri {
            proxy_pass http://by_uri/empty;
        }

        location /ssi {
            default_type text/html;
            ssi on;
        }

        location /mirror/ {
            mirror /copy;
            proxy_pass http://u;
        }

        location = /copy {
            internal;
            proxy_pass http://u/copy;
        }

        location /accel/ {
            proxy_pass http://accel;
        }

        location ~ ^/redirected/(.*) {
            internal;
            add_header X-Redirected-By $1;
            proxy_pass http://u;
        }
    }

    server {
        listen       127.0.0.1:8082;

        add_header X-Accel-Redirect /redirected/$connection;

        location / {
            return 200 "";
        }
    }
}

EOC

$t->write_file('ssi.html', '<!--#include virtual="/1" --> '
	. '<!--#include virtual="/2" --> <!--#include virtual="/3" wait="yes" -->');

start_backend($t, 8081);
$t->run();

###############################################################################

my $ca = get('/', 'a');
is_new(my $cb = get('/', 'b'), 'other host');

# auth_request: the subrequest is over when the request begins, and its response
# has no body that would not be read

for my $round (1 .. 2) {
	for my $host ([ 'a', $ca ], [ 'b', $cb ]) {
		my ($name, $conn) = @$host;
		my $r = http(request('GET', '/auth/', $name));

		is(conn($r), $conn, "auth_request $name $round");
		is(checked($r), $conn, "auth_request $name checked $round");
	}
}

# each of them has a key of its own

my $r = http(request('GET', '/auth_uri/', 'a'));
my ($conn, $checked) = (conn($r), checked($r));

isnt($checked, $conn, 'auth_request other key');

$r = http(request('GET', '/auth_uri/', 'b'));
is(conn($r), $conn, 'auth_request by key');
is(checked($r), $checked, 'auth_request by key checked');

# SSI: several at once

my @a = included('a');
my @b = included('b');

is(scalar @a, 3, 'ssi');
is(scalar @b, 3, 'ssi other host');
is(shared(\@a, \@b), 0, 'ssi not shared');

is(shared([ included('a') ], \@a), 3, 'ssi reused');
is(shared([ included('b') ], \@b), 3, 'ssi other host reused');

my ($open, %froms) = open_conns();
included('a') for 1 .. 3;
included('b') for 1 .. 3;
is(open_conns(), $open, 'ssi no new connections');

# mirror: the subrequest is in the background

for my $host ('a', 'b') {
	my $before = open_conns();

	for (1 .. 3) {
		my $c = get('/mirror/', $host);
		ok((grep { $c eq $_ } $host eq 'a' ? ($ca, @a) : ($cb, @b)),
			"mirror $host $_");
	}

	cmp_ok(open_conns(), '<=', $before + 1, "mirror $host reused");
}

# X-Accel-Redirect: both connections are used again, the first one sends no body

for my $host ('a', 'b') {
	my %from;

	for (1 .. 3) {
		my $r = http(request('GET', '/accel/', $host));
		my $c = conn($r);

		ok((grep { $c eq $_ } $host eq 'a' ? ($ca, @a) : ($cb, @b)),
			"redirected $host $_");
		$from{$r =~ /^X-Redirected-By: (\d+)/m ? $1 : 'none'} = 1;
	}

	is(scalar(keys %from), 1, "redirected $host by one connection");
	$froms{$_} = 1 for keys %from;
}

is(scalar(keys %froms), 2, 'redirected not shared');

###############################################################################

sub checked {
	my ($r) = @_;

	return $r =~ /^X-Checked: (\d+)/m ? $1 : 'none';
}

sub included {
	my ($host) = @_;

	return http(request('GET', '/ssi.html', $host))
		=~ /X-Connection: (\d+)/g;
}

sub shared {
	my ($first, $second) = @_;

	my %second = map { $_ => 1 } @$second;

	return scalar grep { $second{$_} } @$first;
}

###############################################################################

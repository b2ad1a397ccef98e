#!/usr/bin/perl

# Tests beside nginx's own keepalive where it is on by default: it keeps the
# connections of upstreams without keepalive, and none of the others.

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

my $t = Test::Nginx->new()->has(qw/http proxy upstream_hash/);

$t->write_file_expand('nginx.conf', <<'EOC');

%%TEST_GLOBALS%%

daemon off;

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    proxy_http_version 1.1;
    proxy_set_header Connection "";

    upstream default {
        server 127.0.0.1:8081;
    }

    upstream requests {
        server 127.0.0.1:8081;
        keepalive_requests 2;
    }

    upstream timeout {
        server 127.0.0.1:8082;
        keepalive_timeout 300ms;
    }

    upstream time {
        server 127.0.0.1:8081;
        keepalive_time 300ms;
    }

    upstream none {
        server 127.0.0.1:8081;
        keepalive_timeout 0;
    }

    upstream sliced {
        server 127.0.0.1:8081;
        keepalive 8 slice_key=$host;
    }

    upstream hash {
        server 127.0.0.1:8081;
        keepalive_timeout 10s;
        keepalive_requests 100;
        keepalive_time 10s;
        keepalive 8 slice_key=$host;
        hash $host;
    }

    upstream zero {
        server 127.0.0.1:8083;
        keepalive 0;
    }

    upstream zero_sliced {
        server 127.0.0.1:8083;
        keepalive 0 slice_key=$host;
    }

    upstream slice_zero {
        server 127.0.0.1:8083;
        keepalive 8 slice_key=$host slice_conn=0;
    }

    upstream plain {
        server 127.0.0.1:8084;
        keepalive 5;
    }

    upstream one {
        server 127.0.0.1:8085;
        keepalive 1 slice_key=$host;
    }

    server {
        listen       127.0.0.1:8080;
        server_name  localhost;

        location /default/ {
            proxy_pass http://default/;
        }

        location /requests/ {
            proxy_pass http://requests/;
        }

        location /timeout/ {
            proxy_pass http://timeout/;
        }

        location /time/ {
            proxy_pass http://time/;
        }

        location /none/ {
            proxy_pass http://none/;
        }

        location /sliced/ {
            proxy_pass http://sliced/;
        }

        location /other/ {
            proxy_pass http://sliced/;
        }

        location /hash/ {
            proxy_pass http://hash/;
        }

        location /zero/ {
            proxy_pass http://zero/;
        }

        location /zero_sliced/ {
            proxy_pass http://zero_sliced/;
        }

        location /slice_zero/ {
            proxy_pass http://slice_zero/;
        }

        location /plain/ {
            proxy_pass http://plain/;
        }

        location /other_plain/ {
            proxy_pass http://plain/;
        }

        location /one/ {
            proxy_pass http://one/;
        }
    }
}

EOC

start_backend($t, 8081 .. 8085);
$t->run();

my $default = get('/default/', 'a');

plan(skip_all => 'no keepalive by default')
	unless get('/default/', 'a') eq $default;

$t->plan(44);

###############################################################################

# upstreams without keepalive

is(get('/default/', 'a'), $default, 'default reused');
is(get('/default/', 'b'), $default, 'default reused by other host');
is(post('/default/', 'c', 'body'), $default, 'default reused by POST');

is_new(my $requests = get('/requests/'), 'requests');
is(get('/requests/'), $requests, 'requests reused');
is_new(get('/requests/'), 'requests at the limit');

is_new(my $timeout = get('/timeout/'), 'timeout');
is(get('/timeout/'), $timeout, 'timeout reused');
is(wait_open(0, 8082), 0, 'timeout closed');
is_new(get('/timeout/'), 'timeout at the limit');

is_new(my $time = get('/time/'), 'time');
is(get('/time/'), $time, 'time reused');
select undef, undef, undef, 0.4;
is(get('/time/'), $time, 'time last request');
is_new(get('/time/'), 'time at the limit');

is_new(get('/none/'), 'none');
is_new(get('/none/'), 'none not reused');

# sliced ones

for my $u (qw/ sliced hash /) {
	is_new(my $ca = get("/$u/", 'a'), "$u first host");
	is_new(my $cb = get("/$u/", 'b'), "$u other host");
	is(get("/$u/", 'a'), $ca, "$u first host again");
	is(get("/$u/", 'b'), $cb, "$u other host again");
	is_new(post("/$u/", 'c', 'body'), "$u POST of new host");
}

is(get('/other/', 'a'), get('/sliced/', 'a'), 'other location');
is(mixed('/sliced/', 'a' .. 'f'), '', 'sliced, many at once');

# none is kept

for my $u (qw/ zero zero_sliced slice_zero /) {
	is_new(get("/$u/", 'a'), "$u");
	is_new(get("/$u/", 'a'), "$u not reused");
	is(wait_open(0, 8083), 0, "$u closed");
}

# limits of the directive, not those of the other module

is_new(my $plain = get('/plain/', 'a'), 'plain');
is(get('/other_plain/', 'b'), $plain, 'plain other location');

my @c = together('/plain/', ('a') x 9);
is(wait_open(5, 8084), 5, 'plain limit');

@c = together('/one/', qw/ a b c d /);
is(wait_open(1, 8085), 1, 'one limit');
is(get('/one/', 'd'), $c[3], 'one reused');

# nothing else stands between the request and the server

SKIP: {
skip 'no --with-debug', 2 unless $t->has_module('--with-debug');

is(peers('/default/'), 1, 'default asked once');
is(peers('/sliced/'), 1, 'sliced asked once');

}

###############################################################################

# hosts that came by a connection of another one

sub mixed {
	my ($uri, @hosts) = @_;

	my (%owner, %mixed);

	for (1 .. 3) {
		my @order = (@hosts, @hosts);
		my @conns = together($uri, @order);

		for my $i (0 .. $#order) {
			my $owner = $owner{$conns[$i]} ||= $order[$i];
			$mixed{$order[$i]} = 1 if $owner ne $order[$i];
		}

		push @hosts, shift @hosts;
	}

	return join ' ', sort keys %mixed;
}

# how many keepalive modules a request goes through

sub peers {
	my ($uri) = @_;

	my $before = () = $t->read_file('error.log') =~ /init keepalive peer/g;
	get($uri, 'a');
	my $after = () = $t->read_file('error.log') =~ /init keepalive peer/g;

	return $after - $before;
}

# it ends with the script, although functions refer to it

END { undef $t; }

###############################################################################

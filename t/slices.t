#!/usr/bin/perl

# Tests for slices: a request reuses a connection saved under its own key, and
# never one saved under another.

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

my $t = Test::Nginx->new()->has(qw/http proxy/)->plan(30);

$t->write_file_expand('nginx.conf', <<'EOF');

%%TEST_GLOBALS%%

daemon off;

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    proxy_http_version 1.1;
    proxy_set_header Connection "";

    upstream one {
        server 127.0.0.1:8081;
        keepalive 16 slice_key=$host;
    }

    upstream again {
        server 127.0.0.1:8081;
        keepalive 16 slice_key=$host;
    }

    upstream two {
        server 127.0.0.1:8081;
        server 127.0.0.1:8082;
        keepalive 16 slice_key=$host;
    }

    upstream header {
        server 127.0.0.1:8081;
        keepalive 16 slice_key=$http_x_key;
    }

    upstream several {
        server 127.0.0.1:8081;
        keepalive 16 slice_key=$arg_a-$arg_b;
    }

    server {
        listen       127.0.0.1:8080;
        server_name  localhost;

        location /one/ {
            proxy_pass http://one/;
        }

        location /again/ {
            proxy_pass http://again/;
        }

        location /two/ {
            proxy_pass http://two/;
        }

        location /header/ {
            proxy_pass http://header/;
        }

        location /several/ {
            proxy_pass http://several/;
        }
    }
}

EOF

start_backend($t, 8081, 8082);
$t->run();

###############################################################################

# two hosts, one server

my $ka = get('/one/', 'a.example');
is(get('/one/', 'a.example'), $ka, 'same host');

my $kb = get('/one/', 'b.example');
is_new($kb, 'other host');
is(get('/one/', 'b.example'), $kb, 'other host again');
is(get('/one/', 'a.example'), $ka, 'first host again');

is(post('/one/', 'a.example', 'body'), $ka, 'POST after GET');
is(post('/one/', 'b.example', 'body'), $kb, 'POST other host');
is_new(my $kc = post('/one/', 'c.example', 'body'), 'POST new host');
is(get('/one/', 'c.example'), $kc, 'GET after POST');

# the same key and server, but another upstream

is_new(my $ku = get('/again/', 'a.example'), 'other upstream');
is(get('/again/', 'a.example'), $ku, 'other upstream again');
is(get('/one/', 'a.example'), $ka, 'first upstream again');

# several connections of a key

my @d = together('/one/', qw/ d d d /);
my @e = together('/one/', qw/ e e e /);

is(unique(@d, @e), 6, 'in use at once');
is(get('/one/', 'd'), $d[2], 'most recently used first');
is(get('/one/', 'e'), $e[2], 'most recently used first, other host');

is_deeply([ sort_n(together('/one/', qw/ d d d /)) ], [ sort_n(@d) ],
	'all are reused');
is_deeply([ sort_n(together('/one/', qw/ e e e /)) ], [ sort_n(@e) ],
	'all are reused, other host');

my @mixed = together('/one/', qw/ e d e d e d e /);

is_deeply([ sort_n(@mixed[1, 3, 5]) ], [ sort_n(@d) ], 'mixed');
is_deeply([ sort_n(@mixed[0, 2, 4]) ], [ sort_n(@e) ], 'mixed, other host');
is_new($mixed[6], 'none left of the key');

# one host, two servers

my %two;

for (1 .. 2) {
	my $r = http(request('GET', '/two/', 'a'));
	$two{server($r)} = conn($r);
}

is(join(' ', sort keys %two), join(' ', sort(port(8081), port(8082))),
	'both servers');

is(reuse('a', %two), 6, 'own connection of each server');

# the other host turns to the servers in the same order

my @other = together('/two/', 'b', 'b');
is(unique(@other, values %two), 4, 'two servers other host');
is(reuse('a', %two), 6, 'own connection of each server again');

# what is a key

my $empty = get('/header/', 'a');
is(get('/header/', 'b'), $empty, 'empty key');

for my $key ('x', 'X', 'xy', ' "x"') {
	my $conn = get('/header/', 'a', "X-Key: $key\n");
	my $same = get('/header/', 'b', "X-Key: $key\n");

	subtest "key '$key'" => sub {
		plan(tests => 2);
		is($same, $conn, 'reused');
		isnt($conn, $empty, 'not the empty one');
	};
}

my %keys = map { $_ => get("/several/?$_") }
	'a=1', 'b=1', 'a=1&b=1', 'a=11', 'a=2', 'a=1&b=-1', '';

is(unique(values %keys), 7, 'key of several variables');
is(get('/several/?b=1&a=1-'), $keys{'a=1&b=-1'}, 'key is the text it gives');

###############################################################################

sub unique {
	my %n = map { $_ => 1 } @_;
	return scalar keys %n;
}

sub sort_n {
	return sort { $a <=> $b } @_;
}

sub server {
	my ($r) = @_;
	return $r =~ /X-Server: (\d+)/ ? $1 : 'none';
}

sub reuse {
	my ($host, %conns) = @_;

	my $reused = 0;

	for (1 .. 6) {
		my $r = http(request('GET', '/two/', $host));
		$reused++ if $conns{server($r)} eq conn($r);
	}

	return $reused;
}

###############################################################################

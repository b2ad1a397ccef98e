#!/usr/bin/perl

# Tests for proxy_cache: responses are fetched by connections of the slice, also
# in the background.

###############################################################################

use warnings;
use strict;

use Test::More;

use FindBin;
use lib ($ENV{NGINX_TESTS_DIR} ? "$ENV{NGINX_TESTS_DIR}/lib" : ()),
	"$FindBin::Bin/lib";

use Test::Nginx qw/ :DEFAULT http_end /;
use Test::Backend;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

my $t = Test::Nginx->new()->has(qw/http proxy cache/)->plan(18);

$t->write_file_expand('nginx.conf', <<'EOC');

%%TEST_GLOBALS%%

daemon off;

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    proxy_http_version 1.1;
    proxy_set_header Connection "";

    proxy_cache_path %%TESTDIR%%/cache levels=1:2 keys_zone=cache:1m;

    upstream u {
        server 127.0.0.1:8081;
        keepalive 8 slice_key=$host;
    }

    server {
        listen       127.0.0.1:8080;
        server_name  localhost;

        proxy_cache cache;
        proxy_cache_key $host$request_uri;
        proxy_cache_valid 1s;

        add_header X-Status $upstream_cache_status;

        location / {
            proxy_pass http://u;
            proxy_cache_use_stale updating;
            proxy_cache_background_update on;
        }

        location /lock/ {
            proxy_pass http://u;
            proxy_cache_lock on;
        }
    }
}

EOC

start_backend($t, 8081);
$t->run();

###############################################################################

# a response carries the connection that it was fetched by

my ($ca) = is_ask('/x', 'a', 'MISS', undef);
my ($cb) = is_ask('/x', 'b', 'MISS', undef);

isnt($cb, $ca, 'other host');

is_ask('/x', 'a', 'HIT', $ca);
is_ask('/y', 'a', 'MISS', $ca);
is_ask('/x', 'b', 'HIT', $cb);
is_ask('/y', 'b', 'MISS', $cb);

# the stale ones are updated in the background, by subrequests

select undef, undef, undef, 2.1;

is_ask('/x', 'b', 'STALE', $cb);
ok(wait_for(sub { status(request('GET', '/x', 'b')) eq 'HIT' }), 'updated');
is_ask('/x', 'b', 'HIT', $cb);

is_ask('/x', 'a', 'STALE', $ca);
ok(wait_for(sub { status(request('GET', '/x', 'a')) eq 'HIT' }),
	'updated first host');
is_ask('/x', 'a', 'HIT', $ca);

is_ask('/z', 'b', 'MISS', $cb);
is_ask('/z', 'a', 'MISS', $ca);

is(open_conns(), 2, 'no other connections');

# one fetches, the other waits

my $held = hold('/lock/x', 'a');
my $waits = http(request('GET', '/lock/x', 'a'), start => 1);

is(release($held), $ca, 'lock');
is(conn(http_end($waits)), $ca, 'lock waited');

###############################################################################

sub is_ask {
	my ($uri, $host, $status, $conn) = @_;

	my $request = request('GET', $uri, $host);
	my $r = http($request);
	my $c = conn($r);

	local $Test::Builder::Level = $Test::Builder::Level + 1;

	is(($r =~ /^X-Status: (\w+)/m ? $1 : 'none') . ' ' . $c,
		"$status " . (defined $conn ? $conn : $c),
		"$uri of $host $status");

	return $c;
}

sub status {
	my ($request) = @_;

	return http($request) =~ /^X-Status: (\w+)/m ? $1 : 'none';
}

###############################################################################

#!/usr/bin/perl

# Tests for proxy_bind with shared: a connection that moves to another worker, or
# outlives a reload, is used for the local address that it has.

###############################################################################

use warnings;
use strict;

use Test::More;

use FindBin;
use lib ($ENV{NGINX_TESTS_DIR} ? "$ENV{NGINX_TESTS_DIR}/lib" : ()),
	"$FindBin::Bin/lib";

use Test::Nginx;
use Test::Backend;
use Test::Workers;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

my $t = Test::Nginx->new()->has(qw/http proxy rewrite/)->plan(30);

$t->write_file_expand('nginx.conf', <<'EOF');

%%TEST_GLOBALS%%

daemon off;
worker_processes 2;

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    proxy_http_version 1.1;
    proxy_set_header Connection "";

    upstream u {
        server 127.0.0.1:8081;
        keepalive 32 shared;
    }

    server {
        listen       127.0.0.1:8080 reuseport;
        server_name  localhost;

        add_header X-Worker $pid always;
        add_header X-Keepalive $upstream_keepalive always;

        location /variable {
            proxy_pass http://u/;
            proxy_bind $arg_b;
        }

        location /two {
            proxy_pass http://u/;
            proxy_bind 127.0.0.2;
        }

        location /none {
            proxy_pass http://u/;
        }

        location = /pid {
            return 204;
        }
    }
}

EOF

# outlives a reload, as nginx would not

on_request(sub {
	my ($c) = @_;

	return ('200 OK', 'X-Address: ' . $c->{socket}->peerhost());
});

start_backend($t, 8081);
$t->run();

###############################################################################

my ($first, $second) = workers($t, 2);

# saved by one, used by the other

my %conns;

for my $b (qw/ 127.0.0.2 127.0.0.3 /) {
	my $r = by($first, "/variable?b=$b");
	is(address($r), $b, "$b");
	is(found_by($r), 'MISS', "$b, new");
	$conns{$b} = conn($r);
}

for my $b (qw/ 127.0.0.3 127.0.0.2 /) {
	my $r = by($second, "/variable?b=$b");
	is(address($r), $b, "$b in another worker");
	is(found_by($r), 'BORROWED', "$b, moved");
	is(conn($r), $conns{$b}, "$b, the same connection");
}

my $r = by($first, '/variable?b=127.0.0.4');
is(address($r), '127.0.0.4', 'other address');
is(found_by($r), 'MISS', 'other address, new');

$r = by($second, '/none');
is(address($r), '127.0.0.1', 'no address');
is(found_by($r), 'MISS', 'no address, new');

$r = by($first, '/variable');
is(address($r), '127.0.0.1', 'empty address');

# the same, from another location

$r = by($first, '/two');
is(address($r), '127.0.0.2', 'another location');
is(conn($r), $conns{'127.0.0.2'}, 'another location, the same connection');

# many, by turns

my ($wrong, %found) = (0);

for my $i (1 .. 100) {
	my $b = '127.0.0.' . (2 + $i % 12);
	my $r = by($i % 7 < 3 ? $first : $second, "/variable?b=$b");

	$wrong++ if address($r) ne $b;
	$found{found_by($r)}++;
}

is($wrong, 0, 'many, no wrong address');
cmp_ok($found{BORROWED} || 0, '>', 10, 'many, moved');

# after a reload, with other settings too

for my $change ([ '127.0.0.2;' => '127.0.0.3;' ],
	[ 'proxy_bind 127.0.0.3;' => '' ])
{
	my ($new) = renew($t, 2, @$change);
	my $is = $change->[1] ? '127.0.0.3' : '127.0.0.1';

	is(address(by($new, '/two')), $is, "$is after a reload");
	is(address(by($new, '/two')), $is, "$is after a reload, again");

	for my $b (qw/ 127.0.0.2 127.0.0.3 /) {
		my $r = by($new, "/variable?b=$b");
		is(address($r), $b, "$b after a reload");
	}

	$r = by($new, '/variable?b=127.0.0.5');
	like(found_by($r), qr/^(?:HIT|BORROWED)$/, 'kept over a reload');
}

is(address(by((workers($t, 2))[0], '/none')), '127.0.0.1', 'no address in the end');

###############################################################################

sub address {
	my ($response) = @_;

	return $response =~ /^X-Address: (\S+)/m ? $1 : $response;
}

###############################################################################

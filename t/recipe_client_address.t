#!/usr/bin/perl

# Tests for nginx-conf/client-address.conf: the server sees each request on a
# connection from its client's address.

###############################################################################

use warnings;
use strict;

use Test::More;

use FindBin;
use lib ($ENV{NGINX_TESTS_DIR} ? "$ENV{NGINX_TESTS_DIR}/lib" : ()),
	"$FindBin::Bin/lib";

use IO::Socket::INET;
use Socket qw/ IPPROTO_IP /;

use Test::Nginx;
use Test::Backend;
use Test::Builtin;
use Test::Recipe;

use constant IP_TRANSPARENT => 19;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

plan(skip_all => 'transparent is another option here') if $^O ne 'linux';
plan(skip_all => "no transparent connections allowed: $!")
	unless transparent();

my $t = Test::Nginx->new()->has(qw/http proxy/)->plan(25);

recipe($t, 'client-address.conf');

on_request(sub {
	my ($c) = @_;

	return '200 OK', 'X-Client: ' . $c->{socket}->peerhost();
});

start_backend($t, 8081);
$t->run();

###############################################################################

my (%conns, @clients);

@clients = map { "127.0.0.$_" } 2 .. 4;

for my $client (@clients) {
	my $r = from($client);

	is(header($r, 'X-Client'), $client, "$client");
	is_new($conns{$client} = conn($r), "$client connection");
}

for my $round (1 .. 2) {
	for my $client (@clients) {
		my $r = from($client);

		is(header($r, 'X-Client'), $client, "$client again $round");
		is(conn($r), $conns{$client}, "$client reused $round");
	}
}

# many clients

my @wrong = grep { header(from("127.0.1.$_"), 'X-Client') ne "127.0.1.$_" }
	1 .. 100;

is(join(' ', @wrong), '', 'many clients');
is(wait_open(64), 64, 'limit');
is_new(conn(from($clients[0])), 'least recently used is closed');

SKIP: {
skip 'no upstream_keepalive available', 4
	unless $t->has_module('upstream_keepalive');

run_builtin($t);

my $r = from($clients[0]);
is_new(my $c = conn($r), 'built-in, first client');
is(header($r, 'X-Client'), $clients[0], 'built-in, its address');

$r = from($clients[1]);
is(conn($r), $c, 'built-in, same connection');
is(header($r, 'X-Client'), $clients[0], 'built-in, wrong address');

}

###############################################################################

sub from {
	my ($address) = @_;

	my $s = IO::Socket::INET->new(
		Proto => 'tcp',
		LocalAddr => $address,
		PeerAddr => '127.0.0.1:' . port(8080),
	) or die "Can't connect to nginx: $!\n";

	return http(request('GET', '/'), socket => $s);
}

# what nginx will be allowed to do

sub transparent {
	my $s = IO::Socket::INET->new(Proto => 'tcp');

	return setsockopt($s, IPPROTO_IP, IP_TRANSPARENT, pack('i', 1));
}

###############################################################################

#!/usr/bin/perl

# Tests for nginx-conf/limits.conf: known hosts have their limits, unknown ones
# are not kept and push nothing out.

###############################################################################

use warnings;
use strict;

use Test::More;

use FindBin;
use lib ($ENV{NGINX_TESTS_DIR} ? "$ENV{NGINX_TESTS_DIR}/lib" : ()),
	"$FindBin::Bin/lib";

use Test::Nginx;
use Test::Backend;
use Test::Recipe;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

my $t = Test::Nginx->new()->has(qw/http proxy map/)->plan(21);

recipe($t, 'limits.conf');

on_request(sub {
	my ($c, $head) = @_;

	return '200 OK', 'X-Host: ' . header($head, 'Host');
});

start_backend($t, 8081);
$t->run();

###############################################################################

# each known host has its limit

my %limits = (
	'www.example' => 16, 'api.example' => 4, 'a.shop.example' => 2,
	'b.shop.example' => 2,
);

my ($sum, %conns) = (0);

for my $host (sort keys %limits) {
	my @c = together('/', ($host) x 20);

	$sum += $limits{$host};
	is(wait_open($sum), $sum, "limit of $host");

	my $r = http(request('GET', '/', $host));
	is($conns{$host} = conn($r), $c[19], "$host reused");
	is(header($r, 'X-Host'), $host, "$host is what the server is sent");
}

# unknown hosts have none

for my $host ('shop.example', 'x.example', 'x' x 254 . '.shop.example') {
	my $name = substr $host, 0, 20;

	is_new(get('/', $host), $name);
	is_new(get('/', $host), "$name not kept");
}

my %others = map { get('/', "$_.example") => 1 } 1 .. 100;

is(scalar(grep { /^\d+$/ } keys %others), 100, 'many unknown hosts');
is(wait_open($sum), $sum, 'known hosts are kept');

my @reused = grep { get('/', $_) eq $conns{$_} } sort keys %limits;
is(join(' ', @reused), join(' ', sort keys %limits), 'known hosts reused');

###############################################################################

#!/usr/bin/perl

# Tests for nginx-conf/mpm-itk.conf with a server that, like Apache with mpm-itk,
# belongs to the owner of a connection's first host, and closes the connection
# without an answer when a host of another owner follows.

###############################################################################

use warnings;
use strict;

use Test::More;

use FindBin;
use lib ($ENV{NGINX_TESTS_DIR} ? "$ENV{NGINX_TESTS_DIR}/lib" : ()),
	"$FindBin::Bin/lib";

use Test::Nginx;
use Test::Backend;
use Test::Builtin;
use Test::Recipe;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

my $t = Test::Nginx->new()->has(qw/http proxy map/)->plan(21);

recipe($t, 'mpm-itk.conf');

on_request(sub {
	my ($c, $head) = @_;

	# alice is the owner of alice.example and of www.alice.example

	my ($owner) = header($head, 'Host') =~ /(\w+)(?:\.example)?$/;
	$c->{owner} = $owner unless defined $c->{owner};

	return unless $owner eq $c->{owner};
	return '200 OK', "X-Owner: $owner",
		'X-Asked: ' . header($head, 'Connection');
});

start_backend($t, 8081);
$t->run();

###############################################################################

my $r = http(request('GET', '/', 'alice.example'));
is(header($r, 'X-Owner'), 'alice', 'owner');
is(header($r, 'X-Asked'), 'keep-alive', 'keep-alive by name');

my $alice = conn($r);
is(get('/', 'www.alice.example'), $alice, 'other host of the owner');

is_new(my $bob = post('/', 'bob.example', 'body'), 'other owner');
is(post('/', 'bob.example', 'body'), $bob, 'other owner again');
is(post('/', 'alice.example', 'body'), $alice, 'first owner again');

is_new(my $other = get('/', 'other.example'), 'unknown host');
is(get('/', 'other.example'), $other, 'unknown host again');

# a name that is not a host's does not get into a slice of a user

is_new(get('/', 'alice'), 'a name is not alice');
isnt(get('/', 'user:alice'), $alice, 'nor is one with a port');
is(get('/', 'alice.example'), $alice, 'alice again');

# POSTs, which are not sent twice, of all owners at once

my @hosts = map { "$_.example" } qw/ alice bob www.alice carol other /;
my @failed = grep { $_ !~ /^\d+$/ } map { post('/', $_, 'body') } (@hosts) x 5;
is(join(', ', @failed), '', 'all answered');

# limits: of a user, and of all

break_idle('finish');
is(wait_open(0), 0, 'none left');

together('/', ('alice.example') x 12);
is(wait_open(8), 8, 'limit of a user');

together('/', map { ($_) x 8 } @hosts, 'more.example');
is(wait_open(32), 32, 'limit of all');
is_new(get('/', 'another.example'), 'one more');
is(open_conns(), 32, 'limit of all again');

SKIP: {
skip 'no upstream_keepalive available', 4
	unless $t->has_module('upstream_keepalive');

run_builtin($t);

is_new($alice = post('/', 'alice.example', 'body'), 'built-in, first owner');
is(post('/', 'www.alice.example', 'body'), $alice, 'built-in, same owner');
like(post('/', 'bob.example', 'body'), qr/ 502 /, 'built-in, other owner');
is_new(post('/', 'bob.example', 'body'), 'built-in, after the failure');

}

###############################################################################

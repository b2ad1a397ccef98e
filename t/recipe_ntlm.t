#!/usr/bin/perl

# Tests for nginx-conf/ntlm.conf with a server that, as with NTLM, takes each
# request on a connection for one of the user who has authenticated there.

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
use Test::Backend::NTLM;
use Test::Processes;
use Test::Recipe;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

my $t = Test::Nginx->new()->has(qw/http proxy/)->plan(34);

recipe($t, 'ntlm.conf');

on_request(\&authenticated);
start_backend($t, 8081);
$t->run();

###############################################################################

# a handshake, and requests without credentials

my $alice = client();
is(user($alice), '401', 'first request');
like(my $challenge = user($alice, 'NTLM hello'), qr/^401 challenge/, 'challenge');
is(answer($alice, 'alice', challenge($challenge)), 'alice', 'authenticated');
is(user($alice), 'alice', 'without credentials');
is(open_conns(), 2, 'one of its own, one for all before');

# others are not alice, whether they authenticate or not

my $bob = client();
is(user($bob), '401', 'other client');
is(log_in_as($bob, 'bob'), 'bob', 'other client authenticated');
is(user($alice), 'alice', 'first client again');
is(user($bob), 'bob', 'other client again');
is(user(client()), '401', 'one more client');

my $post = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nbody";
is(header(exchange($alice, $post), 'X-User'), 'alice', 'POST of the first');
is(header(exchange($bob, $post), 'X-User'), 'bob', 'POST of the other');
is(status(exchange(client(), $post)), '401', 'POST of one more');

# half a handshake is nobody's

my $half = client();
like($challenge = user($half, 'NTLM hello'), qr/^401 challenge/, 'half a handshake');
is(answer(client(), 'mallory', challenge($challenge)), '401',
	'not by another client');
is(answer($half, 'carol', challenge($challenge)), 'carol', 'by the same client');

# clients leave nothing behind

is(wait_open(4), 4, 'three of their own, one for all others');
close $alice;
is(strangers(40), '', 'alice has gone');
is(wait_open(3), 3, 'and what was hers');

# clients that come, go and authenticate in any order

is(anyone(400), '', 'each is who it is');

# a reload

$bob = client();
is(log_in_as($bob, 'bob'), 'bob', 'before reload');
reload($t);
ok(wait_for(sub {
	$t->read_file('error.log') =~ /gracefully shutting down/
}), 'reload');
is(strangers(40), '', 'after reload');
is(log_in_as($alice = client(), 'alice'), 'alice', 'authenticated again');

# least recently used ones are closed, and there is nothing worse to it

my @many = map { client() } 1 .. 300;
is(join(' ', grep { $_ ne 'many' } map { log_in_as($_, 'many') } @many), '',
	'too many');
is(wait_open(256), 256, 'not more than that');
is(user($alice), '401', 'has to authenticate again');
is(log_in_as($alice, 'alice'), 'alice', 'does so');
is(user($alice), 'alice', 'and stays so');

@many = ();

SKIP: {
skip 'no upstream_keepalive available', 5
	unless $t->has_module('upstream_keepalive');

run_builtin($t);

is(log_in_as($alice = client(), 'alice'), 'alice', 'built-in');
is(user($bob = client()), 'alice', 'built-in, other client is the first');
is(log_in_as($bob, 'bob'), 'bob', 'built-in, other client authenticated');
is(user($alice), 'bob', 'built-in, first client is the other');
isnt(anyone(100), '', 'built-in, each may be anyone');

}

###############################################################################

# new clients that are taken for somebody

sub strangers {
	my ($n) = @_;

	return join ' ', grep { $_ ne '401' } map { user(client()) } 1 .. $n;
}

# clients that are taken for somebody else

sub anyone {
	my ($n) = @_;

	my (%clients, %users, @wrong);

	srand(1);

	for my $i (1 .. $n) {
		my $who = int rand 20;
		my $does = rand;

		if ($does < 0.2) {
			delete $clients{$who};
			delete $users{$who};
		}

		my $client = $clients{$who} ||= client();

		if ($does > 0.7) {
			$users{$who} = "user$who";
			log_in_as($client, $users{$who});
		}

		my $user = user($client);
		my $expected = $users{$who} || '401';

		push @wrong, "$expected: $user" if $user ne $expected;
	}

	return join ', ', @wrong;
}

###############################################################################

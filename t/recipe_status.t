#!/usr/bin/perl

# Tests for nginx-conf/status.conf: what a request did is logged, and what all of
# them did is shown, but not where everybody can see it.

###############################################################################

use warnings;
use strict;

use Test::More;

use FindBin;
use lib ($ENV{NGINX_TESTS_DIR} ? "$ENV{NGINX_TESTS_DIR}/lib" : ()),
	"$FindBin::Bin/lib";

use IO::Socket::INET;

use Test::Nginx;
use Test::Backend;
use Test::Recipe;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

my $t = Test::Nginx->new()->has(qw/http proxy access/)->plan(9);

recipe($t, 'status.conf',
	'logs/keepalive.log' => '%%TESTDIR%%/keepalive.log');

start_backend($t, 8082);
$t->run();

###############################################################################

is(get('/', 'a.example'), get('/', 'a.example'), 'reused');
is_new(get('/', 'b.example'), 'another key');

my $log = $t->read_file('keepalive.log');
my $address = '127.0.0.1:' . port(8082);

like($log, qr/ 200 \Q$address\E \d+\.\d+ keepalive="MISS" save=saved slice="a\.example"$/m,
	'miss logged');
like($log, qr/ keepalive="HIT" save=saved slice="a\.example"$/m, 'hit logged');
like($log, qr/ keepalive="MISS" save=saved slice="b\.example"$/m,
	'another key logged');

my $json = http("GET /keepalive HTTP/1.0\n\n", socket => status());
like($json, qr/"hits":1,"misses":2,.*\{"key":"a\.example","idle":1,"hits":1\}/,
	'shown');

my $metrics = http("GET /metrics HTTP/1.0\n\n", socket => status());
like($metrics, qr/^nginx_upstream_keepalive_hits_total\{upstream="backend"\} 1$/m,
	'metrics');
unlike($metrics, qr/a\.example/, 'without keys');

unlike(http_get('/keepalive'), qr/busiest/, 'not for everybody');

###############################################################################

sub status {
	return IO::Socket::INET->new(PeerAddr => '127.0.0.1:' . port(8081))
		|| die "Can't connect: $!\n";
}

###############################################################################

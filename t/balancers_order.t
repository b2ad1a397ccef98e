#!/usr/bin/perl

# Tests for the place of keepalive in an upstream: it may stand anywhere, also
# before the servers, the zone and the balancing method.

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
	->has(qw/http proxy upstream_hash upstream_ip_hash/)
	->has(qw/upstream_least_conn upstream_random upstream_zone/);

my @methods = ('', 'ip_hash;', 'hash $arg_s;', 'hash $arg_s consistent;',
	'least_conn;', 'random;', 'random two;', 'random two least_conn;');

my (%upstreams, $upstreams, $locations);

for my $method (@methods) {
	for my $zone ('', 'zone %s 64k;') {
		add($method, $zone, keepalive(), $method, $zone, servers());
		add($method, $zone, $zone, keepalive(), servers(), $method);
		add($method, $zone, servers(), $method, $zone, keepalive());
	}
}

# backup servers, where the method has them

for my $method (@methods[0, 2, 3, 4]) {
	my $backup = 'server 127.0.0.1:8083 backup;';

	next if $method =~ /hash/;

	add("$method backup", '', keepalive(), servers(), $backup, $method);
	add("$method backup", '', $method, servers(), $backup, keepalive());
}

$t->write_file_expand('nginx.conf', <<"EOC");

%%TEST_GLOBALS%%

daemon off;

events {
    worker_connections 2048;
}

http {
    %%TEST_GLOBALS_HTTP%%

    proxy_http_version 1.1;
    proxy_set_header Connection "";

$upstreams

    server {
        listen       127.0.0.1:8080;
        server_name  localhost;

$locations
    }
}

EOC

start_backend($t, 8081, 8082, 8083);
$t->plan(1 + keys %upstreams)->run();

###############################################################################

for my $name (sort { $a <=> $b } keys %upstreams) {
	is(faults("/$name/"), '', $upstreams{$name});
}

# above all no "load balancing method redefined"

is(join("\n", $t->read_file('error.log') =~ /^.*\[(?:warn|error)\].*$/mg), '',
	'no warnings');

###############################################################################

sub keepalive {
	return 'keepalive 8 slice_key=$host;';
}

sub servers {
	return "server 127.0.0.1:8081;\nserver 127.0.0.1:8082;";
}

sub add {
	my ($method, $zone, @lines) = @_;

	my $name = 1 + keys %upstreams;
	my $text = join "\n", grep { length } @lines;

	$text =~ s/%s/zone$name/;
	$upstreams .= "upstream u$name {\n$text\n}\n";
	$locations .= "location /$name/ {\nproxy_pass http://u$name;\n}\n";

	my ($first) = $text =~ /^(\w+)/;
	$upstreams{$name} = ($method || 'round robin')
		. ($zone ? ' with zone' : '') . ", $first first";
}

# two servers and two hosts, so there are 4 connections at most

sub faults {
	my ($uri) = @_;

	my (%hosts, %servers, @faults);

	for my $n (1 .. 12) {
		for my $host (qw/ a b /) {
			my $r = http(request('GET', "$uri?s=$n", $host));
			my $conn = conn($r);
			my ($server) = $r =~ /^X-Server: (\d+)/m;

			$hosts{$conn}{$host} = 1;
			$servers{$conn}{$server || $conn} = 1;
		}
	}

	push @faults, 'more than 4 connections: ' . keys %hosts
		if keys %hosts > 4;
	push @faults, 'shared by hosts'
		if grep { keys %$_ > 1 } values %hosts;
	push @faults, 'more than one server'
		if grep { keys %$_ > 1 } values %servers;

	break_idle('finish');
	push @faults, 'still open' if wait_open(0);

	return join ', ', @faults;
}

###############################################################################

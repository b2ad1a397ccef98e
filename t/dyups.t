#!/usr/bin/perl

# Tests for upstreams that Tengine's dyups makes, replaces and deletes in running
# workers, under load: they are sliced, and their connections end.

###############################################################################

use warnings;
use strict;

use Test::More;

use FindBin;
use lib ($ENV{NGINX_TESTS_DIR} ? "$ENV{NGINX_TESTS_DIR}/lib" : ()),
	"$FindBin::Bin/lib";

use Test::Nginx;
use Test::Backend;

use Time::HiRes qw/ sleep time /;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

my $t = Test::Nginx->new()->has(qw/http proxy rewrite dyups/)->plan(17);

my $d = $t->testdir();

$t->write_file_expand('nginx.conf', <<'EOC');

%%TEST_GLOBALS%%

daemon off;
worker_processes 2;

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    dyups_read_msg_timeout 20ms;

    # not that of the system, for names that are no upstreams

    resolver 127.0.0.1:8090;
    resolver_timeout 100ms;

    proxy_http_version 1.1;
    proxy_set_header Connection "";

    server {
        listen       127.0.0.1:8080 reuseport;
        server_name  localhost;

        location / {
            proxy_pass http://$arg_u;
        }

        location = /pid {
            return 200 $pid;
        }

        location /upstream/ {
            dyups_interface;
        }
    }
}

EOC

start_backend($t, 8081);
$t->run();

###############################################################################

# dyups takes a worker that begins after the first change for one that crashed

my %pids;

ok(wait_for(sub {
	$pids{$1} = 1 if http_get('/pid') =~ /(\d+)$/;
	return keys %pids == 2;
}), 'workers');

# those that are made

my $sliced = 'server 127.0.0.1:' . port(8081)
	. '; keepalive 16 slice_key=$host slice_conn=2; keepalive_timeout 2s;';

for my $name (qw/ one two three /) {
	is(make($name, $sliced), 200, "$name made");
	ok(everywhere(sub { get("/?u=$name", 'w') =~ /^\d+$/ }), "$name, in workers");
}

# a mistake is refused, and changes nothing

isnt(make('one', $sliced =~ s/16/x/r), 200, 'invalid');
like(get('/?u=one', 'w'), qr/^\d+$/, 'as before');

# replaced under load, and one of them deleted and made again

$t->run_daemon(\&load, $_) for 1 .. 3;

for my $n (1 .. 40) {
	make($_, $sliced) for qw/ one two three /;
	drop('three') if $n % 4 == 0;
	sleep(0.05);
}

make('three', $sliced);
$t->write_file('stop', 'stop');

ok(wait_for(sub { 3 == grep { -f "$d/load.$_" } 1 .. 3 }), 'load ended');

my (%owner, %mixed, %failed, $requests);

for my $line (map { split /\n/, $t->read_file("load.$_") } 1 .. 3) {
	my ($name, $host, $conn) = split / /, $line, 3;

	$requests++;
	$failed{$name}{$conn}++, next if $conn !~ /^\d+$/;
	$mixed{$conn} = 1 if ($owner{$conn} ||= "$name $host") ne "$name $host";
}

is(join(', ', grep { $_ ne 'three' } keys %failed), '', 'all answered');
is(join(', ', map { keys %$_ } values %failed),
	$failed{three} ? "none: 'HTTP/1.1 502 Bad Gateway'" : '',
	'but for those of a deleted upstream');
is(join(' ', keys %mixed), '', 'none shared');
cmp_ok(scalar keys %owner, '<', $requests, 'reused');

# deleted, in all workers: their connections end by the timeout, and then dyups
# frees the upstream

drop($_) for qw/ one two three /;
is(wait_open(0), 0, 'idle closed');
is(make('one', $sliced), 200, 'made once more');
ok(everywhere(sub { get('/?u=one', 'w') =~ /^\d+$/ }), 'in workers');

###############################################################################

# sends a request for an upstream to the interface, and returns the status

sub make {
	my ($name, $body) = @_;

	my $r = http("POST /upstream/$name HTTP/1.0\x0d\x0a"
		. "Host: localhost\x0d\x0aContent-Length: " . length($body)
		. "\x0d\x0a\x0d\x0a$body");

	return $r =~ m!^HTTP/1\.. (\d+)! ? $1 : 'none';
}

sub drop {
	my ($name) = @_;

	return http("DELETE /upstream/$name HTTP/1.0\x0d\x0a"
		. "Host: localhost\x0d\x0a\x0d\x0a");
}

# whether it is so, whichever worker answers

sub everywhere {
	my ($code) = @_;

	return wait_for(sub { 20 == grep { $code->() } 1 .. 20 });
}

sub load {
	my ($number) = @_;

	my @hosts = ("a$number", "b$number", 'c', 'd');
	my @names = qw/ one two three /;
	my $results = '';

	for (my $n = 0; !-f "$d/stop" && $n < 100000; $n++) {
		my $host = $hosts[$n % @hosts];
		my $name = $names[$n / @hosts % @names];

		$results .= "$name $host " . get("/?u=$name", $host) . "\n";
	}

	# there when it is complete

	$t->write_file("load.new.$number", $results);
	rename "$d/load.new.$number", "$d/load.$number";
}

# it ends with the script, although functions refer to it

END { undef $t; }

###############################################################################

#!/usr/bin/perl

# Tests for reload under load: no request is lost, and the old workers exit.

###############################################################################

use warnings;
use strict;

use Test::More;

use FindBin;
use lib ($ENV{NGINX_TESTS_DIR} ? "$ENV{NGINX_TESTS_DIR}/lib" : ()),
	"$FindBin::Bin/lib";

use Test::Nginx;
use Test::Backend;
use Test::Processes;

use Time::HiRes qw/ sleep time /;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

my $t = Test::Nginx->new()->has(qw/http proxy/)->plan(9);

my $d = $t->testdir();

$t->write_file_expand('nginx.conf', <<'EOC');

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
        keepalive 16 slice_key=$host;
    }

    server {
        listen       127.0.0.1:8080;
        server_name  localhost;

        location / {
            proxy_pass http://u;
        }
    }
}

EOC

start_backend($t, 8081);
$t->run();

###############################################################################

# only idle connections

together('/', qw/ a b c d e f /);
is(open_conns(), 6, 'idle');

my @old = started($t, 2);
is(scalar @old, 2, 'workers');

reload($t, 2);
ok(wait_for(sub { !alive(@old) }), 'old workers exited');
is(wait_open(0), 0, 'idle closed');

# under load

$t->run_daemon(\&load, $_) for 1 .. 3;

for (1 .. 4) {
	sleep(0.25);
	reload($t, 2);
}

# the clients go on with the last workers for a while

sleep(0.25);
$t->write_file('stop', 'stop');

ok(wait_for(sub { 3 == grep { -f "$d/load.$_" } 1 .. 3 }), 'load ended');

my (%owner, %mixed, @failed, $requests);

for my $line (map { split /\n/, $t->read_file("load.$_") } 1 .. 3) {
	my ($host, $conn) = split / /, $line, 2;

	$requests++;
	push @failed, $conn and next if $conn !~ /^\d+$/;
	$mixed{$conn} = 1 if ($owner{$conn} ||= $host) ne $host;
}

is(join(', ', @failed), '', 'all answered');
is(join(' ', keys %mixed), '', 'none shared');
cmp_ok(scalar keys %owner, '<', $requests, 'reused');

ok(wait_for(sub { alive(started($t)) == 2 }), 'only the last workers');

###############################################################################

sub alive {
	return scalar grep { kill 0, $_ } @_;
}

sub load {
	my ($number) = @_;

	my @hosts = ("a$number", "b$number", 'c', 'd');
	my $results = '';

	for (my $n = 0; !-f "$d/stop" && $n < 100000; $n++) {
		my $host = $hosts[$n % @hosts];
		$results .= "$host " . get('/', $host) . "\n";
	}

	# there when it is complete

	$t->write_file("load.new.$number", $results);
	rename "$d/load.new.$number", "$d/load.$number";
}

# it ends with the script, although functions refer to it

END { undef $t; }

###############################################################################

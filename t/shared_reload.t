#!/usr/bin/perl

# Tests for shared over a reload: idle connections outlive it with all that is
# known about them, and those that the new configuration has no use for are
# closed.

###############################################################################

use warnings;
use strict;

use Test::More;

use FindBin;
use lib ($ENV{NGINX_TESTS_DIR} ? "$ENV{NGINX_TESTS_DIR}/lib" : ()),
	"$FindBin::Bin/lib";

use Time::HiRes qw/ sleep time /;

use Test::Nginx;
use Test::Backend;
use Test::Processes;
use Test::Status;
use Test::Workers;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

use constant WORKERS => 3;

my $t = Test::Nginx->new()->has(qw/http proxy rewrite/)->plan(55);

my $d = $t->testdir();

$t->write_file_expand('nginx.conf', <<'EOC');

%%TEST_GLOBALS%%

daemon off;
worker_processes 3;

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_next_upstream off;

    add_header X-Worker $pid always;
    add_header X-Keepalive $upstream_keepalive always;

    upstream u {
        server 127.0.0.1:8081;
        keepalive 16 slice_key=$host slice_conn=4 shared;
        keepalive_requests 100000;
    }

    upstream requests {
        server 127.0.0.1:8082;
        keepalive 16 slice_key=$host shared;
        keepalive_requests 5;
    }

    upstream timeout {
        server 127.0.0.1:8083;
        keepalive 16 slice_key=$host shared;
        keepalive_timeout 4s;
    }

    upstream time {
        server 127.0.0.1:8084;
        keepalive 16 slice_key=$host shared;
        keepalive_time 3s;
    }

    upstream servers {
        server 127.0.0.1:8085;
        server 127.0.0.1:8086;
        keepalive 16 slice_key=$host shared;
    }

    upstream fewer {
        server 127.0.0.1:8087;
        keepalive 8 slice_key=$host slice_conn=3 slice_poolsize=7 shared;
    }

    upstream key {
        server 127.0.0.1:8088;
        keepalive 16 slice_key=$arg_one shared;
    }

    upstream local {
        server 127.0.0.1:8089;
        keepalive 16 slice_key=$host local shared;
    }

    server {
        listen       127.0.0.1:8080 reuseport;
        server_name  localhost;

        location /u/ {
            proxy_pass http://u;
        }

        location /requests/ {
            proxy_pass http://requests;
        }

        location /timeout/ {
            proxy_pass http://timeout;
        }

        location /time/ {
            proxy_pass http://time;
        }

        location /servers/ {
            proxy_pass http://servers;
        }

        location /fewer/ {
            proxy_pass http://fewer;
        }

        location /key/ {
            proxy_pass http://key;
        }

        location /first/ {
            proxy_pass http://local;
        }

        location /second/ {
            proxy_pass http://local;
        }

        # new location

        location = /pid {
            return 204;
        }

        location = /status {
            keepalive_status;
        }
    }
}

EOC

on_request(sub {
	my ($c) = @_;
	return '200 OK', "X-Requests: $c->{requests}";
});

start_backend($t, 8081 .. 8089);
$t->run();

###############################################################################

# connections that any of the workers has saved

my @old = workers($t, WORKERS);
my %made;

for my $host ('a' .. 'f') {
	my @held = map { hold_by($old[$_], '/u/', $host) } 0, 1;
	$made{ release($_) } = $host for @held;
}

is(open_conns(8081), 12, 'idle');

# age and use of others, which go on

my $requests = conn_by($old[0], '/requests/', 'a');
is(conn_by($old[1], '/requests/', 'a'), $requests, 'second request');

my $begin = time();
my $timeout = conn_by($old[0], '/timeout/', 'a');
my $time = conn_by($old[0], '/time/', 'a');

my @first = map { conn_by($old[$_], '/first/', 'a') } 0 .. 2;
is_deeply(\@first, [ ($first[0]) x 3 ], 'location');
isnt(my $second = conn_by($old[1], '/second/', 'a'), $first[0],
	'other location');

my @workers = renew($t, WORKERS);
is(scalar(grep { my $new = $_; grep { $_ == $new } @old } @workers), 0,
	'other workers');

is(open_conns(8081), 12, 'idle after reload');
my $u = json()->{upstreams}{u};
is("$u->{idle} $u->{slices}", '12 6', 'idle and slices after reload');

is($u->{shared}{kept_over_reload}, 12, 'kept over reload');
is($u->{shared}{refused_handovers}, 0, 'none refused');
is($u->{closed}{shutdown}, 0, 'none closed');

my (@other, %workers);

for my $host ('a' .. 'f') {
	for my $worker (@workers) {
		my $r = by($worker, '/u/', $host);
		my $conn = conn($r);

		$workers{ found_by($r) }++;
		push @other, "$host: $conn" if ($made{$conn} || '') ne $host;
	}
}

is(join(', ', @other), '', 'every request on a kept connection of its key');
ok(!$workers{MISS} && $workers{BORROWED} && $workers{HIT}, 'own and borrowed');
is(open_conns(8081), 12, 'none new');

# the location is what it was

is(conn_by($workers[$_], '/first/', 'a'), $first[0], "location $_") for 0 .. 2;
is(conn_by($workers[0], '/second/', 'a'), $second, 'other location again');

# also if there is another one before it

@workers = renew($t, WORKERS,
	'location /u/ {' => "location /zero/ {\n proxy_pass http://local;\n }\n"
		. 'location /u/ {',
	'# new location' => "location /third/ {\n proxy_pass http://local;\n }\n");

is(conn_by($workers[1], '/first/', 'a'), $first[0], 'location of other number');
is(conn_by($workers[1], '/second/', 'a'), $second, 'second of other number');
is_new(conn_by($workers[2], '/zero/', 'a'), 'new location before');
is_new(conn_by($workers[2], '/third/', 'a'), 'new location after');

# the number of requests travels

my $r = by($workers[2], '/requests/', 'a');
is(conn($r) . requests($r), "$requests 3", 'third request');

# requests at an age that is beyond the limit are the last; and a deadline stays

sleep(0.01) while time() < $begin + 2.5;
@workers = renew($t, WORKERS);
is(open_conns(8083), 1, 'timeout not yet');

$r = by($workers[0], '/requests/', 'a');
is(conn($r) . requests($r), "$requests 4", 'fourth request');
is(wait_open(1, 8082), 1, 'kept after the fourth');
$r = by($workers[1], '/requests/', 'a');
is(conn($r) . requests($r), "$requests 5", 'fifth request');
is(wait_open(0, 8082), 0, 'closed after the fifth');

sleep(0.01) while time() < $begin + 3.2;
is(conn_by($workers[1], '/time/', 'a'), $time, 'request after the time');
is(wait_open(0, 8084), 0, 'closed after the time');

wait_open(0, 8083);
my $idle = time() - $begin;
ok($idle > 3.8 && $idle < 5.5, 'timeout not extended') or diag($idle);
is_new(conn_by($workers[1], '/timeout/', 'a'), 'new after the timeout');

# a server that is no longer there, fewer connections, and another key

together('/servers/', ('a') x 6);
my ($first_server, $second_server) = map { open_conns($_) } 8085, 8086;
ok($first_server > 1 && $second_server > 1, 'servers');
# least recently used go first

my @many = map { release(hold_by($workers[$_->[0]], '/fewer/', $_->[1])) }
	[ 0, 'a' ], [ 1, 'b' ], [ 2, 'c' ], [ 0, 'd' ];
my @x = map { release($_) }
	map { hold_by($workers[$_], '/fewer/', 'x') } 0 .. 2;
is(open_conns(8087), 7, 'as many as before');

my %keys = map { $_ => conn_by($workers[0], "/key/?one=$_&two=x", 'h') }
	qw/ x y /;

@workers = renew($t, WORKERS,
	'server 127.0.0.1:' . port(8086) . ';' => '',
	'keepalive 8 slice_key=$host slice_conn=3' =>
		'keepalive 3 slice_key=$host slice_conn=2',
	'slice_key=$arg_one' => 'slice_key=$arg_two');

is(wait_open(0, 8086), 0, 'of the removed server, closed');
is(open_conns(8085), $first_server, 'of the other one, kept');
conn_by($workers[$_], '/servers/', 'a') for 0 .. 2;
is(open_conns(8085), $first_server, 'and used');

is(open_conns(8087), 3, 'excess closed');
my %fewer = map { release($_->[0]) => $_->[1] }
	map { [ hold_by($workers[0], '/fewer/', $_), $_ ] } 'd', 'x', 'x';
is_deeply(\%fewer, { $many[3] => 'd', map { $_ => 'x' } @x[1, 2] },
	'the last ones stay');
is_new(conn_by($workers[0], '/fewer/', 'a'), 'the first ones do not');

is(wait_open(0, 8088), 0, 'of the other meaning, closed');
is_new(my $key = conn_by($workers[0], '/key/?one=y&two=x', 'h'), 'new meaning');
is(conn_by($workers[1], '/key/?one=z&two=x', 'h'), $key, 'new meaning again');

# that of a variable, and that of its name

conn_by($workers[0], '/key/?two=arg_two', 'h');
@workers = renew($t, WORKERS, 'slice_key=$arg_two' => 'slice_key=arg_two');
is(wait_open(0, 8088), 0, 'of a variable, closed');
is_new($key = conn_by($workers[0], '/key/?two=arg_two', 'h'), 'constant key');
is(conn_by($workers[1], '/key/?two=x', 'h'), $key, 'constant key again');

# under load

$t->run_daemon(\&load);

my @reloads;

for (1 .. 20) {
	push @reloads, time();
	@workers = renew($t, WORKERS);
	sleep(0.01) while time() < $reloads[-1] + 0.8;
}

push @reloads, time();
$t->write_file('stop', 'stop');
wait_for(sub { -f "$d/load" }) or die "Load does not end\n";

my (%owner, %mixed, @failed, @few);

# those that were there before belong to the keys that they had

%owner = %made;

my @lines = split /\n/, $t->read_file('load');

for my $n (0 .. $#reloads - 1) {
	my ($number, $reused) = (0, 0);

	while (@lines && $lines[0] =~ /^([\d.]+) (\w+) (.*)/
		&& $1 < $reloads[$n + 1])
	{
		my ($host, $conn) = ($2, $3);
		shift @lines;

		push @failed, $conn and next if $conn !~ /^\d+$/;
		$reused++ if $owner{$conn};
		$mixed{$conn} = 1 if ($owner{$conn} ||= $host) ne $host;
		$number++;
	}

	push @few, "$n: $reused of $number"
		if $number < 20 || $reused < 0.95 * $number;
}

is(join(', ', @failed), '', 'all answered');
is(join(', ', keys %mixed), '', 'none of another key');
is(join(', ', @few), '', 'reused after each reload');

$u = json()->{upstreams}{u};
cmp_ok($u->{shared}{kept_over_reload}, '>', 20 * 6, 'kept over reloads');
is($u->{idle}, open_conns(8081), 'idle after all');

# without shared, and with it again

@workers = renew($t, WORKERS, 'slice_conn=4 shared' => 'slice_conn=4');
is(wait_open(0, 8081), 0, 'closed without shared');
is_new(my $own = conn_by($workers[0], '/u/', 'a'), 'new without shared');
is_new(conn_by($workers[1], '/u/', 'a'), 'each worker its own');
is(conn_by($workers[0], '/u/', 'a'), $own, 'own again');
ok(!exists json()->{upstreams}{u}{shared}, 'no status of shared');

###############################################################################

sub requests {
	my ($response) = @_;
	return $response =~ /^X-Requests: (\d+)/m ? " $1" : '';
}

sub load {
	my @hosts = 'a' .. 'f';
	my $results = '';

	for (my $n = 0; !-f "$d/stop" && $n < 100000; $n++) {
		my $host = $hosts[$n % @hosts];
		my $begin = time();
		$results .= "$begin $host " . get('/u/', $host) . "\n";
		sleep(0.004);
	}

	# there when it is complete

	$t->write_file('load.new', $results);
	rename "$d/load.new", "$d/load";
}

# it ends with the script, although functions refer to it

END { undef $t; }

###############################################################################

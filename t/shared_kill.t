#!/usr/bin/perl

# Tests for shared when workers are killed or stopped: what they held is
# forgotten, the counts are right within a second, and the others go on.

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

use constant WORKERS => 4;
use constant CLIENTS => 4;
use constant KILLS => 12;
use constant SECOND => $ENV{TEST_NGINX_VALGRIND} ? 8 : 1;

my $t = Test::Nginx->new()->has(qw/http proxy rewrite/)->plan(39);

my $d = $t->testdir();

$t->write_file_expand('nginx.conf', <<'EOC');

%%TEST_GLOBALS%%

daemon off;
worker_processes 4;

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
        keepalive 12 slice_key=$host slice_conn=3 slice_poolsize=8 shared;
        keepalive_requests 100000;
    }

    server {
        listen       127.0.0.1:8080 reuseport;
        server_name  localhost;

        location / {
            proxy_pass http://u;
        }

        location = /pid {
            return 204;
        }

        location = /status {
            keepalive_status json slices;
        }
    }
}

EOC

# what must not be: a request before the last one of its connection was
# answered, or one of another key

on_request(sub {
	my ($c, $head) = @_;
	my ($host) = $head =~ /^Host: (\w+)/mi;

	$t->write_file('twice', "$c->{number} $head") if length $c->{in};
	$t->write_file('mixed', "$c->{number} $c->{host} $head")
		if ($c->{host} ||= $host) ne $host;

	return '200 OK';
});

start_backend($t, 8081);
$t->run();

my @w = workers($t, WORKERS);

###############################################################################

# each holds some, and one is killed

for my $n (1 .. 3) {
	my %of;

	for my $worker (@w) {
		my @held = map { hold_by($worker, '/', "h$worker") } 1 .. 3;
		$of{$worker} = { map { release($_) => 1 } @held };
	}

	is(open_conns(), 12, "idle $n");

	my $victim = shift @w;
	my $begin = time();

	# also one that is stopped

	kill 'STOP', $victim if $n == 2;
	kill 'KILL', $victim;

	ok(wait_for(sub { open_conns() == 9 }, SECOND), "closed $n");
	ok(wait_for(sub { json_by($w[0])->{upstreams}{u}{idle} == 9 },
		$begin + SECOND - time()), "counts right $n");

	my $other = $w[1];
	my $r = by($w[0], '/', "h$other");
	ok($of{$other}{conn($r)}, "borrowed from another one $n");
	is(found_by($r), 'BORROWED', "as always $n");

	wait_for(sub { (() = started($t)) == WORKERS + $n });
	@w = workers($t, WORKERS);

	is_new(conn_by($w[0], '/', "h$victim"), "its own are gone $n");
	ok(wait_for(sub { open_conns() == json()->{upstreams}{u}{idle} }, SECOND),
		"counts right with its successor $n");
}

# under load, one after the other

$t->run_daemon(\&load, $_) for 1 .. CLIENTS;

my @over;

for my $n (1 .. KILLS) {
	my $end = time() + 0.25;

	while (time() < $end) {
		my $status = eval { json() } or next;
		my $u = $status->{upstreams}{u};
		my @slices = map { $_->{idle} } @{ $u->{busiest_slices} };

		push @over, "$n: $u->{idle} $u->{slices} @slices"
			if $u->{idle} > 12 || $u->{slices} > 8
				|| grep { $_ > 3 } @slices;
		sleep(0.01);
	}

	kill 'KILL', $w[0];
	wait_for(sub { (() = started($t)) == WORKERS + 3 + $n });
	@w = workers($t, WORKERS);
}

sleep(0.25);
$t->write_file('stop', 'stop');
ok(wait_for(sub { CLIENTS == grep { -f "$d/load.$_" } 1 .. CLIENTS }),
	'load ended');

my $end = time() + SECOND;
ok(wait_for(sub { json()->{upstreams}{u}{idle} == open_conns() },
	$end - time()), 'counts right after all');
cmp_ok(open_conns(), '<=', 12, 'within the limit after all');
is(join(', ', @over), '', 'within all limits');
ok(!-f "$d/twice", 'no connection with two requests');
ok(!-f "$d/mixed", 'no connection of another key');

my ($requests, $failed, %conns) = (0, 0);

for my $conn (map { split /\n/, $t->read_file("load.$_") } 1 .. CLIENTS) {
	$requests++;
	$conn =~ /^\d+$/ ? $conns{$conn} = 1 : $failed++;
}

# those that the killed workers had

cmp_ok($failed, '<=', KILLS * CLIENTS, 'all others answered');
cmp_ok(scalar keys %conns, '<', $requests / 2, 'reused');

# a worker that is stopped

for my $n (0 .. 1) {
	my ($stopped, @others) = @w[$n, grep { $_ != $n } 0 .. 3];

	conn_by($stopped, '/', 's');
	stop_worker($stopped, @others);

	my $begin = time();
	conn_by($_, '/', 's') for (@others) x 2;
	$t->write_file('slow', time() - $begin) if time() > $begin + SECOND;

	kill 'CONT', $stopped;
	conn_by($stopped, '/', 's');
}

ok(!-f "$d/slow", 'others go on');
ok(wait_for(sub { json()->{upstreams}{u}{idle} == open_conns() }, SECOND),
	'counts right after stops');

# An old worker that is killed has no successor.  Until then, what it holds can be
# used, also if it does nothing.

break_idle('finish');
wait_open(0);

my @held = map { hold_by($w[0], '/', 'old') } 1 .. 3;
my %old = map { release($_) => 1 } @held;
my $kept = conn_by($w[1], '/', 'kept');

stop_worker(@w);
reload($t, WORKERS);
my @new = workers($t, WORKERS);

ok(wait_for(sub { dead(@w[1 .. 3]) }), 'old workers but one exited');
ok($old{conn_by($new[0], '/', 'old')}, 'borrowed from an old worker');
is(open_conns(), 4, 'idle');

kill 'KILL', $w[0];

ok(wait_for(sub { open_conns() == 2 }, SECOND), 'closed with it');
ok(wait_for(sub { json()->{upstreams}{u}{idle} == 2 }, SECOND),
	'counts right without a successor');
ok($old{conn_by($new[1], '/', 'old')}, 'the borrowed one stays');
is(conn_by($new[1], '/', 'kept'), $kept, 'and that of another worker');

# nginx says that workers were killed, some of them while they had locked the
# memory, and nothing else is wrong

$t->stop();
my @log = split /^/, $t->read_file('error.log');
my @alerts = grep { index($_, '[alert]') >= 0 } @log;
my $killed = grep { / exited on signal 9$/ } @alerts;

is($killed, 3 + KILLS + 1, 'killed');
$t->write_file('error.log', join '', grep {
	index($_, '[alert]') < 0
		|| !/ exited on signal 9$| "upstream_keepalive_shared\S* was locked by /
} @log);

###############################################################################

sub json_by {
	my ($worker) = @_;
	my ($body) = by($worker, '/status') =~ /\r\n\r\n(.*)/s;
	return JSON::PP->new()->decode($body);
}

sub load {
	my ($number) = @_;

	my $results = '';

	srand($number);

	for (my $n = 0; !-f "$d/stop" && $n < 100000; $n++) {
		$results .= get('/', 'k' . int(10 * rand() ** 3)) . "\n";
	}

	# there when it is complete

	$t->write_file("load.new.$number", $results);
	rename "$d/load.new.$number", "$d/load.$number";
}

# it ends with the script, although functions refer to it

END { undef $t; }

###############################################################################

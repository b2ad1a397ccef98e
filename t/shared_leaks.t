#!/usr/bin/perl

# Tests for leaks of shared: after a hundred reloads, no process has more
# descriptors than after ten; and in the end no connection is left.

###############################################################################

use warnings;
use strict;

use Test::More;

use FindBin;
use lib ($ENV{NGINX_TESTS_DIR} ? "$ENV{NGINX_TESTS_DIR}/lib" : ()),
	"$FindBin::Bin/lib";

use Time::HiRes qw/ sleep /;

use Test::Nginx;
use Test::Backend;
use Test::Processes;
use Test::Status;
use Test::Workers;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

use constant WORKERS => 4;

plan(skip_all => 'no /proc') unless -d "/proc/$$/fd";
plan(skip_all => 'valgrind has descriptors of its own')
	if $ENV{TEST_NGINX_VALGRIND};

my $t = Test::Nginx->new()->has(qw/http proxy rewrite/)->plan(17);

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

    add_header X-Worker $pid always;

    upstream u {
        server 127.0.0.1:8081;
        keepalive 16 slice_key=$host slice_conn=4 shared;
        keepalive_requests 100000;
    }

    upstream few {
        server 127.0.0.1:8082;
        keepalive 2 slice_key=$host shared;
    }

    server {
        listen       127.0.0.1:8080 reuseport;
        server_name  localhost;

        location / {
            proxy_pass http://u;
        }

        location /few {
            proxy_pass http://few;
        }

        location = /pid {
            return 204;
        }

        location = /status {
            keepalive_status;
        }
    }
}

EOC

start_backend($t, 8081, 8082);
$t->run();

my @w = workers($t, WORKERS);
my $master = $t->read_file('nginx.pid') + 0;

###############################################################################

# borrowed, closed to make room, and lost by races

for (1 .. 20) {
	conn_by($_, '/', 'a'), conn_by($_, '/few', "h$_") for @w;
}

# no worker has more than what it holds, besides what all have

is(open_conns(8081), 1, 'one connection');
ok(wait_for(sub { 1 == sum(8081) }), 'one descriptor of it');
ok(wait_for(sub { 2 == sum(8082) }), 'one of each other');

# nor one of each process whose connections it has ever borrowed

for my $n (1 .. 8) {
	kill 'KILL', $w[-1];
	wait_for(sub { (() = started($t)) == WORKERS + $n });
	@w = workers($t, WORKERS);

	conn_by($_, '/', "killed$n") for @w[-1, 0];
}

cmp_ok(pidfds($w[0]), '>', 0, 'descriptors of processes');
cmp_ok(pidfds($w[0]), '<=', WORKERS, 'none of those that have ended');

# under load

$t->run_daemon(\&load, $_) for 1 .. 2;

my (%after, @failed);
my @old = @w;

for my $n (1 .. 100) {
	my @new;
	my $from = -s "$d/error.log";

	kill 'HUP', $master;

	wait_for(sub {
		@new = log_from($from) =~ /start worker process (\d+)/g;
		return @new == WORKERS && dead(@old);
	}) or push @failed, $n;

	@old = @new;
	$after{$n} = settled() if $n == 10 || $n == 100;
}

is(join(', ', @failed), '', 'reloads');

my @of = map { $after{$_} } 10, 100;
cmp_ok($of[1]{master}, '<=', $of[0]{master}, 'descriptors of the master');

is($of[1]{workers}, $of[0]{workers}, 'descriptors of workers');

$t->write_file('stop', 'stop');
ok(wait_for(sub { 2 == grep { -f "$d/load.$_" } 1 .. 2 }), 'load ended');
is(join('', map { $t->read_file("load.$_") } 1 .. 2), "0\n" x 2,
	'all answered');

@w = workers($t, WORKERS);
my $idle = open_conns();
ok(wait_for(sub { sum(8081) + sum(8082) == $idle }),
	'a descriptor of each connection') or diag(sum(8081) . ' ' . sum(8082));
my $upstreams = json()->{upstreams};
is($upstreams->{u}{idle} + $upstreams->{few}{idle}, $idle, 'idle');
cmp_ok($upstreams->{u}{shared}{kept_over_reload}, '>', 100, 'kept');

# the end

kill 'QUIT', $master;
ok(ended($t, $master), 'quit');
is(wait_open(0), 0, 'all closed');

my @log = split /^/, $t->read_file('error.log');
my @alerts = grep { index($_, '[alert]') >= 0 } @log;

is(scalar(grep { /open socket .* left in connection/ } @alerts), 0,
	'none left open');

# nginx says that workers were killed, some of them while they had locked the
# memory, and nothing else is wrong

is(scalar(grep { / exited on signal 9$/ } @alerts), 8, 'killed');
$t->write_file('error.log', join '', grep {
	index($_, '[alert]') < 0
		|| !/ exited on signal 9$| "upstream_keepalive_shared\S* was locked by /
} @log);

###############################################################################

# what has been logged since then, as all of it is long

sub log_from {
	my ($from) = @_;

	open my $fh, '<', "$d/error.log" or die "No log: $!\n";
	seek $fh, $from, 0;
	local $/;

	return <$fh> || '';
}

sub sum {
	my ($number) = @_;

	my $sum = 0;
	$sum += descriptors($_, $number) for @w;

	return $sum;
}

# The descriptors of the master; and the most that a worker has besides those
# of connections and processes, which come and go.

sub settled {
	my $workers = 0;

	for my $worker (workers($t, WORKERS)) {
		my $least = others($worker);

		for (1 .. 20) {
			my $number = others($worker);
			$least = $number if $number < $least;
			sleep(0.01);
		}

		$workers = $least if $least > $workers;
	}

	return { master => descriptors($master), workers => $workers };
}

sub others {
	my ($worker) = @_;

	my @open = links($worker);
	open my $fh, '<', '/proc/net/tcp' or die "No connections: $!\n";
	my %tcp = map { ('socket:[' . (split)[9] . ']' => 1) } <$fh>;

	return scalar grep { !$tcp{$_} && !/pidfd/ } @open;
}

sub pidfds {
	my ($worker) = @_;
	return scalar grep { /pidfd/ } links($worker);
}

sub load {
	my ($number) = @_;

	my $failed = 0;

	srand($number);

	for (my $n = 0; !-f "$d/stop" && $n < 1000000; $n++) {
		my $conn = get(rand() < 0.2 ? '/few' : '/', 'k' . int(rand 5));
		$failed++ if $conn !~ /^\d+$/;
		sleep(0.01);
	}

	# there when it is complete

	$t->write_file("load.new.$number", "$failed\n");
	rename "$d/load.new.$number", "$d/load.$number";
}

# it ends with the script, although functions refer to it

END { undef $t; }

###############################################################################

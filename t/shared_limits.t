#!/usr/bin/perl

# Tests for the limits of shared: they hold over all workers at any moment, and
# the least recently used connection goes, whichever worker holds it, and
# whatever that worker is doing.

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
use Test::Status;
use Test::Workers;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

# seconds: less than from one look of a worker at what others have left to it to
# the next

use constant AT_ONCE => $ENV{TEST_NGINX_VALGRIND} ? 5 : 0.3;

my $t = Test::Nginx->new()->has(qw/http proxy rewrite/)->plan(38);

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
        keepalive 5 slice_key=$host slice_conn=2 slice_poolsize=3 shared;
    }

    upstream lru {
        server 127.0.0.1:8082;
        keepalive 3 slice_key=$host shared;
    }

    upstream poolsize {
        server 127.0.0.1:8083;
        keepalive 16 slice_key=$host slice_poolsize=2 shared;
    }

    upstream dyn {
        server 127.0.0.1:8084;
        keepalive 16 slice_key=$host slice_conn=2 slice_dyn=$arg_n shared;
    }

    upstream one {
        server 127.0.0.1:8085;
        keepalive 1 slice_key=$host shared;
    }

    server {
        listen       127.0.0.1:8080 reuseport;
        server_name  localhost;

        location / {
            proxy_pass http://u;
        }

        location /lru {
            proxy_pass http://lru;
        }

        location /poolsize {
            proxy_pass http://poolsize;
        }

        location /dyn {
            proxy_pass http://dyn;
        }

        location /one {
            proxy_pass http://one;
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

# no answer on a connection of another key, or to one of two requests at a time

on_request(sub {
	my ($c, $head) = @_;
	my ($host) = $head =~ /^Host: (\w+)/mi;

	return if length $c->{in};
	return if ($c->{host} ||= $host) ne $host;
	return '200 OK';
});

start_backend($t, 8081 .. 8085);
$t->run();

my @w = workers($t, 4);

###############################################################################

# requests that are held and released, in any order

my (@held, @over, @failed, $full);

srand(14);

for my $n (1 .. 200) {
	if (@held < 12 && rand() < 0.55) {
		push @held, hold_by($w[rand 4], '/', ('a' .. 'f')[rand 6]);
		next;
	}

	my $held = splice @held, rand @held, 1 or next;
	my $conn = release($held);
	push @failed, $conn if $conn !~ /^\d+$/;

	my $u = json()->{upstreams}{u};
	my @slices = map { $_->{idle} } @{ $u->{busiest_slices} };

	push @over, "$n: $u->{idle} $u->{slices} @slices"
		if $u->{idle} > 5 || $u->{slices} > 3 || grep { $_ > 2 } @slices;

	# the server sees the same, without waiting for a worker

	my $open;
	push @over, "$n: open $open" unless wait_for(sub {
		return ($open = open_conns(8081) - @held) == $u->{idle};
	}, AT_ONCE);

	$full++ if $u->{idle} == 5;
}

release($_) for @held;

is(join(', ', @failed), '', 'all answered');
is(join(', ', @over), '', 'within all limits');
cmp_ok($full, '>', 5, 'at the limit');

my $u = json()->{upstreams}{u};
cmp_ok($u->{shared}{borrowed}, '>', 0, 'borrowed');
is($u->{shared}{refused_handovers}, 0, 'none refused');
ok(!grep({ !$u->{closed}{$_} } qw/ connections slice_conn slice_poolsize /),
	'closed by each limit') or diag(explain($u->{closed}));

# the least recently saved one of all goes: the first worker holds it

my %c;
$c{$_->[1]} = conn_by($w[$_->[0]], '/lru', $_->[1])
	for [ 0, 'a' ], [ 1, 'b' ], [ 2, 'c' ], [ 3, 'd' ];

ok(wait_for(sub { open_conns(8082) == 3 }, AT_ONCE), 'one less');

is(conn_by($w[3], '/lru', 'b'), $c{b}, 'second');
is(conn_by($w[3], '/lru', 'c'), $c{c}, 'third');
is(conn_by($w[1], '/lru', 'd'), $c{d}, 'fourth');
is_new($c{a} = conn_by($w[2], '/lru', 'a'), 'first is closed');

# use by another worker is use

ok(wait_for(sub { open_conns(8082) == 3 }, AT_ONCE), 'one less again');
is_new($c{b} = conn_by($w[0], '/lru', 'b'), 'second was the next');
is(conn_by($w[0], '/lru', 'd'), $c{d}, 'fourth used again');
is(conn_by($w[0], '/lru', 'a'), $c{a}, 'first used again');
is(json()->{upstreams}{lru}{closed}{connections}, 3, 'closed are counted');

# slices: all connections of one go

my @a = map { hold_by($w[$_], '/poolsize', 'a') } 0, 1;
release($_) for @a;
$c{b} = conn_by($w[1], '/poolsize', 'b');
is(open_conns(8083), 3, 'two slices');
$c{c} = conn_by($w[2], '/poolsize', 'c');
ok(wait_for(sub { open_conns(8083) == 2 }, AT_ONCE), 'a slice less');
is(conn_by($w[3], '/poolsize', 'b'), $c{b}, 'second slice');
is(conn_by($w[3], '/poolsize', 'c'), $c{c}, 'third slice');
is(json()->{upstreams}{poolsize}{closed}{slice_poolsize}, 2, 'both of it');

# limits of requests

@a = map { hold_by($w[$_], '/dyn?n=3', 'a') } 0 .. 3;
release($_) for @a;
ok(wait_for(sub { open_conns(8084) == 3 }, AT_ONCE), 'slice_dyn');
@a = map { hold_by($w[$_], '/dyn', 'b') } 0 .. 3;
release($_) for @a;
ok(wait_for(sub { open_conns(8084) == 5 }, AT_ONCE), 'slice_conn');
my $last = conn_by($w[2], '/dyn?n=1', 'a');
ok(wait_for(sub { open_conns(8084) == 3 }, AT_ONCE), 'smaller slice_dyn');
is(conn_by($w[1], '/dyn?n=1', 'a'), $last, 'the last one stays');

# a worker that is stopped, while others need what it holds

$c{a} = conn_by($w[0], '/one', 'a');
stop_worker(@w);
my $b = conn_by($w[1], '/one', 'b');
ok(wait_for(sub { open_conns(8085) == 1 }, AT_ONCE),
	'closed although its worker is stopped');
is(conn_by($w[2], '/one', 'b'), $b, 'the other one goes on');
is(json_by($w[1])->{upstreams}{one}{idle}, 1, 'idle');
kill 'CONT', $w[0];

my $r = by($w[0], '/one', 'b');
is(conn($r) . ' ' . found_by($r), "$b BORROWED", 'worker goes on');

# its connection is used

stop_worker(@w);
is(conn_by($w[1], '/one', 'b'), $b, 'borrowed from a worker that is stopped');
kill 'CONT', $w[0];

# what it then does with its copy, does not matter

my $end = time() + 2;
my @others;

while (time() < $end) {
	my $conn = conn_by($w[1], '/one', 'b');
	push @others, $conn if $conn ne $b;
	sleep(0.02);
}

is(join(', ', @others), '', 'stays as it is');
is(descriptors($w[0], 8085), 0, 'nothing left in its first worker');

# closed by the server, which nobody has seen

conn_by($w[0], '/one', 'b');
stop_worker(@w);
break_idle('finish');
is_new(conn_by($w[1], '/one', 'b'), 'not used when closed');
kill 'CONT', $w[0];

# stopped while one of its requests is under way

my $held = hold_by($w[2], '/one', 'b');
stop_worker(@w[2, 0, 1, 3]);
let_go($held);
my $c = conn_by($w[1], '/one', 'c');
is(open_conns(8085), 2, 'in use, and idle');
kill 'CONT', $w[2];
like(release($held), qr/^\d+$/, 'answered');
ok(wait_for(sub { open_conns(8085) == 1 }, AT_ONCE), 'one idle');
is_new(conn_by($w[3], '/one', 'c'), 'least recently used');

is(join(' ', workers($t, 4)), join(' ', @w), 'same workers');

###############################################################################

sub json_by {
	my ($worker) = @_;
	my ($body) = by($worker, '/status') =~ /\r\n\r\n(.*)/s;
	return JSON::PP->new()->decode($body);
}

###############################################################################

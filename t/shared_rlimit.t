#!/usr/bin/perl

# Tests for shared in a worker that has hardly any descriptors left: a request
# that would be answered with a new connection is, and nothing is lost in the
# counts.

###############################################################################

use warnings;
use strict;

use Test::More;

use FindBin;
use lib ($ENV{NGINX_TESTS_DIR} ? "$ENV{NGINX_TESTS_DIR}/lib" : ()),
	"$FindBin::Bin/lib";

use Test::Nginx;
use Test::Backend;
use Test::Status;
use Test::Workers;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

plan(skip_all => 'no /proc') unless -d "/proc/$$/fd";
plan(skip_all => 'valgrind has descriptors of its own')
	if $ENV{TEST_NGINX_VALGRIND};

my $t = Test::Nginx->new()->has(qw/http proxy rewrite/)
	->has_daemon('prlimit')->plan(18);

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
        keepalive 16 slice_key=$host shared;
    }

    upstream one {
        server 127.0.0.1:8082;
        keepalive 1 slice_key=$host shared;
    }

    server {
        listen       127.0.0.1:8080 reuseport;
        server_name  localhost;

        location / {
            proxy_pass http://u;
        }

        location /one {
            proxy_pass http://one;
        }

        location = /pid {
            return 204;
        }

        location = /status {
            keepalive_status json;
        }
    }
}

EOC

start_backend($t, 8081, 8082);
$t->run();

my @w = workers($t, 3);

###############################################################################

# one is left: not enough to take a connection of another worker

conn_by($w[0], '/', 'a');
my $r = with_left(1, '/', 'a');
like($r, qr/ 200 /, 'answered with one descriptor');
is_new(conn($r), 'by a new connection');
is(found_by($r), 'MISS', 'miss');

my $u = json()->{upstreams}{u};
is("$u->{shared}{refused_handovers} $u->{shared}{borrowed}", '1 0',
	'refused is counted');
is($u->{idle}, open_conns(8081), 'idle');
like($t->read_file('error.log'),
	qr/\[warn\].* "u" cannot be used \(24: [A-Z]/, 'it says why');

# nor with two, to close one that another worker has, and keep its own

conn_by($w[0], '/one', 'a');
$r = with_left(2, '/one', 'b');
like($r, qr/ 200 /, 'answered at the limit');
ok(wait_for(sub { open_conns(8082) <= 1 }, 1.5), 'limit holds');
ok(wait_for(sub { open_conns(8082) == 0 }, 1.5), 'room is made');
$u = json()->{upstreams}{one};
is("$u->{idle} $u->{refused}{workers}", '0 1', 'not kept');

my $one = conn(with_left(2, '/one', 'b'));
is(conn(with_left(2, '/one', 'b')), $one, 'now it is kept');

# two are enough to borrow, and one is for an own one

my $b = conn_by($w[0], '/', 'b');
$r = with_left(2, '/', 'b');
is(conn($r) . ' ' . found_by($r), "$b BORROWED", 'borrowed with two');
$r = with_left(1, '/', 'b');
is(conn($r) . ' ' . found_by($r), "$b HIT", 'own with one');
$r = with_left(0, '/', 'b');
is(conn($r) . ' ' . found_by($r), "$b HIT", 'own with none');

# a process's descriptor that was needed before, is there: one is enough

my $c = conn_by($w[0], '/', 'c');
$r = with_left(1, '/', 'c');
is(conn($r) . ' ' . found_by($r), "$c BORROWED", 'borrowed with one');

# many, with few descriptors

my @failed;

for my $n (1 .. 100) {
	my ($uri, $host) = ($n % 4 ? '/' : '/one', 'k' . $n % 5);

	conn_by($w[$_], $uri, $host) for 0, 2;
	$r = with_left(1 + $n % 3, $uri, $host);
	push @failed, "$n: $r" if $r !~ m{^HTTP/1.1 200 };
}

is(join(', ', @failed), '', 'all answered');
ok(wait_for(sub {
	my $upstreams = json()->{upstreams};
	return $upstreams->{u}{idle} == open_conns(8081)
		&& $upstreams->{one}{idle} == open_conns(8082);
}, 1.5), 'counts right');
is(join(' ', workers($t, 3)), join(' ', @w), 'same workers');

###############################################################################

# a request to the second worker, which has so many descriptors left

sub with_left {
	my ($left, $uri, $host) = @_;

	# it accepts none meanwhile

	spare_for($w[1]);

	# and has closed its copies of what others have borrowed

	my ($open, $last) = (0, -1);

	wait_for(sub {
		($last, $open) = ($open, descriptors($w[1]));
		select undef, undef, undef, 0.02;
		return $last == $open;
	});

	# a new one gets the lowest number that is free, below the limit

	my $limit = 0;

	for (my $free = 0; $free < $left || -l "/proc/$w[1]/fd/$limit"; $limit++) {
		$free++ unless -l "/proc/$w[1]/fd/$limit";
	}

	set_limit("$limit:");
	my $r = by($w[1], $uri, $host);
	set_limit('1024:');

	return $r;
}

sub set_limit {
	my ($limit) = @_;

	system('prlimit', '--pid', $w[1], "--nofile=$limit") == 0
		or die "Can't set the limit\n";
}

# it ends with the script, although functions refer to it

END { undef $t; }

###############################################################################

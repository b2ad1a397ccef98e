#!/usr/bin/perl

# Tests for what is counted with several workers: it is one sum, which a reload
# and the end of a worker leave as it is; and no idle connection is shown that a
# worker took with it.

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

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

my $t = Test::Nginx->new()->has(qw/http proxy cache/)->plan(33);

$t->write_file_expand('nginx.conf', <<'EOF');

%%TEST_GLOBALS%%

daemon off;
worker_processes 2;

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    proxy_http_version 1.1;
    proxy_set_header Connection "";

    add_header X-Pid $pid always;

    # brings a cache manager and a cache loader, which are no workers

    proxy_cache_path %%TESTDIR%%/cache keys_zone=cache:1m;

    upstream u {
        server 127.0.0.1:8081;
        keepalive 64 slice_key=$host slice_poolsize=64;
    }

    upstream other {
        server 127.0.0.1:8081;
        keepalive 4;
    }

    server {
        listen       127.0.0.1:8080 reuseport;
        server_name  localhost;

        location / {
            proxy_pass http://u;
        }

        location /other/ {
            proxy_pass http://other/;
        }

        location = /status {
            keepalive_status;
        }

        location = /slices {
            keepalive_status json slices;
        }
    }
}

EOF

start_backend($t, 8081);
$t->run();

ok(wait_for(sub { json()->{upstreams}{u}{workers} == 2 }), 'workers');
changes();

###############################################################################

# over both workers

my %by = fill('/', 'a' .. 'j');
is(keys %by, 2, 'two workers');
is(changes(), 'u: ' . served(40, open_conns()), 'counted over both');

my %slices = slices();
is_deeply([ sort { $a <=> $b } map { scalar @{ $slices{$_} } } keys %slices ],
	[ sort { $a <=> $b } map { scalar keys %$_ } values %by ],
	'slices of the worker that answers');

my $opened = open_conns();
fill('/', 'a' .. 'j');
is(changes(), 'u: ' . served(40, open_conns() - $opened), 'hits over both');
consistent('two workers');

# one is killed: what it had is closed, and its successor begins with nothing

for my $n (1, 2) {
	%by = workers();
	my ($victim) = sort keys %by;
	my $before = json()->{upstreams}{u};
	my $open = open_conns();

	kill 'KILL', $victim;
	ok(wait_for(sub { my %now = workers(); !$now{$victim} && keys %now == 2 }),
		"another worker $n");

	my $u = json()->{upstreams}{u};
	my $lost = $open - wait_for_idle();
	cmp_ok($lost, '>', 0, "connections lost $n");
	is($u->{idle}, open_conns(), "idle after kill $n");
	is($u->{closed}{shutdown}, $before->{closed}{shutdown} + $lost,
		"closed $n");
	is($u->{workers}, 2, "workers after kill $n");
	is("$u->{hits} $u->{misses} $u->{saved}",
		"$before->{hits} $before->{misses} $before->{saved}", "kept $n");
	consistent("kill $n");

	fill('/', 'a' .. 'j');
	changes();
}

# a reload, with a request in flight, that takes one upstream away and brings
# another

get('/other/', 'a');
changes();

my $before = json()->{upstreams}{u};
my %old = workers();
my $held = hold('/held', 'held');

my $conf = $t->read_file('nginx.conf');
$conf =~ s/\bother\b/new/g;
$t->write_file('nginx.conf', $conf);
kill 'HUP', $t->read_file('nginx.pid');

ok(wait_for(sub { my %now = workers(); keys %now == 2 && !grep { $old{$_} } keys %now }),
	'new workers');
ok(wait_for(sub { json()->{upstreams}{u}{idle} == 0 }), 'closed by reload');

my $after = json()->{upstreams};
is(join(' ', sort keys %$after), 'new u', 'upstreams');
is($after->{new}{requests}, 0, 'nothing counted for the new one');
is($after->{u}{closed}{shutdown},
	$before->{closed}{shutdown} + $before->{idle} , 'closed');
is($after->{u}{workers}, 3, 'the old worker still counts');

like(release($held), qr/^\d+$/, 'request of the old worker');
ok(wait_for(sub { json()->{upstreams}{u}{workers} == 2 }), 'old worker has ended');

$after = json()->{upstreams}{u};
is("$after->{hits} $after->{misses} $after->{refused}{exiting}",
	"$before->{hits} " . ($before->{misses} + 1) . ' 1',
	'counted for the old worker');

get('/', 'a');
is(json()->{upstreams}{u}{saved}, $before->{saved} + 1, 'goes on');
consistent('reload');

# a new start begins with nothing

$t->stop();
$t->run();
is(json()->{upstreams}{u}{requests}, 0, 'new start');

# nginx says that workers were killed, and nothing else is wrong

$t->stop();
my $log = $t->read_file('error.log');
my $killed = () = $log =~ /\[alert\].* exited on signal 9$/mg;
is($killed, 2, 'killed');
$log =~ s/^.*\[alert\].* exited on signal 9\n//mg;
$t->write_file('error.log', $log);

###############################################################################

# requests for these hosts on either worker, at least one for each of both: by
# which worker which host was served

sub fill {
	my ($uri, @hosts) = @_;
	my %by;

	for my $host (@hosts) {
		for (1 .. 4) {
			my $r = http(request('GET', $uri, $host));
			$by{$1}{$host} = 1 if $r =~ /X-Pid: (\d+)/;
		}
	}

	return %by;
}

# what is counted for requests of which some came by a new connection

sub served {
	my ($requests, $new) = @_;

	my $hits = $requests - $new;

	return "hits $hits, requests $requests, saved $requests" if !$new;
	return "hits $hits, idle $new, misses $new, requests $requests, "
		. "saved $requests, slices $new";
}

sub wait_for_idle {
	wait_for(sub { open_conns() == json()->{upstreams}{u}{idle} });
	return open_conns();
}

# the workers that answer

sub workers {
	my %workers;

	for (1 .. 30) {
		my $r = http_get('/status');
		$workers{$1} = 1 if defined $r && $r =~ /X-Pid: (\d+)/;
	}

	return %workers;
}

sub slices {
	my %slices;

	for (1 .. 30) {
		my $status = json('/slices');
		$slices{ $status->{worker} }
			= $status->{upstreams}{u}{busiest_slices};
	}

	return %slices;
}

# what always holds while no request is in flight

sub consistent {
	my ($name) = @_;

	my $u = json()->{upstreams}{u};
	my $closed = 0;
	$closed += $_ for values %{ $u->{closed} };

	local $Test::Builder::Level = $Test::Builder::Level + 1;

	is($u->{saved} - $closed - $u->{hits}, open_conns(), "$name: idle");
}

###############################################################################

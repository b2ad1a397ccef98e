#!/usr/bin/perl

# Tests for keepalive_hints with learn: how long a server keeps idle connections
# is learned from what it closes.

###############################################################################

use warnings;
use strict;

use Test::More;

use FindBin;
use lib ($ENV{NGINX_TESTS_DIR} ? "$ENV{NGINX_TESTS_DIR}/lib" : ()),
	"$FindBin::Bin/lib";

use Time::HiRes qw/ sleep time /;

use Test::Nginx qw/ :DEFAULT http_end /;
use Test::Backend::Idle;
use Test::Requests;
use Test::Status;
use Test::Wait;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

my $t = Test::Nginx->new()->has(qw/http proxy rewrite/)->plan(46);

$t->write_file_expand('nginx.conf', <<'EOF');

%%TEST_GLOBALS%%

daemon off;

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    proxy_http_version 1.1;
    proxy_set_header Host $host;
    proxy_set_header Connection "";
    proxy_read_timeout 500ms;

    upstream learn {
        server 127.0.0.1:8081;
        keepalive 100 slice_key=$host slice_poolsize=100;
        keepalive_hints on margin=500ms learn;
    }

    upstream margin {
        server 127.0.0.1:8081;
        keepalive 100;
        keepalive_hints on learn margin=0;
    }

    upstream long {
        server 127.0.0.1:8081;
        keepalive 100;
        keepalive_hints on margin=1h learn;
    }

    upstream on {
        server 127.0.0.1:8081;
        keepalive 100;
        keepalive_hints on margin=500ms;
    }

    upstream other {
        server 127.0.0.1:8082;
        keepalive 100 slice_key=$host slice_poolsize=100;
        keepalive_hints on margin=500ms learn;
    }

    upstream used {
        server 127.0.0.1:8083;
        keepalive 100 slice_key=$host slice_poolsize=100;
        keepalive_hints on margin=500ms learn;
    }

    upstream timeout {
        server 127.0.0.1:8084;
        keepalive 100 slice_key=$host slice_poolsize=100;
        keepalive_hints on margin=500ms learn;
        keepalive_timeout 1s;
    }

    upstream shared {
        server 127.0.0.1:8085;
        keepalive 100 slice_key=$host slice_poolsize=100 shared;
        keepalive_hints on margin=500ms learn;
    }

    server {
        listen       127.0.0.1:8080;
        server_name  localhost;

        location = /status {
            keepalive_status;
        }

        location ~ ^/(\w+)/slow$ {
            proxy_pass http://$1;
            proxy_read_timeout 5s;
        }

        location ~ ^/(\w+)/ {
            proxy_pass http://$1;
        }
    }
}

EOF

my @ports = map { port(8080 + $_) } 1 .. 5;

start_servers($t);
$t->run();

###############################################################################

# two closes are no timeout

is_deeply(json()->{idle_timeouts}, {}, 'nothing known');
unlike(status('/status?format=prometheus'), qr/idle_timeout_seconds\{/,
	'no metric');

close_after('learn', 2, 2);
is(timeout(8081), undef, 'nothing learned from two closes');

# several at the same age, at different moments, are

close_after('learn', 2, 4);

my $timeout = timeout(8081);
my $text = sprintf '%.3f', $timeout;

cmp_ok($timeout, '>', 1.9, 'learned, not less than it is');
cmp_ok($timeout, '<', 2.2, 'and not more');

my $server = '127.0.0.1:' . port(8081);

like(status('/status?format=prometheus'),
	qr/^nginx_upstream_keepalive_idle_timeout_seconds
	\{server="$server"\}\ \Q$text\E$/mx, 'metric');
like(status('/status?format=html'),
	qr!\Q$server\E</td><td>\Q$text\E</td>!, 'page');
is(learned_lines($t), 0, 'not used so far');

# it is used by all upstreams that learn, each with its margin, and by no other

my $close = "X-Close: 2.6\n";
my %conn = map { $_ => get("/$_/", $_, $close) }
	qw/ learn margin long on other /;

sleep(0.9);
is(get('/long/', 'long', $close), $conn{long},
	'long margin, used in the first second');
is(get('/learn/', 'again', $close), get('/learn/', 'again', $close),
	'used at once');

# after 1.7 seconds

sleep(0.8);
is(get('/margin/', 'margin', $close), $conn{margin}, 'no margin');
is(get('/on/', 'on', $close), $conn{on}, 'without learn');
is(get('/other/', 'other', $close), $conn{other}, 'another server');
is_new(get('/learn/', 'learn', $close),
	'not used half a second before');
is(learned_lines($t), 1, 'logged');

like($t->read_file('error.log'), qr/\[info\] .* idle \s timeout \s of \s server
	\s "$server" \s of \s upstream \s "learn" \s is \s \Q$text\Es/x,
	'logged what');

# the long margin leaves a second

sleep(0.5);
is_new(get('/long/', 'long', $close),
	'long margin, and not after the first second');
is(learned_lines($t), 1, 'logged once');

# a server that restarts closes connections of all ages at one moment

get('/learn/', "restart$_", "X-Close: 60\n"), sleep(0.2) for 1 .. 8;

$t->stop_daemons();
start_servers($t);
closed('learn');

is(timeout(8081), $timeout, 'unchanged by a restart');

# a change to a shorter one

close_after('learn', 1.3, 6);

cmp_ok(timeout(8081), '>', 1.2, 'shorter, not less than it is');
cmp_ok(timeout(8081), '<', 1.5, 'and not more');
is(learned_lines($t), 1, 'the shorter one not used so far');

get('/learn/', 'shorter');
sleep(1.1);
is_new(get('/learn/', 'shorter'), 'the shorter one used');
is(learned_lines($t), 2, 'and logged');

# a longer life shows that there is none any more

my $old = get('/learn/', 'life');

sleep(2.3);
is(get('/learn/', 'life'), $old, 'used after a longer life');
is(timeout(8081), undef, 'forgotten');

# also of one that was not used, behind those that were saved later

close_after('learn', 1.3, 6);
cmp_ok(timeout(8081), '<', 1.5, 'learned again');

get('/learn/', 'behind'), sleep(1.2) for 1 .. 3;

is(timeout(8081), undef, 'forgotten by what lives on unused');

# nothing is learned from closes in the first second

close_after('other', 0.6, 6);

is(timeout(8082), undef, 'nothing in the first second');

# from the requests that meet a closing connection, it is

is(drop_after(1.3, 'used', '/drop', 1), '502', 'a request dropped');
is(timeout(8083), undef, 'nothing learned from one request');

drop_after(1.3, 'used', '/drop', 6);

cmp_ok(timeout(8083), '>', 1.2, 'learned from requests');
cmp_ok(timeout(8083), '<', 1.6, 'at their age');

# but not from those that were answered, if only in part, after a timeout or after
# the server had worked for a second, in the first second, or on new connections

drop_after(1.3, 'other', '/half', 6);
is(timeout(8082), undef, 'nothing learned from halves');

drop_after(2, 'other', '/late', 4, 0.5);
is(timeout(8082), undef, 'nothing learned from timeouts');

slow_after(1.3, 'other', 4);
is(timeout(8082), undef, 'nothing learned from slow failures');

drop_after(0.5, 'other', '/drop', 4, 0.11);
is(timeout(8082), undef, 'nothing learned in the first second in use');

post('/other/drop', "new$_", 'x'), sleep(0.12) for 1 .. 6;
is(timeout(8082), undef, 'nothing learned from new connections');

# what nginx closes itself teaches nothing

close_after('timeout', 1.5, 6);
is(timeout(8084), undef, 'nothing learned from keepalive_timeout');

# with connections of all workers

close_after('shared', 1.5, 6);
cmp_ok(timeout(8085), '<', 1.8, 'learned with shared');

my $shared = get('/shared/', 'shared');
my $life = get('/shared/', 'life');

sleep(0.5);
is(get('/shared/', 'shared'), $shared, 'shared, after 0.5 s');
sleep(1.2);
is_new(get('/shared/', 'shared'), 'shared, not used half a second before');
cmp_ok(timeout(8085), '<', 1.8, 'shared, still known');
sleep(0.9);
is(get('/shared/', 'life'), $life, 'shared, used after a longer life');
is(timeout(8085), undef, 'shared, forgotten');

drop_after(1.3, 'shared', '/drop', 6);
cmp_ok(timeout(8085), '<', 1.6, 'shared, learned from requests');

###############################################################################

sub start_servers {
	my ($t) = @_;

	$t->run_daemon(\&serve_idle, @ports);
	$t->waitforsocket("127.0.0.1:$_") or die "Can't start backend\n"
		for @ports;
}

# the timeout of a server that the status shows

sub timeout {
	my ($port) = @_;

	return json()->{idle_timeouts}{'127.0.0.1:' . port($port)};
}

sub learned_lines {
	my ($t) = @_;

	return scalar(() = $t->read_file('error.log') =~ /idle timeout of/g);
}

# connections that their server closes, one after the other

my $count = 0;

sub close_after {
	my ($upstream, $seconds, $times) = @_;

	for (1 .. $times) {
		get("/$upstream/", 'close' . ++$count, "X-Close: $seconds\n");
		sleep(0.15);
	}

	sleep($seconds - 0.15);
	closed($upstream);
}

# waits until there is no idle connection that has been closed

sub closed {
	my ($upstream) = @_;

	my $before = -1;

	wait_for(sub {
		my $idle = json()->{upstreams}{$upstream}{idle};
		my $same = $idle == $before;
		$before = $idle;
		sleep(0.05) unless $same;
		return $same;
	});
}

# requests that the server fails late, on connections that were idle for so long

sub slow_after {
	my ($seconds, $upstream, $times) = @_;

	my @hosts = map { 'slow' . ++$count } 1 .. $times;

	get("/$upstream/", $_), sleep(0.15) for @hosts;
	sleep($seconds - 0.15 * $times);

	my @sockets = map {
		sleep(0.15);
		http(request('POST', "/$upstream/slow", $_,
			"Content-Length: 1\n"), body => 'x', start => 1);
	} @hosts;

	http_end($_) for @sockets;
}

# POSTs on connections that were idle for so long, one after the other; their
# statuses

sub drop_after {
	my ($seconds, $upstream, $uri, $times, $apart) = @_;

	$apart ||= 0.15;

	my @hosts = map { 'drop' . ++$count } 1 .. $times;

	get("/$upstream/", $_), sleep($apart) for @hosts;

	my $left = $seconds - $apart * $times;
	sleep($left) if $left > 0;

	return join ' ', map {
		my $start = time();
		my $r = http(request('POST', "/$upstream$uri", $_,
			"Content-Length: 1\n"), body => 'x');
		my $left = $start + $apart - time();

		sleep($left) if $left > 0;
		$r =~ /^HTTP\S+ (\d+)/ ? $1 : $r;
	} @hosts;
}

###############################################################################

#!/usr/bin/perl

# Tests for keepalive_hints with learn in several workers: what one of them sees
# closed, all of them know, and after a reload the next ones.

###############################################################################

use warnings;
use strict;

use Test::More;

use FindBin;
use lib ($ENV{NGINX_TESTS_DIR} ? "$ENV{NGINX_TESTS_DIR}/lib" : ()),
	"$FindBin::Bin/lib";

use Time::HiRes qw/ sleep /;

use Test::Nginx;
use Test::Backend::Idle;
use Test::Requests;
use Test::Status;
use Test::Wait;
use Test::Workers;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

my $t = Test::Nginx->new()->has(qw/http proxy rewrite/)->plan(19);

$t->write_file_expand('nginx.conf', <<'EOF');

%%TEST_GLOBALS%%

daemon off;
worker_processes 3;

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    proxy_http_version 1.1;
    proxy_set_header Host $host;
    proxy_set_header Connection "";

    add_header X-Worker $pid always;

    upstream u {
        server 127.0.0.1:8081;
        keepalive 100 slice_key=$host slice_poolsize=100;
        keepalive_hints on margin=500ms learn;
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
            keepalive_status;
        }
    }
}

EOF

port(8081);

$t->run_daemon(\&serve_idle, port(8081));
$t->waitforsocket('127.0.0.1:' . port(8081)) or die "Can't start backend\n";
$t->run();

my @w = workers($t, 3);

###############################################################################

# each worker sees two closes, which is too few for one alone

teach(1.5, @w, @w);

my $timeout = timeout();

cmp_ok($timeout, '>', 1.4, 'learned by all together');
cmp_ok($timeout, '<', 1.8, 'as it is');

# and each uses it

limited($_, 'used') for @w;
is(learned_lines($t), 1, 'logged by one');

# one that is killed, and its successor

kill 'KILL', $w[0];
wait_for(sub { dead($w[0]) });
@w = workers($t, 3);

is(tenths(timeout()), tenths($timeout), 'known after a worker was killed');
limited($_, 'used by all') for @w;

# a reload, with other upstreams and servers

@w = renew($t, 3, 'upstream u {' => 'upstream v {
        server 127.0.0.1:8081;
        server 127.0.0.1:8082 backup;
        keepalive 1;
    }

    upstream u {
        server 127.0.0.1:8083 backup;');

is(tenths(timeout()), tenths($timeout), 'known after a reload');
limited($_, 'used after a reload') for @w;
is(learned_lines($t), 1, 'logged by one');

# without learn, nothing is used; and with it again, a longer life counts

@w = renew($t, 3, 'margin=500ms learn' => 'margin=500ms');

ok(!exists json()->{idle_timeouts}, 'not shown without learn');

my $conn = conn_by($w[0], '/', 'without');
sleep(1.3);
is(conn_by($w[0], '/', 'without'), $conn, 'not used without learn');

@w = renew($t, 3, 'margin=500ms' => 'margin=500ms learn');

is(timeout(), undef, 'begun anew');

# one worker was killed, which nginx's log says

$t->stop();

my $log = $t->read_file('error.log');

is($log =~ s/.*exited on signal 9\n//g, 1, 'killed');
$t->write_file('error.log', $log);

###############################################################################

# connections of these workers that the server closes, one after the other

sub teach {
	my ($seconds, @workers) = @_;

	my $count = 0;

	for my $worker (@workers) {
		by($worker, '/', 'close' . ++$count, "X-Close: $seconds\n");
		sleep(0.15);
	}

	sleep($seconds);
	wait_for(sub { !json()->{upstreams}{u}{idle} });
}

# a worker uses a connection in its first second, and none after it

sub limited {
	my ($worker, $name) = @_;
	my $close = "X-Close: 1.5\n";
	my $conn = conn_by($worker, '/', $worker, $close);
	my $again = conn_by($worker, '/', $worker, $close);

	sleep(1.2);

	my $then = conn_by($worker, '/', $worker, $close);

	ok($again eq $conn && $then ne $conn, "$name by $worker")
		or diag("connections $conn, $again, $then");
}

sub timeout {
	return json()->{idle_timeouts}{'127.0.0.1:' . port(8081)};
}

sub tenths {
	return sprintf '%.1f', @_;
}

sub learned_lines {
	my ($t) = @_;

	return scalar(() = $t->read_file('error.log') =~ /idle timeout of/g);
}

###############################################################################

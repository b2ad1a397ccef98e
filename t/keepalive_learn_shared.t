#!/usr/bin/perl

# Tests for keepalive_hints with learn in workers that share their connections: a
# connection of another worker can be too old as well.

###############################################################################

use warnings;
use strict;

use Test::More;

use FindBin;
use lib ($ENV{NGINX_TESTS_DIR} ? "$ENV{NGINX_TESTS_DIR}/lib" : ()),
	"$FindBin::Bin/lib";

use Time::HiRes qw/ sleep time /;

use Test::Nginx;
use Test::Backend::Idle;
use Test::Requests;
use Test::Workers;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

my $t = Test::Nginx->new()->has(qw/http proxy rewrite/)->plan(12);

$t->write_file_expand('nginx.conf', <<'EOF');

%%TEST_GLOBALS%%

daemon off;
worker_processes 2;

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    proxy_http_version 1.1;
    proxy_set_header Host $host;
    proxy_set_header Connection "";

    add_header X-Worker $pid always;
    add_header X-Keepalive $upstream_keepalive always;

    upstream u {
        server 127.0.0.1:8081;
        keepalive 100 slice_key=$host slice_poolsize=100 shared;
        keepalive_hints on margin=500ms learn;
    }

    upstream v {
        server 127.0.0.1:8082;
        keepalive 100 slice_key=$host slice_poolsize=100 shared;
        keepalive_hints on margin=500ms learn;
    }

    server {
        listen       127.0.0.1:8080 reuseport;
        server_name  localhost;

        location / {
            proxy_pass http://u;
        }

        location /v/ {
            proxy_pass http://v;
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

my @ports = map { port($_) } 8081, 8082;

$t->run_daemon(\&serve_idle, @ports);
$t->waitforsocket("127.0.0.1:$_") or die "Can't start backend\n" for @ports;
$t->run();

my ($one, $two) = workers($t, 2);

###############################################################################

by($_, '/', "close$_", "X-Close: 1.5\n"), sleep(0.15) for $one, $two;
by($one, '/', "again$_", "X-Close: 1.5\n"), sleep(0.15) for 1 .. 4;
sleep(1.6);

cmp_ok(timeout($one), '>', 1.4, 'learned');
cmp_ok(timeout($one), '<', 1.8, 'as it is');

# one of another worker, in its first second and after it

my $first = by($one, '/', 'k');

sleep(0.3);
is(found_by(my $r = by($two, '/', 'k')), 'BORROWED', 'borrowed');
is(conn($r), conn($first), 'the same');
is(logged($t), 0, 'not used so far');

sleep(1.2);
is(found_by($r = by($one, '/', 'k')), 'MISS', 'too old to be borrowed');
is(logged($t), 1, 'logged');

# an own one that is too old, and a new one of another worker

by($one, '/', 'own');
sleep(1.2);

my $new = by($two, '/', 'own');

is(found_by($r = by($one, '/', 'own')), 'BORROWED', 'borrowed instead of an own one');
is(conn($r), conn($new), 'the new one');

# One that the server has closed, and whose holder has not seen it, is no longer
# life: the timeout stays known.

spare_for($_) for $one, $two;

my $start = time();

by($two, '/', 'stopped', "X-Close: 1.5\n");
stop_worker($two, $one);
sleep($start + 1.3 - time());
is(found_by(by($one, '/', 'stopped')), 'MISS', 'that of a stopped worker is too old');
sleep($start + 2.6 - time());
by($one, '/', 'stopped');

ok(defined timeout($one), 'not forgotten by one that is closed');
kill 'CONT', $two;

# requests that meet the close of a connection of another worker

by($one, '/v/', "drop$_"), sleep(0.15) for 1 .. 4;
sleep(0.7);
by($two, '/v/drop', "drop$_"), sleep(0.14) for 1 .. 4;

ok(defined timeout($one, 8082), 'learned from borrowed connections');

###############################################################################

sub timeout {
	my ($worker, $port) = @_;

	my $server = '127.0.0.1:' . port($port || 8081);

	return by($worker, '/status') =~ /"\Q$server\E":([\d.]+)/ ? $1 : undef;
}

sub logged {
	my ($t) = @_;

	return scalar(() = $t->read_file('error.log') =~ /idle timeout of/g);
}

###############################################################################

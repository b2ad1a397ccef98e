#!/usr/bin/perl

# Tests for what a connection must not carry over from one request to the
# next: bytes counted, rate limits, timers, events, and being idle.

###############################################################################

use warnings;
use strict;

use Test::More;

use FindBin;
use lib ($ENV{NGINX_TESTS_DIR} ? "$ENV{NGINX_TESTS_DIR}/lib" : ()),
	"$FindBin::Bin/lib";

use Test::Nginx qw/ :DEFAULT http_end /;
use Test::Backend;
use Test::Processes;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

my $t = Test::Nginx->new()->has(qw/http proxy/)->plan(12);

$t->write_file_expand('nginx.conf', <<'EOC');

%%TEST_GLOBALS%%

daemon off;

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    log_format sent $upstream_bytes_sent;

    proxy_http_version 1.1;
    proxy_set_header Connection "";

    upstream u {
        server 127.0.0.1:8081;
        keepalive 8 slice_key=$host;
        keepalive_timeout 500ms;
    }

    upstream any {
        server 127.0.0.1:8081;
        keepalive 8 slice_key=$host;
    }

    server {
        listen       127.0.0.1:8080;
        server_name  localhost;

        location /u/ {
            proxy_pass http://u/;
            proxy_request_buffering off;
        }

        location /any/ {
            proxy_pass http://any/;
            access_log %%TESTDIR%%/sent.log sent;
        }

        location /slow/ {
            proxy_pass http://any/;
            proxy_limit_rate 400;
            proxy_read_timeout 2s;
        }
    }
}

EOC

start_backend($t, 8081);
$t->run();

###############################################################################

# bytes sent are those of one request

get('/any/', 'bytes') for 1 .. 3;

wait_for(sub { $t->read_file('sent.log') =~ /(\d+\n){3}/ });
my ($first, @others) = split /\n/, $t->read_file('sent.log');
is("@others", "$first $first", 'bytes sent of each request');

# a rate limit that had delayed the reading

my $c = get('/slow/', 'rate');
is(get('/any/big', 'rate'), $c, 'after a rate limit');
is(get('/slow/', 'rate'), $c, 'rate limit again');

# the timer of an idle connection does not fire while it is used

$c = get('/u/', 'timer');
my $s = http("POST /u/ HTTP/1.0\nHost: timer\nContent-Length: 4\n\n12",
	start => 1);
select undef, undef, undef, 1;
syswrite $s, '34';
is(conn(http_end($s)), $c, 'slow body, used for longer than idle');

# a response and the end of the connection in one event: no other event comes,
# and a POST is not sent twice

my $master = $t->read_file('nginx.pid') + 0;
my ($worker) = split ' ', slurp("/proc/$master/task/$master/children");

for my $i (1 .. 3) {
	my $held = hold('/any/drop', "drop$i");
	my $open = open_conns();

	kill 'STOP', $worker;
	wait_for(sub { slurp("/proc/$worker/stat") =~ /\) T / });
	let_go($held);
	wait_open($open - 1);
	kill 'CONT', $worker;

	like(http_end($held->{socket}), qr/ 200 /, "response and close $i");
	is_new(post('/any/', "drop$i", '1234'), "new after close $i");
}

# used again, it is not closed with the idle ones when the worker quits

$c = get('/any/', 'quit');
my $held = hold('/any/', 'quit');

my $pid = $t->read_file('nginx.pid');
kill 'QUIT', $pid;
wait_for(sub { !IO::Socket::INET->new('127.0.0.1:' . port(8080)) });

is(release($held), $c, 'request on a reused connection ends');
ok(ended($t, $pid), 'quits after it');

###########################################################################

###############################################################################

sub slurp {
	my ($path) = @_;

	open my $file, '<', $path or return '';
	local $/;

	return scalar <$file>;
}

###############################################################################

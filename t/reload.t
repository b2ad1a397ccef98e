#!/usr/bin/perl

# Tests for reload with idle connections: old workers close them and exit at
# once.

###############################################################################

use warnings;
use strict;

use Test::More;

use FindBin;
use lib ($ENV{NGINX_TESTS_DIR} ? "$ENV{NGINX_TESTS_DIR}/lib" : ()),
	"$FindBin::Bin/lib";

use Time::HiRes qw/ time /;

use Test::Nginx;
use Test::Backend;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

my $t = Test::Nginx->new()->has(qw/http proxy/)->plan(29);

$t->write_file_expand('nginx.conf', <<'EOF');

%%TEST_GLOBALS%%

daemon off;

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    proxy_http_version 1.1;
    proxy_set_header Connection "";

    add_header X-Pid $pid always;

    upstream u {
        server 127.0.0.1:8081;
        keepalive 16 slice_key=$host slice_conn=4;
    }

    upstream plain {
        server 127.0.0.1:8081;
        keepalive 16;
        keepalive_timeout 60s;
    }

    server {
        listen       127.0.0.1:8080;
        server_name  localhost;

        location /u/ {
            proxy_pass http://u/;
        }

        location /plain/ {
            proxy_pass http://plain/;
        }
    }
}

EOF

start_backend($t, 8081);
$t->run();

###############################################################################

my $pid = pid();
my @c = together('/u/', qw/ a a b /);
my $plain = get('/plain/', 'a');
is(open_conns(), 4, 'idle');

my $begin = time();
reload($t, 2);
ok(ended($pid), 'old worker exited');
cmp_ok(time() - $begin, '<', 5, 'at once');
is(wait_open(0), 0, 'closed');

# the new worker has connections of its own, and new limits

isnt(pid(), $pid, 'new worker');
is_new(my $c = get('/u/', 'a'), 'new connection');
is(get('/u/', 'a'), $c, 'reused');

together('/u/', ('a') x 4);
is(wait_open(2), 2, 'new limit');

# requests in flight

$pid = pid();
@c = together('/u/', qw/ a b /);
my $held = hold('/u/', 'a');
my $idle = open_conns();
reload($t, 4);

isnt(pid(), $pid, 'new worker during request');
is(wait_open(1), 1, 'idle closed during request');
is_new($c = get('/u/', 'a'), 'new connection during request');
ok(kill(0, $pid), 'old worker waits for request');
is(release($held), $c[0], 'request ends');
ok(ended($pid), 'old worker exited after request');
is(wait_open(1), 1, 'its connection closed');
is(get('/u/', 'a'), $c, 'reused after request');

# a configuration with an error

$pid = pid();
my $conf = $t->read_file('nginx.conf');
(my $bad = $conf) =~ s/slice_conn=4/slice_conn=bad/;
$t->write_file('nginx.conf', $bad);

kill 'HUP', $t->read_file('nginx.pid');
ok(wait_for(sub {
	$t->read_file('error.log')
		=~ /\[emerg\].*: invalid parameter "slice_conn=bad" in /;
}), 'error');

is(get('/u/', 'a'), $c, 'old configuration still in use');
is(pid(), $pid, 'old worker still there');
$t->write_file('nginx.conf', $conf);

# several times

for my $n (1 .. 5) {
	together('/u/', qw/ a a b /);
	get('/plain/', 'a');
	$pid = pid();
	reload($t, 4 + $n % 2);
	ok(ended($pid), "old worker exited $n");
	is(wait_open(0), 0, "closed $n");
}

###############################################################################

# the worker that answers

sub pid {
	my $r = http(request('GET', '/pid', 'localhost'));
	return $r =~ /X-Pid: (\d+)/ ? $1 : 0;
}

sub ended {
	my ($pid) = @_;
	return wait_for(sub { !kill(0, $pid) });
}

# until a new worker answers, and the old one does not any more

sub reload {
	my ($t, $limit) = @_;

	my $pid = pid();
	my $conf = $t->read_file('nginx.conf');

	$conf =~ s/slice_conn=\d+/slice_conn=$limit/;
	$t->write_file('nginx.conf', $conf);

	kill 'HUP', $t->read_file('nginx.pid');
	wait_for(sub {
		$t->read_file('error.log')
			=~ /notice\] $pid#\d+: gracefully shutting down/;
	});
	wait_for(sub { my $new = pid(); $new && $new ne $pid });
}

###############################################################################

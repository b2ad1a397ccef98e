#!/usr/bin/perl

# Tests for the end of nginx with idle connections: it closes them, is quick
# about it, and leaves none open.

###############################################################################

use warnings;
use strict;

use Test::More;

use FindBin;
use lib ($ENV{NGINX_TESTS_DIR} ? "$ENV{NGINX_TESTS_DIR}/lib" : ()),
	"$FindBin::Bin/lib";

use POSIX qw/ WNOHANG /;
use Time::HiRes qw/ time /;

use Test::Nginx;
use Test::Backend;
use Test::Processes;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

my $t = Test::Nginx->new()->has(qw/http proxy/)->plan(18);

$t->write_file_expand('nginx.conf', <<'EOF');

%%TEST_GLOBALS%%

daemon off;

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    proxy_http_version 1.1;
    proxy_set_header Connection "";

    upstream u {
        server 127.0.0.1:8081;
        keepalive 16 slice_key=$host slice_conn=4;
    }

    upstream timeout {
        server 127.0.0.1:8081;
        keepalive 16 slice_key=$host;
        keepalive_timeout 60s;
    }

    upstream plain {
        server 127.0.0.1:8081;
        keepalive 16;
    }

    server {
        listen       127.0.0.1:8080;
        server_name  localhost;

        location /u/ {
            proxy_pass http://u/;
        }

        location /timeout/ {
            proxy_pass http://timeout/;
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

# the end of requests, and of nginx

fill();
is(open_conns(), 9, 'idle');

my $begin = time();
$t->stop();
cmp_ok(time() - $begin, '<', 5, 'graceful quit');
is(wait_open(0), 0, 'closed at graceful quit');

# the same, with a request in flight

$t->run();
fill();
my $held = hold('/u/', 'a');
my $pid = $t->read_file('nginx.pid');

kill 'QUIT', $pid;
is(wait_open(1), 1, 'closed but for the one in use');
ok(kill(0, $pid), 'waits for the request');
like(release($held), qr/^\d+$/, 'request ends');
$begin = time();
ended($t, $pid);
cmp_ok(time() - $begin, '<', 5, 'quits after the request');
is(wait_open(0), 0, 'closed after the request');

# fast

for my $signal (qw/ TERM INT /) {
	$pid = run_again($t);
	fill();
	is(open_conns(), 9, "$signal idle");

	kill $signal, $pid;
	$begin = time();
	ok(wait_for(sub { waitpid($pid, WNOHANG) == $pid }), "$signal");
	cmp_ok(time() - $begin, '<', 5, "$signal at once");
	is(wait_open(0), 0, "$signal closed");
}

my $log = $t->read_file('error.log');
unlike($log, qr/open socket .* left in connection/, 'none left open');
unlike($log, qr/exited on signal/, 'no worker crashed');

###############################################################################

sub fill {
	together('/u/', qw/ a a b c /);
	together('/timeout/', qw/ a b b /);
	together('/plain/', qw/ a b /);
}

# nginx as a daemon of the test, to see its end

sub run_again {
	my ($t) = @_;

	my $dir = $t->testdir();
	my $file = "$dir/nginx.pid";

	unlink $file;
	$t->run_daemon($Test::Nginx::NGINX, '-p', "$dir/", '-c', 'nginx.conf',
		'-e', 'error.log');
	$t->waitforfile($file);
	$t->waitforsocket('127.0.0.1:' . port(8080));

	my ($pid) = $t->read_file('nginx.pid') =~ /(\d+)/;

	return $pid;
}

###############################################################################

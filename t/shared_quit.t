#!/usr/bin/perl

# Tests for shared at the end of nginx: idle connections are closed at once, also
# if a worker goes on that has none and has stopped to receive them.

###############################################################################

use warnings;
use strict;

use Test::More;

use FindBin;
use lib ($ENV{NGINX_TESTS_DIR} ? "$ENV{NGINX_TESTS_DIR}/lib" : ()),
	"$FindBin::Bin/lib";

use IO::Socket::INET;

use Test::Nginx;
use Test::Backend;
use Test::Processes;
use Test::Wait;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

plan(skip_all => 'no /proc') unless -r "/proc/$$/cmdline";

my $t = Test::Nginx->new()->has(qw/http proxy rewrite/)->plan(6);

$t->write_file_expand('nginx.conf', <<'EOC');

%%TEST_GLOBALS%%

daemon off;
worker_processes 2;

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    proxy_http_version 1.1;
    proxy_set_header Connection "";

    add_header X-Worker $pid;

    upstream u {
        server 127.0.0.1:8081;
        keepalive 16 slice_key=$host shared;
    }

    server {
        listen       127.0.0.1:8080 reuseport;
        server_name  localhost;

        location / {
            proxy_pass http://u;
        }

        location = /worker {
            return 204;
        }
    }
}

EOC

start_backend($t, 8081);
$t->run();

###############################################################################

# one worker reads a request, and the other one has all idle connections

my $s = IO::Socket::INET->new(
	Proto => 'tcp',
	PeerAddr => '127.0.0.1:' . port(8080),
) or die "Can't connect to nginx: $!\n";

my $reading = worker(exchange($s, "GET /worker HTTP/1.1\r\nHost: a\r\n\r\n"));
http("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n",
	socket => $s, start => 1);

my $other;

for my $host (qw/ a b c d /) {
	wait_for(sub {
		$other = worker(http(request('GET', '/', $host)));
		return $other != $reading;
	});
}

isnt($other, $reading, 'two workers');
is(open_conns(), 4, 'idle');

# it has none to send, and learns first that nginx ends

kill 'STOP', $other;
kill 'QUIT', my $pid = $t->read_file('nginx.pid');

ok(wait_for(sub { title($reading) =~ /shutting down/ }), 'shutting down');

kill 'CONT', $other;

is(wait_open(0), 0, 'closed although a request goes on');
like(exchange($s, 'body'), qr/^HTTP\S+ 200 /, 'request ends');
close $s;

ok(ended($t, $pid), 'nginx ends');

###############################################################################

sub worker {
	my ($r) = @_;

	return $r =~ /^X-Worker: (\d+)/m ? $1 : 0;
}

sub title {
	my ($process) = @_;

	open my $fh, '<', "/proc/$process/cmdline" or return '';

	return scalar <$fh>;
}

# it ends with the script, although functions refer to it

END { undef $t; }

###############################################################################

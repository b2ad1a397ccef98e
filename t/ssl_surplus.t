#!/usr/bin/perl

# Tests for bytes behind a response without a body, over TLS: they may have come
# in one record with it, where no event and no look at the socket tells of them.
# The connection is not kept, or they would be the next response.

###############################################################################

use warnings;
use strict;

use Test::More;

use FindBin;
use lib ($ENV{NGINX_TESTS_DIR} ? "$ENV{NGINX_TESTS_DIR}/lib" : ()),
	"$FindBin::Bin/lib";

use IPC::Open2;

use Test::Nginx;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

my $t = Test::Nginx->new()->has(qw/http http_ssl proxy/)
	->has_daemon('openssl')->plan(9);

my $d = $t->testdir();

$t->write_file_expand('nginx.conf', <<'EOF');

%%TEST_GLOBALS%%

daemon off;

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    upstream u {
        server 127.0.0.1:8081;
        keepalive 8 slice_key=$host;
    }

    server {
        listen       127.0.0.1:8080;
        server_name  localhost;

        location / {
            proxy_pass https://u;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffer_size 4k;
            add_header X-Keepalive $upstream_keepalive;
        }
    }
}

EOF

system('openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj /CN=localhost '
	. "-keyout $d/localhost.key -out $d/localhost.crt >>$d/openssl.out 2>&1")
	== 0 or die "Can't create certificate\n";

$t->run_daemon(\&backend, port(8081));
$t->run()->waitforsocket('127.0.0.1:' . port(8081));

###############################################################################

like(http_get('/'), qr/X-Keepalive: MISS/, 'first');
like(http_get('/'), qr/X-Keepalive: HIT/, 'kept');

like(http_head('/'), qr/ 200 .*X-Keepalive: HIT/s, 'surplus');

my $r = http_get('/');

unlike($r, qr/LATE/, 'surplus not delivered');
like($r, qr/X-Keepalive: MISS/, 'surplus not kept');

# the same in a second record, which TLS has read ahead

like(http_get('/'), qr/X-Keepalive: HIT/, 'kept again');
like(http("HEAD /two HTTP/1.0\nHost: localhost\n\n"), qr/ 200 .*HIT/s,
	'second record');

$r = http_get('/');

unlike($r, qr/LATE/, 'second record not delivered');
like($r, qr/X-Keepalive: MISS/, 'second record not kept');

###############################################################################

sub worker {
	my ($master) = $t->read_file('nginx.pid') =~ /(\d+)/;

	open my $children, '<', "/proc/$master/task/$master/children"
		or die "Can't open: $!\n";

	return split ' ', <$children>;
}

# openssl does TLS, for one connection at a time.  A response to HEAD fills
# nginx's buffer, and is followed by another one in the same record.

sub backend {
	my ($port) = @_;

	open STDERR, '>>', "$d/openssl.out" or die "Can't open: $!\n";

	my $pid = open2(my $in, my $out, 'openssl', 's_server', '-quiet',
		'-accept', "127.0.0.1:$port", '-cert', "$d/localhost.crt",
		'-key', "$d/localhost.key");

	local $SIG{TERM} = sub { kill 'TERM', $pid; exit };

	my $late = "HTTP/1.1 200 OK\r\nX-Late: LATE\r\n"
		. "Content-Length: 0\r\n\r\n";
	my $request = '';

	while (sysread($in, $request, 65536, length $request)) {
		next unless $request =~ s/^(\w+) (\S+) .*?\r\n\r\n//s;

		my ($head, $two) = ($1 eq 'HEAD', $2 eq '/two');
		my $start = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n";
		my $end = "\r\n\r\n";
		my $pad = 'X-Pad: ';

		$pad .= 'x' x (4096 - length $start . $pad . $end) if $head;

		my $response = $start . $pad . $end;

		if (!$two) {
			syswrite($out, $response . ($head ? $late : ''));
			next;
		}

		# nginx sees both at once

		kill 'STOP', worker();

		for my $record ($response, $late) {
			syswrite($out, $record);
			select undef, undef, undef, 0.2;
		}

		kill 'CONT', worker();
	}

	waitpid $pid, 0;
}

###############################################################################

END { undef $t; }

###############################################################################

#!/usr/bin/perl

# Tests for keepalive_hints with proxy_cache_revalidate: the Keep-Alive header
# of a response that comes from the cache says nothing about the connection.

###############################################################################

use warnings;
use strict;

use Test::More;

use FindBin;
use lib ($ENV{NGINX_TESTS_DIR} ? "$ENV{NGINX_TESTS_DIR}/lib" : ()),
	"$FindBin::Bin/lib";

use IO::Select;
use IO::Socket::INET;

use Test::Nginx;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

my $t = Test::Nginx->new()->has(qw/http proxy cache/)->plan(5);

$t->write_file_expand('nginx.conf', <<'EOF');

%%TEST_GLOBALS%%

daemon off;

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    proxy_cache_path %%TESTDIR%%/cache keys_zone=c:1m;

    proxy_http_version 1.1;
    proxy_set_header Connection "";

    upstream u {
        server 127.0.0.1:8081;
        keepalive 5 slice_key=$host;
    }

    server {
        listen       127.0.0.1:8080;
        server_name  localhost;

        location / {
            proxy_pass http://u;
            proxy_cache c;
            proxy_cache_key $uri;
            proxy_cache_valid 1s;
            proxy_cache_revalidate on;
            add_header X-Cache $upstream_cache_status;
        }

        location /plain/ {
            proxy_pass http://u;
            add_header X-Conn $upstream_http_x_conn;
        }
    }
}

EOF

$t->run_daemon(\&backend, port(8081));
$t->run()->waitforsocket('127.0.0.1:' . port(8081));

###############################################################################

like(http_get('/a'), qr/X-Cache: MISS/, 'stored');
like(http_get('/plain/'), qr/X-Conn: 2/, 'max=0 was heeded');

my ($response, $end) = ('', time() + 8);

while ($response !~ /X-Cache: REVALIDATED/ && time() < $end) {
	select undef, undef, undef, 0.1;
	$response = http_get('/a');
}

like($response, qr/X-Cache: REVALIDATED/, 'revalidated');
like(http_get('/plain/'), qr/X-Conn: 2/, 'max=0 of the cached one was not');
like(http_get('/plain/'), qr/X-Conn: 2/, 'still kept');

###############################################################################

# what is stored has a Keep-Alive header that forbids to keep the connection,
# what is sent when it is asked for again has none

sub backend {
	my ($port) = @_;

	my ($count, %number) = (0);

	my $server = IO::Socket::INET->new(
		Proto => 'tcp',
		LocalAddr => "127.0.0.1:$port",
		Listen => 5,
		ReuseAddr => 1,
	) or die "Can't listen: $!\n";

	my $select = IO::Select->new($server);

	while (my @ready = $select->can_read()) {
		for my $s (@ready) {
			if ($s == $server) {
				$select->add($s->accept());
				next;
			}

			my $request;

			if (!sysread($s, $request, 65536)) {
				delete $number{$s};
				$select->remove($s);
				close $s;
				next;
			}

			$number{$s} ||= ++$count;

			my $date = 'Last-Modified: Mon, 28 Sep 1970 06:00:00 GMT';
			my $conn = "X-Conn: $number{$s}";

			syswrite $s, join "\r\n",
				$request =~ /If-Modified-Since/i
				? ('HTTP/1.1 304 Not Modified', $conn, $date)
				: $request =~ /plain/
				? ('HTTP/1.1 200 OK', $conn, 'Content-Length: 0')
				: ('HTTP/1.1 200 OK', $conn, $date,
					'Content-Length: 0', 'Keep-Alive: max=0'),
				'', '';
		}
	}
}

###############################################################################

#!/usr/bin/perl

# Tests for a cached response in place of the server's: whether a connection is
# kept depends on what the server has said by it, and not on what was said by
# another one, when the cached response came.  And for bytes that no body
# should be: a connection is not kept with a part of a response on the way.

###############################################################################

use warnings;
use strict;

use Test::More;

use FindBin;
use lib ($ENV{NGINX_TESTS_DIR} ? "$ENV{NGINX_TESTS_DIR}/lib" : ()),
	"$FindBin::Bin/lib";

use IO::Select;
use IO::Socket::INET;
use Time::HiRes qw/ time /;

use Test::Nginx;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

my $t = Test::Nginx->new()->has(qw/http proxy cache fastcgi/)->plan(48);

$t->write_file_expand('nginx.conf', <<'EOF');

%%TEST_GLOBALS%%

daemon off;

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    proxy_cache_path %%TESTDIR%%/cache keys_zone=c:1m;
    fastcgi_cache_path %%TESTDIR%%/fastcgi keys_zone=f:1m;

    proxy_http_version 1.1;
    proxy_set_header Connection "";
    log_subrequest on;
    log_format update "$uri $upstream_status";

    fastcgi_keep_conn on;
    fastcgi_param REQUEST_URI $request_uri;

    upstream u {
        server 127.0.0.1:8081;
        keepalive 8 slice_key=$host;
    }

    upstream fastcgi {
        server 127.0.0.1:8082;
        keepalive 8 slice_key=$host;
    }

    server {
        listen       127.0.0.1:8080;
        server_name  localhost;

        add_header X-Conn $upstream_http_x_conn;
        add_header X-Cache $upstream_cache_status;

        location / {
            proxy_pass http://u;
        }

        location /stale/ {
            proxy_pass http://u;
            proxy_cache c;
            proxy_cache_key $request_method$uri;
            proxy_cache_convert_head off;
            proxy_cache_use_stale http_500;
        }

        location /revalidate/ {
            proxy_pass http://u;
            proxy_cache c;
            proxy_cache_key $uri;
            proxy_cache_revalidate on;
        }

        location /background/ {
            proxy_pass http://u;
            proxy_cache c;
            proxy_cache_key $uri;
            proxy_cache_use_stale updating http_500;
            proxy_cache_background_update on;
            access_log %%TESTDIR%%/update.log update;
        }

        location /intercept/ {
            proxy_pass http://u;
            proxy_intercept_errors on;
            error_page 404 = /page;
        }

        location /page {
            return 200 "page";
        }

        location /fastcgi/ {
            fastcgi_pass fastcgi;
        }

        location /fastcgi/stale/ {
            fastcgi_pass fastcgi;
            fastcgi_cache f;
            fastcgi_cache_key $uri;
            fastcgi_cache_use_stale http_500;
        }
    }
}

EOF

# what the server says to the first request for an URI, and to the next ones;
# a late body comes after the header, and is a response in itself

my $stored = "X-Accel-Expires: \@1\n"
	. "Last-Modified: Mon, 28 Sep 1970 06:00:00 GMT\n";
my $empty = "200 OK\n${stored}Content-Length: 0\n";

my %answers = (
	'/stale/empty' => [ $empty, '500 E late' ],
	'/stale/204' => [ "204 No Content\n$stored", '500 E late' ],
	'/stale/head' => [ "200 OK\n${stored}Content-Length: 9\n",
		"500 E\nContent-Length: 9\n" ],
	'/stale/head/surplus' => [ "200 OK\n${stored}Content-Length: 9\n",
		"500 E\nContent-Length: 9\n surplus" ],
	'/stale/body' => [ "200 OK\n${stored}", '500 E late' ],
	'/stale/whole' => [ $empty, "500 E\nContent-Length: 0\n" ],
	'/stale/close' => [ $empty,
		"500 E\nContent-Length: 0\nConnection: close\n" ],
	'/stale/hint' => [ "200 OK\n${stored}Content-Length: 0\n"
		. "Keep-Alive: max=0\n", "500 E\nContent-Length: 0\n" ],
	'/stale/hinted' => [ $empty,
		"500 E\nContent-Length: 0\nKeep-Alive: max=0\n" ],
	'/stale/surplus' => [ $empty, "500 E\nContent-Length: 0\n surplus" ],
	'/stale/cached_close' => [ "200 OK\n${stored}Content-Length: 0\n"
		. "Connection: close\n", "500 E\nContent-Length: 0\n" ],
	'/revalidate/close' => [ $empty, "304 N\nConnection: close\n" ],
	'/revalidate/kept' => [ $empty, "304 N\n" ],
	'/revalidate/hinted' => [ $empty, "304 N\nKeep-Alive: max=0\n" ],
	'/revalidate/surplus' => [ $empty, "304 N\n surplus" ],
	'/background/late' => [ $empty, '500 E late' ],
	'/intercept/late' => [ '404 E late' ],
	'/intercept/empty' => [ "404 E\nContent-Length: 0\n" ],
	'/intercept/surplus' => [ "404 E\nContent-Length: 0\n surplus" ],
	'/accel/late' => [ "200 OK\nX-Accel-Redirect: /page\n late" ],
	'/accel/empty' => [ "200 OK\nX-Accel-Redirect: /page\n"
		. "Content-Length: 0\n" ],
	'/accel/surplus' => [ "200 OK\nX-Accel-Redirect: /page\n"
		. "Content-Length: 0\n surplus" ],
	'/head' => [ "200 OK\nContent-Length: 9\n" ],
	'/head/surplus' => [ "200 OK\nContent-Length: 9\n surplus" ],
	'/204' => [ "204 N\n" ],
	'/204/surplus' => [ "204 N\n surplus" ],
	'/304/surplus' => [ "304 N\n surplus" ],
	'/empty/surplus' => [ "200 OK\nContent-Length: 0\n surplus" ],
);

$t->run_daemon(\&backend, port(8081));
$t->run_daemon(\&fastcgi, port(8082));
$t->run();
$t->waitforsocket('127.0.0.1:' . port($_)) for 8081, 8082;

###############################################################################

# the late body is never the answer to another request

replaced('/stale/empty', 'STALE', 0);
replaced('/stale/204', 'STALE', 0);
replaced('/stale/head', 'STALE', 1, 'HEAD');
replaced('/stale/head/surplus', 'STALE', 0, 'HEAD');
replaced('/stale/body', 'STALE', 0);

# what the server has said counts, and not what it once said

replaced('/stale/whole', 'STALE', 1);
replaced('/stale/close', 'STALE', 0);
replaced('/stale/hint', 'STALE', 1);
replaced('/stale/hinted', 'STALE', 0);
replaced('/stale/surplus', 'STALE', 0);
replaced('/stale/cached_close', 'STALE', 1);

replaced('/revalidate/close', 'REVALIDATED', 0);
replaced('/revalidate/kept', 'REVALIDATED', 1);
replaced('/revalidate/hinted', 'REVALIDATED', 0);
replaced('/revalidate/surplus', 'REVALIDATED', 0);

# updated in the background: the answer does not wait for the server

replaced('/background/late', 'STALE', 0);

# other responses in place of the server's

kept('/intercept/late', 0);
kept('/intercept/empty', 1);
kept('/intercept/surplus', 0);

kept('/accel/late', 0);
kept('/accel/empty', 1);
kept('/accel/surplus', 0);

# no body should be there

kept('/head', 1, 'HEAD');
kept('/head/surplus', 0, 'HEAD');
kept('/204', 1);
kept('/204/surplus', 0);
kept('/304/surplus', 0);
kept('/empty/surplus', 0);

# FastCGI: the end of the request is a record that comes after the header

http_get('/fastcgi/stale/a');

my $c = conn(http_get('/fastcgi/x'));
is(conn(http_get('/fastcgi/x')), $c, 'fastcgi kept');
like(http_get('/fastcgi/stale/a'), qr/X-Cache: STALE/, 'fastcgi stale');

my $r = http_get('/fastcgi/x');
unlike($r, qr/LATE/, 'fastcgi body');
isnt(conn($r), $c, 'fastcgi stale not kept');

###############################################################################

# the cached response takes the place of what comes by the idle connection

sub replaced {
	my ($uri, $status, $kept, $method) = @_;

	http_method($method, $uri);

	local $Test::Builder::Level = $Test::Builder::Level + 1;

	like(kept($uri, $kept, $method), qr/X-Cache: $status/, "$uri $status");
}

# whether the connection that a request uses is the next one's as well

sub kept {
	my ($uri, $kept, $method) = @_;

	my $before = conn(http_get('/plain'));
	my $r = http_method($method, $uri);

	# the update in the background has given the connection back

	if ($uri =~ /background/) {
		wait_for_update($uri) or fail("$uri not updated");
	}

	my $next = http_get('/plain');

	local $Test::Builder::Level = $Test::Builder::Level + 1;

	if ($next =~ /LATE/) {
		fail("$uri: another response");

	} else {
		is(conn($next) eq $before ? 1 : 0, $kept,
			"$uri " . ($kept ? 'kept' : 'not kept'));
	}

	return $r;
}

sub wait_for_update {
	my ($uri) = @_;

	for (1 .. 500) {
		return 1 if $t->read_file('update.log') =~ /^\Q$uri\E 500$/m;
		select undef, undef, undef, 0.01;
	}

	return 0;
}

sub http_method {
	my ($method, $uri) = @_;

	return http(($method || 'GET') . " $uri HTTP/1.0\nHost: localhost\n\n");
}

sub conn {
	my ($r) = @_;

	return $r =~ /X-Conn: (\d+)/ ? $1 : "none: '$r'";
}

###############################################################################

# Sends what %answers says; "late" stands for a body that comes later, and
# "surplus" for one that comes with a header that forbids it.

sub backend {
	my ($port) = @_;

	serve($port, sub {
		my ($number, $in) = @_;

		$$in =~ s/^(\S+) (\S+) .*?\r\n\r\n//s or return;

		my ($method, $uri) = ($1, $2);
		my $answers = $answers{$uri}
			|| [ "200 OK\nContent-Length: 0\n" ];
		my $n = asked($uri);
		my $answer = $answers->[$n < @$answers ? $n : -1];

		my $late = "HTTP/1.1 200 OK\r\nX-Late: LATE\r\n"
			. "Content-Length: 0\r\n\r\n";
		my $length = length $late;

		my $body = $answer =~ s/ ?(late|surplus)$// ? $1 : '';

		$answer .= "\n" unless $answer =~ /\n$/;
		$answer .= "Content-Length: $length\n"
			unless $answer =~ /^(204|304)|Content-Length/;
		$answer .= "X-Conn: $number\n\n";
		$answer =~ s/\n/\r\n/g;

		my @parts = "HTTP/1.1 $answer";

		if ($body eq 'late') {
			push @parts, $late;

		} elsif ($body || $answer =~ /Content-Length: $length\r/) {
			$parts[0] .= $late;
		}

		return @parts;
	});
}

# A header, and the rest of the response later.

sub fastcgi {
	my ($port) = @_;

	serve($port, sub {
		my ($number, $in) = @_;
		my $uri = 'x';

		while (length $$in >= 8) {
			my ($type, $id, $length, $padding)
				= unpack('xCnnC', $$in);

			return if length $$in < 8 + $length + $padding;

			$uri = 'stale' if $$in =~ /stale/;
			substr($$in, 0, 8 + $length + $padding) = '';

			next if $type != 5 || $length;

			my $status = $uri eq 'stale' && asked($uri)
				? '500 E' : '200 OK';

			my @parts = ("Status: $status\r\nX-Conn: $number\r\n"
				. ($uri eq 'stale' ? "X-Accel-Expires: \@1\r\n" : '')
				. "\r\n");

			push @parts, 'LATE' if $status eq '500 E';
			@parts = map { pack('CCnnCx', 1, 6, $id, length, 0) . $_ }
				@parts;
			$parts[-1] .= pack('CCnnCx', 1, 3, $id, 8, 0)
				. pack('NCx3', 0, 0);

			return @parts;
		}

		return;
	});
}

my %asked;

sub asked {
	my ($uri) = @_;

	return $asked{$uri}++ || 0;
}

# Answers, in their order; the second part of an answer comes later.

sub serve {
	my ($port, $answer) = @_;

	my ($count, %conns) = (0);

	my $server = IO::Socket::INET->new(
		Proto => 'tcp',
		LocalAddr => "127.0.0.1:$port",
		Listen => 5,
		ReuseAddr => 1,
	) or die "Can't listen: $!\n";

	local $SIG{PIPE} = 'IGNORE';

	my $select = IO::Select->new($server);

	while (1) {
		for my $s ($select->can_read(0.02)) {
			if ($s == $server) {
				my $new = $s->accept();
				$select->add($new);
				$conns{$new} = { socket => $new, in => '',
					number => ++$count, out => [] };
				next;
			}

			my $c = $conns{$s};

			if (!sysread($s, $c->{in}, 65536, length $c->{in})) {
				$select->remove($s);
				delete $conns{$s};
				close $s;
				next;
			}

			if (my @parts = $answer->($c->{number}, \$c->{in})) {
				my $time = time();

				for my $part (@parts) {
					push @{$c->{out}}, [ $time, $part ];
					$time += 0.4;
				}
			}
		}

		for my $c (values %conns) {
			while (@{$c->{out}} && $c->{out}[0][0] <= time()) {
				syswrite($c->{socket}, (shift @{$c->{out}})->[1]);
			}
		}
	}
}

###############################################################################

END { undef $t; }

###############################################################################

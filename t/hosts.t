#!/usr/bin/perl

# Tests for the Host of requests as attackers send it: what shares a slice, and
# what does not.

###############################################################################

use warnings;
use strict;

use Test::More;

use FindBin;
use lib ($ENV{NGINX_TESTS_DIR} ? "$ENV{NGINX_TESTS_DIR}/lib" : ()),
	"$FindBin::Bin/lib";

use Test::Nginx;
use Test::Backend;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

my $t = Test::Nginx->new()->has(qw/http proxy map/)->plan(66);

$t->write_file_expand('nginx.conf', <<'EOF');

%%TEST_GLOBALS%%

daemon off;

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    proxy_http_version 1.1;
    proxy_set_header Connection "";
    large_client_header_buffers 4 16k;

    map $host $limit {
        default        0;
        known.example  2;
    }

    upstream host {
        server 127.0.0.1:8081;
        keepalive 400 slice_key=$host slice_poolsize=400 slice_keylen=9000;
    }

    upstream http_host {
        server 127.0.0.1:8081;
        keepalive 400 slice_key=$http_host slice_poolsize=400 slice_keylen=9000;
    }

    upstream cut {
        server 127.0.0.1:8081;
        keepalive 16 slice_key=$host;
    }

    upstream strict {
        server 127.0.0.1:8081;
        keepalive 16 slice_key=$host slice_strict;
    }

    upstream known {
        server 127.0.0.1:8081;
        keepalive 2 slice_key=$host slice_dyn=$limit slice_keylen=253
                    slice_strict;
    }

    server {
        listen       127.0.0.1:8080;
        server_name  first.example;

        location /host/ {
            proxy_pass http://host/;
        }

        location /http_host/ {
            proxy_pass http://http_host/;
        }

        location /cut/ {
            proxy_pass http://cut/;
        }

        location /strict/ {
            proxy_pass http://strict/;
        }

        location /known/ {
            proxy_pass http://known/;
        }
    }
}

EOF

start_backend($t, 8081);
$t->run();

###############################################################################

# what differs to nothing but the eye of $host

my %conns = map { $_ => host($_, 'a.example') } qw! /host/ /http_host/ !;

for my $same (
	'A.Example', 'a.example.', 'a.example:80', 'a.example:8080',
	'A.EXAMPLE.:80', 'a.example:',
) {
	is(host('/host/', $same), $conns{'/host/'}, "shares by \$host: $same");
	is_new(my $c = host('/http_host/', $same),
		"does not by \$http_host: $same");
	is(host('/http_host/', $same), $c, "but with itself: $same");
}

# and what does not

for my $other (
	'a.example.b', 'b.a.example', 'a-example', 'a.exampl', 'a.examplee',
	'[::1]', '127.0.0.1',
) {
	for my $uri (qw! /host/ /http_host/ !) {
		is_new(host($uri, $other), "does not share by $uri: $other");
	}
}

# none at all is the server's name

is_new(my $first = host('/host/', 'first.example'), 'the name of the server');
is(old('/host/', ''), $first, 'shares with no Host');
is(old('/host/', "Host: First.Example\n"), $first, 'HTTP/1.0 with Host');

is_new(my $none = old('/http_host/', ''), 'no Host is an empty key');
is(old('/http_host/', ''), $none, 'no Host again');

# HTTP/1.1 must have one, and one only

like(host('/host/', undef), qr/ 400 /, 'no Host in HTTP/1.1');
like(host('/host/', "a.example\r\nHost: b.example"), qr/ 400 /, 'two Hosts');
like(host('/host/', "a.example\r\nHost: a.example"), qr/ 400 /, 'one twice');

my $empty = old('/host/', "Host:\n");
ok($empty eq $first || $empty =~ / 400 /, 'empty Host is refused or none');

# what the request line says goes before Host, but for $http_host

is(line('/host/', 'a.example', 'b.example'), $conns{'/host/'},
	'request line by $host');
is(line('/http_host/', 'b.example', 'a.example'), $conns{'/http_host/'},
	'request line by $http_host');

# each byte that nginx lets through

for my $uri (qw! /host/ /http_host/ !) {
	my (%conns, %keys, @wrong, $accepted);

	for my $byte (grep { $_ != 10 } 0 .. 255) {
		my $host = 'x' . chr($byte) . 'y';
		my $conn = host($uri, $host);

		next if $conn =~ / 400 /;

		$accepted++;

		# and what nginx makes of it

		my $key = $uri eq '/host/' ? lc $host : $host;
		$key =~ s/:.*// if $uri eq '/host/';
		$key =~ s/^[ \t]+|[ \t\r]+$//g;

		$conns{$key} = $conn unless exists $conns{$key};
		$keys{$conn}{$key}++;

		push @wrong, $byte if $conn !~ /^\d+$/ || $conn ne $conns{$key}
			|| host($uri, $host) ne $conn;
	}

	my $shared = grep { keys %$_ > 1 } values %keys;

	note("$uri bytes: $accepted");

	cmp_ok($accepted, '>=', 64, "bytes let through: $uri");
	is(join(' ', @wrong), '', "each byte finds its slice: $uri");
	is($shared, 0, "no two bytes share a slice: $uri");
}

# long ones

my $long = 'x' x 8100;

for my $uri (qw! /host/ /http_host/ !) {
	is_new(my $c = host($uri, "${long}a"), "8 KB: $uri");
	is(host($uri, "${long}a"), $c, "8 KB again: $uri");
	is_new(host($uri, "${long}b"), "8 KB other: $uri");
}

# only after the cut

my $cut = 'x' x 40;

my $c = host('/cut/', "${cut}a.example");
is(host('/cut/', "${cut}b.example"), $c, 'shares after the cut');
is(host('/cut/', $long), $c, '8 KB shares after the cut');

is_new(my $strict = host('/strict/', $cut), 'strict, not cut');
is_new(host('/strict/', "${cut}a.example"), 'strict, longer is not kept');
is_new(host('/strict/', "${cut}a.example"), 'strict, longer again');
is_new(host('/strict/', $long), 'strict, 8 KB is not kept');
is(host('/strict/', $cut), $strict, 'strict, not cut again');

# only what is known is kept, so the others push nothing out

is_new(my $known = host('/known/', 'known.example'), 'known');

my @others = map { host('/known/', "$_.example") } 1 .. 100;
my %others = map { $_ => 1 } @others;

is(scalar(keys %others), 100, 'not known, not kept');
is(host('/known/', 'known.example'), $known, 'known is still there');

like(http("GET / HTTP/1.1\nHost: " . 'x' x 20000 . "\n\n"), qr/ 400 /,
	'too long for nginx');

###############################################################################

sub host {
	my ($uri, $host) = @_;

	$host = defined $host ? "Host: $host\r\n" : '';

	return conn(http("GET $uri HTTP/1.1\r\n${host}Connection: close\r\n\r\n"));
}

sub old {
	my ($uri, $header) = @_;

	return conn(http("GET $uri HTTP/1.0\n$header\n"));
}

sub line {
	my ($uri, $line, $host) = @_;

	return conn(http("GET http://$line$uri HTTP/1.1\nHost: $host\n"
		. "Connection: close\n\n"));
}

###############################################################################

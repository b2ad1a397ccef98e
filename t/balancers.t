#!/usr/bin/perl

# Tests for keepalive before and after the balancing method: both are in
# force.

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

my $t = Test::Nginx->new()->has(qw/http proxy upstream_hash upstream_ip_hash/)
	->has(qw/upstream_least_conn upstream_random upstream_zone/)->plan(37);

$t->write_file_expand('nginx.conf', <<'EOF');

%%TEST_GLOBALS%%

daemon off;

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    proxy_http_version 1.1;
    proxy_set_header Connection "";

    upstream hash {
        zone hash 256k;
        server 127.0.0.1:8081;
        server 127.0.0.1:8082;
        server 127.0.0.1:8083;
        hash $arg_s;
    }

    upstream hash_before {
        zone hash_before 256k;
        server 127.0.0.1:8081;
        server 127.0.0.1:8082;
        server 127.0.0.1:8083;
        hash $arg_s;
        keepalive 8 slice_key=$host;
    }

    upstream hash_after {
        zone hash_after 256k;
        server 127.0.0.1:8081;
        server 127.0.0.1:8082;
        server 127.0.0.1:8083;
        keepalive 8 slice_key=$host;
        hash $arg_s;
    }

    upstream consistent {
        zone consistent 256k;
        server 127.0.0.1:8081;
        server 127.0.0.1:8082;
        server 127.0.0.1:8083;
        hash $arg_s consistent;
    }

    upstream consistent_before {
        zone consistent_before 256k;
        server 127.0.0.1:8081;
        server 127.0.0.1:8082;
        server 127.0.0.1:8083;
        hash $arg_s consistent;
        keepalive 8 slice_key=$host;
    }

    upstream consistent_after {
        zone consistent_after 256k;
        server 127.0.0.1:8081;
        server 127.0.0.1:8082;
        server 127.0.0.1:8083;
        keepalive 8 slice_key=$host;
        hash $arg_s consistent;
    }

    upstream least {
        zone least 256k;
        server 127.0.0.1:8081;
        server 127.0.0.1:8082;
        server 127.0.0.1:8083;
        least_conn;
    }

    upstream least_before {
        zone least_before 256k;
        server 127.0.0.1:8081;
        server 127.0.0.1:8082;
        server 127.0.0.1:8083;
        least_conn;
        keepalive 8 slice_key=$host;
    }

    upstream least_after {
        zone least_after 256k;
        server 127.0.0.1:8081;
        server 127.0.0.1:8082;
        server 127.0.0.1:8083;
        keepalive 8 slice_key=$host;
        least_conn;
    }

    upstream random {
        zone random 256k;
        server 127.0.0.1:8081;
        server 127.0.0.1:8082;
        server 127.0.0.1:8083;
        random two;
    }

    upstream random_before {
        zone random_before 256k;
        server 127.0.0.1:8081;
        server 127.0.0.1:8082;
        server 127.0.0.1:8083;
        random two;
        keepalive 8 slice_key=$host;
    }

    upstream random_after {
        zone random_after 256k;
        server 127.0.0.1:8081;
        server 127.0.0.1:8082;
        server 127.0.0.1:8083;
        keepalive 8 slice_key=$host;
        random two;
    }

    upstream ip {
        zone ip 256k;
        server 127.0.0.1:8081;
        server 127.0.0.1:8082;
        server 127.0.0.1:8083;
        ip_hash;
    }

    upstream ip_before {
        zone ip_before 256k;
        server 127.0.0.1:8081;
        server 127.0.0.1:8082;
        server 127.0.0.1:8083;
        ip_hash;
        keepalive 8 slice_key=$host;
    }

    upstream ip_after {
        zone ip_after 256k;
        server 127.0.0.1:8081;
        server 127.0.0.1:8082;
        server 127.0.0.1:8083;
        keepalive 8 slice_key=$host;
        ip_hash;
    }

    server {
        listen       127.0.0.1:8080;
        server_name  localhost;

        location /hash/ {
            proxy_pass http://hash/;
        }

        location /hash_before/ {
            proxy_pass http://hash_before/;
        }

        location /hash_after/ {
            proxy_pass http://hash_after/;
        }

        location /consistent/ {
            proxy_pass http://consistent/;
        }

        location /consistent_before/ {
            proxy_pass http://consistent_before/;
        }

        location /consistent_after/ {
            proxy_pass http://consistent_after/;
        }

        location /least/ {
            proxy_pass http://least/;
        }

        location /least_before/ {
            proxy_pass http://least_before/;
        }

        location /least_after/ {
            proxy_pass http://least_after/;
        }

        location /random/ {
            proxy_pass http://random/;
        }

        location /random_before/ {
            proxy_pass http://random_before/;
        }

        location /random_after/ {
            proxy_pass http://random_after/;
        }

        location /ip/ {
            proxy_pass http://ip/;
        }

        location /ip_before/ {
            proxy_pass http://ip_before/;
        }

        location /ip_after/ {
            proxy_pass http://ip_after/;
        }
    }
}

EOF

start_backend($t, 8081, 8082, 8083);
$t->run();

###############################################################################

# those that choose by the request choose the same server as without keepalive

for my $name (qw/ hash consistent /) {
	my %plain = map { $_ => server("/$name/?s=$_", 'a') } 1 .. 20;

	for my $order ("${name}_before", "${name}_after") {
		my @same = grep {
			server("/$order/?s=$_", 'a') eq $plain{$_}
		} 1 .. 20;

		is(scalar @same, 20, "$order same server");

		my $c = get("/$order/?s=1", 'a');
		is(get("/$order/?s=1", 'a'), $c, "$order reused");
		is_new(get("/$order/?s=1", 'b'), "$order other host");
		is(get("/$order/?s=1", 'a'), $c, "$order reused again");
	}
}

# a server is idle again when its request is over

for my $name (qw/ least random ip /) {
	for my $order ("${name}_before", "${name}_after") {
		my @c = map { get("/$order/", 'a') } 1 .. 30;
		my %c = map { $_ => 1 } @c;

		cmp_ok(scalar keys %c, '<=', 3, "$order reused");

		my @d = map { get("/$order/", 'b') } 1 .. 30;
		is(scalar(grep { $c{$_} } @d), 0, "$order other host");

		break_idle('finish');
		wait_open(0);
	}
}

# least_conn sees connections in use, not those idle

for my $order (qw/ least_before least_after /) {
	my @held = map { hold("/$order/", 'a') } 1 .. 9;

	is(join(' ', map { open_conns($_) } 8081, 8082, 8083), '3 3 3',
		"$order evenly");

	release($_) for @held;
	is(wait_open(8), 8, "$order kept");

	@held = map { hold("/$order/", 'b') } 1 .. 3;
	is(scalar(grep { release($_) =~ /^\d/ } @held), 3,
		"$order other host");

	break_idle('finish');
	is(wait_open(0), 0, "$order closed by backend");
}

unlike($t->read_file('error.log'), qr/\[warn\]/, 'no warnings');

###############################################################################

sub server {
	my ($uri, $host) = @_;

	my $r = http(request('GET', $uri, $host));

	return $r =~ /X-Server: (\d+)/ ? $1 : 'none';
}

###############################################################################

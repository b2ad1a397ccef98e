#!/usr/bin/perl

# Tests for proxy_next_upstream: the connection that answered in the end is kept
# under its own address and key.

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

my $t = Test::Nginx->new()->has(qw/http proxy rewrite/)->plan(21);

$t->write_file_expand('nginx.conf', <<'EOC');

%%TEST_GLOBALS%%

daemon off;

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_next_upstream error timeout http_404 http_500;

    add_header X-Tries $upstream_addr;

    # nothing listens on 8089

    upstream refused {
        server 127.0.0.1:8089 max_fails=0;
        server 127.0.0.1:8081;
        keepalive 8 slice_key=$host;
    }

    upstream error {
        server 127.0.0.1:8082 max_fails=0;
        server 127.0.0.1:8081;
        keepalive 8 slice_key=$host;
    }

    upstream missing {
        server 127.0.0.1:8083 max_fails=0;
        server 127.0.0.1:8081;
        keepalive 8 slice_key=$host;
    }

    upstream backup {
        server 127.0.0.1:8089 max_fails=0;
        server 127.0.0.1:8081 backup;
        keepalive 8 slice_key=$host;
    }

    upstream down {
        server 127.0.0.1:8081 down;
        server 127.0.0.1:8082 down;
        keepalive 8 slice_key=$host;
    }

    server {
        listen       127.0.0.1:8080;
        server_name  localhost;

        location /refused/ {
            proxy_pass http://refused;
        }

        location /error/ {
            proxy_pass http://error;
        }

        location /missing/ {
            proxy_pass http://missing;
        }

        location /backup/ {
            proxy_pass http://backup;
        }

        location /down/ {
            proxy_pass http://down;
        }
    }

    server {
        listen       127.0.0.1:8082;

        location / {
            add_header X-Connection wrong always;
            return 500;
        }
    }

    server {
        listen       127.0.0.1:8083;

        location / {
            add_header X-Connection wrong always;
            return 404;
        }
    }
}

EOC

start_backend($t, 8081);
$t->run();

###############################################################################

for my $u (qw/ refused error missing backup /) {
	my ($tries, %a) = ask("/$u/", 'a');
	my (undef, %b) = ask("/$u/", 'b');
	my (undef, %again) = ask("/$u/", 'a');

	cmp_ok($tries, '>', 4, "$u retried");
	is(scalar(keys %a), 1, "$u one connection");
	is(scalar(grep { $a{$_} } keys %b), 0, "$u not of other host");
	is(scalar(keys %b), 1, "$u one connection of other host");
	is_deeply(\%again, \%a, "$u reused again");
}

like(http(request('GET', '/down/', 'a')), qr/ 502 /, 'no live upstreams');

###############################################################################

# how often nginx tried, and connections that answered, in 4 requests

sub ask {
	my ($uri, $host) = @_;

	my ($tries, %conns) = 0;

	for (1 .. 4) {
		my $r = http(request('GET', $uri, $host));
		my ($addrs) = $r =~ /^X-Tries: (.*?)\r?$/m;
		$tries += () = ($addrs || '') =~ /127/g;
		$conns{conn($r)} = 1;
	}

	return $tries, %conns;
}

###############################################################################

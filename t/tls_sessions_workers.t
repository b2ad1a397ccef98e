#!/usr/bin/perl

# Tests for TLS sessions with several workers: where all locations agree, nginx's
# balancer shares them in a zone; where they do not, no worker offers the session
# of another name or certificate.

###############################################################################

use warnings;
use strict;

use Test::More;

use FindBin;
use lib ($ENV{NGINX_TESTS_DIR} ? "$ENV{NGINX_TESTS_DIR}/lib" : ()),
	"$FindBin::Bin/lib";

use Test::Nginx;
use Test::Backend;
use Test::Certificates;
use Test::Workers;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

my $t = Test::Nginx->new()->has(qw/http http_ssl proxy sni rewrite map/)
	->has_daemon('openssl')->plan(21);

my $d = $t->testdir();

certificate($t, $_) for qw/ a.example b.example alice /;

$t->write_file('ca.crt',
	$t->read_file('a.example.crt') . $t->read_file('b.example.crt'));

my $trust = "proxy_ssl_verify on; proxy_ssl_trusted_certificate $d/ca.crt; "
	. 'proxy_ssl_server_name on; proxy_ssl_name';

$t->write_file_expand('nginx.conf', <<"EOF");

%%TEST_GLOBALS%%

daemon off;
worker_processes 2;

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    proxy_http_version 1.1;
    proxy_set_header Connection "";

    upstream agree {
        zone agree 64k;
        server 127.0.0.1:8081;
        keepalive 8;
        keepalive_requests 1;
    }

    upstream names {
        zone names 64k;
        server 127.0.0.1:8081;
        keepalive 8;
        keepalive_requests 1;
    }

    upstream certificates {
        zone certificates 64k;
        server 127.0.0.1:8081;
        keepalive 8 shared;
        keepalive_requests 1;
    }

    server {
        listen       127.0.0.1:8080 reuseport;
        server_name  localhost;

        add_header X-Worker \$pid always;

        location /agree/x {
            proxy_pass https://agree;
        }

        location /agree/y {
            proxy_pass https://agree;
        }

        location /names/a {
            proxy_pass https://names;
            $trust a.example;
        }

        location /names/b {
            proxy_pass https://names;
            $trust b.example;
        }

        location /certificates/alice {
            proxy_pass https://certificates;
            proxy_ssl_certificate $d/alice.crt;
            proxy_ssl_certificate_key $d/alice.key;
        }

        location /certificates/none {
            proxy_pass https://certificates;
        }

        location = /pid {
            return 204;
        }
    }

    map \$ssl_server_name \$certificate {
        default     a.example;
        b.example   b.example;
    }

    server {
        listen       127.0.0.1:8081 ssl;

        ssl_certificate $d/\$certificate.crt;
        ssl_certificate_key $d/\$certificate.key;
        ssl_verify_client optional_no_ca;
        ssl_session_cache shared:SSL:1m;

        add_header X-Session "\$ssl_session_reused \$ssl_client_s_dn";
        return 200;
    }
}

EOF

$t->run();

###############################################################################

my ($first, $second) = workers($t, 2);

is(session($first, '/agree/x'), '. -', 'new');
is(session($first, '/agree/x'), 'r -', 'again');
is(session($second, '/agree/x'), 'r -', 'another worker');
is(session($second, '/agree/y'), 'r -', 'another worker, another location');

# a worker may have to begin with a session of its own

for my $round (1 .. 2) {
	my $is = $round == 1 ? qr/[.r]/ : 'r';

	for my $uri (qw! /names/a /names/b /certificates/none !) {
		like(session($first, $uri), qr/^$is -$/, "$uri $round");
		like(session($second, $uri), qr/^$is -$/,
			"$uri $round, another worker");
	}

	my $uri = '/certificates/alice';
	like(session($second, $uri), qr/^$is alice$/, "$uri $round");
	like(session($first, $uri), qr/^$is alice$/,
		"$uri $round, another worker");
}

is(session($first, '/certificates/none'), 'r -', 'no certificate in the end');

###############################################################################

sub session {
	my ($worker, $uri) = @_;

	my $r = by($worker, $uri);

	my ($resumed, $certificate)
		= $r =~ /^X-Session: (\S)(?: CN=(\w+))?/m or return $r;

	return "$resumed " . ($certificate || '-');
}

###############################################################################

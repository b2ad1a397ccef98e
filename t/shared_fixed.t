#!/usr/bin/perl

# Tests for shared with connections that only the worker can use that has made
# them, over TLS and HTTP/2: they count in the limits, no other worker uses them,
# and they are closed when another one needs the room.

###############################################################################

use warnings;
use strict;

use Test::More;

use FindBin;
use lib ($ENV{NGINX_TESTS_DIR} ? "$ENV{NGINX_TESTS_DIR}/lib" : ()),
	"$FindBin::Bin/lib";

use Test::Nginx;
use Test::Backend;
use Test::Status;
use Test::Switch;
use Test::Workers;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

my $t = Test::Nginx->new()->has(qw/http http_ssl http_v2 proxy grpc rewrite/)
	->has_daemon('openssl')->plan(44);

$t->write_file_expand('nginx.conf', <<'EOC');

%%TEST_GLOBALS%%

daemon off;
worker_processes 3;

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_next_upstream off;
    grpc_next_upstream off;

    upstream tls {
        server 127.0.0.1:8081;
        keepalive 2 slice_key=$host shared;
    }

    upstream grpc {
        server 127.0.0.1:8082;
        keepalive 2 slice_key=$host shared;
    }

    upstream both {
        server 127.0.0.1:8083;
        keepalive 2 shared;
    }

    server {
        listen       127.0.0.1:8080 reuseport;
        server_name  localhost;

        add_header X-Worker $pid always;
        add_header X-Keepalive $upstream_keepalive always;

        location /tls {
            proxy_pass https://tls;
        }

        location /grpc {
            grpc_pass grpc;
        }

        location /plain {
            proxy_pass http://both;
        }

        location /secure {
            proxy_pass https://both;
        }

        location = /pid {
            return 204;
        }

        location = /status {
            keepalive_status json slices;
        }
    }

    server {
        listen       127.0.0.1:8081 ssl;
        listen       127.0.0.1:8082 http2;
        listen       127.0.0.1:8084;
        listen       127.0.0.1:8085 ssl;
        server_name  localhost;

        ssl_certificate localhost.crt;
        ssl_certificate_key localhost.key;

        add_header X-Connection $connection;
        add_header X-Protocol "$server_protocol $https";

        location / {
            return 200 "answer";
        }
    }
}

EOC

my $d = $t->testdir();

$t->write_file('openssl.conf', <<'EOF');
[ req ]
default_bits = 2048
encrypt_key = no
distinguished_name = req_distinguished_name
[ req_distinguished_name ]
EOF

system("openssl req -x509 -new -config $d/openssl.conf -subj /CN=localhost/"
	. " -out $d/localhost.crt -keyout $d/localhost.key"
	. " >>$d/openssl.out 2>&1") == 0
	or die "Can't create certificate: $!\n";

start_switch($t, 8083, qr/^\x16/ => 8085, qr/^/ => 8084);
$t->run();

my @w = workers($t, 3);

###############################################################################

for my $protocol (
	[ 'tls', '/tls', 8081, 'HTTP/1.1 on' ],
	[ 'grpc', '/grpc', 8082, 'HTTP/2.0' ],
) {
	my ($name, $uri, $port, $how) = @$protocol;

	my $r = by($w[0], $uri, 'a');
	my $first = conn($r);
	like($r, qr/^X-Protocol: \Q$how\E ?\r$/mi, "$name protocol");

	$r = by($w[0], $uri, 'a');
	is(conn($r) . ' ' . found_by($r), "$first HIT", "$name own");

	$r = by($w[1], $uri, 'a');
	is_new(my $second = conn($r), "$name not used by another worker");
	is(found_by($r), 'MISS', "$name miss");
	is(established($port), 2, "$name both counted");
	is(state_of($name), 'idle 2, slices 1, borrowed 0', "$name status");

	$r = by($w[0], $uri, 'a');
	is(conn($r) . ' ' . found_by($r), "$first HIT", "$name own again");

	# the limit is that of both: the one of the second worker goes

	$r = by($w[2], $uri, 'b');
	is_new(my $third = conn($r), "$name of a third worker");
	ok(wait_for(sub { established($port) == 2 }), "$name room");
	is(state_of($name), 'idle 2, slices 2, borrowed 0', "$name at the limit");

	$r = by($w[0], $uri, 'a');
	is(conn($r), $first, "$name used recently");
	$r = by($w[2], $uri, 'b');
	is(conn($r), $third, "$name used most recently");

	$r = by($w[1], $uri, 'a');
	is_new(conn($r), "$name least recently used");
	like($r, qr/\nanswer$/, "$name answer");
	is(json()->{upstreams}{$name}{closed}{connections}, 2, "$name closed");
}

# over one upstream, those that can be moved are, and no others

my $plain = conn_by($w[0], '/plain', 'a');
is(conn_by($w[1], '/plain', 'a'), $plain, 'plain is borrowed');
is_new(conn_by($w[2], '/secure', 'a'), 'TLS is not plain');
is_new(conn_by($w[0], '/secure', 'a'), 'not by another worker');
is_new(conn_by($w[1], '/plain', 'a'), 'made room for TLS');
is(state_of('both'), 'idle 2, slices 0, borrowed 1', 'status');
is_new(conn_by($w[2], '/secure', 'a'), 'TLS made room for plain');

# they end with their workers

@w = renew($t, 3);
is(json()->{upstreams}{tls}{shared}{kept_over_reload}, 0, 'TLS is not kept');
is(json()->{upstreams}{grpc}{shared}{kept_over_reload}, 0, 'HTTP/2 is not kept');

for my $uri (qw/ tls grpc secure /) {
	my $r = by($w[0], "/$uri", 'a');
	is(found_by($r), 'MISS', "$uri after reload");
	like($r, qr/\nanswer$/, "$uri answer after reload");
}

###############################################################################

sub state_of {
	my ($name) = @_;

	my $u = json()->{upstreams}{$name};

	return "idle $u->{idle}, slices " . ($u->{slices} || 0)
		. ", borrowed $u->{shared}{borrowed}";
}

# it ends with the script, although functions refer to it

END { undef $t; }

###############################################################################

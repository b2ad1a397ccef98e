#!/usr/bin/perl

# Tests for https upstreams: TLS sessions, server names and client certificates
# of slices.

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

my $t = Test::Nginx->new()->has(qw/http http_ssl proxy sni rewrite/)
	->has_daemon('openssl')->plan(36);

$t->write_file_expand('nginx.conf', <<'EOC');

%%TEST_GLOBALS%%

daemon off;

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header Host $host;

    upstream one {
        server 127.0.0.1:8081;
        keepalive 16 slice_key=$host;
    }

    upstream two {
        server 127.0.0.1:8081;
        server 127.0.0.1:8082;
        keepalive 16 slice_key=$host;
    }

    upstream tls12 {
        server 127.0.0.1:8081;
        keepalive 16 slice_key=$host;
    }

    upstream tls13 {
        server 127.0.0.1:8081;
        keepalive 16 slice_key=$host;
    }

    upstream cert {
        server 127.0.0.1:8081;
        keepalive 16 slice_key=$http_x_cert;
    }

    server {
        listen       127.0.0.1:8080;
        server_name  localhost;

        proxy_ssl_session_reuse off;

        location /one/ {
            proxy_pass https://one/;
            proxy_ssl_name $host;
            proxy_ssl_server_name on;
        }

        location /two/ {
            proxy_pass https://two/;
            proxy_ssl_name $host;
            proxy_ssl_server_name on;
        }

        location /tls12/ {
            proxy_pass https://tls12/;
            proxy_ssl_session_reuse on;
            proxy_ssl_protocols TLSv1.2;
        }

        location /tls13/ {
            proxy_pass https://tls13/;
            proxy_ssl_session_reuse on;
            proxy_ssl_protocols TLSv1.2 TLSv1.3;
        }

        location /cert/ {
            proxy_pass https://cert/;
            proxy_ssl_certificate %%TESTDIR%%/$http_x_cert.crt;
            proxy_ssl_certificate_key %%TESTDIR%%/$http_x_cert.key;
        }
    }

    server {
        listen       127.0.0.1:8081 ssl;
        listen       127.0.0.1:8082 ssl;
        server_name  localhost;

        ssl_certificate %%TESTDIR%%/localhost.crt;
        ssl_certificate_key %%TESTDIR%%/localhost.key;
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_session_cache shared:SSL:1m;
        ssl_verify_client optional_no_ca;

        add_header X-Connection $connection;
        add_header X-Server $server_port;
        add_header X-Name $ssl_server_name;
        add_header X-Session $ssl_session_reused;
        add_header X-Client $ssl_client_s_dn;

        location / {
            return 200;
        }

        location /last {
            keepalive_timeout 0;
            return 200;
        }
    }
}

EOC

my $d = $t->testdir();

for my $name (qw/ localhost alice bob /) {
	system('openssl req -x509 -new -nodes -newkey rsa:2048 -days 3650 '
		. "-subj /CN=$name/ -keyout $d/$name.key -out $d/$name.crt "
		. ">>$d/openssl.out 2>&1") == 0
		or die "Can't create certificate for $name: $!\n";
}

$t->run();

###############################################################################

# a connection was made for one server name, and stays with it

my $ra = http(request('GET', '/one/', 'a.example'));
my $rb = http(request('GET', '/one/', 'b.example'));

is(header($ra, 'X-Name'), 'a.example', 'first name');
is(header($rb, 'X-Name'), 'b.example', 'other name');

is_new(my $ca = conn($ra), 'connection of first name');
is_new(my $cb = conn($rb), 'connection of other name');

for my $round (1 .. 3) {
	$ra = http(request('GET', '/one/', 'a.example'));
	is(conn($ra), $ca, "first name reused $round");
	is(header($ra, 'X-Name'), 'a.example', "first name again $round");

	$rb = http(request('GET', '/one/', 'b.example'));
	is(conn($rb), $cb, "other name reused $round");
	is(header($rb, 'X-Name'), 'b.example', "other name again $round");
}

# two servers

my (%conns, %wrong);

for my $round (1 .. 4) {
	for my $host (qw/ a.example b.example c.example /) {
		my $r = http(request('GET', '/two/', $host));

		$conns{$host . ' ' . header($r, 'X-Server')}{conn($r)} = 1;
		$wrong{$host} = 1 if header($r, 'X-Name') ne $host;
	}
}

# three names come by turns of two servers, so each meets both

is(scalar(keys %conns), 6, 'two servers, three names');
is(scalar(grep { keys %$_ != 1 } values %conns), 0, 'two servers reused');
is(join(' ', keys %wrong), '', 'two servers names');

my %all = map { %$_ } values %conns;
is(scalar(keys %all), 6, 'two servers nothing shared');

# sessions are reused by new connections, connections by their slice

for my $u (qw/ tls12 tls13 /) {
	my $r = http(request('GET', "/$u/", 'a.example'));
	is(header($r, 'X-Session'), '.', "$u first session");
	my $c = conn($r);

	is(get("/$u/last", 'a.example'), $c, "$u reused");

	$r = http(request('GET', "/$u/", 'a.example'));
	is_new(my $n = conn($r), "$u new connection");
	is(header($r, 'X-Session'), 'r', "$u session reused");
	is(get("/$u/", 'a.example'), $n, "$u reused after session");
}

# client certificates

my $alice = http(request('GET', '/cert/', 'a.example', "X-Cert: alice\n"));
my $bob = http(request('GET', '/cert/', 'a.example', "X-Cert: bob\n"));

is(header($alice, 'X-Client'), 'CN=alice', 'client certificate');
is(header($bob, 'X-Client'), 'CN=bob', 'other client certificate');

is(get('/cert/', 'b.example', "X-Cert: alice\n"), conn($alice),
	'client certificate reused');
is(get('/cert/', 'b.example', "X-Cert: bob\n"), conn($bob),
	'other client certificate reused');

isnt(conn($alice), conn($bob), 'client certificates not shared');
is(header(http(request('GET', '/cert/', 'a.example', "X-Cert: alice\n")),
	'X-Client'), 'CN=alice', 'client certificate again');

###############################################################################

sub header {
	my ($r, $name) = @_;

	return $r =~ /^$name: (.*?)\r?$/m ? $1 : '';
}

###############################################################################

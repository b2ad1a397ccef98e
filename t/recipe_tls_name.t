#!/usr/bin/perl

# Tests for nginx-conf/tls-name.conf: each connection is used for the name that
# it was made and verified for, and for no other.

###############################################################################

use warnings;
use strict;

use Test::More;

use FindBin;
use lib ($ENV{NGINX_TESTS_DIR} ? "$ENV{NGINX_TESTS_DIR}/lib" : ()),
	"$FindBin::Bin/lib";

use Test::Nginx;
use Test::Backend;
use Test::Builtin;
use Test::Recipe;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

my $t = Test::Nginx->new()->has(qw/http http_ssl proxy rewrite sni/)
	->has_daemon('openssl')->plan(26);

my $d = $t->testdir();

recipe($t, 'tls-name.conf',
	'/etc/ssl/certs/ca-certificates.crt' => "$d/ca.crt");

# the server is another nginx; its certificate is for two names of three, and
# with a session comes the name that it was begun for

$t->write_file_expand('server.conf', <<"EOC");

daemon off;
master_process off;
pid $d/server.pid;

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    server {
        listen 127.0.0.1:8081 ssl;

        ssl_certificate $d/server.crt;
        ssl_certificate_key $d/server.key;
        ssl_protocols TLSv1.2;
        ssl_session_cache shared:SSL:1m;

        add_header X-Connection \$connection always;
        add_header X-Name \$ssl_server_name always;
        add_header X-Host \$host always;

        return 200;
    }
}

EOC

certificates();
$t->run_daemon($Test::Nginx::NGINX, '-p', "$d/", '-c', 'server.conf',
	'-e', 'server.log');
$t->waitforsocket('127.0.0.1:' . port(8081)) or die "Can't start server\n";
$t->run();

###############################################################################

my %conns;

for my $name (qw/ a.example b.example /) {
	my $r = http(request('GET', '/', $name));

	is(header($r, 'X-Name'), $name, "$name in the handshake");
	is(header($r, 'X-Host'), $name, "$name in the request");
	is_new($conns{$name} = conn($r), "$name connection");
}

for my $round (1 .. 2) {
	for my $name (qw/ a.example b.example /) {
		my $r = http(request('GET', '/', $name));

		is(conn($r), $conns{$name}, "$name reused $round");
		is(header($r, 'X-Name'), $name, "$name again $round");
		is(post('/', $name, 'body'), $conns{$name}, "$name POST $round");
	}
}

# a name that the certificate is not for

like(http(request('GET', '/', 'c.example')), qr/ 502 /, 'not verified');
like($t->read_file('error.log'), qr/certificate does not match "c.example"/,
	'why');
is(get('/', 'a.example'), $conns{'a.example'}, 'first name after that');

SKIP: {
skip 'no upstream_keepalive available', 5
	unless $t->has_module('upstream_keepalive');

run_builtin($t);

my $r = http(request('GET', '/', 'a.example'));
is_new(my $c = conn($r), 'built-in, first name');

$r = http(request('GET', '/', 'b.example'));
is(conn($r), $c, 'built-in, connection of the first name');
is(header($r, 'X-Name'), 'a.example', 'built-in, name of the first');

$r = http(request('GET', '/', 'c.example'));
is(conn($r), $c, 'built-in, connection of the first name again');
is(header($r, 'X-Host'), 'c.example', 'built-in, not verified, but sent');

}

###############################################################################

# an authority, and what it has signed

sub certificates {
	$t->write_file('names', 'subjectAltName=DNS:a.example,DNS:b.example');

	openssl('req -x509 -newkey rsa:2048 -nodes -days 3650 -subj /CN=ca/ '
		. "-keyout $d/ca.key -out $d/ca.crt");
	openssl('req -newkey rsa:2048 -nodes -subj /CN=server/ '
		. "-keyout $d/server.key -out $d/server.csr");
	openssl("x509 -req -in $d/server.csr -CA $d/ca.crt -CAkey $d/ca.key "
		. "-set_serial 1 -days 3650 -extfile $d/names "
		. "-out $d/server.crt");
}

sub openssl {
	my ($arguments) = @_;

	system("openssl $arguments >>$d/openssl.out 2>&1") == 0
		or die "Can't openssl $arguments\n";
}

# it ends with the script, although functions refer to it

END { undef $t; }

###############################################################################

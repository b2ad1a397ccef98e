#!/usr/bin/perl

# Tests for what a connection was made for, in an upstream that is made in a
# running worker: only locations that choose the upstream by request can use it.
# The module is compiled here, see module/runtime_upstream.c.

###############################################################################

use warnings;
use strict;

use Test::More;

use FindBin;
use lib ($ENV{NGINX_TESTS_DIR} ? "$ENV{NGINX_TESTS_DIR}/lib" : ()),
	"$FindBin::Bin/lib";

use IO::Socket::INET;
use POSIX ();

use Test::Nginx;
use Test::Backend;
use Test::Certificates;
use Test::Module;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

my $t = Test::Nginx->new()->has(qw/http http_ssl proxy rewrite sni/)
	->has_daemon('openssl');

compile_module($t, 'runtime_upstream');

$t->plan(25);

certificate($t, 'localhost');

$t->write_file_expand('nginx.conf', <<'EOC');

load_module %%TESTDIR%%/runtime_upstream.so;

%%TEST_GLOBALS%%

daemon off;

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    proxy_http_version 1.1;
    proxy_set_header Connection "";

    server {
        listen       127.0.0.1:8080;
        server_name  localhost;

        set $name runtime;

        location /made {
            runtime_upstream %%TESTDIR%%/upstream.conf;
        }

        location /pid {
            add_header X-Pid $pid;
            return 204;
        }

        location / {
            proxy_pass http://$name;
        }

        location /bind/ {
            proxy_pass http://$name;
            proxy_bind $arg_b;
        }

        location /name/ {
            proxy_pass https://$name;
            proxy_ssl_server_name on;
            proxy_ssl_name $arg_n;
        }

        location /tls/ {
            proxy_pass https://$name;
        }

        location /other/ {
            proxy_pass https://$name;
            proxy_ssl_protocols TLSv1.2;
        }
    }

    server {
        listen       127.0.0.1:8082 ssl;

        ssl_certificate %%TESTDIR%%/localhost.crt;
        ssl_certificate_key %%TESTDIR%%/localhost.key;

        add_header X-Connection $connection;
        return 200;
    }
}

EOC

start_backend($t, 8081);
$t->run();

###############################################################################

my $made;

# the local address

made($t, 8081, 'keepalive 8;');

my $plain = get('/', 'a');
is_new(my $two = get('/bind/?b=127.0.0.2', 'a'), 'one address');
is_new(my $three = get('/bind/?b=127.0.0.3', 'a'), 'another one');
is(get('/bind/?b=127.0.0.2', 'a'), $two, 'one address again');
is(get('/bind/?b=127.0.0.3', 'a'), $three, 'another one again');
is(get('/', 'a'), $plain, 'none again');

# TLS

made($t, 8082, 'keepalive 8;');

my $a = get('/name/?n=a.example', 'a');
my $tls = get('/tls/', 'a');
my $other = get('/other/', 'a');

isnt(get('/name/?n=b.example', 'a'), $a, 'another name');
is(get('/name/?n=a.example', 'a'), $a, 'name again');
isnt($tls, $a, 'no name');
isnt($other, $tls, 'other settings');
is(get('/tls/', 'a'), $tls, 'settings again');
is(get('/other/', 'a'), $other, 'other settings again');

# TLS sessions end with the upstream, and so do 300 of them

SKIP: {
	skip 'no memory to measure', 1
		if !-r "/proc/$$/statm" || $ENV{TEST_NGINX_VALGRIND};

	my $renew = sub {
		made($t, 8082, 'keepalive 8;');
		get("/name/?n=$_.example", 'a') for 'a' .. 'd';
	};

	$renew->() for 1 .. 30;
	my $before = memory();
	$renew->() for 1 .. 75;
	cmp_ok(memory() - $before, '<', 400 * 1024, 'sessions are freed');
}

# bound connections

made($t, 8081, 'keepalive 8; ntlm;');

my ($alice, $bob) = (client(), client());
is_new(my $bound = request_of($alice, 'NTLM a'), 'bound');
is(request_of($alice), $bound, 'bound again');
isnt(request_of($bob), $bound, 'another client');
is(open_conns(8081), 2, 'both open');

close $alice;
is(wait_open(1, 8081), 1, 'closed with its client');

# an upstream that is deleted before its clients end

is_new($bound = request_of($bob, 'Negotiate b'), 'bound to another');
is(open_conns(8081), 2, 'open until it is deleted');
like(http_get('/made?delete'), qr/ 204 /, 'deleted');
$made = 0;
is(wait_open(0, 8081), 0, 'closed with its upstream');

made($t, 8081, 'keepalive 8; ntlm;');
is_new(request_of($bob), 'the client in a new one');
close $bob;
is(request_of(client()) =~ /^\d+$/, 1, 'goes on');

# the order of directives

$t->write_file_expand('upstream.conf', "server 127.0.0.1:8081; ntlm; keepalive 8;\n");
like(http_get('/made?add'), qr/ 500 /, 'ntlm before keepalive');
like($t->read_file('error.log'), qr/"ntlm" directive must follow "keepalive" in an /,
	'said so');

###############################################################################

# an upstream of this name, in place of one that was made before

sub made {
	my ($t, $port, $directives) = @_;

	http_get('/made?delete') if $made;
	$made = 1;
	$t->write_file_expand('upstream.conf',
		"server 127.0.0.1:$port; $directives\n");
	http_get('/made?add');
}

sub client {
	return IO::Socket::INET->new(
		Proto => 'tcp',
		PeerAddr => '127.0.0.1:' . port(8080),
	) || die "Can't connect to nginx: $!\n";
}

# what the worker has, in bytes

sub memory {
	my ($worker) = http_get('/pid') =~ /X-Pid: (\d+)/
		or die "No worker process\n";

	open my $fh, '<', "/proc/$worker/statm" or die "Can't open statm: $!\n";

	return (split ' ', <$fh>)[1] * POSIX::sysconf(POSIX::_SC_PAGESIZE());
}

# the connection to the server on which a request of a client was sent

sub request_of {
	my ($client, $authorization) = @_;

	$authorization = "Authorization: $authorization\r\n" if $authorization;

	return conn(exchange($client, "GET / HTTP/1.1\r\nHost: localhost\r\n"
		. ($authorization // '') . "\r\n"));
}

# it ends with the script, although functions refer to it

END { undef $t; }

###############################################################################

#!/usr/bin/perl

# Tests for leaks: the memory of a worker process does not grow with requests,
# also if each of them makes a connection and has another one closed.

###############################################################################

use warnings;
use strict;

use Test::More;

use FindBin;
use lib ($ENV{NGINX_TESTS_DIR} ? "$ENV{NGINX_TESTS_DIR}/lib" : ()),
	"$FindBin::Bin/lib";

use POSIX ();

use Test::Nginx;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

# The least that can be lost with a connection is its pool, of 128 bytes.

use constant REQUESTS => 3000;
use constant TLS_REQUESTS => 200;
use constant GROWTH => 200 * 1024;

plan(skip_all => 'no /proc') unless -r "/proc/$$/statm";
plan(skip_all => 'it measures memory, which valgrind needs itself')
	if $ENV{TEST_NGINX_VALGRIND};

my $t = Test::Nginx->new()->has(qw/http http_ssl proxy/)
	->has_daemon('openssl')->plan(8);

$t->write_file_expand('nginx.conf', <<'EOF');

%%TEST_GLOBALS%%

daemon off;
worker_processes 1;

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    access_log off;
    error_log %%TESTDIR%%/error.log notice;

    keepalive_requests 100000;
    proxy_http_version 1.1;
    proxy_set_header Connection "";

    upstream new {
        server 127.0.0.1:8081;
        keepalive 4 slice_key=$arg_key slice_poolsize=2;
    }

    upstream same {
        server 127.0.0.1:8081;
        keepalive 4 slice_key=$host slice_dyn=arg_limit;
    }

    upstream timeout {
        server 127.0.0.1:8081;
        keepalive 4 slice_key=$arg_key;
        keepalive_timeout 1ms;
    }

    upstream tls {
        server 127.0.0.1:8082;
        keepalive 1 slice_key=$arg_key;
    }

    server {
        listen       127.0.0.1:8080;
        server_name  localhost;

        add_header X-Pid $pid;

        location /new {
            proxy_pass http://new;
        }

        location /same {
            proxy_pass http://same;
        }

        location /timeout {
            proxy_pass http://timeout;
        }

        location /tls {
            proxy_pass https://tls;
            proxy_ssl_session_reuse off;
        }
    }

    server {
        listen       127.0.0.1:8081;
        listen       127.0.0.1:8082 ssl;
        server_name  localhost;

        ssl_certificate localhost.crt;
        ssl_certificate_key localhost.key;

        location / {
            return 204;
        }
    }
}

EOF

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

$t->run();

###############################################################################

does_not_grow('new', REQUESTS);
does_not_grow('same', REQUESTS);
does_not_grow('timeout', REQUESTS);
does_not_grow('tls', TLS_REQUESTS);

###############################################################################

# the first requests take memory that is used again later

sub does_not_grow {
	my ($location, $count) = @_;

	many($location, int($count / 2));

	my $before = memory();
	my $answers = many($location, $count);
	my $grown = memory() - $before;

	is($answers, $count, "$location answered");
	cmp_ok($grown, '<', GROWTH, "$location does not grow");
}

# requests on one connection, some of them at a time, each with a new key

sub many {
	my ($location, $count) = @_;

	my ($answers, $left) = (0, $count);

	while ($left > 0) {
		my $some = $left > 100 ? 100 : $left;
		my @requests = map {
			"GET /$location?key=" . ($left - $_) . "&limit=2 HTTP/1.1\n"
				. "Host: localhost\n"
				. ($_ == $some ? "Connection: close\n" : '')
				. "\n";
		} 1 .. $some;

		$answers += () = http(join '', @requests)
			=~ m!^HTTP/1\.1 204 !mg;
		$left -= $some;
	}

	return $answers;
}

# of the only worker process, in bytes

sub memory {
	my ($pid) = http_get('/new?key=pid') =~ /X-Pid: (\d+)/
		or die "No worker process\n";

	open my $fh, '<', "/proc/$pid/statm"
		or die "Can't open statm: $!\n";

	my (undef, $pages) = split ' ', <$fh>;

	return $pages * POSIX::sysconf(POSIX::_SC_PAGESIZE());
}

###############################################################################

#!/usr/bin/perl

# Tests for keepalive with TLS: connections with and without it are not
# shared, and neither are those of other keys.

###############################################################################

use warnings;
use strict;

use Test::More;

use FindBin;
use lib ($ENV{NGINX_TESTS_DIR} ? "$ENV{NGINX_TESTS_DIR}/lib" : ()),
	"$FindBin::Bin/lib";

use Time::HiRes qw/ sleep /;

use Test::Nginx;
use Test::Backend;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

my $t = Test::Nginx->new()->has(qw/http http_ssl proxy sni/)
	->has_daemon('openssl')->plan(18);

$t->write_file_expand('nginx.conf', <<'EOF');

%%TEST_GLOBALS%%

daemon off;

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    proxy_http_version 1.1;
    proxy_set_header Connection "";

    upstream u {
        server 127.0.0.1:8081;
        keepalive 16 slice_key=$host;
    }

    upstream limit {
        server 127.0.0.1:8081;
        keepalive 16 slice_key=$host slice_conn=1;
        keepalive_timeout 500ms;
    }

    upstream least {
        server 127.0.0.1:8081;
        least_conn;
        keepalive 16 slice_key=$host;
    }

    upstream names {
        server 127.0.0.1:8081;
        keepalive 16 slice_key=$host;
    }

    server {
        listen       127.0.0.1:8080;
        server_name  localhost;

        location /https/ {
            proxy_pass https://u/;
        }

        location /plain/ {
            proxy_pass http://u/;
        }

        location /httpslimit/ {
            proxy_pass https://limit/;
        }

        location /httpsleast/ {
            proxy_pass https://least/;
        }

        location /names/ {
            proxy_pass https://names/;
            proxy_ssl_server_name on;
            proxy_ssl_name $host;
            proxy_ssl_session_reuse off;
        }
    }

    server {
        listen       127.0.0.1:8081 ssl;
        server_name  localhost;

        ssl_certificate localhost.crt;
        ssl_certificate_key localhost.key;

        add_header X-Connection $connection always;
        add_header X-Reused $ssl_session_reused always;

        location / {
            return 200 $ssl_server_name;
        }

        location /close {
            keepalive_timeout 0;
            return 200 "SEE-THIS";
        }
    }
}

EOF

my $dir = $t->testdir();

$t->write_file('openssl.conf', <<'EOF');
[ req ]
default_bits = 2048
encrypt_key = no
distinguished_name = req_distinguished_name
[ req_distinguished_name ]
EOF

system("openssl req -x509 -new -config $dir/openssl.conf -subj /CN=localhost/"
	. " -out $dir/localhost.crt -keyout $dir/localhost.key"
	. " >>$dir/openssl.out 2>&1") == 0
	or die "Can't create certificate: $!\n";

$t->run();

###############################################################################

# with and without; a server that wants TLS says so to who speaks without it

my $r = http(request('GET', '/https/', 'a'));
like($r, qr/ 200 /, 'https');
my $c = conn($r);

is(get('/https/', 'a'), $c, 'https reused');
like(http(request('GET', '/plain/', 'a')), qr/ 400 /, 'http');
is(get('/https/', 'a'), $c, 'https after http');

# keys

is_new(my $d = get('/https/', 'b'), 'other host');
is(get('/https/', 'b'), $d, 'other host again');
is(get('/https/', 'a'), $c, 'first host again');

# names, which a connection is bound to

like(http(request('GET', '/names/', 'a.example')), qr/^a\.example$/m,
	'name of first host');
like(http(request('GET', '/names/', 'b.example')), qr/^b\.example$/m,
	'name of other host');
like(http(request('GET', '/names/', 'a.example')), qr/^a\.example$/m,
	'name of first host again');

# closed by limit and by timeout

$c = get('/httpslimit/', 'a');
is(get('/httpslimit/', 'a'), $c, 'reused before timeout');

sleep(0.8);
is_new($d = get('/httpslimit/', 'a'), 'new after timeout');
is(get('/httpslimit/', 'a'), $d, 'reused after timeout');

# sessions are kept by the balancer

for my $uri ('/https', '/httpsleast') {
	get("$uri/close", 's');
	my $r = http(request('GET', "$uri/close", 's'));
	is_new(conn($r), "$uri new connection");
	like($r, qr/X-Reused: r/, "$uri session reused");
}

unlike($t->read_file('error.log'), qr/\[(error|crit|alert)\]/, 'no errors')
	or diag(join "\n", $t->read_file('error.log') =~ /^.*\[error\].*/mg);

###############################################################################

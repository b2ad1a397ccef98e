#!/usr/bin/perl

# Tests for a balancer that switches TLS on or off: what counts is how nginx
# makes the connection, and not what the location says.  The balancer is compiled
# here, see module/scripted_peer.c.

###############################################################################

use warnings;
use strict;

use Test::More;

use FindBin;
use lib ($ENV{NGINX_TESTS_DIR} ? "$ENV{NGINX_TESTS_DIR}/lib" : ()),
	"$FindBin::Bin/lib";

use Test::Nginx;
use Test::Certificates;
use Test::Module;
use Test::Requests;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

my $t = Test::Nginx->new()->has(qw/http http_ssl proxy rewrite sni/)
	->has_daemon('openssl');

compile_module($t, 'scripted_peer');

$t->plan(18);

certificate($t, 'localhost');

$t->write_file_expand('nginx.conf', <<'EOC');

load_module %%TESTDIR%%/scripted_peer.so;

%%TEST_GLOBALS%%

daemon off;

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_ssl_server_name on;
    proxy_ssl_name $arg_n;

    upstream plain {
        server 127.0.0.1:8081;
        scripted_peer;
        keepalive 8;
    }

    upstream tls {
        server 127.0.0.1:8082;
        scripted_peer;
        keepalive 8;
    }

    upstream two {
        server 127.0.0.1:8082 max_fails=0;
        server 127.0.0.1:8083 max_fails=0 backup;
        scripted_peer;
        keepalive 8;
    }

    upstream both {
        server 127.0.0.1:8082 max_fails=0;
        server 127.0.0.1:8081 max_fails=0 backup;
        scripted_peer;
        keepalive 8;
    }

    server {
        listen       127.0.0.1:8080;
        server_name  localhost;

        add_header X-Keepalive $upstream_keepalive always;

        # nginx prepares TLS where the scheme is a variable

        location / {
            set $scheme_of_tls http;
            proxy_pass $scheme_of_tls://tls;
        }

        location /plain {
            proxy_pass https://plain;
        }

        location /two {
            proxy_pass https://two;
            proxy_next_upstream http_404;
        }

        location /both {
            proxy_pass https://both;
            proxy_next_upstream http_404;
        }
    }

    server {
        listen       127.0.0.1:8081;
        listen       127.0.0.1:8082 ssl;
        listen       127.0.0.1:8083 ssl;

        ssl_certificate %%TESTDIR%%/localhost.crt;
        ssl_certificate_key %%TESTDIR%%/localhost.key;

        add_header X-Connection $connection always;
        add_header X-Made "$scheme $ssl_server_name" always;

        location / {
            return 200;
        }

        location /two {
            if ($server_port = %%PORT_8082%%) {
                return 404;
            }

            return 200;
        }

        location /both {
            if ($scheme = https) {
                return 404;
            }

            return 200;
        }
    }
}

EOC

$t->run();

###############################################################################

# on: each name has connections of its own, and requests without TLS, too

my $on = made('/?tls=on&n=a.example');
is($on->{made}, 'https a.example', 'switched on');
is(made('/?tls=on&n=a.example')->{c}, $on->{c}, 'switched on again');
is(made('/?tls=on&n=b.example')->{made}, 'https b.example', 'another name');
like(http_get('/?n=a.example'), qr/ 400 .*^X-Keepalive: MISS\r$/ms,
	'not switched on');
is(made('/?tls=on&n=a.example')->{c}, $on->{c}, 'switched on once more');

# timeouts are no part of the settings

is(made('/?tls=on&n=a.example&timeouts=1')->{c}, $on->{c},
	'switched on, other timeouts');

my $other = made('/?tls=on&n=a.example&timeouts=sni');
is($other->{made}, 'https', 'switched on, other settings');
isnt(made('/?tls=on&n=a.example&timeouts=sni')->{c}, $other->{c},
	'switched on, other settings again');
is(made('/?tls=on&n=a.example')->{c}, $on->{c}, 'switched on, its own settings');

# off: the server has no TLS, so a handshake would fail on any connection

my $off = made('/plain?tls=off&n=a.example');
like($off->{made}, qr/^http\b/, 'switched off');
is(made('/plain?tls=off&n=a.example')->{c}, $off->{c}, 'switched off again');
is(made('/plain?tls=off&n=b.example')->{c}, $off->{c}, 'any name');
like(http_get('/plain?n=a.example'), qr/ 502 .*^X-Keepalive: MISS\r$/ms,
	'not switched off');

# other settings for the second attempt

$other = made('/two?n=a.example&timeouts=next');
is($other->{made}, 'https', 'other settings for the next server');
isnt(made('/two?n=a.example&timeouts=next')->{c}, $other->{c}, 'and again');

# off for the second attempt

my $next = made('/both?tls=first&n=a.example');
like($next->{made}, qr/^http\b/, 'switched off for the next server');
is(made('/both?tls=first&n=b.example')->{c}, $next->{c}, 'and again');
like(http_get('/both?n=a.example'), qr/ 502 /, 'not switched off for the next');

###############################################################################

# the connection of a response, and with what it was made as the server sees it

sub made {
	my ($uri) = @_;

	my $r = http_get($uri);

	return { c => conn($r), made => $r =~ /^X-Made: ([^\r\n]*)/m ? $1 : $r };
}

###############################################################################

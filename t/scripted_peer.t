#!/usr/bin/perl

# Tests for a balancer that changes with what nginx makes a connection: it is
# not used for other requests, although the configuration does not say so.  The
# balancer is compiled here, see module/scripted_peer.c.

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
use Test::Module;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

my $t = Test::Nginx->new()->has(qw/http http_ssl proxy rewrite sni/)
	->has_daemon('openssl');

compile_module($t, 'scripted_peer');

$t->plan(33);

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
    log_format save $upstream_keepalive_save;

    upstream plain {
        server 127.0.0.1:8081 max_fails=0;
        server 127.0.0.1:8083 max_fails=0 backup;
        scripted_peer;
        keepalive 8;
    }

    upstream tls {
        server 127.0.0.1:8082;
        scripted_peer;
        keepalive 8;
    }

    upstream named {
        server 127.0.0.1:8082;
        scripted_peer;
        keepalive 8;
    }

    # the balancer has its sessions, since all connections are alike

    upstream alike {
        server 127.0.0.1:8082;
        scripted_peer;
        keepalive 0;
    }

    server {
        listen       127.0.0.1:8080;
        server_name  localhost;

        access_log %%TESTDIR%%/save.log save;

        location / {
            proxy_pass http://plain;
            proxy_next_upstream http_404 non_idempotent;
        }

        # a name that is sent, and one that is not used

        location /tls {
            proxy_pass https://tls;
            proxy_ssl_server_name on;
        }

        location /alike {
            proxy_pass https://alike;
            proxy_ssl_server_name on;
        }

        location /alternating {
            proxy_pass https://named;
            proxy_ssl_server_name on;
            proxy_ssl_name $alternating;
            proxy_ssl_session_reuse off;
        }

        location /named {
            proxy_pass https://named;
            proxy_ssl_server_name on;
            proxy_ssl_name $arg_n;
            proxy_ssl_session_reuse off;
        }

        location /noname {
            proxy_pass https://tls;
        }
    }

    server {
        listen       127.0.0.1:8081;
        listen       127.0.0.1:8082 ssl;
        listen       127.0.0.1:8083;

        ssl_certificate %%TESTDIR%%/localhost.crt;
        ssl_certificate_key %%TESTDIR%%/localhost.key;
        ssl_session_cache shared:SSL:1m;

        add_header X-Connection $connection always;
        add_header X-Made "$ssl_server_name $remote_addr $ssl_session_reused"
            always;

        location / {
            return 200;
        }

        # another server answers

        location /next {
            if ($server_port = %%PORT_8081%%) {
                return 404;
            }

            return 200;
        }
    }
}

EOC

$t->run();

###############################################################################

# the local address

my $c = get('/', 'a');
is(get('/', 'a'), $c, 'plain');

my $bound = made('/?bind=yes');
is($bound->{made}, '127.0.0.2', 'bound');
isnt($bound->{c}, $c, 'bound, another connection');
is(saved($t), 'identity', 'bound, not kept');
is(get('/', 'a'), $c, 'plain again');

# at the second attempt, it is not bound, and that is what counts

$bound = made('/next?bind=yes');
is($bound->{made}, '127.0.0.1', 'next server, not bound');
is(saved($t), 'saved', 'next server, kept');
is(made('/next')->{c}, $bound->{c}, 'next server again');

# the name in TLS

my $tls = made('/tls');
like($tls->{made}, qr/^tls /, 'default name');
is(made('/tls')->{c}, $tls->{c}, 'default name again');

my $a = made('/tls?name=a.example');
like($a->{made}, qr/^a\.example .* \.$/, 'a name, and a new session');
isnt($a->{c}, $tls->{c}, 'a name, another connection');
is(saved($t), 'identity', 'a name, not kept');
like(made('/tls?name=b.example')->{made}, qr/^b\.example .* \.$/, 'another one');
is(made('/tls')->{c}, $tls->{c}, 'default name, its own connection');

# where the name is not used, it does not matter

my $noname = made('/noname?name=a.example');
is(made('/noname?name=b.example')->{c}, $noname->{c}, 'no name');
isnt($noname->{c}, $tls->{c}, 'no name, another location');

# a configuration that is not that of the location

my $copy = made('/tls?conf=copy');
isnt($copy->{c}, $tls->{c}, 'unknown settings, another connection');
is(saved($t), 'identity', 'unknown settings, not kept');
like($copy->{made}, qr/ \.$/, 'unknown settings, new session');
isnt(made('/tls?conf=copy')->{c}, $copy->{c}, 'unknown settings again');
is(made('/tls')->{c}, $tls->{c}, 'known settings');

# a name that is another one when nginx uses it, and the first again when it is
# saved

my $made = made('/alternating');
like($made->{made}, qr/^b\.example /, 'alternating name');
is(saved($t), 'identity', 'alternating name, not kept');
like(made('/named?n=a.example')->{made}, qr/^a\.example /, 'not for the first');
is(saved($t), 'saved', 'a name, kept');

# sessions of the balancer

like(made('/alike')->{made}, qr/ \.$/, 'first session');
like(made('/alike')->{made}, qr/ r$/, 'resumed');
like(made('/alike?name=a.example')->{made}, qr/^a\.example .* \.$/,
	'not for a name');
like(made('/alike')->{made}, qr/^alike .* r$/, 'nor from it');
like(made('/alike?conf=copy')->{made}, qr/ \.$/, 'not for unknown settings');
like(made('/alike')->{made}, qr/^alike .* r$/, 'resumed again');

# a port is not a part of a name

is(made('/tls?name=tls:443')->{c}, $tls->{c}, 'default name with a port');

###############################################################################

# the connection of a response, and with what it was made as the server sees it

sub made {
	my ($uri) = @_;

	my $r = http_get($uri);

	return { c => conn($r), made => $r =~ /^X-Made: ([^\r\n]*)/m ? $1 : $r };
}

# what became of the last connection

sub saved {
	my ($t) = @_;

	my ($last) = $t->read_file('save.log') =~ /(\S+)\n\z/;

	return $last;
}

###############################################################################

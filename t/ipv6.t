#!/usr/bin/perl

# Tests for IPv6: servers of the same port and another address are others.

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

my $t = Test::Nginx->new()->has(qw/http proxy rewrite/);

$t->write_file_expand('nginx.conf', <<'EOC');

%%TEST_GLOBALS%%

daemon off;

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    proxy_http_version 1.1;
    proxy_set_header Connection "";

    upstream six {
        server [::1]:%%PORT_8081%%;
        keepalive 8 slice_key=$host;
    }

    upstream both {
        server [::1]:%%PORT_8081%%;
        server 127.0.0.1:8081;
        server [::1]:%%PORT_8082%%;
        keepalive 16 slice_key=$host;
    }

    server {
        listen       127.0.0.1:8080;
        server_name  localhost;

        location /six/ {
            proxy_pass http://six;
        }

        location /both/ {
            proxy_pass http://both;
        }
    }

    server {
        listen [::1]:%%PORT_8081%%;
        listen 127.0.0.1:8081;
        listen [::1]:%%PORT_8082%%;

        location / {
            add_header X-Connection $connection;
            add_header X-Server $server_addr/$server_port;
            return 200;
        }
    }
}

EOC

$t->try_run('no IPv6')->plan(10);

###############################################################################

my $ca = get('/six/', 'a');
is(get('/six/', 'a'), $ca, 'same host');
is_new(my $cb = get('/six/', 'b'), 'other host');
is(get('/six/', 'b'), $cb, 'other host again');
is(get('/six/', 'a'), $ca, 'first host again');

my %a = map { ask('a') } 1 .. 3;
my %b = map { ask('b') } 1 .. 3;

is(scalar(keys %a), 3, 'all servers');
is_deeply([ sort keys %b ], [ sort keys %a ], 'all servers other host');

my %all = (reverse(%a), reverse(%b));
is(scalar(keys %all), 6, 'not shared');

is(wrong('a', \%a), '', 'reused');
is(wrong('b', \%b), '', 'reused by other host');
is(wrong('a', \%a), '', 'reused again');

###############################################################################

sub ask {
	my ($host) = @_;

	my $r = http(request('GET', '/both/', $host));

	return $r =~ /^X-Server: (\S+)/m ? $1 : 'none', conn($r);
}

sub wrong {
	my ($host, $conns) = @_;

	my @wrong;

	for (1 .. 9) {
		my ($server, $conn) = ask($host);
		push @wrong, "$server $conn" if $conns->{$server} ne $conn;
	}

	return join ', ', @wrong;
}

###############################################################################

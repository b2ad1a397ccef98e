#!/usr/bin/perl

# Tests for unix sockets: each has connections of its own, also if the path is
# as long as can be.

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

my $t = Test::Nginx->new()->has(qw/http proxy rewrite/)->plan(18);

my $d = $t->testdir();

# sun_path holds 108 bytes, with a null byte

my $long = 'l' x (106 - length "$d/");

$t->write_file_expand('nginx.conf', <<"EOC");

%%TEST_GLOBALS%%

daemon off;

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    proxy_http_version 1.1;
    proxy_set_header Connection "";

    upstream one {
        server unix:$d/s;
        keepalive 8 slice_key=\$host;
    }

    upstream short {
        server unix:$d/s;
        server unix:$d/ss;
        keepalive 16 slice_key=\$host;
    }

    upstream long {
        server unix:$d/${long}1;
        server unix:$d/${long}2;
        keepalive 16 slice_key=\$host;
    }

    upstream mixed {
        server unix:$d/s;
        server unix:$d/ss;
        server unix:$d/${long}1;
        server unix:$d/${long}2;
        server 127.0.0.1:8081;
        keepalive 32;
    }

    server {
        listen       127.0.0.1:8080;
        server_name  localhost;

        location /one/ {
            proxy_pass http://one;
        }

        location /short/ {
            proxy_pass http://short;
        }

        location /long/ {
            proxy_pass http://long;
        }

        location /mixed/ {
            proxy_pass http://mixed;
        }
    }

    server {
        listen unix:$d/s;
        add_header X-Connection \$connection;
        add_header X-Server s;

        location / {
            return 200;
        }
    }

    server {
        listen unix:$d/ss;
        add_header X-Connection \$connection;
        add_header X-Server ss;

        location / {
            return 200;
        }
    }

    server {
        listen unix:$d/${long}1;
        add_header X-Connection \$connection;
        add_header X-Server long1;

        location / {
            return 200;
        }
    }

    server {
        listen unix:$d/${long}2;
        add_header X-Connection \$connection;
        add_header X-Server long2;

        location / {
            return 200;
        }
    }

    server {
        listen 127.0.0.1:8081;
        add_header X-Connection \$connection;
        add_header X-Server tcp;

        location / {
            return 200;
        }
    }
}

EOC

$t->run();

###############################################################################

my $ca = get('/one/', 'a');
is(get('/one/', 'a'), $ca, 'same host');
is_new(my $cb = get('/one/', 'b'), 'other host');
is(get('/one/', 'b'), $cb, 'other host again');
is(get('/one/', 'a'), $ca, 'first host again');

for my $u (qw/ short long /) {
	my $a = conns("/$u/", 'a', 2);
	my $b = conns("/$u/", 'b', 2);

	is(scalar(keys %$a), 2, "$u sockets");
	is_deeply([ sort keys %$b ], [ sort keys %$a ], "$u other host");

	my %all = (reverse(%$a), reverse(%$b));
	is(scalar(keys %all), 4, "$u not shared");

	is(wrong("/$u/", 'a', $a), '', "$u reused");
	is(wrong("/$u/", 'b', $b), '', "$u reused by other host");
	is(wrong("/$u/", 'a', $a), '', "$u reused again");
}

my $mixed = conns('/mixed/', 'a', 5);
is(join(' ', sort keys %$mixed), 'long1 long2 s ss tcp', 'all of them');
is(wrong('/mixed/', 'b', $mixed), '', 'all of them reused');

###############################################################################

# the connection to each of the sockets

sub conns {
	my ($uri, $host, $n) = @_;

	my %conns;

	for (1 .. $n) {
		my ($server, $conn) = ask($uri, $host);
		$conns{$server} = $conn;
	}

	return \%conns;
}

sub wrong {
	my ($uri, $host, $conns) = @_;

	my @wrong;

	for (1 .. 10) {
		my ($server, $conn) = ask($uri, $host);
		push @wrong, "$server $conn" if $conns->{$server} ne $conn;
	}

	return join ', ', @wrong;
}

sub ask {
	my ($uri, $host) = @_;

	my $r = http(request('GET', $uri, $host));

	return $r =~ /^X-Server: (\w+)/m ? $1 : 'none', conn($r);
}

###############################################################################

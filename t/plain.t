#!/usr/bin/perl

# Tests for keepalive without slice_key: as nginx's own keepalive.

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

my $t = Test::Nginx->new()->has(qw/http proxy/)->plan(17);

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
        keepalive 3;
    }

    upstream two {
        server 127.0.0.1:8081;
        server 127.0.0.1:8082;
        keepalive 3;
    }

    upstream one {
        server 127.0.0.1:8081;
        keepalive 1;
    }

    upstream zero {
        server 127.0.0.1:8081;
        keepalive 0;
    }

    server {
        listen       127.0.0.1:8080;
        server_name  localhost;

        location /u/ {
            proxy_pass http://u/;
        }

        location /two/ {
            proxy_pass http://two/;
        }

        location /one/ {
            proxy_pass http://one/;
        }

        location /zero/ {
            proxy_pass http://zero/;
        }
    }
}

EOF

start_backend($t, 8081, 8082);
$t->run();

###############################################################################

my $c = get('/u/', 'a');
is(get('/u/', 'a'), $c, 'reused');
is(get('/u/', 'b'), $c, 'reused by other host');
is(post('/u/', 'c', 'body'), $c, 'reused by POST');

my @c = together('/u/', qw/ a b c /);
is(open_conns(), 3, 'at the limit');
is(get('/u/', 'a'), $c[2], 'most recently used first');

my @d = together('/u/', qw/ a b c d e /);
is(wait_open(3), 3, 'over the limit');

my %kept = map { $_ => 1 } @d[2 .. 4];
is(scalar(grep { $kept{$_} } together('/u/', qw/ a b c /)), 3,
	'most recently used are kept');

break_idle('finish');
is(wait_open(0), 0, 'closed by backend');

# own connections of each server

my %two = map { server($_) => conn($_) }
	map { http(request('GET', '/two/', 'a')) } 1 .. 2;

is(scalar keys %two, 2, 'two servers');

my @r = map { http(request('GET', '/two/', 'b')) } 1 .. 4;
is(scalar(grep { $two{server($_)} eq conn($_) } @r), 4,
	'own connection of each server');

break_idle('finish');
is(wait_open(0), 0, 'closed by backend');

# one and none

my $one = get('/one/', 'a');
is(get('/one/', 'b'), $one, 'one reused');
together('/one/', qw/ a b /);
is(wait_open(1), 1, 'one kept');

break_idle('finish');
wait_open(0);

my $zero = get('/zero/', 'a');
is(wait_open(0), 0, 'zero closed');
is_new(get('/zero/', 'a'), 'zero not reused');

my @zero = together('/zero/', qw/ a b a /);
is(wait_open(0), 0, 'zero closed together');
is(scalar(grep { /^\d+$/ } $zero, @zero), 4, 'zero answered');

###############################################################################

sub server {
	my ($r) = @_;
	return $r =~ /X-Server: (\d+)/ ? $1 : 'none';
}

###############################################################################

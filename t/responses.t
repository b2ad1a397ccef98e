#!/usr/bin/perl

# Tests for keepalive with all kinds of responses: a connection is kept after
# a complete one that allows it.

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

my $t = Test::Nginx->new()->has(qw/http proxy ssi/)->plan(62);

mkdir($t->testdir() . '/ssi');

$t->write_file('ssi/set.html', '<!--#include virtual="/u/" set="x" -->'
	. '<!--#echo var="x" encoding="none" -->');
$t->write_file('ssi/wait.html', '<!--#include virtual="/u/1" wait="yes" -->'
	. '<!--#include virtual="/u/2" -->');
$t->write_file('ssi/both.html', '<!--#include virtual="/u/1" -->'
	. '<!--#include virtual="/u/2" -->');

$t->write_file_expand('nginx.conf', <<'EOF');

%%TEST_GLOBALS%%

daemon off;

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    proxy_http_version 1.1;
    proxy_set_header Connection "";

    proxy_intercept_errors on;

    upstream u {
        server 127.0.0.1:8081;
        keepalive 4 slice_key=$host;
    }

    server {
        listen       127.0.0.1:8080;
        server_name  localhost;

        location /u/ {
            proxy_pass http://u/;
        }

        location /unbuffered/ {
            proxy_pass http://u/;
            proxy_buffering off;
        }

        location /file/ {
            proxy_pass http://u/;
            proxy_buffers 2 4k;
            proxy_busy_buffers_size 4k;
        }

        location /intercepted/ {
            proxy_pass http://u/;
            error_page 500 = /page;
        }

        location /page {
            return 200 X-Connection:page;
        }

        location /ssi {
            ssi on;
        }
    }
}

EOF

start_backend($t, 8081);
$t->run();

###############################################################################

for my $buffers ('/u/', '/unbuffered/', '/file/') {
	for my $name (
		'', 'big', '204', '304', '500', 'empty', 'chunked',
		'chunkedempty',
	) {
		ok(kept('GET', "$buffers$name"), "GET $buffers$name");
	}

	for my $name ('', 'big', 'empty', '304') {
		ok(kept('HEAD', "$buffers$name"), "HEAD $buffers$name");
	}

	for my $name ('close', 'http10', 'nolength', 'extra') {
		ok(closed('GET', "$buffers$name"), "GET $buffers$name");
	}

	ok(closed('HEAD', "${buffers}close"), "HEAD ${buffers}close");
}

# a response that is not read to its end

like(http(request('GET', '/intercepted/500', 'a')), qr/Connection:page/,
	'intercepted');
is_new(my $c = get('/u/', 'a'), 'intercepted not kept');

# a response kept in memory

is(get('/ssi/set.html', 'a'), $c, 'in memory');
is(get('/u/', 'a'), $c, 'in memory and kept');
is_new(get('/ssi/set.html', 'b'), 'in memory other host');

# subrequests one after the other, and at once

my @c = http(request('GET', '/ssi/wait.html', 'a')) =~ /Connection: (\d+)/g;
is("@c", "$c $c", 'subrequests one after the other');

@c = http(request('GET', '/ssi/both.html', 'a')) =~ /Connection: (\d+)/g;
is(scalar @c, 2, 'subrequests at once');
is(scalar(grep { $_ eq $c } @c), 1, 'subrequests at once reused one');

# a client that goes away before the end

my $s = http(request('GET', '/unbuffered/half', 'gone'), start => 1);
sysread($s, my $part, 10);
is($part, 'HTTP/1.1 2', 'part of a response');
my $open = open_conns();
close $s;
is(wait_open($open - 1), $open - 1, 'client gone');
is_new(get('/u/', 'gone'), 'client gone not reused');

###############################################################################

# all but the end of a response is sent, then a request finds its connection

sub kept {
	my ($method, $uri) = @_;

	my $c = get('/u/', 'a');
	my $r = conn(http(request($method, $uri, 'a')));
	my $d = get('/u/', 'a');

	return 1 if "$c $r $d" eq "$c $c $c";

	diag("$c before, $r, $d after");
	return 0;
}

sub closed {
	my ($method, $uri) = @_;

	my $c = get('/u/', 'a');
	my $r = conn(http(request($method, $uri, 'a')));
	my $d = get('/u/', 'a');

	return 1 if $c eq $r && $d ne $r && $d =~ /^\d/;

	diag("$c before, $r, $d after");
	return 0;
}

###############################################################################

#!/usr/bin/perl

# Tests for keepalive with a backend that closes, resets or writes to idle
# connections, or fails.

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

my $t = Test::Nginx->new()->has(qw/http proxy/)->plan(44);

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
        keepalive 8 slice_key=$host;
    }

    upstream dead {
        server 127.0.0.1:8082;
        server 127.0.0.1:8081;
        keepalive 8 slice_key=$host;
    }

    upstream backup {
        server 127.0.0.1:8082;
        server 127.0.0.1:8081 backup;
        keepalive 8 slice_key=$host;
    }

    server {
        listen       127.0.0.1:8080;
        server_name  localhost;

        location /u/ {
            proxy_pass http://u/;
        }

        location /dead/ {
            proxy_pass http://dead/;
        }

        location /backup/ {
            proxy_pass http://backup/;
        }
    }
}

EOF

start_backend($t, 8081);
$t->run();

###############################################################################

# what happens to idle connections

for my $how (qw/ finish junk /) {
	my @c = together('/u/', qw/ a a b /);
	is(open_conns(), 3, "$how idle");

	is(break_idle($how), 3, "$how");
	is(wait_open(0), 0, "$how closed");

	is_new(get('/u/', 'a'), "$how not reused");
	is_new(get('/u/', 'b'), "$how not reused other host");

	break_idle('finish');
	wait_open(0);
}

together('/u/', qw/ a a b /);
is(break_idle('reset'), 3, 'reset');

for my $host (qw/ a b /) {
	is_new(my $c = get('/u/', $host), "reset not reused $host");
	is(get('/u/', $host), $c, "reset reused afterwards $host");
}

is(wait_open(2), 2, 'reset and connected again');

# one of them only

my $held = hold('/u/', 'a');
my $kc = get('/u/', 'c');
break_idle('finish');
is(wait_open(1), 1, 'all but the one in use');
my $ka = release($held);
is(get('/u/', 'a'), $ka, 'in use and reused');
is_new(get('/u/', 'c'), 'idle and not reused');

# closed after a response, not saying so

for my $n (1 .. 10) {
	get('/u/drop', 'a');
	is_new(get('/u/', 'a'), "closed after response $n");
	break_idle('finish');
	wait_open(0);
}

# more than the response, when it is too late to find out

my $c = get('/u/', 'a');
is(get('/u/extra', 'a'), $c, 'more than the response');
is_new(get('/u/', 'a'), 'more than the response not reused');

# a reused connection that fails is not the backend's fault

$c = get('/u/', 'a');
my $r = http(request('GET', '/u/once', 'a'));
is_new(my $d = conn($r), 'closed without response');
like($r, qr/^HTTP.* 200 /, 'closed without response and tried again');
is(get('/u/', 'a'), $d, 'reused after trying again');

like(http(request('POST', '/u/once', 'a')), qr/^HTTP.* 502 /,
	'closed without response and not tried again');
is_new(get('/u/', 'a'), 'new after not trying again');

break_idle('finish');
is(wait_open(0), 0, 'closed by backend');

# servers that do not answer

for my $uri ('/dead/', '/backup/') {
	$c = get($uri, 'a');
	is(get($uri, 'a'), $c, "$uri other server reused");
	is_new(get($uri, 'b'), "$uri other server other host");
	is(scalar(grep { get($uri, 'a') eq $c } 1 .. 5), 5,
		"$uri other server still reused");
}

is(wait_open(4), 4, 'other server only');

###############################################################################

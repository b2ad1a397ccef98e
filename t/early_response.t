#!/usr/bin/perl

# Tests for keepalive with a response that comes before the whole request was
# sent: the connection is not kept.

###############################################################################

use warnings;
use strict;

use Test::More;

use FindBin;
use lib ($ENV{NGINX_TESTS_DIR} ? "$ENV{NGINX_TESTS_DIR}/lib" : ()),
	"$FindBin::Bin/lib";

use Test::Nginx qw/ :DEFAULT http_end /;
use Test::Backend;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

my $t = Test::Nginx->new()->has(qw/http proxy/)->plan(15);

$t->write_file_expand('nginx.conf', <<'EOF');

%%TEST_GLOBALS%%

daemon off;

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    proxy_http_version 1.1;
    proxy_set_header Connection "";

    client_max_body_size 100m;

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

        location /stream/ {
            proxy_pass http://u/;
            proxy_request_buffering off;
        }
    }
}

EOF

start_backend($t, 8081);
$t->run();

###############################################################################

# the other side: a body that is read whole

my $c = post('/u/', 'a', 'x' x 100000);
is(post('/u/', 'a', 'x' x 100000), $c, 'read whole');
is(post('/stream/', 'a', 'x' x 100000), $c, 'read whole unbuffered');
is(get('/u/', 'a'), $c, 'read whole and kept');

# a response while the client is still sending

is(early('/stream/early', 1000000, 1000), $c, 'early on a reused connection');
is(wait_open(0), 0, 'early closed');
is_new(get('/u/', 'a'), 'early not reused');

# the client has sent all, but the backend takes no more of it

$c = get('/u/', 'a');
is(early('/u/early', 30000000, 30000000), $c, 'buffered on a reused connection');
is(wait_open(0), 0, 'buffered closed');
is_new(get('/u/', 'a'), 'buffered not reused');

# again and again, while others are kept

my $other = get('/u/', 'b');

for (1 .. 5) {
	early('/stream/early', 1000000, 1000);
	is(get('/u/', 'b'), $other, 'other host');
}

is(wait_open(1), 1, 'early closed each time');

###############################################################################

sub early {
	my ($uri, $length, $sent) = @_;

	my $s = http(request('POST', $uri, 'a', "Content-Length: $length\n"),
		start => 1, body => 'x' x $sent);

	my $c = conn(http_end($s));
	close $s;

	return $c;
}

###############################################################################

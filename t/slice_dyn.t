#!/usr/bin/perl

# Tests for slice_dyn: the limit of a key is found when a connection is handed
# back.

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

    map $host $conn {
        zero   0;
        one    1;
        two    2;
        many   100000;
        empty  "";
        bad    abc;
    }

    map $upstream_status $by_status {
        200      2;
        default  0;
    }

    upstream u {
        server 127.0.0.1:8081;
        keepalive 16 slice_key=$host slice_dyn=$conn;
    }

    upstream bare {
        server 127.0.0.1:8081;
        keepalive 16 slice_key=$host slice_dyn=conn;
    }

    upstream both {
        server 127.0.0.1:8081;
        keepalive 16 slice_key=$host slice_dyn=$conn slice_conn=2;
    }

    upstream constant {
        server 127.0.0.1:8081;
        keepalive 16 slice_key=$host slice_dyn=2;
    }

    upstream arg {
        server 127.0.0.1:8081;
        keepalive 16 slice_key=$host slice_dyn=$arg_n;
    }

    upstream argboth {
        server 127.0.0.1:8081;
        keepalive 16 slice_key=$host slice_dyn=$arg_n slice_conn=1;
    }

    upstream header {
        server 127.0.0.1:8081;
        keepalive 16 slice_key=$host slice_dyn=$upstream_http_x_limit;
    }

    upstream status {
        server 127.0.0.1:8081;
        keepalive 16 slice_key=$host slice_dyn=$by_status;
    }

    server {
        listen       127.0.0.1:8080;
        server_name  localhost;

        location /u/ {
            proxy_pass http://u/;
        }

        location /bare/ {
            proxy_pass http://bare/;
        }

        location /both/ {
            proxy_pass http://both/;
        }

        location /constant/ {
            proxy_pass http://constant/;
        }

        location /arg/ {
            proxy_pass http://arg/;
        }

        location /argboth/ {
            proxy_pass http://argboth/;
        }

        location /header/ {
            proxy_pass http://header/;
        }

        location /status/ {
            proxy_pass http://status/;
        }
    }
}

EOF

start_backend($t, 8081);
$t->run();

###############################################################################

# limits by a map

together('/u/', qw/ zero zero /);
is(wait_open(0), 0, 'zero');

my @one = together('/u/', qw/ one one one /);
is(wait_open(1), 1, 'one');
is(get('/u/', 'one'), $one[2], 'one reused');

my @two = together('/u/', qw/ two two two /);
is(wait_open(3), 3, 'two');
is_deeply([ together('/u/', qw/ two two /) ], [ @two[2, 1] ], 'two reused');

together('/u/', ('many') x 5);
is(wait_open(8), 8, 'many');

is(close_all(), 0, 'closed by backend');

together('/bare/', qw/ one one two two two zero /);
is(wait_open(3), 3, 'name only');
is(close_all(), 0, 'closed by backend');

together('/constant/', qw/ one one one zero zero zero /);
is(wait_open(4), 4, 'constant');
is(close_all(), 0, 'closed by backend');

# empty and not found, without and with slice_conn

together('/u/', 'empty', 'empty');
is(wait_open(0), 0, 'empty');
together('/arg/', 'a', 'a');
is(wait_open(0), 0, 'not found');
together('/both/', ('empty') x 3);
is(wait_open(2), 2, 'empty with slice_conn');
is(close_all(), 0, 'closed by backend');
together('/argboth/', ('a') x 3);
is(wait_open(1), 1, 'not found with slice_conn');

# a number comes before slice_conn

together('/argboth/?n=3', ('a') x 4);
is(wait_open(3), 3, 'more than slice_conn');
together('/argboth/?n=0', 'b');
is(wait_open(3), 3, 'less than slice_conn');
is(close_all(), 0, 'closed by backend');

# a lower number than the slice holds

my @a = together('/arg/?n=4', ('a') x 4);
my @b = together('/arg/?n=4', ('b') x 4);
is(open_conns(), 8, 'two keys');

is(get('/arg/?n=2', 'a'), $a[3], 'reused at a lower number');
is(wait_open(6), 6, 'closed to a lower number');
is_deeply([ together('/arg/?n=2', 'a', 'a') ], [ @a[3, 2] ],
	'least recently used closed');
is_deeply([ together('/arg/?n=4', ('b') x 4) ], [ reverse @b ],
	'other key not touched');
is(close_all(), 0, 'closed by backend');

# what is known only after the response

together('/header/?limit=2', ('a') x 3);
is(wait_open(2), 2, 'response header');
is(close_all(), 0, 'closed by backend');
get('/header/?limit=0', 'a');
is(wait_open(0), 0, 'response header zero');
get('/header/', 'a');
is(wait_open(0), 0, 'no response header');

get('/status/500', 'a');
is(wait_open(0), 0, 'response status not kept');
together('/status/', ('a') x 3);
is(wait_open(2), 2, 'response status kept');
is(close_all(), 0, 'closed by backend');

# anything else

is(warnings($t, 'abc', 'u'), 0, 'no warnings yet');
is(unkept('/u/', 'bad'), 2, 'not a number');
is(warnings($t, 'abc', 'u'), 2, 'warned each time');

is(unkept('/both/', 'bad'), 2, 'not a number with slice_conn');
is(warnings($t, 'abc', 'both'), 2, 'warned each time with slice_conn');

for my $n ('-1', '1.5', '0x10', '2x', 'x', '99999999999999999999999') {
	subtest "value '$n'" => sub {
		plan(tests => 2);
		is(unkept("/arg/?n=$n", 'a'), 2, 'not kept');
		is(warnings($t, $n, 'arg'), 2, 'warned');
	};
}

my $all = () = $t->read_file('error.log') =~ /\[warn\].*slice_dyn/g;
is($all, 16, 'no other warnings');

###############################################################################

sub close_all {
	break_idle('finish');
	return wait_open(0);
}

# requests, of two, whose connections were closed after a response

sub unkept {
	my ($uri, $host) = @_;

	return scalar grep { get($uri, $host) =~ /^\d/ && wait_open(0) == 0 }
		1 .. 2;
}

sub warnings {
	my ($t, $value, $name) = @_;

	my $text = quotemeta(
		qq!invalid "slice_dyn" value "$value" of upstream "$name"!);

	return scalar(() = $t->read_file('error.log') =~ /\[warn\].*$text/g);
}

###############################################################################

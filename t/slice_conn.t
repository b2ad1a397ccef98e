#!/usr/bin/perl

# Tests for slice_conn: idle connections of one key, over all servers.

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
        keepalive 16 slice_key=$host slice_conn=2;
    }

    upstream zero {
        server 127.0.0.1:8081;
        keepalive 16 slice_key=$host slice_conn=0;
    }

    upstream more {
        server 127.0.0.1:8081;
        keepalive 2 slice_key=$host slice_conn=5;
    }

    upstream two {
        server 127.0.0.1:8081;
        server 127.0.0.1:8082;
        keepalive 16 slice_key=$host slice_conn=3;
    }

    server {
        listen       127.0.0.1:8080;
        server_name  localhost;

        location /u/ {
            proxy_pass http://u/;
        }

        location /zero/ {
            proxy_pass http://zero/;
        }

        location /more/ {
            proxy_pass http://more/;
        }

        location /two/ {
            proxy_pass http://two/;
        }
    }
}

EOF

start_backend($t, 8081, 8082);
$t->run();

###############################################################################

# at the limit

my @a = together('/u/', 'a', 'a');
is(open_conns(), 2, 'at the limit');
is_deeply([ together('/u/', 'a', 'a') ], [ reverse @a ], 'both reused');

# over the limit, the own least recently used one makes room

my @b = together('/u/', 'b');
my @c = together('/u/', qw/ a a a /);

is(wait_open(3), 3, 'over the limit');
is_deeply([ sort_n(@c[0, 1]) ], [ sort_n(@a) ], 'reused before');
is_new($c[2], 'over the limit opened');
is_deeply([ together('/u/', 'a', 'a') ], [ $c[2], $c[1] ],
	'least recently used closed');
is(get('/u/', 'b'), $b[0], 'other key not touched');

# each key has a limit of its own

together('/u/', map { ($_) x 3 } qw/ a b c d /);
is(wait_open(8), 8, 'four keys');

break_idle('finish');
is(wait_open(0), 0, 'closed by backend');

# nothing

get('/zero/', 'a');
is(wait_open(0), 0, 'zero');
is_new(get('/zero/', 'a'), 'zero not reused');

# not more than keepalive says

together('/more/', qw/ a a a a a a a /);
is(wait_open(2), 2, 'limit of all keys');

break_idle('finish');
is(wait_open(0), 0, 'closed by backend');

# over all servers

together('/two/', qw/ a a a a a a a a /);
is(wait_open(3), 3, 'two servers');
cmp_ok(open_conns(8081), '<=', 2, 'first server');
cmp_ok(open_conns(8082), '<=', 2, 'second server');

together('/two/', qw/ b b b b a a /);
is(wait_open(6), 6, 'two servers two keys');

###############################################################################

sub sort_n {
	return sort { $a <=> $b } @_;
}

###############################################################################

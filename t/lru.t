#!/usr/bin/perl

# Tests for keepalive with slice_key: over all slices, the least recently used
# connection is closed.

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

my $t = Test::Nginx->new()->has(qw/http proxy/)->plan(28);

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
        keepalive 3 slice_key=$host;
    }

    upstream slice {
        server 127.0.0.1:8081;
        keepalive 4 slice_key=$host slice_conn=2 slice_poolsize=3;
    }

    server {
        listen       127.0.0.1:8080;
        server_name  localhost;

        location /u/ {
            proxy_pass http://u/;
        }

        location /slice/ {
            proxy_pass http://slice/;
        }
    }
}

EOF

start_backend($t, 8081);
$t->run();

###############################################################################

my %c = map { $_ => get('/u/', $_) } 'a';
$c{$_} = get('/u/', $_) for qw/ b c /;
is(open_conns(), 3, 'at the limit');

# the first

$c{d} = get('/u/', 'd');
is(wait_open(3), 3, 'over the limit');
is(get('/u/', $_), $c{$_}, "$_ kept") for qw/ b c d /;

# used again, it is not the first any more

is(get('/u/', 'b'), $c{b}, 'b used');
$c{e} = get('/u/', 'e');
is(wait_open(3), 3, 'over the limit again');
is(get('/u/', $_), $c{$_}, "$_ kept after use") for qw/ d b e /;
is_new(get('/u/', 'c'), 'c closed');
is(wait_open(3), 3, 'over the limit by c');
is_new(get('/u/', 'd'), 'd closed');
is(wait_open(3), 3, 'over the limit by d');
is(close_all(), 0, 'closed by backend');

# all of one key, pushed out one by one by others

my @a = together('/u/', qw/ a a a /);
$c{b} = get('/u/', 'b');
is(wait_open(3), 3, 'one pushed out');
is_deeply([ together('/u/', qw/ a a /) ], [ @a[2, 1] ],
	'least recently used pushed out');

get('/u/', 'c');
is(wait_open(3), 3, 'another pushed out');
is_new(get('/u/', 'b'), 'key with one connection pushed out');
is(close_all(), 0, 'closed by backend');

# the limit of a key comes first

@a = together('/slice/', qw/ a a /);
my @b = together('/slice/', qw/ b b /);
is(open_conns(), 4, 'at both limits');

my @more = together('/slice/', qw/ b b b /);
is(wait_open(4), 4, 'over the limit of a key');
is_deeply([ together('/slice/', qw/ a a /) ], [ reverse @a ],
	'other key not touched');
is_deeply([ together('/slice/', qw/ b b /) ], [ @more[2, 1] ],
	'own least recently used closed');

# and then the limit of all

my $kc = get('/slice/', 'c');
is(wait_open(4), 4, 'over the limit of all');
is(get('/slice/', 'c'), $kc, 'new key kept');
is_deeply([ together('/slice/', qw/ b b /) ], [ @more[1, 2] ],
	'recently used key kept');
is(get('/slice/', 'a'), $a[0], 'least recently used of all closed');

###############################################################################

sub close_all {
	break_idle('finish');
	return wait_open(0);
}

###############################################################################

#!/usr/bin/perl

# Tests for slice_poolsize: slices that hold idle connections at once.

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

my $t = Test::Nginx->new()->has(qw/http proxy/)->plan(40);

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
        keepalive 16 slice_key=$host slice_poolsize=3;
    }

    upstream zero {
        server 127.0.0.1:8081;
        keepalive 16 slice_key=$host slice_poolsize=0;
    }

    upstream one {
        server 127.0.0.1:8081;
        keepalive 16 slice_key=$host slice_poolsize=1;
    }

    upstream two {
        server 127.0.0.1:8081;
        keepalive 16 slice_key=$host slice_poolsize=2;
    }

    upstream servers {
        server 127.0.0.1:8081;
        server 127.0.0.1:8082;
        keepalive 16 slice_key=$host slice_poolsize=2;
    }

    upstream default {
        server 127.0.0.1:8081;
        keepalive 64 slice_key=$host;
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

        location /one/ {
            proxy_pass http://one/;
        }

        location /two/ {
            proxy_pass http://two/;
        }

        location /servers/ {
            proxy_pass http://servers/;
        }

        location /default/ {
            proxy_pass http://default/;
        }
    }
}

EOF

start_backend($t, 8081, 8082);
$t->run();

###############################################################################

# nothing

get('/zero/', 'a');
is(wait_open(0), 0, 'zero');
is_new(get('/zero/', 'a'), 'zero not reused');
is(wait_open(0), 0, 'zero again');

# more keys than slices

my %conn = map { $_ => get('/u/', "k$_") } 1 .. 100;

is(wait_open(3), 3, 'three slices');
is(get('/u/', "k$_"), $conn{$_}, "newest key $_") for 98 .. 100;
is_new(get('/u/', 'k97'), 'older key');
is(wait_open(3), 3, 'three slices after older key');
is_new(get('/u/', 'k1'), 'oldest key');

# one that keeps coming

my $hot = get('/u/', 'hot');
my $reused = 0;

for (101 .. 200) {
	get('/u/', "k$_");
	$reused++ if get('/u/', 'hot') eq $hot;
}

is($reused, 100, 'one that keeps coming');
is(wait_open(3), 3, 'three slices still');
is(close_all(), 0, 'closed by backend');

# a slice is emptied as a whole

my @a = together('/one/', qw/ a a a /);
is(open_conns(), 3, 'one slice');
my $kb = get('/one/', 'b');
is(wait_open(1), 1, 'one slice of a new key');
is(get('/one/', 'b'), $kb, 'new key reused');
is_new(get('/one/', 'a'), 'emptied key');
is(wait_open(1), 1, 'one slice of the first key');
is(close_all(), 0, 'closed by backend');

# a slice is free as soon as its last idle connection leaves

my $ka = get('/two/', 'a');
$kb = get('/two/', 'b');
my $held = hold('/two/', 'a');
my $kc = get('/two/', 'c');

is(open_conns(), 3, 'a slice left');
is(get('/two/', 'c'), $kc, 'the new key is kept');
is(get('/two/', 'b'), $kb, 'the old key is not touched');

is(release($held), $ka, 'the first key had its connection');
is(wait_open(2), 2, 'least recently used emptied');
is(get('/two/', 'b'), $kb, 'recently used key kept');
is(get('/two/', 'a'), $ka, 'first key kept');
is_new(get('/two/', 'c'), 'least recently used gone');
is(close_all(), 0, 'closed by backend');

# closed by the backend, a slice is free as well

get('/two/', $_) for qw/ a b /;
break_idle('finish');
wait_open(0);
%conn = map { $_ => get('/two/', $_) } qw/ c d /;
is(open_conns(), 2, 'slices free after close');
is(get('/two/', $_), $conn{$_}, "key $_ after close") for qw/ c d /;
is(close_all(), 0, 'closed by backend');

# a slice spans servers

together('/servers/', qw/ a a b b /);
is(open_conns(), 4, 'two keys two servers');
together('/servers/', qw/ c c /);
is(wait_open(4), 4, 'third key two servers');
is(open_conns(8081), 2, 'first server');
is(open_conns(8082), 2, 'second server');
is(close_all(), 0, 'closed by backend');

# twenty if not given

%conn = map { $_ => get('/default/', "k$_") } 1 .. 25;
is(wait_open(20), 20, 'default');

my @reused = grep { get('/default/', "k$_") eq $conn{$_} } 6 .. 25;
is(scalar @reused, 20, 'default newest reused');
is_new(get('/default/', 'k5'), 'default older not reused');

###############################################################################

sub close_all {
	break_idle('finish');
	return wait_open(0);
}

###############################################################################

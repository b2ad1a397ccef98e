#!/usr/bin/perl

# Tests for slice_keylen and slice_strict: keys too long are cut, or not kept.

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

my $t = Test::Nginx->new()->has(qw/http proxy/)->plan(30);

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
        keepalive 16 slice_key=$http_x_key slice_keylen=4;
    }

    upstream other {
        server 127.0.0.1:8081;
        keepalive 16 slice_key=$http_x_key slice_keylen=4;
    }

    upstream fits {
        server 127.0.0.1:8081;
        keepalive 16 slice_key=$http_x_key slice_keylen=8;
    }

    upstream default {
        server 127.0.0.1:8081;
        keepalive 16 slice_key=$http_x_key;
    }

    upstream strict {
        server 127.0.0.1:8081;
        keepalive 16 slice_key=$http_x_key slice_keylen=4 slice_strict;
    }

    server {
        listen       127.0.0.1:8080;
        server_name  localhost;

        location /u/ {
            proxy_pass http://u/;
        }

        location /other/ {
            proxy_pass http://other/;
        }

        location /fits/ {
            proxy_pass http://fits/;
        }

        location /default/ {
            proxy_pass http://default/;
        }

        location /strict/ {
            proxy_pass http://strict/;
        }
    }
}

EOF

start_backend($t, 8081);
$t->run();

###############################################################################

# keys that fit

my $abcd = key('/u/', 'abcd');
is(key('/u/', 'abcd'), $abcd, 'exactly as long');
is_new(my $abc = key('/u/', 'abc'), 'shorter');
is(key('/u/', 'abc'), $abc, 'shorter again');
is(cuts($t), 0, 'nothing cut');

# keys that are cut

is(key('/u/', 'abcd1'), $abcd, 'same beginning');
is(key('/u/', 'abcd2345'), $abcd, 'other same beginning');
is(key('/u/', 'abcd'), $abcd, 'the beginning itself');
is_new(my $abce = key('/u/', 'abce1'), 'other beginning');
is(key('/u/', 'abce2'), $abce, 'other beginning again');
is(key('/u/', 'abc'), $abc, 'shorter is not the same');

is(cuts($t, 'abcd1', 'u', 4), 1, 'warned of the first');
is(cuts($t), 1, 'warned once');

# each upstream warns by itself

key('/other/', 'longer'), key('/other/', 'longest');

is(cuts($t, 'longer', 'other', 4), 1, 'warned of the other upstream');
is(cuts($t), 2, 'warned once each');

key('/fits/', 'longer');
is(cuts($t), 2, 'not warned of a longer limit');

# forty if not given

my $forty = key('/default/', 'x' x 40);
is(cuts($t), 2, 'default not cut');
is(key('/default/', 'x' x 40 . 'y'), $forty, 'default cut');
is(cuts($t, 'x' x 40 . 'y', 'default', 40), 1, 'default warned');
is_new(key('/default/', 'x' x 39 . 'y'), 'default last byte');
is(key('/default/', 'x' x 4000), $forty, 'default cut much');

# strict

is(close_all(), 0, 'closed by backend');

my $strict = key('/strict/', 'abcd');
is(key('/strict/', 'abcd'), $strict, 'strict exactly as long');
is_new(key('/strict/', 'abcd1'), 'strict longer');
is(wait_open(1), 1, 'strict longer not kept');
is_new(key('/strict/', 'abcd1'), 'strict longer again');
is(wait_open(1), 1, 'strict longer not kept again');
is(key('/strict/', 'abcd'), $strict, 'strict exactly as long again');
is_new(my $short = key('/strict/', 'abc'), 'strict shorter');
is(key('/strict/', 'abc'), $short, 'strict shorter again');
is(cuts($t), 3, 'strict not warned');

###############################################################################

sub key {
	my ($uri, $key) = @_;
	return get($uri, 'localhost', "X-Key: $key\n");
}

sub close_all {
	break_idle('finish');
	return wait_open(0);
}

sub cuts {
	my ($t, $key, $name, $length) = @_;

	my $text = defined $key ? quotemeta(
		qq!slice key "$key" of upstream "$name" is cut to $length bytes!)
		: 'is cut to';

	return scalar(() = $t->read_file('error.log') =~ /\[warn\].*$text/g);
}

###############################################################################

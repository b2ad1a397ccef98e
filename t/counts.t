#!/usr/bin/perl

# Tests for the counts of idle connections and slices: whatever happens to
# connections, the limits are exactly the same afterwards.

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
        keepalive 6 slice_key=$host slice_conn=2 slice_poolsize=3;
    }

    upstream dyn {
        server 127.0.0.1:8081;
        keepalive 6 slice_key=$host slice_dyn=$arg_n slice_poolsize=3;
    }

    upstream t {
        server 127.0.0.1:8081;
        keepalive 6 slice_key=$host slice_conn=2 slice_poolsize=3;
        keepalive_timeout 1s;
    }

    upstream n {
        server 127.0.0.1:8081;
        keepalive 6 slice_key=$host slice_conn=2 slice_poolsize=3;
        keepalive_requests 2;
    }

    server {
        listen       127.0.0.1:8080;
        server_name  localhost;

        location /u/ {
            proxy_pass http://u/;
        }

        location /dyn/ {
            proxy_pass http://dyn/;
        }

        location /t/ {
            proxy_pass http://t/;
        }

        location /n/ {
            proxy_pass http://n/;
        }
    }
}

EOF

start_backend($t, 8081);
$t->run();

###############################################################################

# all that is allowed is kept, and reused, and not one more

my @hosts = qw/ a a b b c c /;

my %faults = (
	'close by backend' => sub {
		break_idle('finish');
		wait_open(0);
	},
	'junk by backend' => sub {
		break_idle('junk');
		wait_open(0);
	},
	'reset by backend' => sub {
		break_idle('reset');
		get('/u/', $_) for qw/ x y z /;
	},
	'new keys' => sub {
		get('/u/', "new$_") for 1 .. 5;
	},
	'new keys in use at once' => sub {
		together('/u/', map { "new$_" } 1 .. 10);
	},
	'over the limit of a key' => sub {
		together('/u/', ('a') x 5);
	},
	'over the limit of all' => sub {
		together('/u/', qw/ d d d e e e f f f g g g /);
	},
	'not to be kept' => sub {
		together('/u/close', @hosts);
	},
	'closed after response' => sub {
		together('/u/drop', qw/ a b c d /);
	},
	'closed without response' => sub {
		together('/u/once', qw/ a b c d /);
	},
	'nothing of it' => sub {
		get('/u/', 'a') for 1 .. 10;
	},
	'one closed by nginx, the others by backend' => sub {
		get('/u/close', 'b');
		break_idle('finish');
		wait_open(0);
	},
);

for my $name (sort keys %faults) {
	is(rounds('/u/', 5, $faults{$name}), 5, $name);
}

my @names = sort keys %faults;

is(rounds('/u/', 30, sub { $faults{$names[rand @names]}->() for 1 .. 3 }), 30,
	'any of it');

is(close_all(), 0, 'closed by backend');

# a limit that changes

is(rounds('/dyn/?n=2', 10, sub {
	together('/dyn/?n=6', ('a') x 6);
	get('/dyn/?n=0', 'a');
	together('/dyn/?n=1', @hosts);
}), 10, 'other limits');

is(close_all(), 0, 'closed by backend');

# timers

is(rounds('/t/', 3, sub { wait_open(0) }), 3, 'timeout');
is(wait_open(0), 0, 'all timed out');

# the last request

for my $round (1 .. 5) {
	together('/n/', @hosts);
	is(open_conns(), 6, "first requests, round $round");
	together('/n/', @hosts);
	is(wait_open(0), 0, "last requests, round $round");
}

###############################################################################

# rounds after which exactly the limits are used

sub rounds {
	my ($uri, $rounds, $code) = @_;

	my $good = 0;

	for my $round (1 .. $rounds) {
		$code->();

		my @open = together($uri, @hosts);
		my $open = wait_open(6);
		my @again = together($uri, @hosts);
		my $still = wait_open(6);

		my $same = join(' ', sort @open) eq join(' ', sort @again);

		if ($open == 6 && $still == 6 && $same) {
			$good++;

		} else {
			diag("round $round: $open open, then $still: "
				. "@open, then @again");
		}
	}

	return $good;
}

sub close_all {
	break_idle('finish');
	return wait_open(0);
}

###############################################################################

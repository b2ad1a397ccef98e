#!/usr/bin/perl

# Tests for shared over Unix sockets and with protocols other than HTTP: workers
# use each other's connections, and each request gets its own answer.

###############################################################################

use warnings;
use strict;

use Test::More;

use FindBin;
use lib ($ENV{NGINX_TESTS_DIR} ? "$ENV{NGINX_TESTS_DIR}/lib" : ()),
	"$FindBin::Bin/lib";

use IO::Socket::INET;

use Test::Nginx;
use Test::Backend;
use Test::Status;
use Test::Workers;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

my $t = Test::Nginx->new()->has(qw/http proxy fastcgi memcached rewrite/)
	->has_daemon('memcached')->plan(33);

my $d = $t->testdir();

# sun_path holds 108 bytes, with a null byte

my $long = 'l' x (107 - length "$d/");

$t->write_file_expand('nginx.conf', <<"EOC");

%%TEST_GLOBALS%%

daemon off;
worker_processes 3;

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_next_upstream off;
    fastcgi_next_upstream off;
    memcached_next_upstream off;

    upstream http {
        server 127.0.0.1:8081;
        keepalive 16 slice_key=\$host shared;
    }

    upstream both {
        server 127.0.0.1:8081;
        keepalive 16 shared;
    }

    upstream unix {
        server unix:$d/s;
        keepalive 16 slice_key=\$host shared;
    }

    upstream long {
        server unix:$d/$long;
        keepalive 16 slice_key=\$host shared;
    }

    upstream memcached {
        server 127.0.0.1:8082;
        keepalive 16 slice_key=\$host shared;
    }

    server {
        listen       127.0.0.1:8080 reuseport;
        server_name  localhost;

        add_header X-Worker \$pid always;
        add_header X-Keepalive \$upstream_keepalive always;

        location /http {
            proxy_pass http://http;
        }

        location /fastcgi {
            fastcgi_pass http;
            fastcgi_keep_conn on;
        }

        location /both/http {
            proxy_pass http://both;
        }

        location /both/fastcgi {
            fastcgi_pass both;
            fastcgi_keep_conn on;
        }

        location /unix {
            proxy_pass http://unix;
        }

        location /long {
            proxy_pass http://long;
        }

        location /memcached {
            set \$memcached_key \$arg_key;
            memcached_pass memcached;
        }

        location = /pid {
            return 204;
        }

        location = /status {
            keepalive_status;
        }
    }

    # what it answers, is of the request

    server {
        listen unix:$d/s;
        listen unix:$d/$long;

        add_header X-Connection \$connection;

        location / {
            return 200 "\$host \$uri";
        }
    }
}

EOC

my @user = $> == 0 ? ('-u', 'root') : ();
$t->run_daemon('memcached', '-l', '127.0.0.1', '-p', port(8082), '-U', 0,
	'-t', 1, @user);
$t->waitforsocket('127.0.0.1:' . port(8082)) or die "Can't start memcached\n";

start_backend($t, 8081);
$t->run();

my @w = workers($t, 3);

###############################################################################

for my $name (qw/ http fastcgi unix long /) {
	my $r = by($w[0], "/$name", 'a');
	is_new(my $c = conn($r), "$name first");

	$r = by($w[1], "/$name", 'a');
	is(conn($r) . ' ' . found_by($r), "$c BORROWED", "$name borrowed");
	$r = by($w[1], "/$name", 'a');
	is(conn($r) . ' ' . found_by($r), "$c HIT", "$name own");
	is_new(conn_by($w[2], "/$name", 'b'), "$name other host");
	is(conn_by($w[2], "/$name", 'a'), $c, "$name borrowed again");
}

# another protocol over the same server

my %c = map { $_ => conn_by($w[0], "/both/$_", 'a') } qw/ http fastcgi /;
isnt($c{http}, $c{fastcgi}, 'two protocols');
is(conn_by($w[1], "/both/$_", 'a'), $c{$_}, "$_ borrowed") for sort keys %c;

# each answer is that of its request

my $memcached = IO::Socket::INET->new('127.0.0.1:' . port(8082))
	or die "Can't connect to memcached: $!\n";

for my $n (1 .. 20) {
	my $value = "value $n;" x (1 + $n * $n);
	syswrite($memcached, "set key$n 0 0 " . length($value) . "\r\n$value\r\n");
	sysread($memcached, my $stored, 100);
	die "Not stored: $stored\n" unless $stored eq "STORED\r\n";
}

my ($begin, @wrong, %found) = total();

for my $n (1 .. 90) {
	my $key = $n % 23;
	my $r = by($w[$n % 3], "/memcached?key=key$key", 'a');

	$found{ found_by($r) }++;

	if ($key >= 1 && $key <= 20) {
		my $value = "value $key;" x (1 + $key * $key);
		push @wrong, "$n: $r" if $r !~ /\r\n\r\n\Q$value\E$/;

	} else {
		push @wrong, "$n: $r" if $r !~ / 404 /;
	}
}

is(join(', ', @wrong), '', 'memcached answers');
is(total() - $begin, 1, 'memcached one connection');
is($found{MISS}, 1, 'memcached one miss');
cmp_ok($found{BORROWED} || 0, '>', 50, 'memcached borrowed');

for my $host ('a' .. 'f') {
	for my $worker (@w, @w) {
		my $uri = "/unix/$host$worker";
		my $r = by($worker, $uri, $host);
		push @wrong, $r if $r !~ m!\r\n\r\nunix $uri$!;
	}
}

is(join(', ', @wrong), '', 'answers over a Unix socket');

# after a reload, the protocol is the same, and not that of another one

my ($http, $fastcgi) = @c{qw/ http fastcgi /};
my $of_memcached = total();
@w = renew($t, 3);

is(conn_by($w[2], '/both/fastcgi', 'a'), $fastcgi, 'FastCGI after reload');
is(conn_by($w[2], '/both/http', 'a'), $http, 'HTTP after reload');
is(conn_by($w[1], '/both/fastcgi', 'a'), $fastcgi, 'FastCGI again');
like(by($w[1], '/memcached?key=key1', 'a'), qr/value 1;value 1;$/,
	'memcached after reload');
is(total(), $of_memcached, 'memcached kept over reload');

###############################################################################

# connections that memcached has accepted

sub total {
	my $stats = '';

	syswrite($memcached, "stats\r\n");
	sysread($memcached, $stats, 65536, length $stats)
		while $stats !~ /^END\r\n/m;

	return $stats =~ /^STAT total_connections (\d+)/m ? $1 : -1;
}

# it ends with the script, although functions refer to it

END { undef $t; }

###############################################################################

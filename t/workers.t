#!/usr/bin/perl

# Tests for several workers: each has connections and limits of its own.

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

my $t = Test::Nginx->new()->has(qw/http proxy/)->plan(6);

my $d = $t->testdir();

$t->write_file_expand('nginx.conf', <<'EOC');

%%TEST_GLOBALS%%

daemon off;
worker_processes 4;

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    proxy_http_version 1.1;
    proxy_set_header Connection "";

    add_header X-Worker $pid;

    upstream u {
        zone u 64k;
        server 127.0.0.1:8081;
        keepalive 3 slice_key=$host slice_conn=2;
    }

    server {
        listen       127.0.0.1:8080 reuseport;
        server_name  localhost;

        location / {
            proxy_pass http://u;
        }
    }
}

EOC

start_backend($t, 8081);
$t->run();

###############################################################################

my (%conns, %workers, @failed);

for my $round (1 .. 5) {
	my @hosts = ('a', 'b', 'c', 'd') x 10;

	for my $host (@hosts) {
		my $r = http(request('GET', '/', $host));
		my ($worker) = $r =~ /^X-Worker: (\d+)/m;
		my $conn = conn($r);

		push @failed, $conn if $conn !~ /^\d+$/;
		$conns{$conn}{"$host of $worker"}++;
		$workers{$worker} = 1;
	}
}

is(join(', ', @failed), '', 'all answered');
cmp_ok(scalar keys %workers, '>', 1, 'several workers');
is(scalar(grep { keys %$_ > 1 } values %conns), 0,
	'none shared by hosts or workers');
ok((grep { $_ > 1 } map { values %$_ } values %conns), 'reused');

# many at once: limits are those of a worker

my @held = map { hold('/', $_) } ('a') x 30;
push @held, map { hold('/', $_) } ('b') x 30;
release($_) for @held;

ok(wait_for(sub { open_conns() <= 4 * 3 }), 'limit of a worker');
cmp_ok(open_conns(), '>', 3, 'limit is not of all');

###############################################################################

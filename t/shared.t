#!/usr/bin/perl

# Tests for shared: a worker uses connections that another one has saved, and
# the limits hold over all workers together.

###############################################################################

use warnings;
use strict;

use Test::More;

use FindBin;
use lib ($ENV{NGINX_TESTS_DIR} ? "$ENV{NGINX_TESTS_DIR}/lib" : ()),
	"$FindBin::Bin/lib";

use Test::Nginx;
use Test::Backend;
use Test::Status;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

my $t = Test::Nginx->new()->has(qw/http proxy/)->plan(14);

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
    add_header X-Keepalive $upstream_keepalive;

    upstream u {
        server 127.0.0.1:8081;
        keepalive 3 slice_key=$host slice_conn=2 shared;
    }

    server {
        listen       127.0.0.1:8080 reuseport;
        server_name  localhost;

        location / {
            proxy_pass http://u;
        }

        location = /status {
            keepalive_status json slices;
        }
    }
}

EOC

start_backend($t, 8081);
$t->run();

###############################################################################

my (%conns, %workers, %found, @failed);

for my $round (1 .. 50) {
	my $r = http(request('GET', '/', 'a'));
	my ($worker) = $r =~ /^X-Worker: (\d+)/m;
	my ($found) = $r =~ /^X-Keepalive: (\w+)/m;
	my $conn = conn($r);

	push @failed, $conn if $conn !~ /^\d+$/;
	$conns{$conn}{$worker}++;
	$workers{$worker} = 1;
	$found{$found}++;
}

is(join(', ', @failed), '', 'all answered');
cmp_ok(scalar keys %workers, '>', 1, 'several workers');
is(keys %conns, 1, 'one connection for all');
is($found{MISS}, 1, 'one miss');
cmp_ok($found{BORROWED}, '>', 5, 'borrowed');
cmp_ok($found{HIT}, '>', 5, 'own connections first');

my $u = json()->{upstreams}{u};
is($u->{shared}{borrowed}, $found{BORROWED}, 'borrowed are counted');
is($u->{hits}, 49, 'borrowed are hits');
is($u->{idle}, 1, 'idle');
is_deeply($u->{busiest_slices}, [ { key => 'a', idle => 1, hits => 49 } ],
	'slices of all workers');

# many at once: limits are those of all workers

my @held = map { hold('/', $_) } ('a') x 30;
push @held, map { hold('/', $_) } ('b') x 30;
release($_) for @held;

ok(wait_for(sub { open_conns() == 3 }), 'limit of all workers');
my %idle = map { $_->{key} => $_->{idle} } @{ json()->{upstreams}{u}{busiest_slices} };
cmp_ok($idle{a} + $idle{b}, '==', 3, 'all slots used');
ok($idle{a} <= 2 && $idle{b} <= 2, 'limit of a slice');
is(json()->{upstreams}{u}{idle}, 3, 'idle at the limit');

###############################################################################

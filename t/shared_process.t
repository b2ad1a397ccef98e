#!/usr/bin/perl

# Tests for shared by the life of processes: one worker, no master, an end while
# a request takes long, and other ways to wait for events.

###############################################################################

use warnings;
use strict;

use Test::More;

use FindBin;
use lib ($ENV{NGINX_TESTS_DIR} ? "$ENV{NGINX_TESTS_DIR}/lib" : ()),
	"$FindBin::Bin/lib";

use POSIX qw/ WNOHANG /;
use Time::HiRes qw/ time /;

use Test::Nginx qw/ :DEFAULT http_end /;
use Test::Backend;
use Test::Processes;
use Test::Status;
use Test::Workers;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

my $t = Test::Nginx->new()->has(qw/http proxy rewrite/);

# event methods that are there

my @methods = grep { $t->has_module("--with-${_}_module") } qw/ poll select /;

$t->plan(42 + 6 * @methods);

start_backend($t, 8081);

###############################################################################

# one worker: as without, and its connections outlive it

configure(1);
$t->run();

my ($w) = workers($t, 1);
my $c = get('/', 'a');
is(get('/', 'a'), $c, 'one worker');
is_new(get('/', 'b'), 'one worker other host');
is(json()->{upstreams}{u}{shared}{borrowed}, 0, 'nobody to borrow from');
together('/', ('a') x 6);
is(wait_open(5), 5, 'one worker limit');

($w) = renew($t, 1);
is(open_conns(), 5, 'one worker reload');
cmp_ok(reused(5, $w, qw/ a a a a b /), '==', 5, 'one worker all reused');

# fewer workers, and more

my @w = renew($t, 3, 'worker_processes 1' => 'worker_processes 3');
is(open_conns(), 5, 'more workers');
is(reused(5, $w[2], qw/ a a a a b /), 5, 'more workers all reused');
@w = renew($t, 2, 'worker_processes 3' => 'worker_processes 2');
is(open_conns(), 5, 'fewer workers');
is(reused(5, $w[1], qw/ a a a a b /), 5, 'fewer workers all reused');

# a long request of an old worker: idle connections move on at once, and the
# worker ends by worker_shutdown_timeout

my $held = hold_by($w[0], '/', 'b');
my $begin = time();
reload($t, 2);
my @new = workers($t, 2);

ok(wait_for(sub { dead($w[1]) }), 'worker without request exited');
is(reused(5, $new[0], qw/ a a a a /), 4, 'others used at once');
ok(kill(0, $w[0]), 'worker with request stays');
is_new(conn_by($new[1], '/', 'b'), 'its connection is not used');
ok(wait_for(sub { dead($w[0]) }), 'ended by timeout');
cmp_ok(time() - $begin, '>', 1.5, 'not before');
http_end($held->{socket});
is(wait_open(5), 5, 'its connection closed');
ok(wait_for(sub { json()->{upstreams}{u}{idle} == 5 }), 'counted');

# one that ends before: its connection is not kept, or it would be lost

$held = hold_by($new[0], '/', 'c');
reload($t, 2);
@w = workers($t, 2);
ok(wait_for(sub { dead($new[1]) }), 'other worker exited');
like(release($held), qr/^\d+$/, 'request of an old worker ends');
ok(wait_for(sub { dead($new[0]) }), 'its worker too');
is(wait_open(5), 5, 'its connection is not kept');
is(reused(5, $w[0], qw/ a a a a b /), 5, 'all others are');
is(json()->{upstreams}{u}{refused}{exiting}, 1, 'not kept is counted');

# the end of all: connections are closed, and nobody waits for them

for my $signal (qw/ QUIT TERM /) {
	my $idle = open_conns();
	ok($idle >= 2, "$signal idle");

	chomp(my $pid = $t->read_file('nginx.pid'));
	$begin = time();
	kill $signal, $pid;
	ok(ended($t, $pid), "$signal ended");
	cmp_ok(time() - $begin, '<', 2, "$signal at once");
	is(wait_open(0), 0, "$signal closed");

	$t->run();
	@w = workers($t, 2);
	is_new(conn_by($_, '/', $_), "$signal new start") for @w;
}

my $log = $t->read_file('error.log');
unlike($log, qr/open socket .* left in connection/, 'none left open');

$t->stop();

# without a master there is nobody to share with

configure(1, 'master_process off;');
$t->run();

$c = get('/', 'a');
is(get('/', 'a'), $c, 'no master');
is_new(get('/', 'b'), 'no master other host');
together('/', ('a') x 6);
is(wait_open(5), 5, 'no master limit');
my $u = json()->{upstreams}{u};
is("$u->{idle} " . ($u->{shared} ? $u->{shared}{borrowed} : 0), '5 0',
	'no master status');

$t->stop();
is(wait_open(0), 0, 'no master closed');

# other event methods

for my $method (@methods) {
	configure(2, '', "use $method;");
	$t->run();
	@w = workers($t, 2);

	$c = conn_by($w[0], '/', 'a');
	my $r = by($w[1], '/', 'a');
	is(conn($r) . ' ' . found_by($r), "$c BORROWED", "$method borrowed");
	conn_by($w[$_ % 2], '/', 'a') for 1 .. 20;
	is(open_conns(), 1, "$method one");

	# their own ends are seen

	break_idle('finish');
	is(wait_open(0), 0, "$method closed by the server");

	$c = conn_by($w[0], '/', 'a');
	@w = renew($t, 2);
	is(conn_by($w[1], '/', 'a'), $c, "$method reload");
	break_idle('finish');
	is(wait_open(0), 0, "$method closed after reload");
	is(json()->{upstreams}{u}{idle}, 0, "$method counted");

	$t->stop();
}

###############################################################################

# how many requests at the same time were on connections that no other had made

sub reused {
	my ($idle, $worker, @hosts) = @_;

	my @held = map { hold_by($worker, '/', $_) } @hosts;
	my $made = open_conns() - $idle;
	release($_) for @held;

	return @held - $made;
}

sub configure {
	my ($workers, $main, $events) = map { defined ? $_ : '' } @_[0 .. 2];

	$t->write_file_expand('nginx.conf', <<"EOC");

%%TEST_GLOBALS%%

daemon off;
worker_processes $workers;
worker_shutdown_timeout 2s;
$main

events {
    $events
}

http {
    %%TEST_GLOBALS_HTTP%%

    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_next_upstream off;

    add_header X-Worker \$pid always;
    add_header X-Keepalive \$upstream_keepalive always;

    upstream u {
        server 127.0.0.1:8081;
        keepalive 16 slice_key=\$host slice_conn=4 shared;
    }

    server {
        listen       127.0.0.1:8080 reuseport;
        server_name  localhost;

        location / {
            proxy_pass http://u;
        }

        location = /pid {
            return 204;
        }

        location = /status {
            keepalive_status json;
        }
    }
}
EOC
}

# it ends with the script, although functions refer to it

END { undef $t; }

###############################################################################

#!/usr/bin/perl

# Tests for shared when the binary is upgraded, and when the old one comes back:
# each of both shares connections among its own workers only, and closes them
# when it has none.

###############################################################################

use warnings;
use strict;

use Test::More;

use FindBin;
use lib ($ENV{NGINX_TESTS_DIR} ? "$ENV{NGINX_TESTS_DIR}/lib" : ()),
	"$FindBin::Bin/lib";

use Test::Nginx;
use Test::Backend;
use Test::Processes;
use Test::Status;
use Test::Workers;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

my $t = Test::Nginx->new()->has(qw/http proxy rewrite/);

my $binary = $Test::Nginx::NGINX;
my $d = $t->testdir();

# what a script has started is not what would be started again

plan(skip_all => 'nginx is started by a script') if script($binary);

$t->plan(28)->write_file_expand('nginx.conf', <<'EOC');

%%TEST_GLOBALS%%

daemon on;
worker_processes 2;

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_next_upstream off;

    add_header X-Worker $pid always;
    add_header X-Keepalive $upstream_keepalive always;

    upstream u {
        server 127.0.0.1:8081;
        keepalive 16 slice_key=$host slice_conn=4 shared;
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
            keepalive_status;
        }
    }
}

EOC

start_backend($t, 8081);

# only a daemon can be told to end its workers

my ($old, $new);

system($binary, '-p', "$d/", '-c', 'nginx.conf', '-e', 'error.log') == 0
	or die "Can't start nginx\n";

wait_for(sub { $old = pid('nginx.pid') }) or die "Can't start nginx\n";
$t->waitforsocket('127.0.0.1:' . port(8080)) or die "Can't connect\n";

###############################################################################

my @old = workers($t, 2);
my $c = conn_by($old[0], '/', 'a');
my $r = by($old[1], '/', 'a');
is(conn($r) . ' ' . found_by($r), "$c BORROWED", 'borrowed');
my %kept = map { $_ => 1 } map { release($_) }
	map { hold_by($_, '/', 'a') } @old;
is(open_conns(), 2, 'idle');

# both at the same time

upgrade();
isnt($new, $old, 'new binary');
my @new = workers($t, 2);

$r = by($new[0], '/', 'a');
is_new($c = conn($r), 'the new one has its own');
is(found_by($r), 'MISS', 'miss');
$r = by($new[1], '/', 'a');
is(conn($r) . ' ' . found_by($r), "$c BORROWED", 'new workers share');
$r = by($old[0], '/', 'a');
ok($kept{conn($r)}, 'the old one goes on');
is(open_conns(), 3, 'idle of both');

# the workers of the old one end

kill 'WINCH', $old;
ok(wait_for(sub { dead(@old) }), 'old workers exited');
is(wait_open(1), 1, 'theirs are closed');
is(conn_by($new[1], '/', 'a'), $c, 'the others are not');

# and it comes back

kill 'HUP', $old;
ok(wait_for(sub { (() = started($t)) == 6 }), 'old workers again');
my @again = workers($t, 2);

kill 'QUIT', $new;
ok(wait_for(sub { gone($new) }), 'new binary exited');
is(wait_open(0), 0, 'its connections are closed');

$r = by($again[0], '/', 'a');
is_new($c = conn($r), 'nothing left of before');
$r = by($again[1], '/', 'a');
is(conn($r) . ' ' . found_by($r), "$c BORROWED", 'borrowed again');
is(json()->{upstreams}{u}{idle}, 1, 'counted');

# it reloads as before

kill 'HUP', $old;
ok(wait_for(sub { (() = started($t)) == 8 && dead(@again) }), 'reload');
@again = workers($t, 2);
is(conn_by($again[1], '/', 'a'), $c, 'kept over reload');
is(open_conns(), 1, 'none new');

# the upgrade at last

upgrade();
@new = workers($t, 2);
conn_by($new[0], '/', 'b');
is(open_conns(), 2, 'idle of both again');

kill 'QUIT', $old;
ok(wait_for(sub { gone($old) }), 'old binary exited');
is(wait_open(1), 1, 'its connections are closed at last');
$r = by($new[1], '/', 'b');
is(found_by($r), 'BORROWED', 'borrowed at last');
my $b = conn($r);

kill 'HUP', $new;
ok(wait_for(sub { (() = started($t)) == 12 && dead(@new) }), 'reload at last');
@new = workers($t, 2);
is(conn_by($new[0], '/', 'b'), $b, 'kept over reload at last');

kill 'QUIT', $new;
ok(wait_for(sub { gone($new) }), 'exited at last');
is(wait_open(0), 0, 'all closed');

###############################################################################

# it is nobody's child, so there is nobody else to end it

END {
	for my $pid (grep { defined } $old, $new) {
		next if gone($pid);

		kill 'TERM', $pid;
		wait_for(sub { gone($pid) }) or kill 'KILL', $pid;
	}
}

sub upgrade {
	my $started = () = started($t);

	kill 'USR2', $old;
	wait_for(sub { -s "$d/nginx.pid.oldbin" });
	wait_for(sub { ($new = pid('nginx.pid')) && $new != $old });
	wait_for(sub { (() = started($t)) == $started + 2 })
		or die "Not upgraded\n";
}

# whoever has adopted it may not have taken notice

sub gone {
	my ($pid) = @_;

	return 1 unless kill 0, $pid;

	open my $fh, '<', "/proc/$pid/stat" or return 0;

	my $stat = <$fh>;

	return !defined $stat || $stat =~ /\) Z /;
}

sub script {
	my ($file) = @_;

	open my $fh, '<', $file or return;
	read $fh, my $start, 2;

	return $start eq '#!';
}

sub pid {
	my ($name) = @_;

	my $pid = eval { $t->read_file($name) };

	return defined $pid && $pid =~ /^(\d+)\n/ ? $1 : undef;
}

# it ends with the script, although functions refer to it

END { undef $t; }

###############################################################################

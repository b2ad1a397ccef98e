#!/usr/bin/perl

# Tests for the upgrade of the binary: the old one closes its idle connections and
# exits, the new one has its own.

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

use POSIX ();

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

my $t = Test::Nginx->new()->has(qw/http proxy/);

my $binary = $Test::Nginx::NGINX;
my $d = $t->testdir();

# what a script has started is not what would be started again

plan(skip_all => 'nginx is started by a script') if script($binary);

$t->plan(11)->write_file_expand('nginx.conf', <<'EOC');

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
        keepalive 16 slice_key=$host;
    }

    server {
        listen       127.0.0.1:8080;
        server_name  localhost;

        location / {
            proxy_pass http://u;
        }
    }
}

EOC

start_backend($t, 8081);

# nginx refuses to be upgraded as long as its parent is there

my ($old, $new);

my $parent = fork();
die "Can't fork: $!\n" unless defined $parent;

if ($parent == 0) {
	my $pid = fork();

	if (defined $pid && $pid == 0) {
		exec($binary, '-p', "$d/", '-c', 'nginx.conf',
			'-e', 'error.log') or POSIX::_exit(127);
	}

	wait_for(sub { -s "$d/nginx.pid" });
	POSIX::_exit(0);
}

waitpid $parent, 0;

wait_for(sub { $old = pid('nginx.pid') }) or die "Can't start nginx\n";
$t->waitforsocket('127.0.0.1:' . port(8080)) or die "Can't connect\n";

###############################################################################

my $c = get('/', 'a');
is(get('/', 'a'), $c, 'reused');

together('/', qw/ a b c /);
is(open_conns(), 3, 'idle');

kill 'USR2', $old;
wait_for(sub { -s "$d/nginx.pid.oldbin" });
wait_for(sub { ($new = pid('nginx.pid')) && $new != $old });

isnt($new, $old, 'new binary');
is(pid('nginx.pid.oldbin'), $old, 'old binary');
is(scalar(() = started($t, 2)), 2, 'new worker');

# the old worker's idle connections are its own

is(open_conns(), 3, 'idle after start of new binary');
kill 'QUIT', $old;

ok(wait_for(sub { gone($old) }), 'old binary exited');
is(wait_open(0), 0, 'idle closed');

my $n = get('/', 'a');
isnt($n, $c, 'new connection');
is(get('/', 'a'), $n, 'new connection reused');

kill 'QUIT', $new;
ok(wait_for(sub { gone($new) }), 'new binary exited');

###############################################################################

# it is nobody's child, so there is nobody else to end it

END {
	for my $pid (grep { defined } $old, $new) {
		next if gone($pid);
		kill 'TERM', $pid;
		wait_for(sub { gone($pid) }) or kill 'KILL', $pid;
	}
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

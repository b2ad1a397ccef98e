#!/usr/bin/perl

# Tests for shared where the system ends a process that asks for the descriptors
# of another one, as a filter of system calls may do: no worker asks; it costs
# reuse, and no request.

###############################################################################

use warnings;
use strict;

use Test::More;

use FindBin;
use lib ($ENV{NGINX_TESTS_DIR} ? "$ENV{NGINX_TESTS_DIR}/lib" : ()),
	"$FindBin::Bin/lib";

use POSIX ();

use Test::Nginx;
use Test::Backend;
use Test::Status;
use Test::Workers;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

# prctl(), which has not the same number everywhere, as those of pidfd_getfd() and
# pidfd_open() are

my %prctl = (x86_64 => 157, aarch64 => 167);
my ($prctl) = $^O eq 'linux' ? $prctl{(POSIX::uname())[4]} : undef;

plan(skip_all => 'no seccomp filters here') unless $prctl;
plan(skip_all => 'valgrind needs what it calls itself')
	if $ENV{TEST_NGINX_VALGRIND};

my %calls = (pidfd_open => 434, pidfd_getfd => 438);

my $t = Test::Nginx->new()->has(qw/http proxy rewrite/)
	->plan(1 + 15 * keys %calls);

my $d = $t->testdir();
my $nginx = $Test::Nginx::NGINX;

my $conf = <<'EOC';

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

    add_header X-Worker $pid always;
    add_header X-Keepalive $upstream_keepalive always;

    upstream u {
        server 127.0.0.1:8081;
        keepalive 16 slice_key=$host shared;
    }

    upstream few {
        server 127.0.0.1:8082;
        keepalive 2 slice_key=$host shared;
    }

    upstream fewer {
        server 127.0.0.1:8083;
        keepalive 8 slice_key=$host slice_conn=8 shared;
    }

    server {
        listen       127.0.0.1:8080 reuseport;
        server_name  localhost;

        location / {
            proxy_pass http://u;
        }

        location /few {
            proxy_pass http://few;
        }

        location /fewer {
            proxy_pass http://fewer;
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

start_backend($t, 8081 .. 8083);

my $warnings = 0;

###############################################################################

for my $call (sort keys %calls) {
	$t->write_file_expand('nginx.conf', $conf);
	start_filtered($calls{$call});

	my @w = workers($t, 3);

	# what another worker has saved, is not used

	my $a = conn_by($w[0], '/', 'a');
	my $r = ask($w[1], '/', 'a');
	like($r, qr/ 200 /, "$call: answered");
	is(found_by($r), 'MISS', "$call: miss");
	is(ask_conn($w[0], '/', 'a'), $a, "$call: own");

	my $u = json()->{upstreams}{u}{shared};
	is($u->{borrowed}, 0, "$call: none borrowed");
	is($u->{refused_handovers}, 1, "$call: refused is counted");
	is(scalar(() = $t->read_file('error.log')
		=~ /\[warn\].*of other workers to upstream "u" cannot be used/g),
		++$warnings, "$call: it says so");

	# Room for another one is made by the worker that holds the first ones.  The
	# one that needs it has not asked for any of another worker so far.

	ask($w[0], '/few', $_) for 'a', 'b';
	is(open_conns(8082), 2, "$call: at the limit");
	like(ask($w[2], '/few', 'c'), qr/ 200 /, "$call: one more");
	ok(wait_for(sub { open_conns(8082) == 1 }, 2), "$call: room is made");
	like(ask($w[2], '/few', 'd'), qr/ 200 /, "$call: another one");

	is(join(' ', workers($t, 3)), join(' ', @w), "$call: same workers");

	# a reload with a smaller limit, for which connections must go

	my @held = map { hold_by($w[$_], '/fewer', 'a') } (0, 1, 2) x 2;
	release($_) for @held;
	is(open_conns(8083), 6, "$call: idle");

	@w = renew($t, 3, 'slice_conn=8' => 'slice_conn=1');
	ok(wait_for(sub { open_conns(8083) == 1 }, 2), "$call: excess closed")
		or diag(open_conns(8083));

	my @answers = map { ask($_, '/fewer', 'a') } (@w) x 2;
	is(scalar(grep { / 200 / } @answers), 6, "$call: answered after reload");
	is(join(' ', workers($t, 3)), join(' ', @w),
		"$call: same workers after reload");

	$t->stop();
}

is(join("\n", $t->read_file('error.log') =~ /(worker process \d+ exited on.*)/g),
	'', 'no worker crashes');

###############################################################################

# It is nginx that is started, with a filter.  Each instruction has a code, two
# jumps and a number: load the number of the call; this one or not; allow it, or
# end the process.

sub start_filtered {
	my ($call) = @_;

	$t->write_file('filtered', <<"EOF");
#!$^X

my \$filter = join '', map { pack 'SCCL', \@\$_ } [ 0x20, 0, 0, 0 ],
	[ 0x15, 1, 0, $call ], [ 0x06, 0, 0, 0x7fff0000 ],
	[ 0x06, 0, 0, 0x80000000 ];
my \$program = pack 'S x![P] P', 4, \$filter;

syscall($prctl, 38, 1, 0, 0, 0) == 0 or die "No filters: \$!\\n";
syscall($prctl, 22, 2, \$program) == 0 or die "No filter: \$!\\n";

exec('$nginx', \@ARGV) or die "Can't start: \$!\\n";
EOF

	chmod 0755, "$d/filtered";
	$Test::Nginx::NGINX = "$d/filtered";

	$t->run();
}

# a request to a worker that may end meanwhile

sub ask {
	my ($worker, @request) = @_;

	my $r = http(request('GET', @request),
		socket => Test::Workers::to($worker));

	return defined $r ? $r : '';
}

sub ask_conn {
	return conn(ask(@_));
}

# it ends with the script, although functions refer to it

END { undef $t; }

###############################################################################

#!/usr/bin/perl

# Tests for shared where the system refuses a worker the descriptors of another
# one, as the seccomp profile of a container does: it costs reuse, and no request;
# limits hold; and a reload keeps connections, which needs no such right.

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
use Test::Processes;
use Test::Status;
use Test::Workers;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

# prctl(), which has not the same number everywhere, as pidfd_getfd() has

my %prctl = (x86_64 => 157, aarch64 => 167);
my ($prctl) = $^O eq 'linux' ? $prctl{(POSIX::uname())[4]} : undef;

plan(skip_all => 'no seccomp filters here') unless $prctl;
plan(skip_all => 'valgrind needs what it calls itself')
	if $ENV{TEST_NGINX_VALGRIND};

my $t = Test::Nginx->new()->has(qw/http proxy rewrite/)->plan(32);

my $d = $t->testdir();

$t->write_file_expand('nginx.conf', <<'EOC');

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
        keepalive 4 slice_key=$host slice_conn=3 shared;
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

# It is nginx that is started, with a filter.  Each instruction has a code, two
# jumps and a number: load the number of the call; pidfd_getfd() or not; allow it,
# or EPERM.

$t->write_file('filtered', <<"EOF");
#!$^X

my \$filter = join '', map { pack 'SCCL', \@\$_ } [ 0x20, 0, 0, 0 ],
	[ 0x15, 1, 0, 438 ], [ 0x06, 0, 0, 0x7fff0000 ], [ 0x06, 0, 0, 0x50001 ];
my \$program = pack 'S x![P] P', 4, \$filter;

syscall($prctl, 38, 1, 0, 0, 0) == 0 or die "No filters: \$!\\n";
syscall($prctl, 22, 2, \$program) == 0 or die "No filter: \$!\\n";

exec('$Test::Nginx::NGINX', \@ARGV) or die "Can't start: \$!\\n";
EOF

chmod 0755, "$d/filtered";
$Test::Nginx::NGINX = "$d/filtered";

start_backend($t, 8081 .. 8083);
$t->run();

my @w = workers($t, 3);

###############################################################################

my $a = conn_by($w[0], '/', 'a');
my $r = by($w[1], '/', 'a');
is_new(my $second = conn($r), 'a connection of its own');
is(found_by($r), 'MISS', 'miss');
like($r, qr/ 200 /, 'answered');

is(conn_by($w[0], '/', 'a'), $a, 'own');
is(conn_by($w[1], '/', 'a'), $second, 'own of the other one');

my $u = json()->{upstreams}{u};
is($u->{shared}{borrowed}, 0, 'none borrowed');
is($u->{shared}{refused_handovers}, 1, 'refused is counted');
is($u->{idle}, 2, 'idle');
is("$u->{hits} $u->{misses}", '2 2', 'hits and misses');

# each worker says so once

is(refusals('u'), 1, 'one warning');
conn_by($w[0], '/', $_), conn_by($w[1], '/', $_) for qw/ b c /;
is(refusals('u'), 1, 'one of a worker');
conn_by($w[2], '/', $_) for qw/ a b /;
is(refusals('u'), 2, 'one of another worker');
is(refusals('few'), 0, 'none about another upstream');
like($t->read_file('error.log'),
	qr/\[warn\].* "u" cannot be used \(1: Operation not permitted\)/, 'it says why');

# at the limit, the one that must go is another worker's, which closes it soon

my %few = map { $_ => conn_by($w[0], '/few', $_) } 'a' .. 'd';
is(open_conns(8082), 4, 'at the limit');

is_new(conn_by($w[1], '/few', 'e'), 'one more');
ok(wait_for(sub { open_conns(8082) <= 4 }, 1.5), 'not above the limit');
ok(wait_for(sub { open_conns(8082) == 3 }, 1.5), 'room is made');
is(json()->{upstreams}{few}{refused}{workers}, 1, 'one was not kept');

my $e = conn_by($w[1], '/few', 'e');
is(conn_by($w[1], '/few', 'e'), $e, 'now it is');
is(conn_by($w[0], '/few', $_), $few{$_}, "$_ stays") for 'b' .. 'd';
is_new(conn_by($w[0], '/few', 'a'), 'least recently used');

# many, of which all are refused

my @above;

for my $n (1 .. 60) {
	my @held = map { hold_by($w[rand 3], '/few', ('a' .. 'f')[rand 6]) } 1 .. 6;
	release($_) for @held;
	push @above, $n if !wait_for(sub { open_conns(8082) <= 4 }, 1.5);
}

is(join(', ', @above), '', 'limit holds');
ok(wait_for(sub { json()->{upstreams}{few}{idle} == open_conns(8082) }, 1.5),
	'counts right');

# a reload

my @held = map { hold_by($w[$_], '/fewer', 'a') } (0, 1, 2) x 2;
my %fewer = map { release($_) => 1 } @held;
my $before = open_conns(8081);
is(open_conns(8083), 6, 'idle');

@w = renew($t, 3, 'keepalive 8 slice_key=$host slice_conn=8' =>
	'keepalive 2 slice_key=$host slice_conn=8');

is(open_conns(8081), $before, 'all kept over reload');
cmp_ok(json()->{upstreams}{u}{shared}{kept_over_reload}, '>=', $before,
	'kept is counted');
ok((grep { found_by(by($_, '/', 'a')) eq 'HIT' } @w), 'and used');
ok(wait_for(sub { open_conns(8083) == 2 }, 2), 'excess closed')
	or diag(open_conns(8083));
ok((grep { $fewer{conn_by($_, '/fewer', 'a')} } @w), 'the rest is used');

###############################################################################

sub refusals {
	my ($upstream) = @_;

	return scalar(() = $t->read_file('error.log')
		=~ /\[warn\].*connections of other workers to upstream "$upstream"/g);
}

# it ends with the script, although functions refer to it

END { undef $t; }

###############################################################################

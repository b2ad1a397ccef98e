#!/usr/bin/perl

# Tests for shared over a reload that changes what slices are, or how many
# connections one may hold: the latest configuration holds, also for what workers
# of the one before save meanwhile; and what requests permit is left to them.

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

my $t = Test::Nginx->new()->has(qw/http proxy rewrite/)->plan(25);

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

    upstream dyn {
        server 127.0.0.1:8081;
        keepalive 16 slice_key=$host slice_conn=2 slice_dyn=$arg_n shared;
    }

    upstream strict {
        server 127.0.0.1:8082;
        keepalive 16 slice_key=$host slice_keylen=4 shared;
    }

    upstream fewer {
        server 127.0.0.1:8083;
        keepalive 16 slice_key=$host slice_conn=8 shared;
    }

    server {
        listen       127.0.0.1:8080 reuseport;
        server_name  localhost;

        location /dyn {
            proxy_pass http://dyn;
        }

        location /strict {
            proxy_pass http://strict;
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
$t->run();

my $master = $t->read_file('nginx.pid') + 0;
my @w = workers($t, 3);

###############################################################################

# more connections than slice_conn, since requests permit them; and a connection
# of a key that is cut

my %dyn = map { $_ => 1 } saved('/dyn?n=6');
is(open_conns(8081), 6, 'slice_dyn');

my $cut = conn_by($w[0], '/strict', 'abcdef');
is(conn_by($w[1], '/strict', 'abcd'), $cut, 'the key is cut');

# The keys are not cut any more, so the connection is none of the key that it was
# cut to.

@w = renew($t, 3, 'slice_keylen=4' => 'slice_keylen=4 slice_strict');

is(wait_open(0, 8082), 0, 'slice_strict: of a cut key, closed');
is_new(my $whole = conn_by($w[0], '/strict', 'abcd'), 'slice_strict: new');
isnt($whole, $cut, 'slice_strict: another one');
is(conn_by($w[1], '/strict', 'abcd'), $whole, 'slice_strict: used');

# of the other upstream, nothing has changed

is(open_conns(8081), 6, 'slice_dyn after reload');
is(json()->{upstreams}{dyn}{shared}{kept_over_reload}, 6,
	'slice_dyn: all kept');
is(scalar(grep { $dyn{$_} } saved('/dyn?n=6')), 6, 'slice_dyn: all used');
is(open_conns(8081), 6, 'slice_dyn: none new');

# as long as requests permit them

conn_by($w[0], '/dyn', 'a');
ok(wait_for(sub { open_conns(8081) == 2 }, 2), 'slice_conn again')
	or diag(open_conns(8081));

# a reload that leaves slice_strict, keeps connections

@w = renew($t, 3, 'slice_dyn=$arg_n' => 'slice_dyn=$arg_more');
is(conn_by($w[2], '/strict', 'abcd'), $whole, 'slice_strict: kept');

# Workers of both configurations are there, since the master is stopped before it
# tells those of the first one to quit; these save connections.

my @held = held('/fewer');

change('slice_conn=8' => 'slice_conn=1');
stop_worker($master);

my @new = (started($t))[-3 .. -1];
is(scalar(grep { worker_of(by($_, '/pid')) == $_ } @new), 3, 'both are there');

my %fewer = map { release($_) => 1 } @held;
is(scalar(keys %fewer), 6, 'answered by old workers');

soon_one('of old workers');

kill 'CONT', $master;
ok(wait_for(sub { dead(@w) }), 'old workers end');
@w = workers($t, 3);

soon_one('after them');
ok($fewer{conn_by($w[0], '/fewer', 'a')}, 'used by a new worker');

# a larger limit, and a smaller one again; the master tells the old workers to
# quit while their requests end

@w = renew($t, 3, 'slice_conn=1' => 'slice_conn=8');
saved('/fewer');
is(open_conns(8083), 6, 'larger');

@held = held('/fewer');
change('slice_conn=8' => 'slice_conn=1');
is(scalar(grep { /^\d+$/ } map { release($_) } @held), 6,
	'answered while workers quit');

ok(wait_for(sub { dead(@w) }), 'they end');
@w = workers($t, 3);

ok(wait_for(sub { open_conns(8083) <= 1 }, 2), 'not more than one stays')
	or diag(open_conns(8083));

# and it holds further on

saved('/fewer');
soon_one('of new workers');

my $u = json()->{upstreams}{fewer};
is("$u->{idle} $u->{slices}", '1 1', 'counts right');

is(scalar(() = $t->read_file('error.log') =~ /exited on signal/g), 0,
	'no worker crashes');

###############################################################################

# six requests that are under way at the same time, two of each worker

sub held {
	my ($uri) = @_;
	return map { hold_by($w[$_ % 3], $uri, 'a') } 0 .. 5;
}

# and their connections, which are idle

sub saved {
	return map { release($_) } held(@_);
}

sub soon_one {
	my ($name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;

	ok(wait_for(sub { open_conns(8083) == 1 }, 2), "$name, one stays")
		or diag(open_conns(8083));
}

# a reload that is not waited for

sub change {
	my ($from, $to) = @_;

	my $conf = $t->read_file('nginx.conf');
	$conf =~ s/slice_key=\$host \Q$from\E shared/slice_key=\$host $to shared/
		or die "Not in the configuration: $from\n";

	$t->write_file('nginx.conf', $conf);
	reload($t, 3) or die "No new workers\n";
}

# it ends with the script, although functions refer to it

END { undef $t; }

###############################################################################

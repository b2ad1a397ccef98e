#!/usr/bin/perl

# Tests for a flood of requests with different Hosts, TEST_NGINX_HOSTS of them:
# limits hold, memory does not grow, and nothing is left behind.

###############################################################################

use warnings;
use strict;

use Test::More;

use FindBin;
use lib ($ENV{NGINX_TESTS_DIR} ? "$ENV{NGINX_TESTS_DIR}/lib" : ()),
	"$FindBin::Bin/lib";

use IO::Select;
use IO::Socket::INET;

use Test::Nginx;
use Test::Backend;
use Test::Processes;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

# requests sent at once, on a connection of their own; nginx frees what it has
# allocated for a connection when it is closed

use constant BATCH => 100;

my $t = Test::Nginx->new()->has(qw/http proxy map/);

plan(skip_all => 'no /proc') unless -r "/proc/$$/status";

# a debug log of all of them would be long

my $hosts = $ENV{TEST_NGINX_HOSTS}
	|| ($t->has_module('--with-debug') ? 4000 : 20000);

$t->plan(17);

$t->write_file_expand('nginx.conf', <<'EOF');

%%TEST_GLOBALS%%

daemon off;

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    access_log off;
    error_log %%TESTDIR%%/error.log warn;

    lingering_close off;

    proxy_http_version 1.1;
    proxy_set_header Connection "";
    large_client_header_buffers 4 16k;

    map $host $limit {
        default        0;
        known.example  2;
    }

    upstream flood {
        server 127.0.0.1:8081;
        keepalive 100 slice_key=$host slice_conn=2 slice_poolsize=50
                      slice_keylen=9000;
    }

    upstream known {
        server 127.0.0.1:8082;
        keepalive 100 slice_key=$host slice_dyn=$limit;
    }

    server {
        listen       127.0.0.1:8080;
        server_name  localhost;

        location /flood/ {
            proxy_pass http://flood/;
        }

        location /known/ {
            proxy_pass http://known/;
        }
    }
}

EOF

start_backend($t, 8081, 8082);
$t->run();

###############################################################################

my $known = get('/known/', 'known.example');
my ($worker) = started($t, 1);
my ($sent, $most) = (0, 0);

# at first with long names: what memory they take is used for short ones then

flood('/flood/', 50, 1000, sub { my $n = shift; "$n." . 'x' x 8000 });
is($most, 50, 'slices of long names');

flood('/flood/', 50, $hosts / 10, sub { 'warm' . shift });

my ($fds, $memory) = (fds(), memory());

flood('/flood/', 50, $hosts * 0.8, sub { 'h' . shift . '.example' });
is($most, 50, 'slices');

flood('/known/', 1, $hosts / 10, sub { 'h' . shift . '.example' });
is($most, 1, 'those not known are not kept');

cmp_ok($sent, '>=', $hosts, 'requests');
ok(wait_for(sub { fds() == $fds }), 'files');

my $grown = memory() - $memory;
note("memory: $memory KB, grown by $grown KB");
cmp_ok($grown, '<', 300, 'memory');

is(get('/known/', 'known.example'), $known, 'known one is kept');
is_new(my $c = get('/flood/', 'known.example'), 'known one after the flood');
is(get('/flood/', 'known.example'), $c, 'known one again');
is_new(my $d = get('/flood/', 'h1.example'), 'one of the flood');
is(get('/flood/', 'h1.example'), $d, 'one of the flood again');

# the first of them used least recently

flood('/flood/', 50, 49, sub { 'last' . shift });
is(get('/flood/', 'h1.example'), $d, 'not pushed out by 49');
flood('/flood/', 50, 50, sub { 'last' . shift });
is_new(get('/flood/', 'h1.example'), 'pushed out by 50');

is(open_conns(8081), 50, 'idle');
is(break_idle('finish'), 51, 'closed by backend');
is(wait_open(0), 0, 'closed');

ok(wait_for(sub { fds() <= $fds - 51 }), 'files closed');

###############################################################################

# so many requests, each with another host; $most is the most connections that
# the upstream had after a batch, if it was not to go down to the limit

sub flood {
	my ($uri, $limit, $count, $host) = @_;

	my $port = $uri eq '/flood/' ? 8081 : 8082;

	$most = 0;

	for (my $n = 0; $n < $count; $n += BATCH) {
		my $batch = $count - $n < BATCH ? $count - $n : BATCH;
		my $requests = '';

		for my $i (1 .. $batch) {
			$requests .= "GET $uri HTTP/1.1\n"
				. 'Host: ' . $host->($n + $i) . "\n"
				. ($i == $batch ? "Connection: close\n\n" : "\n");
		}

		answers($requests, $batch);
		$sent += $batch;

		my $open;

		wait_for(sub { ($open = open_conns($port)) <= $limit });
		$most = $open if $open > $most;
		return if $most > $limit;
	}
}

sub answers {
	my ($requests, $expected) = @_;

	my $in = '';
	my $client = IO::Socket::INET->new('127.0.0.1:' . port(8080))
		or die "Can't connect to nginx: $!\n";
	my $select = IO::Select->new($client);

	while (1) {
		my ($read, $write) = IO::Select->select($select,
			length $requests ? $select : undef, undef, 10);
		die "No answer\n" unless $read || $write;

		if (@{$write || []}) {
			my $n = syswrite($client, $requests, 65536);
			substr($requests, 0, $n || 0) = '';
		}

		last if @{$read || []} && !sysread($client, $in, 65536, length $in);
	}

	my $bodies = () = $in =~ /^X-Connection: \d+\n/gm;
	die "Not all answered: $in\n" if $bodies != $expected;
}

sub fds {
	return scalar(() = glob "/proc/$worker/fd/*");
}

# what the worker has of its own, in KB

sub memory {
	open my $fh, '<', "/proc/$worker/status" or die "Can't open: $!\n";

	my ($data) = join('', <$fh>) =~ /^RssAnon:\s+(\d+)/m;

	return $data;
}

###############################################################################

#!/usr/bin/perl

# Tests for memcached_pass, with a memcached.

###############################################################################

use warnings;
use strict;

use Test::More;

use FindBin;
use lib ($ENV{NGINX_TESTS_DIR} ? "$ENV{NGINX_TESTS_DIR}/lib" : ()),
	"$FindBin::Bin/lib";

use Test::Nginx;
use Test::Backend;

use IO::Select;
use IO::Socket::INET;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

my $t = Test::Nginx->new()->has(qw/http rewrite memcached/)
	->has_daemon('memcached')->plan(18);

$t->write_file_expand('nginx.conf', <<'EOC');

%%TEST_GLOBALS%%

daemon off;

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    upstream sliced {
        server 127.0.0.1:8081;
        keepalive 8 slice_key=$host;
    }

    upstream plain {
        server 127.0.0.1:8081;
        keepalive 8;
    }

    upstream one {
        server 127.0.0.1:8081;
        keepalive 1 slice_key=$host;
    }

    server {
        listen       127.0.0.1:8080;
        server_name  localhost;

        set $memcached_key $uri;

        location /sliced/ {
            memcached_pass sliced;
        }

        location /plain/ {
            memcached_pass plain;
        }

        location /one/ {
            memcached_pass one;
        }
    }
}

EOC

my @user = $> == 0 ? ('-u', 'root') : ();

$t->run_daemon('memcached', '-l', '127.0.0.1', '-p', port(8081), '-U', 0,
	'-t', 1, @user);
$t->waitforsocket('127.0.0.1:' . port(8081)) or die "Can't start memcached\n";
$t->run();

###############################################################################

my $memcached = IO::Socket::INET->new(
	Proto => 'tcp',
	PeerAddr => '127.0.0.1:' . port(8081),
) or die "Can't connect to memcached: $!\n";

for my $u (qw/ sliced plain one /) {
	ask("set /$u/x 0 0 3\r\nSEE\r\n", qr/STORED\r\n/);
}

my $big = 'x' x 500000;
ask("set /sliced/big 0 0 500000\r\n$big\r\n", qr/STORED\r\n/);

# connections that a request makes

like(host('/sliced/x', 'a'), qr/SEE/, 'found');

is(made('/sliced/x', 'a'), 0, 'same host');
is(made('/sliced/x', 'b'), 1, 'other host');
is(made('/sliced/x', 'b'), 0, 'other host again');
is(made('/sliced/x', 'a'), 0, 'first host again');
is(made('/sliced/x', 'c'), 1, 'one more host');

like(host('/sliced/none', 'a'), qr/ 404 /, 'not found');
is(made('/sliced/none', 'a'), 0, 'not found reused');
is(made('/sliced/x', 'a'), 0, 'found after not found');

cmp_ok(length host('/sliced/big', 'a'), '>', 500000, 'big');
is(made('/sliced/big', 'a'), 0, 'big reused');
is(stat_of('curr_connections'), 3 + mine(), 'a connection of each host');

# without a slice key

is(made('/plain/x', 'a'), 1, 'without slice key');
is(made('/plain/x', 'b'), 0, 'without slice key other host');

# another host makes room

is(made('/one/x', 'a'), 1, 'one');
is(made('/one/x', 'b'), 1, 'one other host');
is(made('/one/x', 'a'), 1, 'one first host');
ok(wait_for(sub { stat_of('curr_connections') == 5 + mine() }), 'one kept');

###############################################################################

sub host {
	my ($uri, $host) = @_;

	return http(request('GET', $uri, $host));
}

sub made {
	my ($uri, $host) = @_;

	my $before = stat_of('total_connections');
	my $r = host($uri, $host);
	my $after = stat_of('total_connections');

	return $r =~ m{^HTTP/1.1 (?:200|404) } ? $after - $before : $r;
}

# connections that memcached counts, but are not nginx's

my $mine;

sub mine {
	return $mine if defined $mine;

	# three were made by nginx before this is asked for the first time

	return $mine = stat_of('curr_connections') - 3;
}

sub stat_of {
	my ($name) = @_;

	my $stats = ask("stats\r\n", qr/^END\r\n/m);

	return $stats =~ /^STAT $name (\d+)/m ? $1 : -1;
}

sub ask {
	my ($command, $end) = @_;

	my $answer = '';

	print $memcached $command;
	$memcached->flush();

	while ($answer !~ $end) {
		IO::Select->new($memcached)->can_read(8)
			or die "No answer of memcached\n";
		sysread($memcached, $answer, 65536, length $answer)
			or die "memcached is gone\n";
	}

	return $answer;
}

###############################################################################

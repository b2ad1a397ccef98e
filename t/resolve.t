#!/usr/bin/perl

# Tests for servers whose name is resolved again: a connection stays with the
# address that it was made to.

###############################################################################

use warnings;
use strict;

use Test::More;

use FindBin;
use lib ($ENV{NGINX_TESTS_DIR} ? "$ENV{NGINX_TESTS_DIR}/lib" : ()),
	"$FindBin::Bin/lib";

use Test::Nginx;
use Test::Backend;

use IO::Socket::INET;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

my $t = Test::Nginx->new()->has(qw/http proxy rewrite upstream_zone/);

my $d = $t->testdir();

# the number of the port is taken on 127.0.0.1 only

my $dns = '127.0.0.2:' . port(8053);

$t->write_file_expand('nginx.conf', <<"EOC");

%%TEST_GLOBALS%%

daemon off;

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    proxy_http_version 1.1;
    proxy_set_header Connection "";

    resolver $dns ipv6=off valid=1s;
    resolver_timeout 2s;

    upstream before {
        zone before 256k;
        keepalive 16 slice_key=\$host;
        server backend.example:%%PORT_8081%% resolve;
    }

    upstream after {
        server backend.example:%%PORT_8081%% resolve;
        zone after 256k;
        least_conn;
        keepalive 16 slice_key=\$host;
    }

    server {
        listen       127.0.0.1:8080;
        server_name  localhost;

        location /before/ {
            proxy_pass http://before;
        }

        location /after/ {
            proxy_pass http://after;
        }
    }

    server {
        listen       127.0.0.1:8081;
        listen       127.0.0.2:%%PORT_8081%%;
        listen       127.0.0.3:%%PORT_8081%%;

        location / {
            add_header X-Connection \$connection;
            add_header X-Server \$server_addr;
            return 200;
        }
    }
}

EOC

$t->write_file('addresses', '127.0.0.1');
$t->run_daemon(\&dns, $dns, "$d/addresses");
wait_for(sub { -f "$d/addresses.ready" }) or die "Can't start DNS\n";

$t->try_run('no resolve of servers')->plan(19);

###############################################################################

my %conns;

# Tengine's own round robin cannot stand a request while it has no address

wait_for(sub { -f "$d/addresses.answered" });

for my $u (qw/ before after /) {
	ok(wait_for(sub { ask("/$u/", 'a') eq '127.0.0.1' }), "$u resolved");
}

check('127.0.0.1');
resolve('127.0.0.2');
check('127.0.0.2');
resolve('127.0.0.2', '127.0.0.3');
check('127.0.0.2 127.0.0.3');
resolve('127.0.0.1');
check('127.0.0.1');

is(join("\n", $t->read_file('error.log') =~ /^.*\[warn\].*$/mg), '',
	'no warnings');

###############################################################################

sub check {
	my ($expected) = @_;

	for my $u (qw/ before after /) {
		my (%servers, @wrong);

		ok(wait_for(sub { servers($u) eq $expected }),
			"$u turned to $expected");

		for my $host (('a', 'b') x 8) {
			my $r = http(request('GET', "/$u/", $host));
			my ($server) = $r =~ /^X-Server: (\S+)/m;
			my $is = "$u $host " . ($server || 'none');

			my $was = $conns{conn($r)} ||= $is;
			push @wrong, "$is by connection of $was" if $is ne $was;
			$servers{"$host " . ($server || 'none')}{conn($r)} = 1;
		}

		push @wrong, 'new ones' if grep { keys %$_ > 1 }
			values %servers;

		is(join(', ', @wrong), '', "$u reused by address");
	}
}

sub servers {
	my ($u) = @_;

	my %servers = map { ask("/$u/", $_) => 1 } ('a', 'b') x 4;

	return join ' ', sort keys %servers;
}

sub ask {
	my ($uri, $host) = @_;

	my $r = http(request('GET', $uri, $host));
	my $server = $r =~ /^X-Server: (\S+)/m ? $1 : 'none';

	return $server;
}

sub resolve {
	my (@addresses) = @_;

	$t->write_file('addresses.new', "@addresses");
	rename "$d/addresses.new", "$d/addresses"
		or die "Can't rename addresses: $!\n";
}

# answers each question with all addresses of the file

sub dns {
	my ($address, $file) = @_;

	my $s = IO::Socket::INET->new(
		Proto => 'udp',
		LocalAddr => $address,
	) or die "Can't listen: $!\n";

	open my $ready, '>', "$file.ready" or die "Can't create: $!\n";
	close $ready;

	while (1) {
		my $from = recv($s, my $query, 4096, 0);
		next unless defined $from;

		open my $fh, '<', $file or next;
		my @addresses = split ' ', <$fh>;
		close $fh;

		my ($question) = $query =~ /^.{12}((?:[^\0][^\0]*)\0.{4})/s;
		next unless defined $question;

		send($s, substr($query, 0, 2)
			. pack('n5', 0x8180, 1, scalar @addresses, 0, 0)
			. $question
			. join('', map {
				pack('n3Nn', 0xc00c, 1, 1, 1, 4)
				. pack('C4', split /\./)
			} @addresses), 0, $from);

		open my $answered, '>', "$file.answered"
			or die "Can't create: $!\n";
		close $answered;
	}
}

# it ends with the script, although functions refer to it

END { undef $t; }

###############################################################################

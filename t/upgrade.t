#!/usr/bin/perl

# Tests for upgraded connections (101): never kept.

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

my $t = Test::Nginx->new()->has(qw/http proxy map/)->plan(15);

$t->write_file_expand('nginx.conf', <<'EOC');

%%TEST_GLOBALS%%

daemon off;

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    map $http_upgrade $upstream_connection {
        default  upgrade;
        ''       '';
    }

    proxy_http_version 1.1;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection $upstream_connection;

    upstream u {
        server 127.0.0.1:8081;
        keepalive 8 slice_key=$host;
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

$t->run_daemon(\&daemon, port(8081));
$t->waitforsocket('127.0.0.1:' . port(8081)) or die "Can't start daemon\n";
$t->run();

###############################################################################

my $c = get('/', 'a');
is(get('/', 'a'), $c, 'reused');

# the idle connection is upgraded, and is closed with its client

my ($s, $u) = upgrade('a');
is($u, $c, 'upgraded');
is(echo($s, 'one'), 'ONE', 'passed on');
is_new(my $n = get('/', 'a'), 'other connection meanwhile');
is(echo($s, 'two'), 'TWO', 'passed on again');

close $s;
ok(wait_for(sub { alive() == 1 }), 'closed with the client');
is(get('/', 'a'), $n, 'other connection kept');

# closed by the server

my ($s2, $u2) = upgrade('a');
is($u2, $n, 'upgraded again');
is(echo($s2, 'bye'), '', 'closed by server');
is_new($n = get('/', 'a'), 'new one after close by server');

# a refused upgrade is a response like any other

my $r = http(upgrade_request('/refused', 'a'));
is(conn($r), $n, 'refused');
is(get('/', 'a'), $n, 'reused after refused');

# the one upgraded is of its slice, too

my ($s3, $u3) = upgrade('b');
is_new($u3, 'upgraded by other host');
is(get('/', 'a'), $n, 'first host');
close $s3;
ok(wait_for(sub { alive() == 1 }), 'other host closed');

###############################################################################

sub upgrade_request {
	my ($uri, $host) = @_;

	return "GET $uri HTTP/1.1\r\nHost: $host\r\n"
		. "Upgrade: test\r\nConnection: upgrade, close\r\n\r\n";
}

sub upgrade {
	my ($host) = @_;

	my $s = http(upgrade_request('/', $host), start => 1);

	return $s, conn(read_part($s, qr/\r\n\r\n/));
}

sub echo {
	my ($s, $text) = @_;

	syswrite($s, "$text\n");

	my $answer = read_part($s, qr/\n/);
	chomp $answer;

	return $answer;
}

sub read_part {
	my ($s, $end) = @_;

	my $part = '';

	while ($part !~ $end) {
		IO::Select->new($s)->can_read(8) or last;
		sysread($s, $part, 4096, length $part) or last;
	}

	return $part;
}

# connections of nginx to the daemon

sub alive {
	my $s = IO::Socket::INET->new(
		Proto => 'tcp',
		PeerAddr => '127.0.0.1:' . port(8081),
	) or die "Can't connect: $!\n";

	syswrite($s, "count\n");
	IO::Select->new($s)->can_read(8) or die "No answer\n";
	sysread($s, my $count, 100);

	return $count - 1;
}

# upgraded, it sends each line back in capitals

sub daemon {
	my ($port) = @_;

	$SIG{PIPE} = 'IGNORE';

	my $listen = IO::Socket::INET->new(
		Proto => 'tcp',
		LocalAddr => "127.0.0.1:$port",
		Listen => 511,
		ReuseAddr => 1,
	) or die "Can't listen: $!\n";

	my $select = IO::Select->new($listen);
	my (%number, %upgraded, $connections);

	while (my @ready = $select->can_read()) {
		my @asked;

		for my $s (@ready) {
			if ($s == $listen) {
				my $c = $listen->accept() or next;
				$number{$c} = ++$connections;
				$select->add($c);
				next;
			}

			my $n = sysread($s, my $data, 65536);

			if (!$n || $data eq "bye\n") {
				$select->remove($s);
				delete $number{$s};
				delete $upgraded{$s};
				close $s;

			} elsif ($data eq "count\n") {
				push @asked, $s;

			} elsif ($upgraded{$s}) {
				syswrite($s, uc $data);

			} else {
				$upgraded{$s} = $data =~ /^Upgrade: /m
					&& $data !~ /refused/;
				syswrite($s, head($number{$s}, $upgraded{$s}));
			}
		}

		syswrite($_, scalar keys %number) for @asked;
	}
}

sub head {
	my ($number, $upgrade) = @_;

	return "HTTP/1.1 101 Switching\r\nX-Connection: $number\r\n"
		. "Upgrade: test\r\nConnection: upgrade\r\n\r\n" if $upgrade;

	return "HTTP/1.1 200 OK\r\nX-Connection: $number\r\n"
		. "Content-Length: 0\r\n\r\n";
}

###############################################################################

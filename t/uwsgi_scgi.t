#!/usr/bin/perl

# Tests for uwsgi_pass and scgi_pass: their connections are never kept, also if
# the server would.

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

my $t = Test::Nginx->new()->has(qw/http uwsgi scgi/)->plan(18);

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

    server {
        listen       127.0.0.1:8080;
        server_name  localhost;

        location /uwsgi/sliced/ {
            uwsgi_pass sliced;
        }

        location /scgi/sliced/ {
            scgi_pass sliced;
        }

        location /uwsgi/plain/ {
            uwsgi_pass plain;
        }

        location /scgi/plain/ {
            scgi_pass plain;
        }
    }
}

EOC

$t->run_daemon(\&daemon, port(8081));
$t->waitforsocket('127.0.0.1:' . port(8081)) or die "Can't start daemon\n";
$t->run();

###############################################################################

for my $protocol (qw/ uwsgi scgi /) {
	for my $u (qw/ sliced plain /) {
		is_new(get("/$protocol/$u/", 'a'), "$protocol $u");
		is_new(get("/$protocol/$u/", 'a'), "$protocol $u same host");
		is_new(get("/$protocol/$u/", 'b'), "$protocol $u other host");
	}

	# a response without a body

	is_new(get("/$protocol/sliced/empty", 'a'), "$protocol empty");
	is_new(get("/$protocol/sliced/empty", 'a'), "$protocol empty again");
}

# a connection is left to be counted: this one

ok(wait_for(sub { count() == 1 }), 'all are closed');
is(count(), 1, 'and stay closed');

###############################################################################

sub count {
	my $s = IO::Socket::INET->new(
		Proto => 'tcp',
		PeerAddr => '127.0.0.1:' . port(8081),
	) or die "Can't connect: $!\n";

	syswrite($s, "count\n");
	IO::Select->new($s)->can_read(8) or die "No answer\n";
	sysread($s, my $count, 100);

	return $count;
}

# both protocols send the request in one piece, and end no response

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
	my (%number, $connections);

	while (my @ready = $select->can_read()) {
		my @asked;

		for my $s (@ready) {
			if ($s == $listen) {
				my $c = $listen->accept() or next;
				$number{$c} = ++$connections;
				$select->add($c);
				next;
			}

			my $n = sysread($s, my $request, 65536);

			if (!$n) {
				$select->remove($s);
				delete $number{$s};
				close $s;

			} elsif ($request eq "count\n") {
				push @asked, $s;

			} else {
				syswrite($s, response($number{$s},
					$request =~ /empty/));
			}
		}

		syswrite($_, scalar keys %number) for @asked;
	}
}

sub response {
	my ($number, $empty) = @_;

	my $body = $empty ? '' : "X-Connection: $number\n";
	my $length = length $body;

	return "Status: 200 OK\r\nX-Connection: $number\r\n"
		. "Content-Length: $length\r\n\r\n$body";
}

###############################################################################

package Test::Backend;

# A backend for tests of keepalive, and what a script asks it.
#
# Each response says on which connection it was sent: connections are numbered
# in the order they came, over all ports of the backend.  What is answered is
# chosen by the last part of the URI, see Test::Backend::HTTP.  A request with
# the header X-Hold is not answered before release(), so that several connections
# are in use at the same time.
#
# Connections that nginx has to the backend are counted, and broken, through a
# port of its own, 8090.

###############################################################################

use warnings;
use strict;

use base qw/ Exporter /;

use Test::Nginx qw/ :DEFAULT http_end /;
use Test::Backend::Server;
use Test::Requests;
use Test::Wait;

# what most scripts use, along with it

our @EXPORT = (qw/
	on_request start_backend together hold let_go release open_conns
	wait_open break_idle wait_for
/, @Test::Requests::EXPORT);

###############################################################################

use IO::Select;
use IO::Socket::INET;

my ($control, $holds, $on_request);

###############################################################################

# Before the start: what the backend does with a connection's requests.  It
# returns the status, and more header lines; or nothing, and the connection is
# closed without an answer.

sub on_request {
	($on_request) = @_;
}

sub start_backend {
	my ($t, @ports) = @_;

	# choose ports before the fork

	port($_) for @ports, 8090;

	$t->run_daemon(\&serve, $on_request, map { port($_) } 8090, @ports);
	$t->waitforsocket('127.0.0.1:' . port(8090))
		or die "Can't start backend\n";
}

# requests that are in flight at the same time, one for each host; answered in
# their order, and so are the connections handed back

sub together {
	my ($uri, @hosts) = @_;

	my @held = map { hold($uri, $_) } @hosts;

	return map { release($_) } @held;
}

# also on a connection that is there, and with more headers

sub hold {
	my ($uri, $host, $socket, $headers) = @_;

	my $id = ++$holds;

	$headers = '' unless defined $headers;

	my $s = http(request('GET', $uri, $host, "X-Hold: $id\n$headers"),
		start => 1, socket => $socket);

	control("held $id");

	return { id => $id, socket => $s };
}

# the backend answers, and the answer is not waited for

sub let_go {
	my ($held) = @_;

	control("release $held->{id}");
}

sub release {
	my ($held) = @_;

	let_go($held);

	return conn(http_end($held->{socket}));
}

# connections nginx has to the backend

sub open_conns {
	my ($port) = @_;

	return control('open ' . (defined $port ? port($port) : 0));
}

sub wait_open {
	my ($expected, $port) = @_;

	my $open;

	wait_for(sub { ($open = open_conns($port)) == $expected });

	return $open;
}

# how: finish (end of file), junk (bytes nobody asked for), reset

sub break_idle {
	my ($how) = @_;

	return control("break $how");
}

sub control {
	my ($command) = @_;

	$control ||= IO::Socket::INET->new(
		Proto => 'tcp',
		PeerAddr => '127.0.0.1:' . port(8090),
	) or die "Can't connect to backend: $!\n";

	syswrite($control, "$command\n");

	my $answer = '';

	while ($answer !~ /\n/) {
		IO::Select->new($control)->can_read(LIMIT)
			or die "No answer to \"$command\"\n";
		sysread($control, $answer, 4096, length $answer)
			or die "Backend is gone\n";
	}

	chomp $answer;

	return $answer;
}

###############################################################################

1;

###############################################################################

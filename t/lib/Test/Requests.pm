package Test::Requests;

# Requests through nginx to Test::Backend, and by which connection to the backend
# they were answered.

###############################################################################

use warnings;
use strict;

use base qw/ Exporter /;

our @EXPORT = qw/ conn is_new get post request exchange /;

###############################################################################

use IO::Select;
use Test::More ();

use Test::Nginx;
use Test::Wait;

my %seen;

###############################################################################

# the connection a response came by

sub conn {
	my ($response) = @_;

	$response = '' unless defined $response;

	if ($response =~ /X-Connection: (\d+)/i) {
		$seen{$1}++;
		return $1;
	}

	my ($line) = $response =~ /^([^\r\n]*)/;

	return "none: '$line'";
}

# a connection that no response came by before

sub is_new {
	my ($conn, $name) = @_;

	my $new = $conn =~ /^\d+$/ && $seen{$conn} == 1;

	local $Test::Builder::Level = $Test::Builder::Level + 1;

	Test::More::ok($new, $name)
		or Test::More::diag("         got: $conn\n"
			. "    expected: a new connection");
}

sub get {
	my ($uri, $host, $headers) = @_;

	return conn(http(request('GET', $uri, $host, $headers)));
}

sub post {
	my ($uri, $host, $body) = @_;

	my $length = length $body;

	return conn(http(request('POST', $uri, $host,
		"Content-Length: $length\n"), body => $body));
}

sub request {
	my ($method, $uri, $host, $headers) = @_;

	$host = 'localhost' unless defined $host;
	$headers = '' unless defined $headers;

	return "$method $uri HTTP/1.0\nHost: $host\n$headers\n";
}

# on a connection of the client's that stays open after the answer

sub exchange {
	my ($s, $request) = @_;

	my $r = '';

	http($request, socket => $s, start => 1);

	until ($r =~ /\r\n\r\n(.*)/s && length $1 >= body_length($r)) {
		IO::Select->new($s)->can_read(LIMIT) or last;
		sysread($s, $r, 65536, length $r) or last;
	}

	return $r;
}

sub body_length {
	my ($r) = @_;

	return $r =~ /^Content-Length: (\d+)/mi ? $1 : 0;
}

###############################################################################

1;

###############################################################################

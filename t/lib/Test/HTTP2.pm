package Test::HTTP2;

# A client of HTTP/2 without TLS: several requests at once on a connection, all
# without a body.  Of responses, only bodies are read, as the headers may be
# compressed.

###############################################################################

use warnings;
use strict;

use base qw/ Exporter /;

our @EXPORT = qw/ http2_client http2_send http2_body http2_get /;

###############################################################################

use IO::Select;
use IO::Socket::INET;
use Socket qw/ IPPROTO_TCP TCP_NODELAY /;

use Test::Nginx;
use Test::Wait;

use constant { DATA => 0, HEADERS => 1, RST_STREAM => 3, SETTINGS => 4,
	PING => 6, GOAWAY => 7, WINDOW_UPDATE => 8 };
use constant { END_STREAM => 1, ACK => 1, END_HEADERS => 4 };

###############################################################################

sub http2_client {
	my ($number) = @_;

	my $s = IO::Socket::INET->new(
		Proto => 'tcp',
		PeerAddr => '127.0.0.1:' . port($number),
	) or die "Can't connect to nginx: $!\n";

	# many small frames, none of which waits for an answer to the last

	setsockopt($s, IPPROTO_TCP, TCP_NODELAY, 1) or die "No option: $!\n";

	my $client = { socket => $s, in => '', next => 1, body => {}, ended => {} };

	write_all($client, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
		. frame(SETTINGS, 0, 0, ''));

	return $client;
}

# a stream, whose response http2_body() waits for

sub http2_send {
	my ($client, $uri, %headers) = @_;

	my $stream = $client->{next};

	$client->{next} += 2;
	write_all($client, frame(HEADERS, END_STREAM | END_HEADERS, $stream,
		join '', literal(':method', 'GET'), literal(':scheme', 'http'),
		literal(':path', $uri), literal(':authority', 'localhost'),
		map { literal($_, $headers{$_}) } sort keys %headers));

	return $stream;
}

# or nothing, if there is no response

sub http2_body {
	my ($client, $stream) = @_;

	until ($client->{ended}{$stream}) {
		return '' if $client->{closed};
		frames($client);
	}

	return $client->{body}{$stream} || '';
}

sub http2_get {
	my ($client, @request) = @_;

	return http2_body($client, http2_send($client, @request));
}

###############################################################################

sub frames {
	my ($client) = @_;

	unless (IO::Select->new($client->{socket})->can_read(LIMIT)
		&& sysread($client->{socket}, $client->{in}, 65536,
			length $client->{in}))
	{
		$client->{closed} = 1;
		return;
	}

	while (length $client->{in} >= 9) {
		my ($high, $low, $type, $flags, $stream)
			= unpack('CnCCN', $client->{in});
		my $length = ($high << 16) + $low;

		return if length $client->{in} < 9 + $length;

		my $payload = substr($client->{in}, 9, $length);
		substr($client->{in}, 0, 9 + $length) = '';

		came($client, $type, $flags, $stream, $payload);
	}
}

sub came {
	my ($client, $type, $flags, $stream, $payload) = @_;

	if ($type == SETTINGS && !($flags & ACK)) {
		write_all($client, frame(SETTINGS, ACK, 0, ''));

	} elsif ($type == PING && !($flags & ACK)) {
		write_all($client, frame(PING, ACK, 0, $payload));

	} elsif ($type == DATA && length $payload) {
		$client->{body}{$stream} .= $payload;
		write_all($client, frame(WINDOW_UPDATE, 0, 0,
			pack('N', length $payload)));

	} elsif ($type == GOAWAY) {
		$client->{goaway} = 1;
	}

	$client->{ended}{$stream} = 1 if $type == RST_STREAM
		|| ($type == DATA || $type == HEADERS) && $flags & END_STREAM;
}

sub frame {
	my ($type, $flags, $stream, $payload) = @_;

	return substr(pack('N', length $payload), 1)
		. pack('CCN', $type, $flags, $stream) . $payload;
}

# a header that is not compressed

sub literal {
	my ($name, $value) = @_;

	return "\0" . join '', map {
		die "Too long: $_\n" if length > 126;
		chr(length) . $_;
	} lc $name, $value;
}

sub write_all {
	my ($client, $data) = @_;

	local $SIG{PIPE} = 'IGNORE';

	while (length $data) {
		my $n = syswrite($client->{socket}, $data) or return;
		substr($data, 0, $n) = '';
	}
}

###############################################################################

1;

###############################################################################

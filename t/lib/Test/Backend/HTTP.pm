package Test::Backend::HTTP;

# HTTP of Test::Backend: the last part of the URI chooses what is answered.

###############################################################################

use warnings;
use strict;

use base qw/ Exporter /;

our @EXPORT = qw/ http_request http_response /;

###############################################################################

# what has come in, as soon as it is a whole request

sub http_request {
	my ($c) = @_;

	return unless $c->{in} =~ /^((\S+) (\S+) .*?\r\n\r\n)/s;

	my ($head, $method, $uri) = ($1, $2, $3);
	my ($length) = $head =~ /^Content-Length: (\d+)/mi;
	my ($hold) = $head =~ /^X-Hold: (\d+)/mi;
	my ($action) = $uri =~ m{([^/?]*)(?:\?|$)};

	my $whole = length($head) + ($length ||= 0);

	if ($action eq 'early' && length $c->{in} < $whole) {
		$c->{deaf} = 1;
		$c->{in} = '';

	} else {
		return if length $c->{in} < $whole;
		substr($c->{in}, 0, $whole) = '';
	}

	return {
		head => $head,
		method => $method,
		uri => $uri,
		action => $action,
		hold => $hold,
		length => $length,
	};
}

# or nothing, and the connection is closed; also after the response, if it is
# said to be the last

sub http_response {
	my ($c, $request, $on_request) = @_;

	my $action = $request->{action};
	my ($status, @more) = $on_request
		? $on_request->($c, $request->{head}) : '200 OK';

	return unless defined $status;

	# what on_request() says is in the body too, for who cannot read headers

	my $body = join "\n", "X-Connection: $c->{number}", @more, '';
	my $length = 1;

	my @head = (
		"HTTP/1.1 $status",
		"X-Connection: $c->{number}",
		"X-Server: $c->{port}",
		"X-Body: $request->{length}",
		@more,
	);

	# limit=N in the arguments comes back as a header

	push @head, "X-Limit: $1" if $request->{uri} =~ /limit=(\w*)/;

	if ($action eq '204') {
		$head[0] = 'HTTP/1.1 204 No Content';
		$length = $body = '';

	} elsif ($action eq '304') {
		$head[0] = 'HTTP/1.1 304 Not Modified';
		$length = $body = '';

	} elsif ($action eq '500') {
		$head[0] = 'HTTP/1.1 500 Internal Server Error';

	} elsif ($action eq 'empty') {
		$body = '';

	} elsif ($action eq 'big') {
		$body .= 'x' x 500000;

	} elsif ($action eq 'chunked') {
		push @head, 'Transfer-Encoding: chunked';
		$body = sprintf("%x\r\n%s\r\n", length $body, $body) x 3
			. "0\r\n\r\n";
		$length = '';

	} elsif ($action eq 'chunkedempty') {
		push @head, 'Transfer-Encoding: chunked';
		$body = "0\r\n\r\n";
		$length = '';

	} elsif ($action eq 'close') {

		# says so, but leaves it to nginx

		push @head, 'Connection: close';

	} elsif ($action eq 'http10') {
		$head[0] = 'HTTP/1.0 200 OK';

	} elsif ($action eq 'nolength') {
		$length = '';
		$c->{last} = 1;

	} elsif ($action eq 'drop') {

		# as if to be kept, but it is not

		$c->{last} = 1;

	} elsif ($action eq 'once' && $c->{requests} > 1) {

		# without an answer, as a backend does that had timed out

		return;
	}

	push @head, 'Content-Length: '
		. length($body) * ($action eq 'half' ? 1000 : 1) if length $length;

	$body = '' if $request->{method} eq 'HEAD';
	$body .= 'more than was said' if $action eq 'extra';

	return join("\r\n", @head, '', '') . $body;
}

###############################################################################

1;

###############################################################################

package Test::Backend::FastCGI;

# FastCGI of Test::Backend, as much as there is to a request without a body.

###############################################################################

use warnings;
use strict;

use base qw/ Exporter /;

our @EXPORT = qw/ fastcgi_request fastcgi_response /;

###############################################################################

sub fastcgi_request {
	my ($c) = @_;

	my $in = $c->{in};
	my $keep;

	while (length $in >= 8) {
		my ($type, $id, $length, $padding) = unpack('xCnnC', $in);

		return if length $in < 8 + $length + $padding;

		# the first record says whether to keep the connection

		$keep = unpack('x10C', $in) if $type == 1;
		substr($in, 0, 8 + $length + $padding) = '';

		# the end of its input is the end of a request

		if ($type == 5 && !$length) {
			$c->{in} = $in;
			$c->{last} = 1 unless $keep;

			return { fastcgi => 1, id => $id };
		}
	}

	return;
}

sub fastcgi_response {
	my ($c, $request) = @_;

	my $id = $request->{id};
	my $out = "X-Connection: $c->{number}\r\n\r\n"
		. "X-Connection: $c->{number}\n";

	return pack('CCnnCx', 1, 6, $id, length $out, 0) . $out
		. pack('CCnnCx', 1, 6, $id, 0, 0)
		. pack('CCnnCx', 1, 3, $id, 8, 0) . pack('NCx3', 0, 0);
}

###############################################################################

1;

###############################################################################

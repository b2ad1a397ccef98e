package Test::Backend::Idle;

# A backend that closes idle connections, as each request says in its header
# X-Close: so many seconds after the answer, unless another request comes before.
# Without the header, it never does.
#
# Answers have the number of their connection, see Test::Requests.  A request for
# /drop is not answered: the connection is closed; for /half, in the middle of
# the header, and for /slow after more than a second.  A request for /late is not
# answered at all.

###############################################################################

use warnings;
use strict;

use base qw/ Exporter /;

our @EXPORT = qw/ serve_idle /;

###############################################################################

use IO::Select;
use Time::HiRes qw/ time /;

use Test::Backend::Server qw/ listen_on /;

my ($select, %conns, $count);

###############################################################################

sub serve_idle {
	my (@ports) = @_;

	my %listen;

	$SIG{PIPE} = 'IGNORE';
	$select = IO::Select->new();

	for my $port (@ports) {
		my $s = listen_on($port);

		$listen{$s} = 1;
		$select->add($s);
	}

	while (1) {
		for my $s ($select->can_read(next_close())) {
			if ($listen{$s}) {
				accepted(scalar $s->accept());

			} elsif ($conns{$s}) {
				received($conns{$s});
			}
		}

		my $now = time();

		gone($_) for grep { $_->{close} && $_->{close} <= $now }
			values %conns;
	}
}

# the time until the next connection is closed

sub next_close {
	my ($next) = sort { $a <=> $b } grep { $_ }
		map { $_->{close} } values %conns;

	return unless $next;

	my $left = $next - time();

	return $left > 0 ? $left : 0;
}

sub accepted {
	my ($s) = @_;

	return unless $s;

	$select->add($s);

	# unlike those of another process, after a restart

	$conns{$s} = { socket => $s, number => $$ * 1000 + ++$count, in => '' };
}

sub received {
	my ($c) = @_;

	sysread($c->{socket}, $c->{in}, 65536, length $c->{in})
		or return gone($c);

	return unless $c->{in} =~ /^\S+ (\S+) (.*?)\r\n\r\n(.*)/s;

	my ($uri, $head, $body) = ($1, $2, $3);
	my ($length) = $head =~ /^Content-Length: (\d+)/mi;

	return if length $body < ($length || 0);

	$c->{in} = '';
	$c->{close} = 0;

	return gone($c) if $uri =~ m{/drop$};
	return if $uri =~ m{/late$};
	return $c->{close} = time() + 1.2 if $uri =~ m{/slow$};

	my $response = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n"
		. "X-Connection: $c->{number}\r\n\r\nok\n";

	if ($uri =~ m{/half$}) {
		syswrite($c->{socket}, substr($response, 0, 20));
		return gone($c);
	}

	syswrite($c->{socket}, $response);

	my ($seconds) = $head =~ /^X-Close: ([\d.]+)/mi;

	$c->{close} = time() + $seconds if $seconds;
}

sub gone {
	my ($c) = @_;

	$select->remove($c->{socket});
	delete $conns{$c->{socket}};
	close $c->{socket};
}

###############################################################################

1;

###############################################################################

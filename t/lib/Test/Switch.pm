package Test::Switch;

# One address for two protocols, as there is no server that has both: what
# the first bytes of a connection match decides where it is passed on to.
#
#   start_switch($t, 8081, qr/^\x16/ => 8082, qr/^/ => 8083);

###############################################################################

use warnings;
use strict;

use base qw/ Exporter /;

our @EXPORT = qw/ start_switch /;

###############################################################################

use IO::Select;
use IO::Socket::INET;

use Test::Nginx;

###############################################################################

sub start_switch {
	my ($t, $number, @routes) = @_;

	# choose ports before the fork

	port($_) for $number, grep { !ref } @routes;

	$t->run_daemon(\&switch, $number, @routes);
	$t->waitforsocket('127.0.0.1:' . port($number))
		or die "Can't start switch\n";
}

sub switch {
	my ($number, @routes) = @_;

	$SIG{PIPE} = 'IGNORE';

	my $listen = IO::Socket::INET->new(
		Proto => 'tcp',
		LocalAddr => '127.0.0.1:' . port($number),
		Listen => 511,
		ReuseAddr => 1,
	) or die "Can't listen: $!\n";

	my $select = IO::Select->new($listen);
	my %other;

	while (my @ready = $select->can_read()) {
		for my $s (@ready) {
			if ($s == $listen) {
				my $c = $listen->accept() or next;
				$select->add($c);
				next;
			}

			next unless $select->exists($s);

			my $n = sysread($s, my $data, 65536);

			if ($n && !$other{$s} && (my $o = route($data, @routes))) {
				@other{$s, $o} = ($o, $s);
				$select->add($o);
			}

			my $o = $other{$s};
			next if $n && $o && defined syswrite($o, $data);

			for my $gone (grep { defined } $s, $o) {
				$select->remove($gone);
				delete $other{$gone};
				close $gone;
			}
		}
	}
}

sub route {
	my ($data, @routes) = @_;

	while (my ($pattern, $number) = splice @routes, 0, 2) {
		next unless $data =~ $pattern;

		return IO::Socket::INET->new(
			Proto => 'tcp',
			PeerAddr => '127.0.0.1:' . port($number),
		);
	}
}

###############################################################################

1;

###############################################################################

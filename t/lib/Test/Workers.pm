package Test::Workers;

# Worker processes, as nginx's log tells of them.

###############################################################################

use warnings;
use strict;

use base qw/ Exporter /;

our @EXPORT = qw/ started reload /;

###############################################################################

use Test::Wait;

###############################################################################

# those that were started so far, by their process ids: at least so many, as a
# worker may answer before the master has logged it

sub started {
	my ($t, $least) = @_;

	my @pids;

	wait_for(sub {
		@pids = $t->read_file('error.log')
			=~ /start worker process (\d+)/g;
		return @pids >= ($least || 0);
	});

	return @pids;
}

# until so many new workers, or one, have started, or the configuration was
# refused

sub reload {
	my ($t, $workers) = @_;

	my ($started, $refused) = (scalar(() = started($t)), refused($t));

	$t->reload();

	return wait_for(sub {
		return refused($t) > $refused
			|| (() = started($t)) >= $started + ($workers || 1);
	});
}

sub refused {
	my ($t) = @_;

	return scalar(() = $t->read_file('error.log') =~ /\[emerg\]/g);
}

###############################################################################

1;

###############################################################################

package Test::Processes;

# nginx's processes, as its log and the system tell of them.

###############################################################################

use warnings;
use strict;

use base qw/ Exporter /;

our @EXPORT = qw/ started reload ended /;

###############################################################################

use POSIX qw/ WNOHANG /;

use Test::Wait;

###############################################################################

# workers that were started so far, by their process ids: at least so many, as one
# may answer before the master has logged it

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

# nginx, which was told to quit, and is not to be stopped any more

sub ended {
	my ($t, $pid) = @_;

	my $ended = wait_for(sub { waitpid($pid, WNOHANG) == $pid });

	$t->{_started} = 0 if $ended;

	return $ended;
}

sub refused {
	my ($t) = @_;

	return scalar(() = $t->read_file('error.log') =~ /\[emerg\]/g);
}

###############################################################################

1;

###############################################################################

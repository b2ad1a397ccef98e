package Test::Wait;

# Waits for what can be seen, not for a time.

###############################################################################

use warnings;
use strict;

use base qw/ Exporter /;

our @EXPORT = qw/ wait_for LIMIT /;

###############################################################################

use Time::HiRes qw/ sleep time /;

# seconds, after which it will not happen

use constant LIMIT => $ENV{TEST_NGINX_VALGRIND} ? 48 : 8;

###############################################################################

sub wait_for {
	my ($code, $limit) = @_;

	my $end = time() + ($limit || LIMIT);

	while (1) {
		return 1 if $code->();
		return 0 if time() > $end;
		sleep(0.01);
	}
}

###############################################################################

1;

###############################################################################

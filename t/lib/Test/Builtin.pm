package Test::Builtin;

# The same configuration with nginx's own keepalive, to see that a test would find
# what it tests.

###############################################################################

use warnings;
use strict;

use base qw/ Exporter /;

our @EXPORT = qw/ run_builtin /;

###############################################################################

# nginx again, with the same configuration but for this module, its directives and
# parameters: nginx's own keepalive

sub run_builtin {
	my ($t) = @_;

	$t->stop();

	my $conf = $t->read_file('nginx.conf');

	$conf =~ s/load_module [^;]*sliced_keepalive[^;]*;//
		or die "No module to leave out\n";

	# not all versions know a 0, and without it they keep nothing either

	$conf =~ s/\bkeepalive 0;//g;
	$conf =~ s/(?<=[ ])(?:slice_\w+(?:=\S+?)?|shared|local)(?=[ ;])//g;
	$conf =~ s/\bntlm;//g;

	$t->write_file('nginx.conf', $conf);
	$t->run();
}

###############################################################################

1;

###############################################################################

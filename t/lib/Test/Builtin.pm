package Test::Builtin;

# The same configuration with nginx's own keepalive, to see that a test would find
# what it tests.

###############################################################################

use warnings;
use strict;

use base qw/ Exporter /;

our @EXPORT = qw/ has_builtin run_builtin /;

###############################################################################

my $module = qr/load_module [^;]*sliced_keepalive[^;]*;/;

# whether it is there: not where our module is built into nginx

sub has_builtin {
	return ($ENV{TEST_NGINX_GLOBALS} || '') =~ $module;
}

# nginx again, without our module and its parameters

sub run_builtin {
	my ($t) = @_;

	$t->stop();

	my $conf = $t->read_file('nginx.conf');

	$conf =~ s/$module//;

	# it knows no 0 in all versions, and then keeps nothing either

	$conf =~ s/\bkeepalive 0;//g;
	$conf =~ s/(?<=[ ])(?:slice_\w+(?:=\S+?)?|shared)(?=[ ;])//g;

	$t->write_file('nginx.conf', $conf);
	$t->run();
}

###############################################################################

1;

###############################################################################

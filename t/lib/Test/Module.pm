package Test::Module;

# Compiles the modules in module/, which do to an upstream what other modules
# do, against the nginx under test.

###############################################################################

use warnings;
use strict;

use parent qw/ Exporter /;

use FindBin;
use Test::More;

our @EXPORT = qw/ compile_module /;

###############################################################################

# Compiles one into the test's folder, or skips the test without nginx's sources.

sub compile_module {
	my ($t, $name) = @_;

	my ($source, $objs) = @ENV{qw/NGINX_SOURCE_DIR NGINX_BUILD_DIR/};

	plan(skip_all => 'no NGINX_SOURCE_DIR and NGINX_BUILD_DIR')
		unless $source && $objs;

	# forks have folders of their own

	open my $fh, '<', "$objs/Makefile" or die "Can't open Makefile: $!\n";
	local $/;
	my ($include) = <$fh> =~ /^ALL_INCS = ((?:.*\\\n)*.*)/m;

	$include =~ s/\\\n//g;

	system("cd '$source' && cc -shared -fPIC -O $include"
		. " -o '" . $t->testdir() . "/$name.so'"
		. " '$FindBin::Bin/module/$name.c'") == 0
		or die "Can't compile the module\n";
}

###############################################################################

1;

###############################################################################

package Test::Module;

# Compiles the modules in module/, which do to an upstream what other modules
# do, against the nginx under test.

###############################################################################

use warnings;
use strict;

use parent qw/ Exporter /;

use File::Basename qw/ dirname /;
use Test::More;

our @EXPORT = qw/ compile_module /;

###############################################################################

# Compiles one into the test's folder, or skips the test without nginx's sources.

sub compile_module {
	my ($t, $name) = @_;

	my ($source, $objs) = @ENV{qw/NGINX_SOURCE_DIR NGINX_BUILD_DIR/};

	plan(skip_all => 'no NGINX_SOURCE_DIR and NGINX_BUILD_DIR')
		unless $source && $objs;

	my @include = map { "-I$source/src/$_" } qw!
		core event event/modules event/quic os/unix
		http http/modules http/v2 http/v3
	!;

	system('cc', '-shared', '-fPIC', '-O', '-o', $t->testdir() . "/$name.so",
		@include, "-I$objs", dirname(__FILE__) . "/../../module/$name.c") == 0
		or die "Can't compile the module\n";
}

###############################################################################

1;

###############################################################################

package Test::Lua;

# Debian's Lua module for nginx, if it is there.

###############################################################################

use warnings;
use strict;

use base qw/ Exporter /;

use Test::More;
use Test::Nginx;

our @EXPORT = qw/ lua_modules lua_path lua_has /;

###############################################################################

# where Debian's packages are unpacked, if that is not the root

my $tree = defined $ENV{TEST_NGINX_TREE} ? $ENV{TEST_NGINX_TREE} : '';

# The lines that load it, or the test is skipped.

sub lua_modules {
	my ($path) = `$Test::Nginx::NGINX -V 2>&1` =~ /--modules-path=(\S+)/;

	my @modules = map { "$tree$path/$_.so" }
		qw/ ndk_http_module ngx_http_lua_module /
		if defined $path;

	plan(skip_all => 'no Lua module for this nginx')
		if !@modules || grep { !-e } @modules;

	return join "\n", map { "load_module $_;" } @modules;
}

# where its Lua code is

sub lua_path {
	return "$tree/usr/share/lua/5.1/?.lua;;";
}

# whether its balancers have a function

sub lua_has {
	my ($function) = @_;

	open my $fh, '<', "$tree/usr/share/lua/5.1/ngx/balancer.lua"
		or die "Can't open balancer.lua: $!\n";

	return scalar grep { /^\s*function _M\.\Q$function\E\(/ } <$fh>;
}

###############################################################################

1;

###############################################################################

package Test::Recipe;

# Runs the configurations of nginx-conf/ as they are: only the module, and where
# to listen, to connect and to find files, are the test's.

###############################################################################

use warnings;
use strict;

use base qw/ Exporter /;

our @EXPORT = qw/ recipe builtin header /;

###############################################################################

use File::Basename qw/ dirname /;

use constant FOLDER => dirname(__FILE__) . '/../../../nginx-conf';

###############################################################################

# Makes nginx.conf of a recipe.  Its addresses become those of the test as in
# any other configuration; paths are given, what is there and what to put there.

sub recipe {
	my ($t, $name, %paths) = @_;

	open my $fh, '<', FOLDER . "/$name" or die "Can't open $name: $!\n";
	my $conf = join '', grep { !/^\s*#/ } <$fh>;

	die "Not on 127.0.0.1:8080: $name\n"
		unless $conf =~ /listen 127\.0\.0\.1:8080\b/;

	my $module = 'modules/ngx_http_upstream_sliced_keepalive_module.so';

	my %replace = (
		%paths,
		"load_module $module;" => "%%TEST_GLOBALS%%\n\ndaemon off;",
		"\nhttp {" => "\nhttp {\n    %%TEST_GLOBALS_HTTP%%",
	);

	for my $old (keys %replace) {
		$conf =~ s/\Q$old\E/$replace{$old}/g
			or die "No \"$old\" in $name\n";
	}

	$t->write_file_expand('nginx.conf', $conf);
}

# What it is without this module: nginx's own keepalive, with the same number.

sub builtin {
	my ($t) = @_;

	my $conf = $t->read_file('nginx.conf');

	$conf =~ s/load_module [^;]*sliced_keepalive[^;]*;//
		or die "No module to leave out\n";

	my $left_out = $conf =~ s/^( *keepalive \d+) [^;]*slice_key=[^;]*;/$1;/mg;

	$left_out = 1 if $conf =~ s/^ *ntlm;\n//mg;

	die "No slices to leave out\n" unless $left_out;

	$t->write_file('nginx.conf', $conf);
}

# a header of a response

sub header {
	my ($r, $name) = @_;

	return defined $r && $r =~ /^\Q$name\E: (.*?)\r?$/mi ? $1 : '';
}

###############################################################################

1;

###############################################################################

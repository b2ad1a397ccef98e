package Test::Recipe;

# Runs the configurations of nginx-conf/ as they are: only the module, and where
# to listen, to connect and to find files, are the test's.

###############################################################################

use warnings;
use strict;

use base qw/ Exporter /;

our @EXPORT = qw/ recipe header /;

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

# a header of a response

sub header {
	my ($r, $name) = @_;

	return defined $r && $r =~ /^\Q$name\E: (.*?)\r?$/mi ? $1 : '';
}

###############################################################################

1;

###############################################################################

package Test::Allocator;

# An allocator, certain calls of which fail in nginx, see
# preload/failing_malloc.c.  It is compiled here.

###############################################################################

use warnings;
use strict;

use base qw/ Exporter /;

our @EXPORT = qw/ allocator arm disarm calls failed /;

###############################################################################

use Cwd qw/ abs_path /;
use File::Basename qw/ dirname /;

use Test::Nginx;

my $preload = dirname(abs_path(__FILE__)) . '/../../preload';
my $control;

###############################################################################

# nginx has it, if it is started from now on; none of its calls fails yet

sub allocator {
	my ($t) = @_;

	my $dir = $t->testdir();

	return 0 if system("cc -shared -fPIC -O -o $dir/failing_malloc.so"
		. " $preload/failing_malloc.c >$dir/cc.log 2>&1") != 0;

	$control = "$dir/failing";
	arm(0, 0);

	$ENV{FAILING_MALLOC} = $control;
	$ENV{LD_PRELOAD} = "$dir/failing_malloc.so";

	# an nginx for another C library than that of the compiler has no use for it

	return 1 if system("$Test::Nginx::NGINX -v >$dir/preload.log 2>&1") == 0;

	delete @ENV{qw/ FAILING_MALLOC LD_PRELOAD /};

	return 0;
}

# Which calls fail, counted from now on, and of which process and size if not of
# any; and whether they wait before they fail, until disarm().

sub arm {
	my ($first, $last, $pid, $size, $waits) = @_;

	control(1, $first, $last, 0, 0, $pid || 0, $size || 0,
		$waits || 0);
}

sub disarm {
	control((0) x 8);
}

# how many there were

sub calls {
	return counted(3);
}

# of these, how many failed or wait

sub failed {
	return counted(4);
}

sub counted {
	my ($n) = @_;

	open my $fh, '<', $control or die "Can't open: $!\n";
	sysread($fh, my $content, 1024) or die "Can't read: $!\n";

	return (unpack 'l!8', $content)[$n];
}

sub control {
	open my $fh, '+>>', $control or die "Can't open: $!\n";
	close $fh;

	# it is mapped by nginx, so it must not be cut

	open $fh, '+<', $control or die "Can't open: $!\n";
	syswrite($fh, pack('l!8', @_)) or die "Can't write: $!\n";
	close $fh;
}

###############################################################################

1;

###############################################################################

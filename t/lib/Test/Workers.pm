package Test::Workers;

# Requests by a certain worker, of several that share connections.  The
# configuration has "listen ... reuseport", so that each worker gets some of the
# connections, and a location that says which one has it:
#
#     add_header X-Worker $pid always;
#
#     location = /pid {
#         return 204;
#     }

###############################################################################

use warnings;
use strict;

use base qw/ Exporter /;

our @EXPORT = qw/
	workers renew by hold_by conn_by alive dead worker_of found_by
	links descriptors established spare_for stop_worker
/;

###############################################################################

use IO::Socket::INET;

use Test::Nginx;
use Test::Backend;
use Test::Processes;
use Test::Wait;

# connections that a worker has accepted, and no request used yet

my %spare;

###############################################################################

# those that accept connections now, as soon as there are so many

sub workers {
	my ($t, $number) = @_;

	my @alive;

	wait_for(sub {
		@alive = alive(started($t));
		return @alive >= $number;
	});

	# none of them may still be about to end

	return @alive[-$number .. -1];
}

# Reloads the configuration with other text in it; the new workers are there, and
# the old ones gone.

sub renew {
	my ($t, $number, %changes) = @_;

	my @old = alive(started($t));
	my $conf = $t->read_file('nginx.conf');

	for my $from (keys %changes) {
		$conf =~ s/\Q$from\E/$changes{$from}/g
			or die "Not in the configuration: $from\n";
	}

	$t->write_file('nginx.conf', $conf);
	%spare = ();

	die "No new workers\n" unless reload($t, $number);
	die "Old workers stay\n" unless wait_for(sub { dead(@old) });

	return workers($t, $number);
}

sub alive {
	return grep { kill 0, $_ } @_;
}

sub dead {
	return !alive(@_);
}

# Stops a worker, which SIGCONT sends on.  A new connection may be its, so there
# must be some to each of the others.

sub stop_worker {
	my ($worker, @others) = @_;

	spare_for($_) for @others;

	kill 'STOP', $worker;

	wait_for(sub {
		open my $fh, '<', "/proc/$worker/stat" or return 0;
		return <$fh> =~ /\) T /;
	}) or die "Not stopped: $worker\n";
}

# the next requests to a worker make no connection

sub spare_for {
	my ($worker) = @_;

	have_spare($worker, 5);
}

# a connection to a worker

sub to {
	my ($worker) = @_;

	have_spare($worker, 1);

	return shift @{ $spare{$worker} };
}

sub have_spare {
	my ($worker, $number) = @_;

	for (1 .. 1000) {
		return if @{ $spare{$worker} ||= [] } >= $number;

		my $s = IO::Socket::INET->new(
			Proto => 'tcp',
			PeerAddr => '127.0.0.1:' . port(8080),
		) or die "Can't connect to nginx: $!\n";

		my $r = exchange($s, "GET /pid HTTP/1.1\nHost: localhost\n\n");
		my $accepted = worker_of($r) or die "No worker: $r\n";

		push @{ $spare{$accepted} }, $s;
	}

	die "No connection to worker $worker\n";
}

# a request to a worker, and its response

sub by {
	my ($worker, @request) = @_;

	my $r = http(request('GET', @request), socket => to($worker));

	die "Not by worker $worker: $r\n" unless worker_of($r) == $worker;

	return $r;
}

sub conn_by {
	return conn(by(@_));
}

# as hold() of Test::Backend

sub hold_by {
	my ($worker, $uri, $host) = @_;

	return hold($uri, $host, to($worker));
}

sub worker_of {
	my ($response) = @_;

	return $response =~ /^X-Worker: (\d+)/m ? $1 : 0;
}

# what $upstream_keepalive was, in a header

sub found_by {
	my ($response) = @_;

	return $response =~ /^X-Keepalive: ([^\r\n]*)/m ? $1 : '';
}

# what the descriptors of a process are, as the system says

sub links {
	my ($pid) = @_;

	opendir my $dir, "/proc/$pid/fd" or die "No descriptors of $pid: $!\n";

	return grep { defined } map { readlink "/proc/$pid/fd/$_" }
		grep { /\d/ } readdir $dir;
}

# how many there are, or those of connections to a port

sub descriptors {
	my ($pid, $number) = @_;

	my @open = links($pid);

	return scalar @open if !defined $number;

	my %is = map { ("socket:[$_->[9]]" => 1) } sockets($number);

	return scalar grep { $is{$_} } @open;
}

# connections to a port that have not ended

sub established {
	my ($number) = @_;

	return scalar grep { $_->[3] eq '01' } sockets($number);
}

# what the system says of connections to a port

sub sockets {
	my ($number) = @_;

	open my $fh, '<', '/proc/net/tcp' or die "No connections: $!\n";

	my $to = sprintf ':%04X', port($number);

	return grep { $_->[2] =~ /$to$/ } map { [ split ] } <$fh>;
}

###############################################################################

1;

###############################################################################

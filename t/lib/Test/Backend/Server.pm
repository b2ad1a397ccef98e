package Test::Backend::Server;

# The process of Test::Backend: connections and what comes in on them, requests
# that are held, and the commands of the script.

###############################################################################

use warnings;
use strict;

use base qw/ Exporter /;

our @EXPORT = qw/ serve listen_on /;

###############################################################################

use IO::Select;
use IO::Socket::INET;
use Socket qw/ SOL_SOCKET SO_LINGER /;

use Test::Backend::FastCGI;
use Test::Backend::HTTP;

my ($on_request, $readers, $writers);
my (%conns, %held, %asked, %released, $count);

###############################################################################

# the first port is that of the commands

sub serve {
	($on_request, my @ports) = @_;

	my %listen;

	$SIG{PIPE} = 'IGNORE';
	$readers = IO::Select->new();
	$writers = IO::Select->new();

	for my $port (@ports) {
		my $s = listen_on($port);

		$listen{$s} = $port;
		$readers->add($s);
	}

	while (1) {
		my ($readable, $writable)
			= IO::Select->select($readers, $writers);

		for my $s (@{$writable || []}) {
			flush($conns{$s}) if $conns{$s};
		}

		my @commands;

		for my $s (@{$readable || []}) {
			if ($listen{$s}) {
				accepted(scalar $s->accept(), $listen{$s},
					$listen{$s} == $ports[0]);

			} elsif (!$conns{$s}) {
				next;

			} elsif ($conns{$s}{control}) {
				push @commands, $s;

			} else {
				received($conns{$s});
			}
		}

		# commands come last, to know all that happened before them

		if (@commands) {
			for my $s ($readers->can_read(0)) {
				received($conns{$s})
					if $conns{$s} && !$conns{$s}{control};
			}
		}

		for my $s (@commands) {
			received($conns{$s}) if $conns{$s};
		}
	}
}

sub listen_on {
	my ($port) = @_;

	return IO::Socket::INET->new(
		Proto => 'tcp',
		LocalAddr => "127.0.0.1:$port",
		Listen => 511,
		ReuseAddr => 1,
	) || die "Can't listen: $!\n";
}

sub accepted {
	my ($s, $port, $control) = @_;

	return unless $s;

	$s->blocking(0);
	$readers->add($s);

	$conns{$s} = {
		socket => $s,
		port => $port,
		control => $control,
		number => $control ? 0 : ++$count,
		requests => 0,
		in => '',
		out => '',
	};
}

sub received {
	my ($c) = @_;

	my $n = sysread($c->{socket}, $c->{in}, 65536, length $c->{in});

	return if !defined $n && $!{EAGAIN};
	return gone($c) if !$n;

	if ($c->{control}) {
		while ($c->{in} =~ s/^(.*)\n//) {
			command($c, split / /, $1);
		}

		return;
	}

	while (length $c->{in} && !$c->{busy}) {
		my $request = $c->{in} =~ /^\x01/
			? fastcgi_request($c) : http_request($c)
			or return;

		# not a byte more is read

		$readers->remove($c->{socket}) if $c->{deaf};

		$c->{requests}++;
		$c->{busy} = $request;

		my $id = $request->{hold};

		# released already, it is sent to us once more

		if (!$id || $released{$id}) {
			answer($c);
			next;
		}

		$held{$id} = $c;

		if (my $who = delete $asked{$id}) {
			send_out($who, "ok\n");
		}
	}
}

sub answer {
	my ($c) = @_;

	my $request = delete $c->{busy};
	my $response = $request->{fastcgi} ? fastcgi_response($c, $request)
		: http_response($c, $request, $on_request);

	return gone($c) unless defined $response;

	send_out($c, $response);
}

sub gone {
	my ($c) = @_;

	$readers->remove($c->{socket});
	$writers->remove($c->{socket});
	delete $conns{$c->{socket}};
	close $c->{socket};
}

sub send_out {
	my ($c, $data) = @_;

	$c->{out} .= $data;
	flush($c);
}

sub flush {
	my ($c) = @_;

	while (length $c->{out}) {
		my $n = syswrite($c->{socket}, $c->{out});

		if (!defined $n) {
			return $writers->add($c->{socket}) if $!{EAGAIN};
			return gone($c);
		}

		substr($c->{out}, 0, $n) = '';
	}

	$writers->remove($c->{socket});
	gone($c) if $c->{last};
}

###############################################################################

sub command {
	my ($c, $name, $arg) = @_;

	if ($name eq 'open') {
		drain($_) for grep { $_->{deaf} } values %conns;

		my @open = grep {
			!$_->{control} && (!$arg || $_->{port} == $arg)
		} values %conns;

		send_out($c, scalar(@open) . "\n");

	} elsif ($name eq 'held') {
		return $asked{$arg} = $c unless $held{$arg};
		send_out($c, "ok\n");

	} elsif ($name eq 'release') {
		my $held = delete $held{$arg};
		$released{$arg} = 1;
		answer($held) if $held && $conns{$held->{socket}};
		send_out($c, "ok\n");

	} elsif ($name eq 'break') {
		my @idle = grep { !$_->{control} && !$_->{busy} } values %conns;

		break_conn($_, $arg) for @idle;
		send_out($c, scalar(@idle) . "\n");
	}
}

sub break_conn {
	my ($c, $how) = @_;

	if ($how eq 'finish') {
		shutdown($c->{socket}, 1);

	} elsif ($how eq 'junk') {
		send_out($c, "HTTP/1.1 200 OK\r\n");

	} elsif ($how eq 'reset') {
		setsockopt($c->{socket}, SOL_SOCKET, SO_LINGER,
			pack('ii', 1, 0));
		gone($c);
	}
}

# what came after a request that was answered early

sub drain {
	my ($c) = @_;

	while (1) {
		my $n = sysread($c->{socket}, my $rest, 65536);

		return if !defined $n && $!{EAGAIN};
		return gone($c) if !$n;
	}
}

###############################################################################

1;

###############################################################################

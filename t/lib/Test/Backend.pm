package Test::Backend;

# A backend for tests of keepalive, and what a script asks it.
#
# Each response says on which connection it was sent: connections are numbered
# in the order they came, over all ports of the backend.  What is answered is
# chosen by the last part of the URI, see answer().  A request with the header
# X-Hold is not answered before release(), so that several connections are in
# use at the same time.
#
# Connections that nginx has to the backend are counted, and broken, through a
# port of its own, 8090.

###############################################################################

use warnings;
use strict;

use base qw/ Exporter /;

our @EXPORT = qw/
	on_request start_backend conn is_new get post request exchange together
	hold let_go release open_conns wait_open break_idle wait_for
/;

###############################################################################

use IO::Select;
use IO::Socket::INET;
use Socket qw/ SOL_SOCKET SO_LINGER /;
use Test::More ();
use Time::HiRes qw/ sleep time /;

use Test::Nginx qw/ :DEFAULT http_end /;

use constant LIMIT => $ENV{TEST_NGINX_VALGRIND} ? 48 : 8;

###############################################################################

# What scripts use.

my ($control, $holds, %seen, $on_request);

# Before the start: what the backend does with a connection's requests.  It
# returns the status, and more header lines; or nothing, and the connection is
# closed without an answer.

sub on_request {
	($on_request) = @_;
}

sub start_backend {
	my ($t, @ports) = @_;

	# choose ports before the fork

	port($_) for @ports, 8090;

	$t->run_daemon(\&backend, @ports);
	$t->waitforsocket('127.0.0.1:' . port(8090))
		or die "Can't start backend\n";
}

# the connection a response came by

sub conn {
	my ($response) = @_;

	$response = '' unless defined $response;

	if ($response =~ /X-Connection: (\d+)/i) {
		$seen{$1}++;
		return $1;
	}

	my ($line) = $response =~ /^([^\r\n]*)/;

	return "none: '$line'";
}

# a connection that no response came by before

sub is_new {
	my ($conn, $name) = @_;

	my $new = $conn =~ /^\d+$/ && $seen{$conn} == 1;

	local $Test::Builder::Level = $Test::Builder::Level + 1;

	Test::More::ok($new, $name)
		or Test::More::diag("         got: $conn\n"
			. "    expected: a new connection");
}

sub get {
	my ($uri, $host, $headers) = @_;

	return conn(http(request('GET', $uri, $host, $headers)));
}

sub post {
	my ($uri, $host, $body) = @_;

	my $length = length $body;

	return conn(http(request('POST', $uri, $host,
		"Content-Length: $length\n"), body => $body));
}

sub request {
	my ($method, $uri, $host, $headers) = @_;

	$host = 'localhost' unless defined $host;
	$headers = '' unless defined $headers;

	return "$method $uri HTTP/1.0\nHost: $host\n$headers\n";
}

# on a connection of the client's that stays open after the answer

sub exchange {
	my ($s, $request) = @_;

	my $r = '';

	http($request, socket => $s, start => 1);

	until ($r =~ /\r\n\r\n(.*)/s && length $1 >= body_length($r)) {
		IO::Select->new($s)->can_read(LIMIT) or last;
		sysread($s, $r, 65536, length $r) or last;
	}

	return $r;
}

sub body_length {
	my ($r) = @_;

	return $r =~ /^Content-Length: (\d+)/mi ? $1 : 0;
}

# requests that are in flight at the same time, one for each host; answered in
# their order, and so are the connections handed back

sub together {
	my ($uri, @hosts) = @_;

	my @held = map { hold($uri, $_) } @hosts;

	return map { release($_) } @held;
}

sub hold {
	my ($uri, $host) = @_;

	my $id = ++$holds;
	my $s = http(request('GET', $uri, $host, "X-Hold: $id\n"), start => 1);

	control("held $id");

	return { id => $id, socket => $s };
}

# the backend answers, and the answer is not waited for

sub let_go {
	my ($held) = @_;

	control("release $held->{id}");
}

sub release {
	my ($held) = @_;

	let_go($held);

	return conn(http_end($held->{socket}));
}

# connections nginx has to the backend

sub open_conns {
	my ($port) = @_;

	return control('open ' . (defined $port ? port($port) : 0));
}

sub wait_open {
	my ($expected, $port) = @_;

	my $open;

	wait_for(sub { ($open = open_conns($port)) == $expected });

	return $open;
}

# how: finish (end of file), junk (bytes nobody asked for), reset

sub break_idle {
	my ($how) = @_;

	return control("break $how");
}

sub wait_for {
	my ($code, $limit) = @_;

	my $end = time() + ($limit || LIMIT);

	while (1) {
		return 1 if $code->();
		return 0 if time() > $end;
		sleep(0.01);
	}
}

sub control {
	my ($command) = @_;

	$control ||= IO::Socket::INET->new(
		Proto => 'tcp',
		PeerAddr => '127.0.0.1:' . port(8090),
	) or die "Can't connect to backend: $!\n";

	syswrite($control, "$command\n");

	my $answer = '';

	while ($answer !~ /\n/) {
		IO::Select->new($control)->can_read(LIMIT)
			or die "No answer to \"$command\"\n";
		sysread($control, $answer, 4096, length $answer)
			or die "Backend is gone\n";
	}

	chomp $answer;

	return $answer;
}

###############################################################################

# The backend.

my ($readers, $writers, %conns, %held, %asked, %released, $count);

sub backend {
	my (@ports) = @_;

	my %listen;

	$SIG{PIPE} = 'IGNORE';
	$readers = IO::Select->new();
	$writers = IO::Select->new();

	for my $number (@ports, 8090) {
		my $s = IO::Socket::INET->new(
			Proto => 'tcp',
			LocalAddr => '127.0.0.1:' . port($number),
			Listen => 511,
			ReuseAddr => 1,
		) or die "Can't listen: $!\n";

		$listen{$s} = $number;
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
				accepted(scalar $s->accept(), $listen{$s});

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

sub accepted {
	my ($s, $number) = @_;

	return unless $s;

	my $control = $number == 8090;

	$s->blocking(0);
	$readers->add($s);

	$conns{$s} = {
		socket => $s,
		port => port($number),
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
		my $request = $c->{in} =~ /^\x01/ ? fastcgi($c) : parse($c)
			or return;

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

		for my $idle (@idle) {
			if ($arg eq 'finish') {
				shutdown($idle->{socket}, 1);

			} elsif ($arg eq 'junk') {
				send_out($idle, "HTTP/1.1 200 OK\r\n");

			} elsif ($arg eq 'reset') {
				setsockopt($idle->{socket}, SOL_SOCKET,
					SO_LINGER, pack('ii', 1, 0));
				gone($idle);
			}
		}

		send_out($c, scalar(@idle) . "\n");
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

sub parse {
	my ($c) = @_;

	return unless $c->{in} =~ /^((\S+) (\S+) .*?\r\n\r\n)/s;

	my ($head, $method, $uri) = ($1, $2, $3);
	my ($length) = $head =~ /^Content-Length: (\d+)/mi;
	my ($hold) = $head =~ /^X-Hold: (\d+)/mi;
	my ($action) = $uri =~ m{([^/?]*)(?:\?|$)};

	my $whole = length($head) + ($length ||= 0);

	if ($action eq 'early' && length $c->{in} < $whole) {

		# the answer, and not a byte more is read

		$c->{deaf} = 1;
		$c->{in} = '';
		$readers->remove($c->{socket});

	} else {
		return if length $c->{in} < $whole;
		substr($c->{in}, 0, $whole) = '';
	}

	return {
		head => $head,
		method => $method,
		uri => $uri,
		action => $action,
		hold => $hold,
		length => $length,
	};
}

sub answer {
	my ($c) = @_;

	my $request = delete $c->{busy};
	my $action = $request->{action};

	return answer_fastcgi($c, $request) if $request->{fastcgi};

	my ($status, @more) = $on_request
		? $on_request->($c, $request->{head}) : '200 OK';

	return gone($c) unless defined $status;

	my $body = "X-Connection: $c->{number}\n";
	my $length = 1;

	my @head = (
		"HTTP/1.1 $status",
		"X-Connection: $c->{number}",
		"X-Server: $c->{port}",
		"X-Body: $request->{length}",
		@more,
	);

	# limit=N in the arguments comes back as a header

	push @head, "X-Limit: $1" if $request->{uri} =~ /limit=(\w*)/;

	if ($action eq '204') {
		$head[0] = 'HTTP/1.1 204 No Content';
		$length = $body = '';

	} elsif ($action eq '304') {
		$head[0] = 'HTTP/1.1 304 Not Modified';
		$length = $body = '';

	} elsif ($action eq '500') {
		$head[0] = 'HTTP/1.1 500 Internal Server Error';

	} elsif ($action eq 'empty') {
		$body = '';

	} elsif ($action eq 'big') {
		$body .= 'x' x 500000;

	} elsif ($action eq 'chunked') {
		push @head, 'Transfer-Encoding: chunked';
		$body = sprintf("%x\r\n%s\r\n", length $body, $body) x 3
			. "0\r\n\r\n";
		$length = '';

	} elsif ($action eq 'chunkedempty') {
		push @head, 'Transfer-Encoding: chunked';
		$body = "0\r\n\r\n";
		$length = '';

	} elsif ($action eq 'close') {

		# says so, but leaves it to nginx

		push @head, 'Connection: close';

	} elsif ($action eq 'http10') {
		$head[0] = 'HTTP/1.0 200 OK';

	} elsif ($action eq 'nolength') {
		$length = '';
		$c->{last} = 1;

	} elsif ($action eq 'drop') {

		# as if to be kept, but it is not

		$c->{last} = 1;

	} elsif ($action eq 'once' && $c->{requests} > 1) {

		# without an answer, as a backend does that had timed out

		return gone($c);
	}

	push @head, 'Content-Length: '
		. length($body) * ($action eq 'half' ? 1000 : 1) if length $length;

	$body = '' if $request->{method} eq 'HEAD';
	$body .= 'more than was said' if $action eq 'extra';

	send_out($c, join("\r\n", @head, '', '') . $body);
}

# FastCGI, as much as there is to a request without a body

sub fastcgi {
	my ($c) = @_;

	my $in = $c->{in};
	my $keep;

	while (length $in >= 8) {
		my ($type, $id, $length, $padding) = unpack('xCnnC', $in);

		return if length $in < 8 + $length + $padding;

		# the first record says whether to keep the connection

		$keep = unpack('x10C', $in) if $type == 1;
		substr($in, 0, 8 + $length + $padding) = '';

		# the end of its input is the end of a request

		if ($type == 5 && !$length) {
			$c->{in} = $in;
			$c->{last} = 1 unless $keep;

			return { fastcgi => 1, id => $id };
		}
	}

	return;
}

sub answer_fastcgi {
	my ($c, $request) = @_;

	my $id = $request->{id};
	my $out = "X-Connection: $c->{number}\r\n\r\n"
		. "X-Connection: $c->{number}\n";

	send_out($c,
		pack('CCnnCx', 1, 6, $id, length $out, 0) . $out
		. pack('CCnnCx', 1, 6, $id, 0, 0)
		. pack('CCnnCx', 1, 3, $id, 8, 0) . pack('NCx3', 0, 0));
}

###############################################################################

1;

###############################################################################

package Test::Nginx;

# A small library to test nginx: as much of the API of nginx's own nginx-tests
# as these scripts use, so that they run under either.
#
# Each object has a folder and ports of its own, so scripts may run at the
# same time.  When the object goes, also because the script died, nginx and
# the daemons are ended, and two tests look at what error.log says: plan()
# adds them to the script's own.
#
# Environment:
#
#   TEST_NGINX_BINARY        nginx to run
#   TEST_NGINX_GLOBALS       added to %%TEST_GLOBALS%%, e.g. "load_module ...;"
#   TEST_NGINX_GLOBALS_HTTP  added to %%TEST_GLOBALS_HTTP%%
#   TEST_NGINX_VERBOSE       print what is sent and received
#   TEST_NGINX_LEAVE         leave the folder
#   TEST_NGINX_VALGRIND      nginx runs under valgrind: wait longer

###############################################################################

use warnings;
use strict;

use base qw/ Exporter /;

our @EXPORT = qw/ http http_get http_head port /;
our @EXPORT_OK = qw/ http_end /;

###############################################################################

use File::Path qw/ rmtree /;
use File::Temp qw/ tempdir /;
use IO::Socket::INET;
use POSIX qw/ WNOHANG /;
use Test::More ();
use Time::HiRes qw/ sleep time /;

###############################################################################

our $NGINX = $ENV{TEST_NGINX_BINARY} || '/usr/sbin/nginx';

# seconds

use constant SLOW => $ENV{TEST_NGINX_VALGRIND} ? 6 : 1;
use constant HTTP_LIMIT => 8 * SLOW;
use constant WAIT_LIMIT => 10 * SLOW;
use constant QUIT_LIMIT => 20 * SLOW;

my (%ports, %locks, $version);

###############################################################################

sub new {
	my ($class) = @_;

	Test::More::BAIL_OUT("no $NGINX binary found") unless -x $NGINX;

	my $self = bless {
		_pid => $$,
		_daemons => [],
		_faults => [],
		_testdir => tempdir('nginx-test-XXXXXXXXXX', TMPDIR => 1),
	}, $class || __PACKAGE__;

	# destructors run at exit, not at a signal

	for my $sig (qw/ HUP INT TERM /) {
		$SIG{$sig} = sub { exit 1 } unless defined $SIG{$sig};
	}

	$SIG{PIPE} = 'IGNORE' unless defined $SIG{PIPE};

	return $self;
}

sub DESTROY {
	my ($self) = @_;
	local ($?, $@, $!);

	return if $self->{_pid} != $$;

	eval { $self->stop(); 1 } or push @{$self->{_faults}}, $@;
	eval { $self->stop_daemons(); 1 } or push @{$self->{_faults}}, $@;

	if (Test::More->builder->expected_tests) {
		my $log = eval { $self->read_file('error.log') };
		$log = '' unless defined $log;

		my @alerts = $log =~ /^.*\[(?:alert|crit)\].*$/gm;
		push @alerts, grep { !/\[alert\]/ }
			$log =~ /^.*(?:exited on signal|panicked at).*$/gm;
		push @alerts, @{$self->{_faults}};

		my $more = @alerts - 10;
		splice @alerts, 10, $more, "and $more more" if $more > 0;

		Test::More::is(join("\n", @alerts), '', 'no alerts');

		my @sanitizer = $log =~ /^.*(?:Sanitizer|runtime error:).*$/gm;
		Test::More::is(join("\n", @sanitizer), '',
			'no sanitizer errors');
	}

	if ($ENV{TEST_NGINX_LEAVE}) {
		Test::More::diag("left $self->{_testdir}");

	} else {
		rmtree($self->{_testdir});
	}
}

###############################################################################

sub has {
	my ($self, @features) = @_;

	for my $feature (@features) {
		next if $self->has_module($feature);
		Test::More::plan(skip_all => "no $feature available");
	}

	return $self;
}

# by what it was configured with: what is built unless it is switched off is there
# if it was not

sub has_module {
	my ($self, $feature) = @_;

	$version = `$NGINX -V 2>&1` unless defined $version;

	return $version =~ /^TLS SNI support enabled/m if $feature eq 'sni';
	return $version =~ /ngx_http_upstream_dyups_module/ if $feature eq 'dyups';
	return $version =~ /\Q$feature\E(?!\S)/ if $feature =~ /^--/;

	return $version !~ /--without-http(?:[_-]\Q$feature\E(?:_module)?)?(?!\S)/
		unless $feature =~ /^(?:http_ssl|http_v2|auth_request|stub_status)$/;

	return $version =~ /--with-(?:http_)?\Q$feature\E_module(?!\S)/;
}

sub has_daemon {
	my ($self, $daemon) = @_;

	for my $dir (split /:/, $ENV{PATH}) {
		return $self if -x "$dir/$daemon";
	}

	Test::More::plan(skip_all => "$daemon not found");
}

sub plan {
	my ($self, $tests) = @_;

	# and the two of the destructor

	Test::More::plan(tests => $tests + 2);

	return $self;
}

###############################################################################

sub testdir {
	my ($self) = @_;

	return $self->{_testdir};
}

sub read_file {
	my ($self, $name) = @_;

	local $/;

	open my $fh, '<', "$self->{_testdir}/$name"
		or die "Can't open $name: $!\n";

	my $content = <$fh>;

	return defined $content ? $content : '';
}

sub write_file {
	my ($self, $name, $content) = @_;

	open my $fh, '>', "$self->{_testdir}/$name"
		or die "Can't create $name: $!\n";

	binmode $fh;
	print $fh $content;

	close $fh or die "Can't write $name: $!\n";

	return $self;
}

sub write_file_expand {
	my ($self, $name, $content) = @_;

	my $globals = $self->globals();

	# there are more by default where nginx is Tengine

	$globals .= "\nworker_processes 1;"
		unless "$globals\n$content" =~ /^\s*worker_processes\s/m;

	$content =~ s/%%TEST_GLOBALS%%/$globals/g;
	$content =~ s/%%TEST_GLOBALS_HTTP%%/$self->globals_http()/ge;
	$content =~ s/%%TESTDIR%%/$self->{_testdir}/g;
	$content =~ s/%%PORT_(\d+)%%/port($1)/ge;
	$content =~ s/127\.0\.0\.1:(8\d{3})(?!\d)/'127.0.0.1:' . port($1)/ge;

	return $self->write_file($name, $content);
}

sub globals {
	my ($self) = @_;

	my $globals = $ENV{TEST_NGINX_GLOBALS} || '';
	my @lines = (
		"pid $self->{_testdir}/nginx.pid;",
		"error_log $self->{_testdir}/error.log debug;",
	);

	# started by root, workers would not be allowed to read the folder

	push @lines, 'user root;' if $> == 0 && $globals !~ /\buser\s/;
	push @lines, $globals if length $globals;

	return join "\n", @lines;
}

sub globals_http {
	my ($self) = @_;

	my $dir = $self->{_testdir};
	my @lines = (
		"root $dir;",
		"access_log $dir/access.log;",
		"client_body_temp_path $dir/client_body_temp;",
	);

	for my $name (qw/ proxy fastcgi uwsgi scgi /) {
		push @lines, "${name}_temp_path $dir/${name}_temp;"
			if $self->has_module($name);
	}

	push @lines, $ENV{TEST_NGINX_GLOBALS_HTTP}
		if $ENV{TEST_NGINX_GLOBALS_HTTP};

	return join "\n", @lines;
}

# The same number is the same port all through a script.  A port is ours while
# we hold the UDP socket on it, so two scripts never choose the same one.
# Below the range the kernel takes ports of outgoing connections from.

sub port {
	my ($number) = @_;

	return $ports{$number} if $ports{$number};

	for (1 .. 1000) {
		my $port = 10000 + int(rand(20000));

		my $lock = IO::Socket::INET->new(
			Proto => 'udp',
			LocalAddr => "127.0.0.1:$port",
		) or next;

		IO::Socket::INET->new(
			Proto => 'tcp',
			LocalAddr => "127.0.0.1:$port",
			Listen => 1,
			ReuseAddr => 1,
		) or next;

		$locks{$number} = $lock;
		return $ports{$number} = $port;
	}

	die "Can't find a free port\n";
}

###############################################################################

sub run {
	my ($self) = @_;

	my $dir = $self->{_testdir};

	unlink "$dir/nginx.pid";

	# in a group of its own, to end its workers too if it comes to that

	my $pid = fork();
	die "Can't fork: $!\n" unless defined $pid;

	if ($pid == 0) {
		setpgrp(0, 0);
		exec($NGINX, '-p', "$dir/", '-c', 'nginx.conf',
			'-e', 'error.log')
			or POSIX::_exit(127);
	}

	$self->{_started} = $pid;

	unless ($self->waitforfile("$dir/nginx.pid", $pid)) {
		$self->end('nginx', $pid, 'KILL');
		delete $self->{_started};
		die "Can't start nginx\n";
	}

	return $self;
}

sub try_run {
	my ($self, $message) = @_;

	open my $stderr, '>&', \*STDERR or die "Can't dup: $!\n";
	open STDERR, '>', '/dev/null' or die "Can't open: $!\n";

	my $started = eval { $self->run(); 1 };

	open STDERR, '>&', $stderr or die "Can't dup: $!\n";

	return $self if $started;

	Test::More::plan(skip_all => $message);
}

sub reload {
	my ($self) = @_;

	return $self unless $self->{_started};

	kill 'HUP', $self->pid();

	return $self;
}

sub stop {
	my ($self) = @_;

	return $self unless $self->{_started};

	my $pid = $self->pid();
	delete $self->{_started};

	$self->end('nginx', $pid, 'QUIT', 'TERM', 'KILL');

	return $self;
}

sub pid {
	my ($self) = @_;

	my $pid = eval { $self->read_file('nginx.pid') };

	return defined $pid && $pid =~ /^(\d+)/ ? $1 : $self->{_started};
}

sub run_daemon {
	my ($self, $code, @args) = @_;

	my $pid = fork();
	die "Can't fork: $!\n" unless defined $pid;

	if ($pid == 0) {
		@SIG{qw/ HUP INT TERM PIPE /} = ('DEFAULT') x 4;

		if (ref $code eq 'CODE') {
			my $ok = eval { $code->(@args); 1 };
			print STDERR $@ unless $ok;

			# no destructors, no END blocks

			POSIX::_exit($ok ? 0 : 1);
		}

		exec($code, @args) or POSIX::_exit(127);
	}

	push @{$self->{_daemons}}, $pid;

	return $self;
}

sub stop_daemons {
	my ($self) = @_;

	while (my $pid = shift @{$self->{_daemons}}) {
		$self->end('daemon', $pid, 'TERM', 'KILL');
	}

	return $self;
}

# signals one after the other, until the process is gone

sub end {
	my ($self, $name, $pid, @signals) = @_;

	while (my $signal = shift @signals) {
		kill $signal, $signal eq 'KILL' && $name eq 'nginx' ? -$pid : $pid;

		return if waitfor(sub { gone($pid) }, QUIT_LIMIT);

		push @{$self->{_faults}}, "$name $pid did not end on $signal";
	}
}

sub gone {
	my ($pid) = @_;

	my $rc = waitpid($pid, WNOHANG);

	return 1 if $rc == $pid;
	return 0 if $rc == 0;

	# not a child, or not any more

	return !kill(0, $pid);
}

###############################################################################

sub waitfor {
	my ($code, $limit) = @_;

	my $end = time() + ($limit || WAIT_LIMIT);

	while (1) {
		return 1 if $code->();
		return 0 if time() > $end;
		sleep(0.01);
	}
}

# a file that is there and not empty, unless the process ends

sub waitforfile {
	my ($self, $file, $pid) = @_;

	my $exited;

	waitfor(sub {
		return 1 if -s $file;
		return 1 if $exited = defined $pid
			&& waitpid($pid, WNOHANG) != 0;
		return 0;
	});

	return -s $file ? 1 : undef;
}

sub waitforsocket {
	my ($self, $peer) = @_;

	return waitfor(sub {
		return defined IO::Socket::INET->new(
			Proto => 'tcp',
			PeerAddr => $peer,
		);
	}) || undef;
}

###############################################################################

sub http_get {
	my ($url, %extra) = @_;

	return http(<<EOF, %extra);
GET $url HTTP/1.0
Host: localhost

EOF
}

sub http_head {
	my ($url, %extra) = @_;

	return http(<<EOF, %extra);
HEAD $url HTTP/1.0
Host: localhost

EOF
}

sub http {
	my ($request, %extra) = @_;

	my $s = http_start($request, %extra);

	return $s if $extra{start} || !defined $s;
	return http_end($s);
}

sub http_start {
	my ($request, %extra) = @_;

	my $s;

	my $ok = limited(sub {
		$s = $extra{socket} || IO::Socket::INET->new(
			Proto => 'tcp',
			PeerAddr => '127.0.0.1:' . port(8080),
		) or die "Can't connect to nginx: $!\n";

		log_out($request);
		$s->print($request);
		$s->flush();

		if (defined $extra{body}) {
			log_out($extra{body});
			$s->print($extra{body});
			$s->flush();
		}
	});

	return $ok ? $s : undef;
}

sub http_end {
	my ($s) = @_;

	my $reply = '';

	limited(sub {
		while (sysread($s, my $part, 65536)) {
			$reply .= $part;
		}
	});

	log_in($reply);

	return $reply;
}

sub limited {
	my ($code) = @_;

	my $ok = eval {
		local $SIG{ALRM} = sub { die "timeout\n" };
		local $SIG{PIPE} = sub { die "sigpipe\n" };

		alarm(HTTP_LIMIT);
		$code->();
		alarm(0);

		1;
	};

	alarm(0);
	log_in("died: $@") unless $ok;

	return $ok;
}

###############################################################################

sub log_core {
	my ($prefix, $text) = @_;

	return unless $ENV{TEST_NGINX_VERBOSE};

	$text = substr($text, 0, 2048) . '...' if length $text > 2048;
	$text =~ s/([^\x20-\x7e\r\n])/sprintf('\\x%02x', ord $1)/ge;

	for my $line (split /\r?\n/, $text) {
		Test::More::note("$prefix $line");
	}
}

sub log_out {
	log_core('>>', @_);
}

sub log_in {
	log_core('<<', @_);
}

###############################################################################

1;

###############################################################################

#!/usr/bin/perl

# Tests for shared with the real Apache and mpm-itk: with limits that hold over all
# workers, there are always processes left for hosts without an idle connection.
# Without it, each worker keeps as many, and requests wait for processes that do
# nothing.

###############################################################################

use warnings;
use strict;

use Test::More;

use FindBin;
use lib ($ENV{NGINX_TESTS_DIR} ? "$ENV{NGINX_TESTS_DIR}/lib" : ()),
	"$FindBin::Bin/lib";

use IO::Select;
use IO::Socket::INET;
use Socket qw/ inet_aton /;
use Time::HiRes qw/ time /;

use Test::Nginx;
use Test::Backend;
use Test::Processes;
use Test::Wait;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

my $apache = '/usr/sbin/apache2';
my $modules = '/usr/lib/apache2/modules';
my $mpm_itk = $ENV{TEST_NGINX_MPM_ITK} || "$modules/mpm_itk.so";

plan(skip_all => "no $apache") unless -x $apache;
plan(skip_all => 'no mod_mpm_prefork') unless -e "$modules/mod_mpm_prefork.so";
plan(skip_all => 'no mpm-itk') unless -e $mpm_itk;
plan(skip_all => 'mpm-itk needs root') unless $> == 0;
plan(skip_all => 'no /proc/net/tcp') unless -r '/proc/net/tcp';

my $t = Test::Nginx->new()->has(qw/http proxy/)->plan(15);

my $d = $t->testdir();

# Apache has users of its own

chmod 0755, $d;

use constant PROCESSES => 24;
use constant IDLE => 12;
use constant CLIENTS => 6;
use constant REQUESTS => 1500;

my @hosts = map { "h$_.example" } 1 .. 8;

# the owners are users without names

my $vhosts = join '', map { <<"EOF" } 0 .. $#hosts;
<VirtualHost *>
    ServerName $hosts[$_]
    AssignUserID #${\ (20001 + $_)} #${\ (20001 + $_)}
</VirtualHost>
EOF

# and a process that tells what the others do; none closes an idle connection
# before the test is over

my $workers = PROCESSES + 1;

$t->write_file_expand('apache.conf', <<"EOF");
ServerRoot $d
DefaultRuntimeDir $d
PidFile $d/apache.pid
ServerName localhost
Listen 127.0.0.1:8081
User nobody
Group nogroup
LoadModule mpm_prefork_module $modules/mod_mpm_prefork.so
LoadModule mpm_itk_module $mpm_itk
LoadModule authz_core_module $modules/mod_authz_core.so
LoadModule status_module $modules/mod_status.so
StartServers $workers
MinSpareServers 1
MaxSpareServers $workers
ServerLimit $workers
MaxRequestWorkers $workers
KeepAlive On
KeepAliveTimeout 300
MaxKeepAliveRequests 0
LogFormat "%k %v" kept
CustomLog $d/apache_access.log kept
ErrorLog $d/apache.log
DocumentRoot $d/www
<Location /server-status>
    SetHandler server-status
</Location>
<VirtualHost *>
    ServerName localhost
</VirtualHost>
$vhosts
EOF

mkdir "$d/www";
$t->write_file('www/file', 'SEE-THIS');

my $keepalive = 'keepalive ' . IDLE . ' slice_key=$host slice_conn=4';

$t->write_file_expand('nginx.conf', <<"EOF");

%%TEST_GLOBALS%%

daemon off;
worker_processes 16;

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header Host \$host;

    upstream alone {
        server 127.0.0.1:8081;
        $keepalive;
    }

    upstream shared {
        server 127.0.0.1:8081;
        $keepalive shared;
    }

    server {
        listen       127.0.0.1:8080 reuseport;
        server_name  localhost;

        location /alone/ {
            proxy_pass http://alone/;
        }

        location /shared/ {
            proxy_pass http://shared/;
        }
    }
}

EOF

# Apache signals its whole process group when it ends

$t->run_daemon(sub {
	setpgrp(0, 0);
	exec($apache, '-f', "$d/apache.conf", '-DFOREGROUND');
});
$t->waitforsocket('127.0.0.1:' . port(8081)) or die "Can't start Apache\n";
$t->run();

my $monitor = IO::Socket::INET->new(
	Proto => 'tcp',
	PeerAddr => '127.0.0.1:' . port(8081),
) or die "Can't connect to Apache: $!\n";

wait_for(sub { processes('_') == PROCESSES })
	or die "Not all processes are idle\n";

# the same hosts each time

srand(0);

###############################################################################

# the workers' idle connections take all processes

my $alone = load('/alone/file');

my $waiting = $alone->{clients}->count();

cmp_ok($waiting, '>', 0, 'alone, requests wait');
is(backlog(), $waiting, 'for a process');
is(processes('K'), PROCESSES, 'and all processes do nothing');
cmp_ok($alone->{waiting}, '>', 0, 'seen by their connections');
cmp_ok($alone->{idle}, '>', IDLE, 'more are idle than those of a worker');
ok(!$alone->{clients}->can_read(0), 'there is no answer');

# a worker that shuts down closes its idle connections

reload($t, 16);
is(answered(finish($alone)), $waiting, 'answered when they are closed');

wait_for(sub { processes('_') == PROCESSES })
	or die "Not all processes are idle again\n";

# for the requests, and as many as may be idle

my $before = kept();
my $shared = load('/shared/file');

is(answered(@{$shared->{answers}}), REQUESTS, 'shared, requests answered');
is($shared->{waiting}, 0, 'none waits for a process');
cmp_ok($shared->{idle}, '<=', IDLE, 'idle connections');
cmp_ok($shared->{samples}, '>=', REQUESTS / 5, 'seen many times');

ok(wait_for(sub { processes('K') == connections() }), 'at rest');
cmp_ok(connections(), '<=', IDLE, 'idle connections at rest');
cmp_ok(kept() - $before, '>', REQUESTS / 2, 'most requests reuse one');

unlike($t->read_file('apache.log'), qr/closing connection/,
	'none of another owner');

###############################################################################

# Requests of clients, each on a connection of its own, until all are answered, or
# those that are left wait for processes that do nothing.  Connections to Apache
# that are more than its processes wait, whatever these are about to do; those that
# are more than the clients, which use one at most, are idle.

sub load {
	my ($uri) = @_;

	my $load = {
		clients => IO::Select->new(),
		replies => {},
		answers => [],
		map { $_ => 0 } qw/ samples waiting idle /
	};

	my $limit = time() + 90;

	for my $n (1 .. REQUESTS) {
		my $host = $hosts[rand @hosts];
		$load->{clients}->add(http(request('GET', $uri, $host),
			start => 1));

		# now and then all are answered, and what is open is idle

		my $most = $n % 25 ? CLIENTS - 1 : 0;

		while ($load->{clients}->count() > $most) {
			next if receive($load);

			watch($load);
			return $load if stuck($load) || time() > $limit;
		}

		watch($load) unless $n % 5;
	}

	return $load;
}

sub receive {
	my ($load) = @_;

	my @ready = $load->{clients}->can_read(0.02);

	for my $s (@ready) {
		my $reply = \$load->{replies}{$s};
		$$reply = '' unless defined $$reply;

		next if sysread($s, $$reply, 65536, length $$reply);

		push @{$load->{answers}}, delete $load->{replies}{$s};
		$load->{clients}->remove($s);
	}

	return scalar @ready;
}

sub watch {
	my ($load) = @_;

	my $open = connections();
	my $idle = $open - $load->{clients}->count();

	$load->{samples}++;
	$load->{waiting}++ if $open > PROCESSES;
	$load->{idle} = $idle if $idle > $load->{idle};
}

sub stuck {
	my ($load) = @_;

	return backlog() == $load->{clients}->count()
		&& processes('K') == PROCESSES;
}

# the answers to what was waiting

sub finish {
	my ($load) = @_;

	my $answers = @{$load->{answers}};

	wait_for(sub {
		receive($load);
		return !$load->{clients}->count();
	});

	return @{$load->{answers}}[$answers .. $#{$load->{answers}}];
}

sub answered {
	return scalar grep { m!^HTTP/1\.1 200 .*SEE-THIS!s } @_;
}

# requests that were not the first of their connection

sub kept {
	return scalar(() = $t->read_file('apache_access.log')
		=~ /^[1-9]\d* h\d/gm);
}

# Apache's processes in a state: K keeps a connection without a request, _ has
# no connection

sub processes {
	my ($state) = @_;

	my $r = exchange($monitor,
		"GET /server-status?auto HTTP/1.1\r\nHost: localhost\r\n\r\n");
	my ($scoreboard) = $r =~ /^Scoreboard: (.*)$/m
		or die "Apache does not tell its state\n";

	return scalar(() = $scoreboard =~ /\Q$state\E/g);
}

# connections that no process of Apache has accepted yet

sub backlog {
	my ($listen) = tcp(qr/\Q${\ address()}\E \S+ 0A /);

	$listen =~ / 0A \w+:(\w+) / or die "Apache does not listen\n";

	return hex $1;
}

# connections that nginx has opened, and not closed

sub connections {
	my $ours = sprintf ':%04X', $monitor->sockport();

	return scalar grep { !/^ *\d+: \w+\Q$ours\E / }
		tcp(qr/\w+:\w+ \Q${\ address()}\E 01 /);
}

sub tcp {
	my ($sockets) = @_;

	open my $fh, '<', '/proc/net/tcp' or die "Can't open: $!\n";

	return grep { /^ *\d+: $sockets/ } <$fh>;
}

sub address {
	return sprintf '%08X:%04X',
		unpack('L', inet_aton('127.0.0.1')), port(8081);
}

# it ends with the script, although functions refer to it

END { undef $t; }

###############################################################################

#!/usr/bin/perl

# Tests for docs/sizing.md with the real Apache and its prefork module: each idle
# connection occupies a process.  If there are as many of them as processes, a
# request for another host waits; if there are fewer, it does not.

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

use Test::Nginx qw/ :DEFAULT http_end /;
use Test::Backend;
use Test::Processes;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

my $apache = '/usr/sbin/apache2';
my $modules = '/usr/lib/apache2/modules';

plan(skip_all => "no $apache") unless -x $apache;
plan(skip_all => 'no mod_mpm_prefork') unless -e "$modules/mod_mpm_prefork.so";
plan(skip_all => 'no /proc/net/tcp') unless -r '/proc/net/tcp';

my $t = Test::Nginx->new()->has(qw/http proxy/)->plan(16);

my $d = $t->testdir();

# Apache has a user of its own, also if this is root

chmod 0755, $d;

# seven processes: six, and one that tells what they do; none closes an idle
# connection before the test is over

$t->write_file_expand('apache.conf', <<"EOF");
ServerRoot $d
DefaultRuntimeDir $d
PidFile $d/apache.pid
ServerName localhost
Listen 127.0.0.1:8081
User nobody
Group nogroup
LoadModule mpm_prefork_module $modules/mod_mpm_prefork.so
LoadModule authz_core_module $modules/mod_authz_core.so
LoadModule status_module $modules/mod_status.so
StartServers 7
MinSpareServers 1
MaxSpareServers 7
ServerLimit 7
MaxRequestWorkers 7
KeepAlive On
KeepAliveTimeout 300
MaxKeepAliveRequests 0
ErrorLog $d/apache.log
DocumentRoot $d/www
<Location /server-status>
    SetHandler server-status
</Location>
EOF

mkdir "$d/www";
$t->write_file('www/file', 'SEE-THIS');

$t->write_file_expand('nginx.conf', <<'EOC');

%%TEST_GLOBALS%%

daemon off;
worker_processes 2;

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header Host $host;

    add_header X-Worker $pid;

    upstream large {
        server 127.0.0.1:8081;
        keepalive 6 slice_key=$host;
    }

    upstream right {
        server 127.0.0.1:8081;
        keepalive 2 slice_key=$host;
    }

    server {
        listen       127.0.0.1:8080 reuseport;
        server_name  localhost;

        location /large/ {
            proxy_pass http://large/;
        }

        location /right/ {
            proxy_pass http://right/;
        }
    }
}

EOC

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

wait_for(sub { processes('_') == 6 }) or die "Not all processes are idle\n";

###############################################################################

# too large: as many idle connections as processes

my @answers = map { http(request('GET', '/large/file', "$_.example")) } 1 .. 6;

is(scalar(grep { /SEE-THIS/ } @answers), 6, 'six hosts answered');
ok(wait_for(sub { processes('K') == 6 }), 'each has taken a process');
is(processes('_'), 0, 'none is left');

my $waits = http(request('GET', '/large/file', 'new.example'), start => 1);

ok(wait_for(sub { backlog() == 1 }), 'request for another host waits');
is(processes('K'), 6, 'for processes that do nothing');
ok(wait_for(sub { apache_log() =~ /AH00161/ }), 'Apache says why');
is(backlog(), 1, 'and it waits still');
ok(!IO::Select->new($waits)->can_read(0), 'it has no answer');

# a worker that shuts down closes its idle connections

reload($t);
like(http_end($waits), qr/SEE-THIS/, 'answered when they are closed');
ok(wait_for(sub { processes('_') == 6 }), 'all processes are idle again');

# sized right: 2 connections by 2 workers

my (%workers, $hosts);

ok(wait_for(sub {
	my $r = http(request('GET', '/right/file', ++$hosts . '.example'));
	$workers{$1}++ if $r =~ /X-Worker: (\d+).*SEE-THIS/s;
	return keys %workers == 2 && !grep { $_ < 2 } values %workers;
}), 'two hosts and more by each worker');

ok(wait_for(sub { processes('K') == 4 }), 'connections by workers');
is(processes('_'), 2, 'two are left');

my @new = map { http(request('GET', '/right/file', "new$_.example")) } 1 .. 6;

is(scalar(grep { /SEE-THIS/ } @new), 6, 'requests for other hosts answered');
ok(wait_for(sub { processes('K') == 4 }), 'connections by workers again');
is(backlog(), 0, 'nothing waits');

###############################################################################

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
	open my $fh, '<', '/proc/net/tcp' or die "Can't open: $!\n";

	my $address = sprintf '%08X:%04X',
		unpack('L', inet_aton('127.0.0.1')), port(8081);

	for my $line (<$fh>) {
		return hex $1
			if $line =~ /^ *\d+: $address \S+ 0A \w+:(\w+) /;
	}

	die "Apache does not listen\n";
}

sub apache_log {
	return $t->read_file('apache.log');
}

# it ends with the script, although functions refer to it

END { undef $t; }

###############################################################################

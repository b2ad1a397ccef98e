#!/usr/bin/perl

# Tests for ntlm with NTLM as it is: curl authenticates with pyspnego, which
# ntlm_curl.py makes a server of.
#
# TEST_NGINX_NTLM_PYTHON is a Python that has pyspnego, if python3 has not.

###############################################################################

use warnings;
use strict;

use Test::More;

use FindBin;
use lib ($ENV{NGINX_TESTS_DIR} ? "$ENV{NGINX_TESTS_DIR}/lib" : ()),
	"$FindBin::Bin/lib";

use Test::Nginx;
use Test::Builtin;
use Test::Recipe;
use Test::Wait;
use Test::Workers qw/ established /;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

my $python = $ENV{TEST_NGINX_NTLM_PYTHON} || 'python3';

my $t = Test::Nginx->new()->has(qw/http proxy/)->has_daemon('curl');

plan(skip_all => 'curl has no NTLM')
	unless `curl --version` =~ /^Features:.* NTLM\b/m;
plan(skip_all => 'no pyspnego')
	unless system("$python -c 'import spnego' >/dev/null 2>&1") == 0;

$t->plan(23);

my $d = $t->testdir();

$t->write_file_expand('nginx.conf', <<"EOF");

%%TEST_GLOBALS%%

daemon off;

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    upstream u {
        server 127.0.0.1:8081;
        keepalive 64;
        ntlm;
    }

    server {
        listen       127.0.0.1:8080;
        server_name  localhost;

        location / {
            proxy_pass http://u;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }
    }
}

EOF

$t->write_file('users', join '', map { "TEST:$_:secret-$_\n" }
	qw/ alice bob /, map { "user$_" } 1 .. 10);

{
	local $ENV{NTLM_USER_FILE} = "$d/users";

	# what it says of those who have no right goes to a file

	open my $stderr, '>&', \*STDERR or die "Can't dup: $!\n";
	open STDERR, '>', "$d/server.log" or die "Can't open: $!\n";

	$t->run_daemon($python, "$FindBin::Bin/ntlm_curl.py", port(8081),
		"$d/ready");

	open STDERR, '>&', $stderr or die "Can't dup: $!\n";
}

wait_for(sub { -s "$d/ready" }) or die "Can't start the server\n";
$t->run();

###############################################################################

my @alice = as('alice');

is(curl(8081, '/', @alice), 'alice', 'the server itself');

my $shared = conns(curl_headers('/'));
is(curl(8080, '/'), 'nobody', 'without credentials');
is(curl(8080, '/', @alice), 'alice', 'with credentials');
is(curl(8080, '/', '--ntlm', '-u', 'TEST\alice:wrong'), 'nobody',
	'wrong password');
is(curl(8080, '/', '--ntlm', '-u', 'TEST\mallory:secret-alice'), 'nobody',
	'unknown user');
is(curl(8080, '/', @alice, '-d', 'body'), 'alice', 'POST');

# on one client connection

is(curl(8080, '/[1-5]', @alice), join("\n", ('alice') x 5), 'five requests');

my @conns = conns(curl_headers('/[1-3]', @alice));
is(scalar @conns, 4, 'a handshake and two more requests');
is(join(' ', @conns), join(' ', ($conns[0]) x 4), 'on one connection');
isnt($conns[0], $shared, 'of its own');

# curl that does not know what there is first asks without credentials

@conns = conns(curl_headers('/', '--anyauth', '-u', 'TEST\alice:secret-alice'));
is(scalar @conns, 3, 'any authentication');
is($conns[0], $shared, 'any authentication, shared before');
isnt($conns[1], $shared, 'any authentication, bound');
is($conns[2], $conns[1], 'any authentication, the same');

ok(wait_for(sub { established(8081) == 1 }), 'closed with the clients');
is(curl(8080, '/'), 'nobody', 'nobody is left');
is(join(' ', conns(curl_headers('/'))), $shared, 'shared as ever');

# many at the same time, and those who are nobody between them

my @clients = map { start('/[1-20]', as("user$_")), start('/[1-20]') } 1 .. 10;
my @users = map { join ' ', unique(finish($_)) } @clients;

is(join(', ', @users), join(', ', map { ("user$_", 'nobody') } 1 .. 10),
	'each is who it is');
is($t->read_file('error.log') =~ /^.*\[error\].*$/m ? $& : '', '', 'no errors');
is(join(' ', unique(curl(8080, '/[1-20]'))), 'nobody', 'nobody is left of them');

SKIP: {
skip 'no upstream_keepalive available', 3
	unless $t->has_module('upstream_keepalive');

run_builtin($t);

is(curl(8080, '/', @alice), 'alice', 'built-in, with credentials');
is(curl(8080, '/'), 'alice', 'built-in, without credentials');
is(curl(8080, '/', as('bob')) . ' ' . curl(8080, '/'), 'bob bob',
	'built-in, another user');

}

###############################################################################

sub as {
	my ($user) = @_;

	return '--ntlm', '-u', "TEST\\$user:secret-$user";
}

# what is answered, as curl prints it

sub curl {
	my ($number, $uri, @options) = @_;

	return finish(start_at($number, $uri, @options));
}

# on the way to it, too

sub curl_headers {
	my ($uri, @options) = @_;

	return curl(8080, $uri, '-i', @options);
}

sub start {
	return start_at(8080, @_);
}

sub start_at {
	my ($number, $uri, @options) = @_;

	open my $out, '-|', 'curl', '-q', '-sS', '--noproxy', '*',
		'--max-time', LIMIT, @options,
		'http://127.0.0.1:' . port($number) . $uri
		or die "Can't run curl: $!\n";

	return $out;
}

sub finish {
	my ($out) = @_;

	local $/;

	my $all = <$out>;

	close $out;
	$all =~ s/^--_curl_--.*\n//mg;
	$all =~ s/\n\z//;

	return $all;
}

sub conns {
	my ($responses) = @_;

	my @conns = $responses =~ /^X-Connection: (\d+)/mg;

	return wantarray ? @conns : $conns[0];
}

sub unique {
	my ($all) = @_;

	my %seen;

	return grep { !$seen{$_}++ } split /\n/, $all;
}

###############################################################################

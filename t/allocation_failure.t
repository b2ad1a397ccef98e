#!/usr/bin/perl

# Tests for memory that runs out: whichever call of the allocator fails, while
# the configuration is read or while a request is served, nginx ends it in its
# usual way and goes on.
#
# TEST_NGINX_SWEEP=1: with more configurations.

###############################################################################

use warnings;
use strict;

use Test::More;

use FindBin;
use lib ($ENV{NGINX_TESTS_DIR} ? "$ENV{NGINX_TESTS_DIR}/lib" : ()),
	"$FindBin::Bin/lib";

use POSIX qw/ LONG_MAX /;
use Time::HiRes qw/ time /;

use Test::Nginx;
use Test::Allocator;
use Test::Backend;
use Test::Processes;
use Test::Configuration;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

# seconds in which any request must have ended, below those after which it is
# given up

use constant LIMIT => 7;

my $t = Test::Nginx->new()->has(qw/http http_ssl proxy map/)
	->has_daemon('openssl');

my $dir = $t->testdir();

plan(skip_all => 'no such allocator') unless allocator($t);

$t->plan(65);

###############################################################################

# While the configuration is read.  nginx takes blocks of 16 KB for it; texts of
# different lengths move the places where it needs another one.

my @sizes = map { $_ * 400 } $ENV{TEST_NGINX_SWEEP} ? 0 .. 40
	: (0, 11, 22, 33);

for my $directives (
	'keepalive 16;',
	'keepalive 1000 slice_key=$host slice_poolsize=1000;',
	'keepalive 1000 slice_key=$host:$arg_a slice_dyn=$arg_n;'
	. ' keepalive_hints on margin=1s; keepalive_timeout 5s;',
) {
	my (@calls, %ends);

	for my $size (@sizes) {
		my $conf = { http => text($size), upstream => $directives,
			location => $directives =~ /hints/ ? 'keepalive_status;' : '' };

		arm(0, 0);
		my $out = check($t, $conf);
		die $out if $?;

		push @calls, calls();

		for my $n (1 .. $calls[-1]) {
			$ends{load($conf, $n, $n)}++;
			$ends{load($conf, $n, LONG_MAX)}++;
		}
	}

	note("$directives calls: @calls");

	cmp_ok($calls[0], '>', 30, "load calls: $directives");
	is(join("\n", sort keys %ends), "accepted\nrefused",
		"load ends: $directives");
}

###############################################################################

# While requests are served, by a single process.  With pools as small as this,
# all that is larger than 48 bytes is a call of the allocator.

disarm();

$t->write_file_expand('nginx.conf', configuration('master_process off;'));

{
	delete local $ENV{LD_PRELOAD};

	$t->write_file('openssl.conf', <<'EOF');
[ req ]
default_bits = 2048
distinguished_name = req_distinguished_name
[ req_distinguished_name ]
EOF

	system('openssl req -x509 -new -nodes -newkey rsa:2048 -days 3650 '
		. "-config $dir/openssl.conf -subj /CN=localhost/ "
		. "-out $dir/localhost.crt -keyout $dir/localhost.key "
		. ">$dir/openssl.out 2>&1") == 0
		or die "Can't create certificate: $!\n";

	start_backend($t, 8081);
}

$t->run();

my %keys;

SKIP: {
skip 'nginx does not survive it without the module either', 53 unless survives();

for my $uri (qw! /plain/ /variable/ /text/ /map/ /evict/ /dyn/ /tls/ !) {

	# a request that needs a new connection, and one that finds one; where
	# nothing is sliced, one that is found would be used

	my $new = $uri eq '/plain/' ? 'close' : '';

	my $count = 0;

	requests("$uri new", $uri . $new, sub { 'new' . $count++ });
	requests("$uri again", $uri, sub { 'a' });
}

requests($_, $_, sub { 'a' })
	for '/status/json', '/status/prometheus', '/status/html';

is(join(', ', grep { keys %{$keys{$_}} > 1 } sort keys %keys), '',
	'no connection has two keys');

# kept are those of /plain/, /variable/, /text/, /map/, /evict/ and /dyn/

cmp_ok(open_conns(8081), '<=', 4 + 4 + 4 + 100 + 1 + 4, 'limits hold');

}

$t->stop();
is(wait_open(0), 0, 'closed at the end');

###############################################################################

# While the configuration is read again: nginx goes on with the old one.

$t->write_file_expand('nginx.conf', configuration('master_process on;'));
$t->run();

my ($n, $c, %ends) = (0, get('/text/', 'a'));

while (1) {
	arm(++$n, $n, $t->read_file('nginx.pid'));
	reload($t);
	my $calls = calls();
	disarm();

	last if $calls < $n;

	my $end = get('/text/', 'a');

	$ends{$end eq $c ? 'old' : $end =~ /^\d+$/ ? 'new' : $end}++;
	$c = $end;
}

note('reload: ', join ', ', map { "$_: $ends{$_}" } sort keys %ends);

cmp_ok($n, '>', 30, 'reload calls');
cmp_ok($ends{old}, '>', 20, 'reload refused');
is(join("\n", grep { !/^(?:new|old)$/ } sort keys %ends), '', 'reload ends');

# the worker before may still have its last requests

ok(wait_for(sub {
	my $before = $c;
	return $before eq ($c = get('/text/', 'a'));
}), 'reload after');

$t->stop();
is(wait_open(0), 0, 'reload closed at the end');

###############################################################################

# what becomes of a configuration

sub load {
	my ($conf, $first, $last) = @_;

	unlink "$dir/check.log";
	arm($first, $last);

	my $out = check($t, $conf);
	my $status = $?;

	return 'accepted' if $status == 0;

	# there may be no memory yet to say so

	my $log = $first > 2 && -f "$dir/check.log"
		? $out . $t->read_file('check.log') : '[emerg]';

	return 'refused' if $status == 256 && $log =~ /\[emerg\]/;

	$out =~ s/\Q$dir//g;

	return "status $status: $out";
}

sub text {
	my ($size) = @_;

	my @parts = (('x' x 2000) x ($size / 2000), 'x' x ($size % 2000));

	return join "\n", map { "log_format f$_ '$parts[$_]';" }
		grep { length $parts[$_] } 0 .. $#parts;
}

# requests that are none of the module's: freenginx crashes if there is no memory
# for what it notes down of a request's body

sub survives {
	for (my $n = 1; $n < 1000; $n++) {
		arm($n, $n);
		ask('/none/', 'a');
		my $calls = calls();
		disarm();

		return 0 if ask('/none/', 'a') ne '200';
		return 1 if $calls < $n;
	}

	return 0;
}

# a request for each call that may fail in it

sub requests {
	my ($name, $uri, $key) = @_;

	my ($n, $slow, %ends) = (0, 0);

	while (1) {
		my $k = $key->();
		my $start = time();

		arm(++$n, $n);
		my $end = ask($uri, $k);
		my $calls = calls();
		disarm();

		last if $calls < $n || $n > 1000;

		$ends{$end}++;
		$slow++ if time() - $start > LIMIT;

		# it goes on

		my $after = ask($uri, 'a');
		$ends{"afterwards $after"}++ if $after ne '200';
	}

	note("$name: ", join ', ', map { "$_: $ends{$_}" } sort keys %ends);

	cmp_ok($n, '>', 10, "$name calls");
	is(join(', ', grep { !/^(?:200|500|502|closed)$/ } sort keys %ends), '',
		"$name ends");
	is($slow, 0, "$name in time");
}

sub ask {
	my ($uri, $key) = @_;

	my $r = http(<<EOF);
GET $uri HTTP/1.1
Host: localhost
Connection: close
X-Key: $key

EOF

	$r = '' unless defined $r;

	$keys{$1}{$key}++ if $uri !~ /plain/ && $r =~ /X-Connection: (\S+)/;

	return 'closed' if $r eq '';
	return $r =~ m!^HTTP/1\.1 (\d+) ! ? $1 : $r;
}

sub configuration {
	my ($master) = @_;

	my $long = 'x' x 64;
	my $zeroes = '0' x 64;

	return <<"EOC";

%%TEST_GLOBALS%%

daemon off;
$master

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    log_format all '\$upstream_keepalive \$upstream_keepalive_slice';
    access_log %%TESTDIR%%/all.log all;

    request_pool_size 128;
    connection_pool_size 256;

    proxy_http_version 1.1;
    proxy_set_header Connection "";

    map \$http_x_key \$mapped {
        default  $long:\$http_x_key;
    }

    upstream plain {
        server 127.0.0.1:8081;
        keepalive 4;
    }

    upstream variable {
        server 127.0.0.1:8081;
        keepalive 4 slice_key=\$http_x_key;
    }

    upstream text {
        server 127.0.0.1:8081;
        keepalive 4 slice_key=$long:\$http_x_key slice_keylen=255;
        keepalive_timeout 60s;
    }

    upstream map {
        server 127.0.0.1:8081;
        keepalive 100 slice_key=\$mapped slice_poolsize=100 slice_keylen=255
                      slice_strict local;
    }

    upstream evict {
        server 127.0.0.1:8081;
        keepalive 1 slice_key=\$http_x_key slice_poolsize=1;
    }

    upstream dyn {
        server 127.0.0.1:8081;
        keepalive 4 slice_key=\$http_x_key slice_dyn=${zeroes}2\$arg_none;
    }

    upstream tls {
        server 127.0.0.1:8082;
        keepalive 4 slice_key=\$http_x_key;
    }

    server {
        listen       127.0.0.1:8080;
        server_name  localhost;

        location /none/ {
            proxy_pass http://127.0.0.1:8081/;
            proxy_http_version 1.0;
            proxy_set_header Connection close;
        }

        location /plain/ {
            proxy_pass http://plain/;
        }

        location /variable/ {
            proxy_pass http://variable/;
        }

        location /text/ {
            proxy_pass http://text/;
        }

        location /map/ {
            proxy_pass http://map/;
        }

        location /evict/ {
            proxy_pass http://evict/;
        }

        location /dyn/ {
            proxy_pass http://dyn/;
        }

        location /tls/ {
            proxy_pass https://tls/;
        }

        location /status/json {
            keepalive_status json slices;
        }

        location /status/prometheus {
            keepalive_status prometheus;
        }

        location /status/html {
            keepalive_status html slices;
        }
    }

    server {
        listen       127.0.0.1:8082 ssl;
        server_name  localhost;

        ssl_certificate %%TESTDIR%%/localhost.crt;
        ssl_certificate_key %%TESTDIR%%/localhost.key;

        location / {
            add_header X-Connection tls-\$connection;
            return 200 ok;
        }
    }
}

EOC
}

# it ends with the script, although functions refer to it

END { undef $t; }

###############################################################################

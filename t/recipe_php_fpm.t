#!/usr/bin/perl

# Tests for nginx-conf/php-fpm.conf with the real php-fpm: each site is answered
# by its pool, on connections that are kept, and each of them occupies a process.

###############################################################################

use warnings;
use strict;

use Test::More;

use FindBin;
use lib ($ENV{NGINX_TESTS_DIR} ? "$ENV{NGINX_TESTS_DIR}/lib" : ()),
	"$FindBin::Bin/lib";

use IO::Socket::UNIX;

use Test::Nginx qw/ :DEFAULT http_end /;
use Test::Backend;
use Test::Recipe;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

my ($php_fpm) = reverse glob '/usr/sbin/php-fpm*';

plan(skip_all => 'no php-fpm in /usr/sbin') unless defined $php_fpm;
plan(skip_all => 'no /proc/net/unix') unless -r '/proc/net/unix';

my $t = Test::Nginx->new()->has(qw/http fastcgi map rewrite/)->plan(26);

my $d = $t->testdir();

# pools have a user of their own, also if this is root

chmod 0755, $d;

recipe($t, 'php-fpm.conf', '/run/php' => $d, '/srv/www' => "$d/www");

# bob's pool has no more processes than connections are kept

$t->write_file('php-fpm.conf', <<"EOF" . pool('alice', 5) . pool('bob', 2));
[global]
error_log = $d/php-fpm.log
EOF

sub pool {
	my ($name, $processes) = @_;

	return <<"EOF";
[$name]
user = nobody
group = nogroup
listen = $d/$name.sock
listen.mode = 0666
env[POOL] = $name
pm = static
pm.max_children = $processes
EOF
}

mkdir "$d/www";

for my $site (qw/ alice bob /) {
	mkdir "$d/www/$site";
	$t->write_file("www/$site/static.txt", "a file of $site\n");
	$t->write_file("www/$site/index.php", <<'EOF');
<?php
header('X-Pool: ' . getenv('POOL'));
header('X-Process: ' . getmypid());
header('X-Host: ' . $_SERVER['HTTP_HOST']);
echo $_SERVER['QUERY_STRING'] . file_get_contents('php://input');
EOF

	# as long as there is no such file

	$t->write_file("www/$site/hold.php", <<"EOF");
<?php
while (!file_exists('$d/go.$site')) {
	clearstatcache();
	usleep(10000);
}
EOF
}

$t->run_daemon($php_fpm, '-n', '-F', '-y', "$d/php-fpm.conf");
wait_for(sub { -S "$d/alice.sock" && -S "$d/bob.sock" })
	or die "Can't start php-fpm\n";
$t->run();

###############################################################################

# sites and pools

my $r = http(request('GET', '/index.php?a', 'alice.example'));
is(header($r, 'X-Pool'), 'alice', 'pool');
is(header($r, 'X-Host'), 'alice.example', 'host');
like($r, qr/\r\n\r\na$/, 'query');

my ($process, @kept) = (header($r, 'X-Process'), accepted('alice'));
is(@kept, 1, 'kept');

$r = http(request('GET', '/', 'www.alice.example'));
is(header($r, 'X-Pool'), 'alice', 'other host');
is(header($r, 'X-Process'), $process, 'other host reused');

$r = http(request('GET', '/', 'bob.example'));
is(header($r, 'X-Pool'), 'bob', 'other pool');
is(my @bob = accepted('bob'), 1, 'other pool kept');

for my $round (1 .. 3) {
	$r = http("POST / HTTP/1.0\nHost: bob.example\nContent-Length: 4\n\n",
		body => 'body');
	like($r, qr/\r\n\r\nbody$/, "POST $round");

	$r = http(request('GET', '/', 'alice.example'));
	is(header($r, 'X-Process'), $process, "process $round");
}

is_deeply([ accepted('alice') ], \@kept, 'same connection');
is_deeply([ accepted('bob') ], \@bob, 'same connection of other pool');

like(http(request('GET', '/static.txt', 'bob.example')), qr/file of bob/,
	'file');
like(http(request('GET', '/none.php', 'bob.example')), qr/ 404 /, 'no file');
like(http(request('GET', '/', 'alice')), qr/ 404 /, 'no pool');

# limit, and what it leaves

is(together_at('alice', 4), 4, 'four at once');
ok(wait_for(sub { accepted('alice') == 2 }), 'two are kept');
is(together_at('bob', 2), 2, 'two at once');
is(accepted('bob'), 2, 'both are kept');

my @more = map { connect_to($_) } qw/ bob alice /;
ok(wait_for(sub { accepted('alice') == 3 }), 'pool has a process for more');
is(accepted('bob') . ' ' . waiting('bob'), '2 1', 'pool that is too small');

$t->stop();
ok(wait_for(sub { accepted('bob') == 1 && waiting('bob') == 0 }),
	'has one again when idle ones are closed');

###############################################################################

# connections to a pool: those that one of its processes has, and those that
# wait for one

sub accepted {
	my ($site) = @_;

	return connections($site, '03');
}

sub waiting {
	my ($site) = @_;

	return scalar connections($site, '02');
}

sub connections {
	my ($site, $state) = @_;

	open my $fh, '<', '/proc/net/unix' or die "Can't open: $!\n";

	my @inodes = map { /^\S+ \w+ \w+ \w+ \w+ $state +(\d+) \Q$d\E\/$site\.sock$/
		? $1 : () } <$fh>;

	return @inodes;
}

sub connect_to {
	my ($site) = @_;

	return IO::Socket::UNIX->new(Peer => "$d/$site.sock")
		|| die "Can't connect to $site: $!\n";
}

# how many processes had a request at once

sub together_at {
	my ($site, $n) = @_;

	my @held = map {
		http(request('GET', '/hold.php', "$site.example"), start => 1)
	} 1 .. $n;

	wait_for(sub { accepted($site) == $n });

	my $at_once = accepted($site);

	$t->write_file("go.$site", '');
	http_end($_) for @held;

	return $at_once;
}

# it ends with the script, although functions refer to it

END { undef $t; }

###############################################################################

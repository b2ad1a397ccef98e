#!/usr/bin/perl

# Tests for keepalive_hints: the upstream's Keep-Alive header limits how long a
# connection stays idle.

###############################################################################

use warnings;
use strict;

use Test::More;

use FindBin;
use lib ($ENV{NGINX_TESTS_DIR} ? "$ENV{NGINX_TESTS_DIR}/lib" : ()),
	"$FindBin::Bin/lib";

use IO::Select;
use IO::Socket::INET;
use Time::HiRes qw/ time /;

use Test::Nginx;
use Test::Backend;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

my $t = Test::Nginx->new()->has(qw/http proxy rewrite/)->plan(158);

$t->write_file_expand('nginx.conf', <<'EOF');

%%TEST_GLOBALS%%

daemon off;

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    proxy_http_version 1.1;
    proxy_set_header Host $host;
    proxy_set_header Connection keep-alive;

    upstream default {
        server 127.0.0.1:8081;
        keepalive 300 slice_key=$host slice_poolsize=300;
    }

    upstream on {
        server 127.0.0.1:8081;
        keepalive 300 slice_key=$host slice_poolsize=300;
        keepalive_hints on;
    }

    upstream off {
        server 127.0.0.1:8081;
        keepalive 300 slice_key=$host slice_poolsize=300;
        keepalive_hints off;
    }

    upstream five {
        server 127.0.0.1:8081;
        keepalive 300 slice_key=$host slice_poolsize=300;
        keepalive_hints on margin=5s;
    }

    upstream half {
        server 127.0.0.1:8081;
        keepalive_hints on margin=500ms;
        keepalive 300 slice_key=$host slice_poolsize=300;
    }

    upstream none {
        server 127.0.0.1:8081;
        keepalive 300 slice_key=$host slice_poolsize=300;
        keepalive_hints on margin=0;
    }

    upstream shorter {
        server 127.0.0.1:8081;
        keepalive 300 slice_key=$host slice_poolsize=300;
        keepalive_timeout 500ms;
    }

    upstream longer {
        server 127.0.0.1:8081;
        keepalive 300 slice_key=$host slice_poolsize=300;
        keepalive_timeout 60s;
        keepalive_hints on margin=500ms;
    }

    upstream zero {
        server 127.0.0.1:8081;
        keepalive 300 slice_key=$host slice_poolsize=300;
        keepalive_timeout 0;
    }

    upstream plain {
        server 127.0.0.1:8081;
        keepalive 300;
        keepalive_hints on margin=500ms;
    }

    server {
        listen       127.0.0.1:8080;
        server_name  localhost;

        location ~ ^/(\w+)/ {
            proxy_pass http://$1;
        }
    }
}

EOF

port(8081);

$t->run_daemon(\&backend, $t->testdir());
$t->waitforsocket('127.0.0.1:' . port(8081))
	or die "Can't start backend\n";

$t->run();

###############################################################################

# forms of the header, of which 5 seconds are said: with a margin of these 5,
# nothing is left, while it is with 65

for my $form (
	'timeout=5',
	'timeout=5, max=100',
	'max=100, timeout=5',
	'timeout=5,max=100',
	', ,timeout=5,,',
	"timeout=5\t,\tmax=100",
	'timeout = 5',
	"timeout\t=\t5",
	'timeout="5"',
	'timeout = "5" , max = "100"',
	'TimeOut=5, MAX=100',
	'timeout=005',
	'x, timeout=5, y=1, z="a b"',
	'header="timeout=1, max=0", timeout=5',
	'timeouts=1, xtimeout=1, timeout=5, maximum=0',
	'timeout=5, timeout=99',
	'timeout=99, timeout=5',
	'timeout=99, timeout="5", timeout=98',
	'timeout=99|timeout=5',
	'timeout=5|timeout=99',
	'max=100|timeout=99|timeout=5, max=99',
	'|timeout=5|',
	'timeout=x|timeout=5',
	'timeout=5|timeout=99;',
) {
	is(kept('five', $form), 0, "$form not kept");

	(my $longer = $form) =~ s/(\b|00)5\b/${1}65/;

	is(kept('five', $longer), 1, "$longer kept");
}

# what is malformed says nothing, whatever else is there

for my $form (
	'timeout', 'timeout=', 'timeout=x', 'timeout=-5', 'timeout=+5',
	'timeout=5s', 'timeout=1.5', 'timeout=0x5', 'timeout=" 5"', 'timeout="5',
	'timeout:5', 'timeout=5 max=1', 'timeout=5; max=1', 'timeout=5, max=x',
	'timeout=5, x="', '=5, timeout=5',
) {
	is(kept('five', $form), 1, "$form ignored");
}

SKIP: {
	skip 'no --with-debug', 2 unless $t->has_module('--with-debug');

	my $log = $t->read_file('error.log');

	like($log, qr/malformed Keep-Alive header: "timeout=5s"/, 'logged');
	unlike($log, qr/malformed Keep-Alive header: "timeout=5"/,
		'others not logged');
}

# nothing said

is(kept('five', undef), 1, 'no header');
is(kept('five', ''), 1, 'empty');
is(kept('five', '300'), 1, 'no known parameter');
is(kept('five', 'timeout=' . '9' x 40), 1, 'overlong number');
is(kept('five', 'timeout=0'), 0, 'no time');

# max

is(kept('five', 'max=0'), 0, 'max=0');
is(kept('five', 'timeout=99, max=0'), 0, 'max=0 and timeout');
is(kept('five', 'max=9, max="0"'), 0, 'max=0 repeated');
is(kept('five', 'max=9|max=0'), 0, 'max=0 in another line');
is(kept('five', 'max=1'), 1, 'max=1');
is(kept('five', 'timeout=99, max=1'), 1, 'max=1 and timeout');

# margins

for my $upstream ('default', 'on') {
	is(kept($upstream, 'timeout=1'), 0, "$upstream nothing left");
	is(kept($upstream, 'timeout=3'), 1, "$upstream something left");
	is(kept($upstream, 'max=0'), 0, "$upstream max=0");
}

is(kept('half', 'timeout=1'), 1, 'small margin');
is(kept('none', 'timeout=1'), 1, 'no margin');
is(kept('none', 'timeout=0'), 0, 'no margin and no time');
is(kept('none', 'max=0'), 0, 'no margin and max=0');

# off

is(kept('off', 'timeout=0'), 1, 'off timeout');
is(kept('off', 'max=0'), 1, 'off max');

# keepalive_timeout 0 stays what it is

is(kept('zero', 'timeout=99'), 0, 'keepalive_timeout 0');

# what nginx does not keep, it closes at once

my $c = get_hinted('default', 'x', 'timeout=1');
cmp_ok(idle($c), '<', 0.5, 'not kept, closed');

# when nginx closes; all of them wait at the same time

my %limits = (
	'default timeout=2' => 1,
	'on timeout=2, max=5' => 1,
	'half timeout=1' => 0.5,
	'half timeout=9|timeout=2|timeout=8' => 1.5,
	'none timeout=1' => 1,
	'none timeout=2' => 2,
	'plain timeout=1' => 0.5,
	'shorter timeout=60' => 0.5,
	'shorter timeout=x' => 0.5,
	'longer timeout=1' => 0.5,
);

my %conn;

for my $name (sort keys %limits) {
	my ($upstream, $hints) = split / /, $name, 2;
	my $host = $name =~ s/\W+/-/gr;

	$conn{$name} = get_hinted($upstream, $host, $hints);
}

# each response speaks for itself

my $freed = get_hinted('half', 'freed', 'timeout=1');
is(get_hinted('half', 'freed'), $freed, 'reused without header');

my $bound = get_hinted('half', 'bound');
is(get_hinted('half', 'bound', 'timeout=1'), $bound, 'reused with header');

my $off = get_hinted('off', 'x', 'timeout=1');

for my $name (sort keys %limits) {
	my $limit = $limits{$name};
	my $idle = idle($conn{$name});

	cmp_ok($idle, '>', $limit - 0.1, "$name not too early");
	cmp_ok($idle, '<', $limit + 1, "$name in time");
}

cmp_ok(idle($bound), '<', 1.5, 'limit of the last response');

is(get_hinted('half', 'freed'), $freed, 'no limit in the last response');
is(get_hinted('off', 'x'), $off, 'off, still there');
is_new(get_hinted('none', 'none-timeout-1'), 'not reused after the limit');

# configuration

for my $args ('on', 'off', 'on margin=1s', 'on margin=0', 'on margin=1500ms',
	'on margin=1m', 'on margin=5', 'on learn', 'on margin=1s learn',
	'on learn margin=1s')
{
	is(check("keepalive_hints $args;"), '', $args);
}

for my $value ('x', 'On', 'yes', 'margin=1s', '""') {
	(my $text = $value) =~ s/"//g;
	is(check("keepalive_hints $value;"), 'invalid value "' . $text
		. '" in "keepalive_hints" directive', $value);
}

is(check('keepalive_hints x margin=1s;'),
	'invalid value "x" in "keepalive_hints" directive', 'x margin=1s');

for my $parameter ('margin=x', 'margin=', 'margin=-1', 'margin=1.5', 'margin',
	'margin=1x', 'margn=1s', 'Margin=1s', 'off', '1s', '""',
	'margin=99999999999999999999', 'learn=1', 'learned', 'Learn')
{
	(my $text = $parameter) =~ s/"//g;
	is(check("keepalive_hints on $parameter;"),
		qq!invalid parameter "$text"!, "on $parameter");
}

is(check("keepalive_hints off $_;"), qq!invalid parameter "$_"!, "off $_")
	for 'margin=1s', 'learn';
is(check('keepalive_hints on margin=1s x;'),
	'invalid parameter "x"', 'on margin=1s x');

is(check("keepalive_hints on $_;"), 'duplicate parameter "'
	. (split ' ')[-1] . '"', "on $_")
	for 'margin=1s margin=2s', 'learn learn';

for my $twice ('on; keepalive_hints off', 'on; keepalive_hints on',
	'off; keepalive_hints on margin=1s')
{
	is(check("keepalive_hints $twice;"),
		'"keepalive_hints" directive is duplicate', $twice);
}

for my $args ('', ' on margin=1s learn learn') {
	is(check("keepalive_hints$args;"), 'invalid number of arguments in'
		. ' "keepalive_hints" directive', "arguments:$args");
}

###############################################################################

# a request that is answered with Keep-Alive headers, one for each part

sub get_hinted {
	my ($upstream, $host, $hints) = @_;

	return get("/$upstream/", $host,
		defined $hints ? "X-Hints: $hints\n" : '');
}

# whether the next request uses the connection that this answer came by

my $hosts;

sub kept {
	my ($upstream, $hints) = @_;

	my $host = 'kept-' . ++$hosts;
	my $first = get_hinted($upstream, $host, $hints);
	my $second = get_hinted($upstream, $host);

	return "$first, $second" if "$first$second" !~ /^\d+$/;
	return $first == $second ? 1 : 0;
}

# how long nginx left the connection idle before it closed it

sub idle {
	my ($conn) = @_;

	my $idle;

	wait_for(sub {
		($idle) = $t->read_file('closed') =~ /^$conn (\S+)$/m;
		return defined $idle;
	});

	return defined $idle ? $idle : 1000;
}

# what is wrong with these directives, said at their line

sub check {
	my ($directives) = @_;

	my $dir = $t->testdir();

	$t->write_file_expand('check.conf', <<"EOF");
%%TEST_GLOBALS%%

daemon off;

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    upstream u {
        server 127.0.0.1:8081;
        keepalive 16 slice_key=\$host;
        $directives
    }
}
EOF

	my ($before) = $t->read_file('check.conf') =~ /^(.*?)\Q$directives/s;
	my $line = 1 + ($before =~ tr/\n//);

	my $run = "$Test::Nginx::NGINX -t -p $dir/ -c check.conf -e check.log";
	my $out = `$run 2>&1`;

	return '' if $out =~ /syntax is ok\n.*test is successful/;

	my @lines = $out =~ /^nginx: \[emerg\] (.*)$/gm;

	return $out if @lines != 1 || $out !~ /test failed$/m;
	return $lines[0] unless $lines[0] =~ s/ in \Q$dir\E\/check.conf:$line$//;
	return $lines[0];
}

###############################################################################

# Says by which connection it answers, and gives the hints that it is asked
# for.  When a connection is closed, it writes to a file how long it was idle.

sub backend {
	my ($dir) = @_;

	my $listen = IO::Socket::INET->new(
		Proto => 'tcp',
		LocalAddr => '127.0.0.1:' . port(8081),
		Listen => 511,
		ReuseAddr => 1,
	) or die "Can't listen: $!\n";

	open my $closed, '>', "$dir/closed" or die "Can't create file: $!\n";
	$closed->autoflush(1);

	my $select = IO::Select->new($listen);
	my (%conns, $count);

	while (my @ready = $select->can_read()) {
		for my $s (@ready) {
			if ($s == $listen) {
				my $new = $listen->accept() or next;
				$select->add($new);
				$conns{$new} = {
					number => ++$count,
					in => '',
					since => time(),
				};
				next;
			}

			my $c = $conns{$s};

			if (!sysread($s, $c->{in}, 65536, length $c->{in})) {
				printf $closed "%d %.3f\n", $c->{number},
					time() - $c->{since};
				$select->remove($s);
				delete $conns{$s};
				close $s;
				next;
			}

			while ($c->{in} =~ s/^(.*?\r\n\r\n)//s) {
				syswrite($s, answer($c->{number}, $1));
				$c->{since} = time();
			}
		}
	}
}

sub answer {
	my ($number, $request) = @_;

	my ($hints) = $request =~ /^X-Hints:[ \t]*(.*?)\r$/m;
	my @lines = defined $hints ? split(/\|/, $hints, -1) : ();

	# names of headers in any case

	my @names = ('Keep-Alive', 'keep-alive', 'KEEP-ALIVE');
	@lines = map { $names[$_ % @names] . ": $lines[$_]" } 0 .. $#lines;
	@lines = ('Keep-Alive:') if defined $hints && !@lines;

	return join "\r\n", 'HTTP/1.1 200 OK', "X-Connection: $number",
		'Connection: keep-alive', 'Content-Length: 0', @lines, '', '';
}

# it ends with the script, although functions refer to it

END { undef $t; }

###############################################################################

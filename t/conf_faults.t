#!/usr/bin/perl

# Tests for broken and odd configurations, besides those of conf_errors.t: all
# that nginx prints, and what it ends with.  What is odd and accepted works.

###############################################################################

use warnings;
use strict;

use Test::More;

use FindBin;
use lib ($ENV{NGINX_TESTS_DIR} ? "$ENV{NGINX_TESTS_DIR}/lib" : ()),
	"$FindBin::Bin/lib";

use Test::Nginx;
use Test::Backend;
use Test::Configuration;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

# the largest number of nginx, and one digit or more that are too many

use constant {
	MAX => '9223372036854775807',
	MAX_1 => '9223372036854775808',
};

my $t = Test::Nginx->new()->has(qw/http proxy/)->plan(476);

# numbers: the limit is 2^32 - 2, and nothing wraps around

accepted("keepalive $_;") for '00', '016', '0' x 30 . '16', '"16"', "'16'",
	'16 slice_key=a slice_conn=4294967294',
	'1 slice_key=a slice_poolsize=4294967294',
	'1 slice_key=a slice_keylen=65535', '1 slice_key=a slice_keylen=00065535',
	'1 slice_key=a slice_poolsize=4294967294 slice_keylen=65535',
	'16 slice_key=a slice_conn=00 slice_poolsize=00';

for my $value (
	'--1', '-0', '4294967295', '4294967296', '4294967312', MAX, MAX_1,
	'18446744073709551615', '18446744073709551616', '18446744073709551632',
	'340282366920938463463374607431768211472', '9' x 500,
	'16s', '16m', '16,', '16.', '1_6', '1e3', '0b1', 'on', 'off', 'inf',
	'$host', '${host}', '16"16"', '16\;', "\xef\xbc\x91\xef\xbc\x96",
	"\xd9\xa1\xd9\xa6", "16\xc2\xa0",
) {
	refused("keepalive $value;",
		qq!invalid value "$value" in "keepalive" directive!);
}

for my $value (' 16', '16 ', "16\t", '1 6', "16\0", "\n16", ' ', '16;') {
	refused("keepalive \"$value\";",
		qq!invalid value "$value" in "keepalive" directive!);
}

# bytes that are no text are shown as what they are

refused("keepalive \xff;", 'invalid value "\xff" in "keepalive" directive');

for my $name (qw/ slice_conn slice_poolsize slice_keylen /) {
	for my $value (
		'4294967295', '4294967296', '4294967297', MAX, MAX_1,
		'18446744073709551617', '340282366920938463463374607431768211457',
		'-0', '--1', '5s', '5,', '5 ', ' 5', "\xef\xbc\x95", '"5"', '$n',
		'off', "5\0",
	) {
		refused("keepalive 16 slice_key=a '$name=$value';",
			qq!invalid parameter "$name=$value"!);
	}
}

for my $value ('65536', '65537', '131073', '00') {
	refused("keepalive 16 slice_key=a slice_keylen=$value;",
		qq!invalid parameter "slice_keylen=$value"!);
}

# names of parameters: whole, and in lower case

for my $parameter (
	'slice_connX=1', 'slice_conn', 'slice_con=1', 'slice_conns=1',
	'slice_poolsize5', 'slice_pool=5', 'slice_keyle=5', 'slice_key_len=5',
	'slice_keya', 'slice_key:a', 'slice-key=a', 'slice_dyn:a', 'slicekey=a',
	'slice_strict=', 'slice_strict=off', 'slice_strict0', 'strict',
	'SLICE_KEY=a', 'Slice_Conn=1', 'slice_Poolsize=1', 'SLICE_STRICT',
	'LOCAL', 'Local', 'SINGLE', 'local=', 'local0', 'single=',
	'timeout=5', 'requests=5', 'max=5', '=', '=1', '-', '--', '16', '$host',
	"slice_key\0=a", "\xef\xbb\xbflocal",
) {
	refused("keepalive 16 slice_key=a $parameter;",
		qq!invalid parameter "$parameter"!);
}

# blanks around "=" make several parameters

refused("keepalive 16 slice_key = a;", 'invalid parameter "slice_key"');
refused("keepalive 16 slice_key= a;", 'invalid parameter "slice_key="');
refused("keepalive 16 slice_conn= 1;", 'invalid parameter "slice_conn="');
refused("keepalive 16 k;", 'invalid parameter "k"');

# what is wrong first is named, and what is wrong before what is given twice

refused('keepalive x slice_conn=y;',
	'invalid value "x" in "keepalive" directive');
refused('keepalive 16 slice_conn=x slice_poolsize=y slice_key=a;',
	'invalid parameter "slice_conn=x"');
refused('keepalive 16 slice_key=a slice_poolsize=3 slice_poolsize=x;',
	'invalid parameter "slice_poolsize=x"');
refused('keepalive 16 slice_key=$nosuch slice_conn=x;',
	'invalid parameter "slice_conn=x"');
refused('keepalive 0 slice_key=a slice_conn=x;',
	'invalid parameter "slice_conn=x"');
refused('keepalive 16 ' . join(' ', map { "p$_" } 1 .. 300) . ';',
	'invalid parameter "p1"');

# given twice

refused("keepalive 16 slice_key=a $_ $_;", qq!duplicate parameter "$_"!)
	for qw/ slice_conn=0 slice_dyn=1 slice_poolsize=0 slice_keylen=1
	slice_strict local single /;
refused('keepalive 16 slice_key=a slice_key=b;',
	'duplicate parameter "slice_key=b"');
refused('keepalive 16 slice_key=a ' . 'local ' x 500 . ';',
	'duplicate parameter "local"');

refused($_, '"keepalive" directive is duplicate')
	for 'keepalive 1; keepalive 1 slice_key=a;',
	'keepalive 1 local; least_conn; keepalive_hints off; keepalive 1 local;',
	'keepalive 1; keepalive x;';

for my $directive (qw/ keepalive_timeout keepalive_requests keepalive_time /) {
	refused("$directive 0; $directive 0;",
		qq!"$directive" directive is duplicate!);
}

refused("$_ keepalive_hints on;", '"keepalive_hints" directive is duplicate')
	for 'keepalive_hints on;', 'keepalive_hints off;',
	'keepalive_hints on margin=2s; keepalive 1;';

# keys

accepted("keepalive 16 slice_key=$_;") for '$1', '$9', '$10', '$arg_',
	'$http_', '$cookie_', '$upstream_addr', '$HOST', '$Http_X', '=', '"',
	'"a"b', "'", '}', '$host}', '#a', '\$host', '\;', "\xff\xfe", '${host}x',
	'${arg_a}${arg_b}', '$msec$request_id$pid', '-1', '0',
	'$host' x 700, 'x' x 4000, '$arg_' . 'x' x 4000;

accepted("keepalive 16 \"slice_key=$_\";") for "\0", "a\nb", ' ', '${host} ',
	';{}#', '$host $uri', "\xef\xbc\x91";

refused("keepalive 16 slice_key=$_;", 'invalid variable name')
	for '$', 'x$', '$$', '$$host', '$host$', '${', '${}', '${}host', '$-',
	'$.host', "\$\xc3\xa4", '$host' x 700 . '$';
refused('keepalive 16 "slice_key=$";', 'invalid variable name');
refused('keepalive 16 "slice_key=$ host";', 'invalid variable name');

for my $name ('host', 'hos', '1', 'x' x 500) {
	refused("keepalive 16 slice_key=\${$name;",
		qq!the closing bracket in "$name" variable is missing!);
}

unknown("keepalive 16 slice_key=$_;", 'nosuch')
	for '$nosuch', '${nosuch}', '$nosuch$host', '$host${nosuch}x',
	'$nosuch' x 500;
unknown("keepalive 16 slice_key=$_;", $_ =~ /(\w+)/)
	for '${1}', '$0', '$hostx', '$_', '${01}', '$http';

refused('keepalive 16 "slice_key=";', 'invalid parameter "slice_key="');
refused('keepalive 16 slice_key=;;', 'invalid parameter "slice_key="');
refused('keepalive 16 slice_key=$ host;', 'invalid parameter "host"');
refused('keepalive 16 slice_key=${ho st};', 'invalid parameter "st}"');
refused('keepalive 16 slice_key="a b";', 'invalid parameter "b""');

# longer than what nginx reads at once, and than what it logs at once

refused('keepalive 16 slice_key=' . 'x' x 4096 . ';',
	'too long parameter "slice_key=..." started');
refused('keepalive 16 ' . 'x' x 3900 . ';',
	substr 'invalid parameter "' . 'x' x 3900, 0, 1024);
refused('keepalive ' . '1' x 3900 . ';',
	substr 'invalid value "' . '1' x 3900, 0, 1024);

# slice_dyn

accepted("keepalive 16 slice_key=a slice_dyn=$_;")
	for 'arg_n', '$arg_n', '${arg_n}', 'HTTP_X', '$1', '1$arg_n', '-$arg_n',
	'4294967294', '000', '$arg_a$arg_b';

refused("keepalive 16 slice_key=a slice_dyn=$_;",
	qq!invalid parameter "slice_dyn=$_"!)
	for '4294967295', '18446744073709551617', '-1', '+1', '1.5', 'n-m', '=1',
	"\xef\xbc\x91", '"1"', '%s';
refused('keepalive 16 slice_key=a slice_dyn=a b;', 'invalid parameter "b"');

refused("keepalive 16 slice_key=a slice_dyn=$_;", 'invalid variable name')
	for '$', '${', '${}', '$arg_n$', '1$';
refused('keepalive 16 slice_key=a slice_dyn=${arg_n;',
	'the closing bracket in "arg_n" variable is missing');
unknown("keepalive 16 slice_key=a slice_dyn=$_;", $_ =~ /(\w+)/)
	for 'nosuch', '$nosuch', '1x', '0x1', '5s', 'off', '${1}';

# what is not used is not looked at, but its grammar is

is(check($t, 'keepalive 16 slice_dyn=nosuch;'),
	'nginx: [warn] parameter "slice_dyn" has no effect without "slice_key"'
	. place($t, 'keepalive 16') . "\n" . verdict(0), 'slice_dyn without key');
refused('keepalive 16 slice_dyn=n-m;', 'invalid parameter "slice_dyn=n-m"');

# times and requests

for my $directive (qw/ keepalive_timeout keepalive_time /) {
	accepted("keepalive 1; $directive $_;") for '0', '0ms', '1ms', '1s500ms',
		'"1s 500ms"', '1h30m', '1w', MAX . 'ms', '9223372036854775s';

	refused("keepalive 1; $directive $_;",
		qq!"$directive" directive invalid value!)
		for MAX, MAX_1 . 'ms', '9223372036854776s', '18446744073709551616',
		'106751991168d', '1.5s', '500ms1s', '30m1h', '1y', '+1s', '--1',
		'""', '" "', '"1 s"', '0x10', 'ms', '1S', '1sec', 'off', '$host',
		'timeout=5', "\xef\xbc\x91";

	refused("keepalive 1; $directive $_;",
		qq!invalid number of arguments in "$directive" directive!)
		for '1 s', '1 2 3';
}

accepted("keepalive 1; keepalive_requests $_;") for '0', '1', '4294967296', MAX;

refused("keepalive 1; keepalive_requests $_;",
	'"keepalive_requests" directive invalid number')
	for MAX_1, '18446744073709551617', '+1', '1k', '1.5', '""', '" 1"', '0x10',
	'off', "\xef\xbc\x91";

refused('keepalive 1; keepalive_requests 1 2;',
	'invalid number of arguments in "keepalive_requests" directive');

# keepalive_hints

accepted("keepalive_hints $_; keepalive 1;") for 'on', 'off', 'on margin=0',
	'on learn', 'on learn margin=1ms', 'on "margin=1s 500ms"', 'on margin=' . MAX . 'ms';

refused("keepalive_hints $_;",
	'invalid number of arguments in "keepalive_hints" directive')
	for '', 'on margin = 1s', 'on margin=1s learn learn';
refused('keepalive_hints on margin= 1s;', 'invalid parameter "margin="');
refused('keepalive_hints on margin=1s margin=1s;',
	'duplicate parameter "margin=1s"');
refused('keepalive_hints on learn learn;', 'duplicate parameter "learn"');

for my $value ('ON', 'Off', '1', 'yes', '$host', 'margin=1s', 'on,', 'onn') {
	refused("keepalive_hints $value;",
		qq!invalid value "$value" in "keepalive_hints" directive!);
}

refused('keepalive_hints "";',
	'invalid value "" in "keepalive_hints" directive');
refused('keepalive_hints margin=1s on;',
	'invalid value "margin=1s" in "keepalive_hints" directive');

refused("keepalive_hints on $_;", qq!invalid parameter "$_"!)
	for 'on', 'off', 'margin', 'margin=', 'margin=-1', 'margin=+1s',
	'margin=1x', 'margin=1.5', 'margin==1s', 'margin=on', 'margin=$host',
	'margin=' . MAX, 'margin=' . MAX_1 . 'ms', 'MARGIN=1s', 'margins=1s',
	'margi=1s', 'timeout=1s', 'local', "margin=\xef\xbc\x91s";
refused("keepalive_hints off $_;", qq!invalid parameter "$_"!)
	for 'off', 'on', 'margin=1s', 'learn';
refused('keepalive_hints on "margin= 1s";', 'invalid parameter "margin= 1s"');

# where they belong

for my $context (qw/ main http server location /) {
	refused("$_;", /^(\w+)/ ? qq!"$1" directive is not allowed here! : '',
		$context) for 'keepalive 16', 'keepalive 16 slice_key=$host',
		'keepalive', 'keepalive_hints on';
}

refused("$_ 5;", qq!"$_" directive is not allowed here!, 'main')
	for qw/ keepalive_timeout keepalive_requests keepalive_time /;
refused('if ($host) { keepalive 5; }',
	'"keepalive" directive is not allowed here', $_) for qw/ server location /;

# those about clients are untouched

accepted('keepalive_timeout 5 5; keepalive_requests 5; keepalive_time 5;', $_)
	for qw/ http server location /;

accepted('upstream v { keepalive 4; server 127.0.0.1:1; }', 'http');
refused('upstream v { keepalive 4; }', 'no servers are inside upstream',
	'http');

# what is not the directive

refused("$_;", /^(\S+)/ ? qq!unknown directive "$1"! : '')
	for 'Keepalive 16', 'KEEPALIVE 16', 'keepalives 16', 'keepalive16',
	'keepalive=16', 'slice_key=a', 'slice_key a';
refused('server 127.0.0.1:1 slice_key=a;', 'invalid parameter "slice_key=a"');

accepted('"keepalive" 16;');
refused("keepalive$_;",
	'invalid number of arguments in "keepalive" directive') for '', ' ', "\n";
refused('keepalive "";', 'invalid value "" in "keepalive" directive');
refused('keepalive 16 {}', 'directive "keepalive" is not terminated by ";"');
refused('keepalive 16 slice_key={};',
	'directive "keepalive" is not terminated by ";"');
refused('keepalive "16"16;', 'unexpected "1"');
refused('keepalive 16;;', 'unexpected ";"');

# the line is the one where the directive ends

refused("keepalive 16\nslice_key=a\nslice_conn=x;",
	'invalid parameter "slice_conn=x"');
refused("keepalive\n16\nslice_key=\$\n;", 'invalid variable name');
accepted("keepalive\n\n16\n# a comment;\nslice_key=a\t local\r\n;");

# memory that is not there

{
	local $Test::Nginx::NGINX = "ulimit -v 1000000; $Test::Nginx::NGINX";

	no_memory("keepalive $_;") for '4294967294', '1073741824',
		'4294967294 slice_key=$host',
		'4294967294 slice_key=$host slice_poolsize=4294967294'
		. ' slice_keylen=65535',
		'1000000 slice_key=$host slice_poolsize=4294967294'
		. ' slice_keylen=65535';

	# there is no more than one slice, nor server, for each connection

	accepted('keepalive 1 slice_key=$host slice_poolsize=4294967294'
		. ' slice_keylen=65535;');

	# whatever it is that does not fit any more

	my @ends = map { check($t, "keepalive ${_}00000 slice_key=a"
		. " slice_poolsize=${_}00000;") . $? } 20 .. 80;

	my @bad = grep { $_ ne verdict(0) . 0 && $_ !~ no_memory_message() } @ends;

	is(join("\n", @bad), '', 'any size');
	is($ends[0], verdict(0) . 0, 'a size that fits');
	like($ends[-1], no_memory_message(), 'a size that does not fit');
}

# what is odd and accepted works

my $long = 'x' x 4000;

$t->write_file_expand('nginx.conf', <<"EOF");

%%TEST_GLOBALS%%

daemon off;

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    proxy_http_version 1.1;
    proxy_set_header Connection "";

    upstream large {
        server 127.0.0.1:8081;
        keepalive 2 slice_key=\$host slice_conn=4294967294
                    slice_poolsize=4294967294 slice_keylen=65535;
        keepalive_timeout @{[ MAX ]}ms;
        keepalive_time @{[ MAX ]}ms;
        keepalive_requests @{[ MAX ]};
        keepalive_hints on margin=@{[ MAX ]}ms;
    }

    upstream long {
        server 127.0.0.1:8081;
        keepalive 2 slice_key=$long\$host slice_keylen=65535;
    }

    upstream capture {
        server 127.0.0.1:8081;
        keepalive 2 slice_key=\$1 slice_dyn=\$2;
    }

    server {
        listen       127.0.0.1:8080;
        server_name  localhost;

        location /large/ {
            proxy_pass http://large/;
        }

        location /long/ {
            proxy_pass http://long/;
        }

        location ~ ^/capture/(.)(.)/ {
            proxy_pass http://capture/\$1;
        }

        location /capture/ {
            proxy_pass http://capture/;
        }
    }
}

EOF

start_backend($t, 8081);
$t->run();

for my $uri ('/large/', '/long/') {
	my $a = get($uri, 'a');

	is(get($uri, 'a'), $a, "$uri again");
	is_new(my $b = get($uri, 'b'), "$uri other host");
	is(get($uri, 'b'), $b, "$uri other host again");
	is(get($uri, 'a'), $a, "$uri and the first");
}

my $a = get('/capture/a2/', 'a');

is(get('/capture/a2/', 'b'), $a, 'captured');
is_new(my $b = get('/capture/b2/', 'a'), 'captured other');
is(get('/capture/b2/', 'a'), $b, 'captured other again');
is_new(my $none = get('/capture/', 'a'), 'nothing captured');
is_new(get('/capture/', 'a'), 'nothing captured is no limit, not kept');

###############################################################################

# accepted without a word

sub accepted {
	my ($directives, $context) = @_;

	my $out = check($t, $directives, $context);

	is($out . $?, verdict(0) . 0, name($directives, $context));
}

# one line, which says what, and where the directives end

sub refused {
	my ($directives, $message, $context) = @_;

	my $out = check($t, $directives, $context);

	# what nginx complains of in the last one may lie behind it

	my $place = place($t, $directives);
	my $lines = () = $directives =~ /\n/g;
	$place =~ s/(\d+)$/$1 + $lines/e;

	is($out . $?, "nginx: [emerg] $message$place\n" . verdict(256) . 256,
		name($directives, $context));
}

# said when all is read, without a place

sub unknown {
	my ($directives, $name) = @_;

	my $out = check($t, $directives);

	is($out . $?, qq!nginx: [emerg] unknown "$name" variable\n! . verdict(256)
		. 256, name($directives));
}

sub no_memory {
	my ($directives) = @_;

	my $out = check($t, $directives);

	like($out . $?, no_memory_message(), name("no memory: $directives"));
}

sub no_memory_message {
	my $place = place($t, 'upstream u {');
	my $end = verdict(256) . 256;

	return qr/^nginx:\ \[emerg\]\ malloc\(\d+\)\ failed\ .*\n
		nginx:\ \[emerg\]\ could\ not\ allocate\ memory\ for\ "keepalive"
		\ in\ upstream\ "u"\Q$place\E\n\Q$end\E$/x;
}

# what nginx prints at the end

sub verdict {
	my ($status) = @_;

	my $file = $t->testdir() . '/check.conf';

	return "nginx: configuration file $file test failed\n" if $status;
	return "nginx: the configuration file $file syntax is ok\n"
		. "nginx: configuration file $file test is successful\n";
}

sub name {
	my ($directives, $context) = @_;

	my $name = substr $directives, 0, 100;

	$name .= '...' if length $directives > 100;
	$name =~ s/([^\x20-\x7e])/sprintf('\\x%02x', ord $1)/ge;
	$name =~ s/#/\\#/g;
	$name .= " in $context" if defined $context;

	return $name;
}

# it ends with the script, although functions refer to it

END { undef $t; }

###############################################################################

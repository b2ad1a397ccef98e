#!/usr/bin/perl

# Tests for errors in the configuration of keepalive: nginx says what is
# wrong, and where, and does not start.

###############################################################################

use warnings;
use strict;

use Test::More;

use FindBin;
use lib ($ENV{NGINX_TESTS_DIR} ? "$ENV{NGINX_TESTS_DIR}/lib" : ()),
	"$FindBin::Bin/lib";

use Test::Nginx;
use Test::Configuration;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

my $t = Test::Nginx->new()->has(qw/http proxy/)->plan(155);

# those that are right

for my $args (
	'1',
	'0',
	'65536',
	'16 slice_key=$host',
	'16 slice_key=$host$uri',
	'16 slice_key=constant',
	'16 slice_key=$host slice_conn=0',
	'16 slice_key=$host slice_conn=4 slice_dyn=$arg_n slice_poolsize=100'
		. ' slice_keylen=64 slice_strict local',
	'16 local slice_strict slice_keylen=1 slice_poolsize=0 slice_dyn=arg_n'
		. ' slice_conn=4 slice_key=$host',
	'16 "slice_key=a b $host"',
	'16 slice_key=slice_key=$host',
	'16 slice_key=${host}x slice_dyn=${arg_n}',
	'16 slice_key=$host slice_dyn=4',
	'16 local',
	'16 shared',
	'0 shared',
	'16 shared local slice_conn=2 slice_key=$host',
) {
	valid($t, "keepalive $args;");
}

valid($t, 'keepalive 16; least_conn;');
valid($t, 'least_conn; keepalive 16;');
valid($t, 'keepalive 16; keepalive_timeout 60s; keepalive_requests 100;'
	. ' keepalive_time 1h;');
valid($t, 'keepalive_timeout 0; keepalive_requests 1; keepalive_time 1ms;'
	. ' keepalive 16;');

# connections

for my $value (
	'x', '-1', '1x', '1.5', '0x10', '1k', '+1', '""',
	'99999999999999999999999', 'slice_key=$host', 'local',
) {
	my $text = $value eq '""' ? '' : $value;
	invalid($t, "keepalive $value;",
		qq!invalid value "$text" in "keepalive" directive!);
}

invalid($t, 'keepalive;', 'invalid number of arguments in "keepalive" directive');
invalid($t, 'keepalive slice_key=$host 16;',
	'invalid value "slice_key=$host" in "keepalive" directive');

# parameters

for my $parameter (
	'nosuch', 'nosuch=1', '32', 'slice', 'slice_', 'slice_key',
	'slice_key=', 'slice_keys=$host', 'Slice_key=$host', 'xslice_key=$host',
	(map { my $name = $_; map { "$name$_" }
		'', '=', '=abc', '=-1', '=+1', '=1x', '=0x10', '=1.5', '=1k',
		'X=1', '=99999999999999999999999' }
		qw/ slice_conn slice_poolsize slice_keylen /),
	'slice_keylen=0',
	'slice_dyn', 'slice_dyn=', 'slice_dynX=1', 'slice_strictX',
	'slice_strict=1', 'slice_stric', 'locals', 'local=on', 'loca',
	'singles', 'single=1', 'shared=on', 'shared=', 'share', 'shareds',
	'Shared',
) {
	invalid($t, "keepalive 16 slice_key=\$uri $parameter;",
		qq!invalid parameter "$parameter"!);
}

invalid($t, 'keepalive 16 "";', 'invalid parameter ""');
invalid($t, 'keepalive 16 slice_conn=x slice_key=$host;',
	'invalid parameter "slice_conn=x"');

# given twice

for my $twice (
	'slice_key=$host slice_key=$uri',
	'slice_key=$host slice_key=$host',
	'slice_conn=1 slice_conn=2',
	'slice_dyn=$arg_n slice_dyn=n',
	'slice_poolsize=3 slice_poolsize=3',
	'slice_keylen=5 slice_keylen=6',
	'slice_strict slice_strict',
	'local local',
	'shared shared',
	'shared local shared',
) {
	my ($second) = $twice =~ / (\S+)$/;
	my $key = $twice =~ /slice_key=/ ? '' : ' slice_key=$host';

	invalid($t, "keepalive 16$key $twice;", qq!duplicate parameter "$second"!);
}

invalid($t, 'keepalive 16 slice_conn=2 slice_key=$host local slice_conn=3;',
	'duplicate parameter "slice_conn=3"');

invalid($t, 'keepalive 16; keepalive 16;', '"keepalive" directive is duplicate');
invalid($t, 'keepalive 16 slice_key=$host; keepalive 0;',
	'"keepalive" directive is duplicate');
invalid($t, 'keepalive 0; keepalive 16;', '"keepalive" directive is duplicate');

# variables

invalid($t, 'keepalive 16 slice_key=$nosuch;', 'unknown "nosuch" variable');
invalid($t, 'keepalive 16 slice_key=$host slice_dyn=$nosuch;',
	'unknown "nosuch" variable');
invalid($t, 'keepalive 16 slice_key=$host slice_dyn=nosuch;',
	'unknown "nosuch" variable');
invalid($t, 'keepalive 16 slice_key=$;', 'invalid variable name');
invalid($t, 'keepalive 16 slice_key=$host slice_dyn=$;', 'invalid variable name');

# other directives

for my $directive (qw/ keepalive_timeout keepalive_requests keepalive_time /) {
	my $text = $directive eq 'keepalive_requests'
		? qq!"$directive" directive invalid number!
		: qq!"$directive" directive invalid value!;

	invalid($t, "keepalive 16; $directive abc;", $text);
	invalid($t, "keepalive 16; $directive -1;", $text);
	invalid($t, "keepalive 16; $directive 1; $directive 2;",
		qq!"$directive" directive is duplicate!);
	invalid($t, "keepalive 16; $directive;",
		qq!invalid number of arguments in "$directive" directive!);
}

# ntlm

valid($t, 'ntlm; keepalive 16;');
valid($t, 'keepalive 16 slice_key=$host shared; ntlm; least_conn;');
invalid($t, 'keepalive 16; ntlm; ntlm;', '"ntlm" directive is duplicate');
invalid($t, 'keepalive 16; ntlm on;',
	'invalid number of arguments in "ntlm" directive');

my $alone = check($t, 'ntlm;');
is(join("\n", messages($alone, 'emerg'), $alone =~ /(test failed)$/m),
	'no "keepalive" is defined for the "ntlm" directive in upstream "u"'
	. place($t, 'upstream u {') . "\ntest failed", 'ntlm alone');
like(check($t, { http => 'upstream b { server 127.0.0.1:8082; ntlm; }',
	upstream => 'keepalive 4;' }), qr/"ntlm" directive in upstream "b" in/,
	'ntlm alone in another upstream');

for my $context (qw/ main http server location /) {
	like(check($t, 'ntlm;', $context),
		qr/"ntlm" directive is not allowed here/, "ntlm in $context");
}

# keepalive_status

for my $args ('', ' json', ' prometheus', ' html', ' slices', ' html slices') {
	like(check($t, "keepalive_status$args;", 'location'),
		qr/syntax is ok\n.*test is successful/, "keepalive_status$args");
}

invalid_status($t, 'keepalive_status xml;', 'invalid parameter "xml"');
invalid_status($t, 'keepalive_status slices json;', 'invalid parameter "json"');
invalid_status($t, 'keepalive_status json html;', 'invalid parameter "html"');
invalid_status($t, 'keepalive_status slices slices;',
	'duplicate parameter "slices"');
invalid_status($t, 'keepalive_status json slices x;',
	'invalid number of arguments in "keepalive_status" directive');
invalid_status($t, 'keepalive_status; keepalive_status;',
	'"keepalive_status" directive is duplicate');

for my $context (qw/ main http server upstream /) {
	like(check($t, 'keepalive_status;', $context),
		qr/"keepalive_status" directive is not allowed here/, $context);
}

# the zone in which it counts

my $out = check($t, { upstream => 'zone "upstream_keepalive:u" 64k; keepalive 4;',
	location => 'keepalive_status;' });
is(() = messages($out, 'emerg'), 1, 'one message about the zone');
like($out, qr/shared memory zone "upstream_keepalive:u" is already declared/,
	'what about the zone');

###############################################################################

sub valid {
	my ($t, $directives) = @_;

	like(check($t, $directives), qr/syntax is ok\n.*test is successful/,
		$directives);
}

# one line, which says what and where

sub invalid_status {
	my ($t, $directives, $message) = @_;
	invalid($t, $directives, $message, 'location');
}

sub invalid {
	my ($t, $directives, $message, $context) = @_;

	my $out = check($t, $directives, $context);

	$message .= place($t, $directives)
		unless $message =~ /^unknown .* variable$/;

	is(join("\n", messages($out, 'emerg'), $out =~ /(test failed)$/m),
		"$message\ntest failed", $directives);
}

###############################################################################

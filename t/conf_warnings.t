#!/usr/bin/perl

# Tests for warnings about the configuration of keepalive.

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

my $t = Test::Nginx->new()->has(qw/http proxy map/)->plan(27);

is(warns_of($t, "keepalive 16 $_;"), '', "no warning: $_")
	for '', 'local', 'shared', 'shared slice_key=$host', 'slice_key=$host', 'slice_key=$host slice_conn=4'
	. ' slice_dyn=$arg_n slice_poolsize=3 slice_keylen=5 slice_strict local';

warned($t, 'single', 'the "single" parameter is deprecated');
warned($t, 'single slice_key=$host', 'the "single" parameter is deprecated');

for my $parameter (
	'slice_conn=4', 'slice_dyn=$arg_n', 'slice_poolsize=3',
	'slice_keylen=5', 'slice_strict',
) {
	my ($name) = $parameter =~ /^(\w+)/;
	warned($t, $parameter,
		qq!parameter "$name" has no effect without "slice_key"!);
}

warned($t, 'shared slice_conn=4',
	'parameter "slice_conn" has no effect without "slice_key"');

my $out = warns_of($t, 'keepalive 16 slice_conn=4 slice_keylen=5;');

like($out, qr/"slice_conn" has no effect/, 'first of two');
like($out, qr/"slice_keylen" has no effect/, 'second of two');

# directives of an upstream that keeps no connections

alone($t, 'keepalive_hints off;', 'keepalive_hints');
alone($t, 'keepalive_hints on margin=2s;', 'keepalive_hints');

for my $directive (
	'keepalive_requests 10;', 'keepalive_time 10s;', 'keepalive_timeout 10s;'
) {
	my ($name) = $directive =~ /^(\w+)/;

	# where nginx's own module keeps connections by default, they are its own

	alone($t, $directive, by_default($t) ? undef : $name);
}

is(warns_of($t, "keepalive $_ keepalive_hints on; keepalive_requests 10;"
	. ' keepalive_time 10s; keepalive_timeout 10s;'), '', "with keepalive $_")
	for '16;', '0;';

is(warns_of($t, 'keepalive_hints on; keepalive 16;'), '', 'keepalive after it');

# and it works

$t->write_file_expand('nginx.conf', <<'EOF');

%%TEST_GLOBALS%%

daemon off;

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    proxy_http_version 1.1;
    proxy_set_header Connection "";

    upstream single {
        server 127.0.0.1:8081;
        keepalive 16 single;
    }

    upstream noeffect {
        server 127.0.0.1:8081;
        keepalive 16 slice_conn=1 slice_poolsize=1 slice_keylen=1;
    }

    server {
        listen       127.0.0.1:8080;
        server_name  localhost;

        location /single/ {
            proxy_pass http://single/;
        }

        location /noeffect/ {
            proxy_pass http://noeffect/;
        }
    }
}

EOF

start_backend($t, 8081);
$t->run();

my $c = get('/single/', 'a');
is(get('/single/', 'b'), $c, 'single');

my @c = together('/noeffect/', qw/ a a b b c d /);
is(open_conns(), 7, 'no effect');
is(get('/noeffect/', 'e'), $c[5], 'no effect on what is shared');

###############################################################################

# a warning, and where, and nothing else

sub warned {
	my ($t, $parameters, $message) = @_;

	my $directive = "keepalive 16 $parameters;";

	is(warns_of($t, $directive), $message . place($t, $directive),
		$parameters);
}

# directives in an upstream without keepalive

sub alone {
	my ($t, $directive, $name) = @_;

	my $out = warns_of($t, $directive);
	my $expected = '';

	# the place is that of the upstream

	if ($name) {
		$expected = qq!"$name" has no effect without "keepalive"!
			. ' in upstream "u"' . place($t, 'upstream u {');
	}

	is($out, $expected, "alone: $directive");
}

# nginx's own module keeps connections of upstreams without keepalive

sub by_default {
	my ($t) = @_;

	my ($version) = `$Test::Nginx::NGINX -v 2>&1` =~ m!/(\d+\.\d+\.\d+)!;
	my @version = split /\./, $version;

	return $t->has_module('upstream_keepalive')
		&& sprintf('%03d%03d%03d', @version) ge '001029007';
}

# what nginx warns of, if there are no errors

sub warns_of {
	my ($t, $directives) = @_;

	my $out = check($t, $directives);

	return $out =~ /test is successful/ ? messages($out, 'warn') : $out;
}

###############################################################################

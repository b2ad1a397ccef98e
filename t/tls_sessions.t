#!/usr/bin/perl

# Tests for TLS sessions where a name that differs by request is verified: nginx
# offers the session of one name for another, which fails.  A warning says so
# when the configuration is read, and where it does not fail there is none.

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

my $t = Test::Nginx->new()->has(qw/http http_ssl proxy grpc uwsgi rewrite sni/)
	->has_daemon('openssl')->plan(19);

my $d = $t->testdir();

certificate($_) for qw/ a.example b.example /;

$t->write_file('ca.crt',
	$t->read_file('a.example.crt') . $t->read_file('b.example.crt'));

###############################################################################

my $keepalive = 'keepalive 4 slice_key=$host;';
my $verify = "proxy_ssl_trusted_certificate $d/ca.crt; proxy_ssl_verify on;";
my $name = 'proxy_ssl_server_name on; proxy_ssl_name $host;';

warned('proxy');
warned('grpc');
warned('uwsgi');

# wherever the location is, and what it says itself

like(warns_of(server => "location /a { location /a/b { proxy_pass https://u; "
	. "$verify $name } }"), qr/should be off/, 'nested');
like(warns_of(server => "location ~ a { proxy_pass https://u; $verify $name }"),
	qr/should be off/, 'regular expression');
like(warns_of(server => "location \@a { proxy_pass https://u; $verify $name }"),
	qr/should be off/, 'named');
like(warns_of(server => "$verify $name location /a { proxy_pass https://u; }"),
	qr/should be off/, 'inherited');
like(warns_of(server => "location = /a { if (\$arg_a) { proxy_pass https://u; } "
	. "$verify $name }"), qr/should be off/, 'if');

my $twice = warns_of(server => join ' ', map {
	"location /$_ { proxy_pass https://u; $verify $name }"
} qw/ a b /);

is(scalar(() = $twice =~ /should be off/g), 1, 'once for an upstream');

quiet('off', "proxy_pass https://u; $verify $name proxy_ssl_session_reuse off;");
quiet('not verified', "proxy_pass https://u; $name");
quiet('one name', "proxy_pass https://u; $verify proxy_ssl_name a.example;");
quiet('default name', "proxy_pass https://u; $verify");

is(warns_of(upstream => '', server =>
	"location /a { proxy_pass https://u; $verify $name }"), '',
	'another keepalive');

###############################################################################

$t->write_file_expand('nginx.conf', <<"EOF");

%%TEST_GLOBALS%%

daemon off;

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    upstream on {
        server 127.0.0.1:8081;
        $keepalive
    }

    upstream off {
        server 127.0.0.1:8081;
        $keepalive
    }

    server {
        listen       127.0.0.1:8080;
        server_name  localhost;

        proxy_http_version 1.1;
        proxy_set_header Connection "";

        $verify
        $name

        location /on {
            proxy_pass https://on;
        }

        location /off {
            proxy_pass https://off;
            proxy_ssl_session_reuse off;
        }
    }

    ssl_protocols TLSv1.2;
    ssl_session_cache shared:SSL:1m;
    add_header X-Connection \$connection always;

    # one server, or newer versions do not resume sessions of the other

    server {
        listen       127.0.0.1:8081 ssl;
        ssl_certificate $d/\$ssl_server_name.crt;
        ssl_certificate_key $d/\$ssl_server_name.key;
        return 200;
    }
}

EOF

$t->run();

is_new(get('/off', 'a.example'), 'off, first name');
is_new(get('/off', 'b.example'), 'off, second name');

is_new(get('/on', 'a.example'), 'on, first name');
like(http(request('GET', '/on', 'b.example')), qr/ 502 /, 'on, second name');
like($t->read_file('error.log'), qr/certificate does not match "b.example"/,
	'why');

###############################################################################

sub warned {
	my ($module) = @_;

	my $pass = $module eq 'proxy' ? 'proxy_pass https://u'
		: $module eq 'grpc' ? 'grpc_pass grpcs://u'
		: 'uwsgi_pass suwsgi://u';
	(my $ssl = "$verify $name") =~ s/proxy_/${module}_/g;

	is(warns_of(server => "location /a { $pass; $ssl }"),
		qq!"${module}_ssl_session_reuse" should be off with !
		. qq!"${module}_ssl_verify" and variables in !
		. qq!"${module}_ssl_name": the TLS session of one name is offered !
		. 'for another, and fails, in upstream "u"'
		. place($t, 'upstream u {'), $module);
}

sub quiet {
	my ($name, $directives) = @_;

	is(warns_of(server => "location /a { $directives }"), '', $name);
}

sub warns_of {
	my (%at) = @_;

	$at{upstream} = $keepalive unless exists $at{upstream};

	my $out = check($t, \%at);

	return $out =~ /test is successful/ ? messages($out, 'warn') : $out;
}

sub certificate {
	my ($name) = @_;

	system("openssl req -x509 -newkey rsa:2048 -nodes -days 3650 "
		. "-subj /CN=$name -keyout $d/$name.key -out $d/$name.crt "
		. ">>$d/openssl.out 2>&1") == 0
		or die "Can't create certificate for $name\n";
}

###############################################################################

END { undef $t; }

###############################################################################

#!/usr/bin/perl

# Tests for TLS settings that are the same, wherever in the configuration they come
# from: such locations share connections, and two of them that differ do not.

###############################################################################

use warnings;
use strict;

use Test::More;

use FindBin;
use lib ($ENV{NGINX_TESTS_DIR} ? "$ENV{NGINX_TESTS_DIR}/lib" : ()),
	"$FindBin::Bin/lib";

use Test::Nginx;
use Test::Backend;
use Test::Builtin;
use Test::Certificates;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

my $t = Test::Nginx->new()->has(qw/http http_ssl proxy sni rewrite/)
	->has_daemon('openssl');

my $d = $t->testdir();

certificate($t, $_) for qw/ a.example alice bob /;

# "one" is what http{} says; the others differ from it in one directive

my @one = split /\n/, <<"EOF";
proxy_ssl_server_name on;
proxy_ssl_name a.example;
proxy_ssl_verify on;
proxy_ssl_verify_depth 2;
proxy_ssl_trusted_certificate $d/a.example.crt;
proxy_ssl_certificate $d/alice.crt;
proxy_ssl_certificate_key $d/alice.key;
proxy_ssl_protocols TLSv1.2;
proxy_ssl_ciphers HIGH;
proxy_ssl_conf_command Options ServerPreference;
proxy_bind 127.0.0.2;
EOF

my %says = (one => "@one");

$says{certificate} = $says{one} =~ s/alice/bob/gr;
$says{bind} = $says{one} =~ s/127\.0\.0\.2/127.0.0.3/r;

# the same in another order

my $reverse = join ' ', reverse @one;

# HERE is what is said, and NAME the word for it

my %places = (
	location => 'location /NAME/location { PASS HERE }',
	twice => 'location /NAME/twice { HERE PASS }',
	nested => 'location /NAME/nested { HERE
		location /NAME/nested/in { PASS } }',
	regex => 'location ~ ^/NAME/regex { PASS HERE }',
	exact => 'location = /NAME/exact { PASS HERE }',
	if => 'location /NAME/if { HERE if ($uri) { PASS } }',
	other_if => 'location /NAME/other_if { HERE PASS if ($uri) { set $x 1; } }',
	limit_except => 'location /NAME/limit_except { HERE
		limit_except POST { PASS } }',
	named => 'location /NAME/named { error_page 404 = @NAME; return 404; }
		location @NAME { PASS HERE }',
	try_files => 'location /NAME/try_files { try_files /none @tried_NAME; }
		location @tried_NAME { PASS HERE }',
	rewrite => 'location /NAME/rewrite { rewrite ^ /NAME/location last; }',
	variable => 'location /NAME/variable { set $to u; PASS_VARIABLE HERE }',
	uri => 'location /NAME/uri/ { proxy_pass https://u/other/; HERE }',
);

my @names = qw/ one certificate bind /;
my @hosts = qw/ server half /;

$t->plan(@names * (1 + @hosts + keys %places) + 9 + @names - 1);

my ($locations, $servers) = ('', '');

for my $name (@names) {
	$locations .= join "\n", map { filled($_, $name, $says{$name}) }
		map { $places{$_} } sort keys %places;

	# inherited from server{}, and some of it from there

	my ($half, $rest) = $says{$name} =~ /^(.*?)(proxy_ssl_ver.*)$/;

	$servers .= filled('server { listen 127.0.0.1:8080; HERE
		server_name NAME.server; location / { PASS } }',
		$name, $says{$name});
	$servers .= filled("server { listen 127.0.0.1:8080; HERE
		server_name NAME.half; location / { PASS $rest } }",
		$name, $half);
}

$t->write_file_expand('nginx.conf', <<"EOF");

%%TEST_GLOBALS%%

daemon off;

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_ssl_session_reuse off;

    $says{one}

    upstream u {
        server 127.0.0.1:8081;
        keepalive 8;
    }

    # no location names it

    upstream v {
        server 127.0.0.1:8081;
        keepalive 8;
    }

    server {
        listen       127.0.0.1:8080;
        server_name  localhost;

        $locations

        location /v {
            set \$to v;
            proxy_pass https://\$to;
        }

        location /http {
            proxy_pass https://u;
        }

        location /reverse {
            $reverse
            proxy_pass https://u;
        }
    }

    # what is said has no effect on a connection

    server {
        listen       127.0.0.1:8080;
        server_name  effect.server;

        proxy_ssl_server_name off;
        proxy_ssl_verify off;

        location /one {
            proxy_ssl_name a.example;
            proxy_pass https://u;
        }

        location /two {
            proxy_ssl_name b.example;
            proxy_ssl_session_reuse on;
            proxy_ssl_password_file $d/passwords;
            proxy_pass https://u;
        }
    }

    server {
        listen       127.0.0.1:8080;
        server_name  http.server;

        location / {
            proxy_pass https://u;
        }

        location /nested {
            proxy_ssl_certificate $d/bob.crt;
            proxy_ssl_certificate_key $d/bob.key;
            location /nested/in {
                proxy_pass https://u;
            }
        }

        location /bind {
            proxy_bind 127.0.0.3;
            proxy_pass https://u;
        }
    }

    $servers

    server {
        listen       127.0.0.1:8081 ssl;

        ssl_certificate $d/a.example.crt;
        ssl_certificate_key $d/a.example.key;
        ssl_verify_client optional_no_ca;

        add_header X-Connection \$connection;
        return 200;
    }
}

EOF

$t->write_file('passwords', '');
$t->run();

###############################################################################

my %conns;

for my $name (@names) {
	is_new($conns{$name} = get("/$name/location"), $name);
}

for my $place (sort keys %places) {
	my $in = $place eq 'exact' ? '' : '/in';

	is(get("/$_/$place$in"), $conns{$_}, "$_, $place") for @names;
}

for my $host (@hosts) {
	is(get('/', "$_.$host"), $conns{$_}, "$_, $host") for @names;
}

is(get('/http'), $conns{one}, 'one, http');
is(get('/', 'http.server'), $conns{one}, 'one, http in another server');
is(get('/reverse'), $conns{one}, 'one, in another order');
is(get('/nested/in', 'http.server'), $conns{certificate},
	'certificate, the rest from http');
is(get('/bind', 'http.server'), $conns{bind}, 'bind, the rest from http');

is_new(my $v = get('/v'), 'chosen by request');
is(get('/v'), $v, 'chosen by request again');

is_new(my $c = get('/one', 'effect.server'), 'name that is not used');
is(get('/two', 'effect.server'), $c, 'another one');

SKIP: {
	skip 'no built-in keepalive', @names - 1
		unless $t->has_module('upstream_keepalive');

	run_builtin($t);

	my $c = get('/http');
	is(get("/$_/location"), $c, "$_, mixed by the built-in")
		for grep { $_ ne 'one' } @names;
}

###############################################################################

sub filled {
	my ($place, $name, $here) = @_;

	$place =~ s/HERE/$here/g;
	$place =~ s/NAME/$name/g;
	$place =~ s/PASS_VARIABLE/proxy_pass https:\/\/\$to;/g;
	$place =~ s/PASS/proxy_pass https:\/\/u;/g;

	return "$place\n";
}

###############################################################################

#!/usr/bin/perl

# Tests for what a connection was made for: its TLS settings, and the local
# address.  Locations that differ in them never share a connection, locations that
# say the same do.  nginx's own keepalive mixes them.

###############################################################################

use warnings;
use strict;

use Test::More;

use FindBin;
use lib ($ENV{NGINX_TESTS_DIR} ? "$ENV{NGINX_TESTS_DIR}/lib" : ()),
	"$FindBin::Bin/lib";

use IO::Socket::INET;
use Socket qw/ IPPROTO_IP /;

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

certificate($t, $_) for qw/ a.example b.example alice bob /;
revocation_list($t, 'a.example');

$t->write_file("same-$_", $t->read_file($_))
	for qw/ a.example.crt a.example.crl alice.crt alice.key /;

# what two locations say, and the requests to them; the server is for a.example,
# and one that is refused must not be answered by it

my $sni = 'proxy_ssl_server_name on;';
my $verify = 'proxy_ssl_verify on; proxy_ssl_name a.example;';
my $trust = "$verify proxy_ssl_trusted_certificate $d/a.example.crt;";
my $crl = "proxy_ssl_crl $d/a.example.crl;";
my $alice = "proxy_ssl_certificate $d/alice.crt; "
	. "proxy_ssl_certificate_key $d/alice.key;";
my $named = "proxy_ssl_certificate $d/\$arg_c.crt; "
	. "proxy_ssl_certificate_key $d/\$arg_c.key;";

my @cases = (
	{ name => 'name', one => "$sni proxy_ssl_name a.example;",
		two => "$sni proxy_ssl_name b.example;" },
	{ name => 'variable_name', one => "$sni proxy_ssl_name \$arg_n;",
		two => "$sni proxy_ssl_name \$arg_n;",
		ask => [ '?n=a.example', '?n=b.example' ] },
	{ name => 'part_of_name', one => "$sni proxy_ssl_name \$arg_n.example;",
		two => "$sni proxy_ssl_name \$arg_n.example;",
		ask => [ '?n=a', '?n=b' ] },
	{ name => 'verified_name', one => $trust, refused => 1,
		two => $trust =~ s/(?<=ssl_name )a/b/r },
	{ name => 'variable_verified_name', refused => 1,
		one => $trust =~ s/(?<=ssl_name )[\w.]+/\$arg_n/r,
		two => $trust =~ s/(?<=ssl_name )[\w.]+/\$arg_n/r,
		ask => [ '?n=a.example', '?n=b.example' ] },
	{ name => 'server_name', one => "$sni proxy_ssl_name a.example;",
		two => 'proxy_ssl_name a.example;' },
	{ name => 'no_server_name', one => 'proxy_ssl_name a.example;',
		two => "$sni proxy_ssl_name a.example;" },
	{ name => 'verify', one => 'proxy_ssl_name b.example;', refused => 1,
		two => $trust =~ s/(?<=ssl_name )a/b/r },
	{ name => 'no_verify', one => $trust, two => 'proxy_ssl_name a.example;' },
	{ name => 'depth', one => "$trust proxy_ssl_verify_depth 2;",
		two => "$trust proxy_ssl_verify_depth 3;" },
	{ name => 'trust', one => $trust, refused => 1,
		two => "$verify proxy_ssl_trusted_certificate $d/b.example.crt;" },
	{ name => 'trust_other_file', one => $trust,
		two => $trust =~ s/a\.example\.crt/same-$&/r },
	{ name => 'crl', one => $trust, two => "$trust $crl" },
	{ name => 'crl_other_file', one => "$crl", two => $crl =~ s/a\.e/same-$&/r },
	{ name => 'certificate', one => $alice, two => $alice =~ s/alice/bob/gr },
	{ name => 'no_certificate', one => $alice, two => '' },
	{ name => 'some_certificate', one => '', two => $alice },
	{ name => 'variable_certificate', one => $named, two => $named,
		ask => [ '?c=alice', '?c=bob' ] },
	{ name => 'certificate_alone', ask => [ '?c=alice', '?c=same-alice' ],
		one => $alice =~ s/alice(?=\.crt)/\$arg_c/r,
		two => $alice =~ s/alice(?=\.crt)/\$arg_c/r },
	{ name => 'key_alone', ask => [ '?c=alice', '?c=same-alice' ],
		one => $alice =~ s/alice(?=\.key)/\$arg_c/r,
		two => $alice =~ s/alice(?=\.key)/\$arg_c/r },
	{ name => 'protocols', one => 'proxy_ssl_protocols TLSv1.2;',
		two => 'proxy_ssl_protocols TLSv1.3;' },
	{ name => 'ciphers',
		one => 'proxy_ssl_ciphers ECDHE-ECDSA-AES128-GCM-SHA256;',
		two => 'proxy_ssl_ciphers ECDHE-ECDSA-AES256-GCM-SHA384;' },
	{ name => 'command',
		one => 'proxy_ssl_conf_command Options ServerPreference;',
		two => 'proxy_ssl_conf_command Options -ServerPreference;' },
	{ name => 'no_command', two => '',
		one => 'proxy_ssl_conf_command Options ServerPreference;' },
	{ name => 'commands', two => 'proxy_ssl_conf_command Curves P-256;',
		one => 'proxy_ssl_conf_command Curves P-256; '
			. 'proxy_ssl_conf_command MinProtocol TLSv1.2;' },
);

for my $scheme (qw/ https http /) {
	push @cases, map { { %$_, scheme => $scheme,
		name => "${scheme}_$_->{name}" } } (
		{ name => 'bind', one => 'proxy_bind 127.0.0.2;',
			two => 'proxy_bind 127.0.0.3;' },
		{ name => 'no_bind', one => 'proxy_bind 127.0.0.2;', two => '' },
		{ name => 'some_bind', one => '', two => 'proxy_bind 127.0.0.2;' },
		{ name => 'variable_bind', one => 'proxy_bind $arg_b;',
			two => 'proxy_bind $arg_b;',
			ask => [ '?b=127.0.0.2', '?b=127.0.0.3' ] },
		{ name => 'empty_bind', one => 'proxy_bind $arg_b;',
			two => 'proxy_bind $arg_b;',
			ask => [ '?b=', '?b=127.0.0.3' ] },
		transparent() ? (
		{ name => 'transparent', one => 'proxy_bind 127.0.0.2 transparent;',
			two => 'proxy_bind 127.0.0.3 transparent;' },
		{ name => 'no_transparent', two => 'proxy_bind 127.0.0.2;',
			one => 'proxy_bind 127.0.0.2 transparent;' },
		) : (),
	);
}

$t->plan(6 * @cases + 1);

my ($upstreams, $locations, $servers) = ('', '', '');

for my $case (@cases) {
	my ($name, $one, $two) = @$case{qw/ name one two /};
	my $pass = ($case->{scheme} || 'https') . "://u_$name/";
	my $port = $pass =~ /^https/ ? 8081 : 8082;

	$upstreams .= "upstream u_$name { server 127.0.0.1:$port; keepalive 8; }\n";
	$locations .= "location /$name/1 { proxy_pass $pass; $one }\n"
		. "location /$name/2 { proxy_pass $pass; $two }\n"
		. "location /$name/3 { $one proxy_pass $pass; }\n";
	$servers .= "server { listen 127.0.0.1:8080; server_name $name; $one\n"
		. "location / { proxy_pass $pass; } }\n";
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

    # names of servers are long here, and there are many

    server_names_hash_bucket_size 128;

    $upstreams

    server {
        listen       127.0.0.1:8080;
        server_name  localhost;

        $locations
    }

    $servers

    server {
        listen       127.0.0.1:8081 ssl;
        listen       127.0.0.1:8082;

        ssl_certificate $d/a.example.crt;
        ssl_certificate_key $d/a.example.key;
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_verify_client optional_no_ca;

        add_header X-Connection \$connection;
        return 200;
    }
}

EOF

$t->run();

###############################################################################

for my $case (@cases) {
	my ($name, $first, $second) = ($case->{name}, @{ $case->{ask} || ['', ''] });

	is_new(my $c = get("/$name/1$first"), $name);
	is(get("/$name/3$first"), $c, "$name, same in another location");
	is(get("/$first", $name), $c, "$name, same in another server");

	my $other = get("/$name/2$second");

	if ($case->{refused}) {
		like($other, qr/ 502 /, "$name, other is refused");

	} else {
		is_new($other, "$name, other");
	}

	is(get("/$name/1$first"), $c, "$name, first again");
}

# each other one was missed since only the first was idle

SKIP: {
	skip 'no --with-debug', 1 unless $t->has_module('--with-debug');

	my @missed = $t->read_file('error.log')
		=~ /no idle connection, only of another identity$/mg;
	is(@missed, @cases, 'misses explained');
}

SKIP: {
	skip 'no built-in keepalive', scalar @cases
		unless $t->has_module('upstream_keepalive');

	run_builtin($t);

	for my $case (@cases) {
		my ($name, $first, $second)
			= ($case->{name}, @{ $case->{ask} || ['', ''] });

		my $c = get("/$name/1$first");
		is(get("/$name/2$second"), $c, "$name, mixed by the built-in");
	}
}

###############################################################################

# whether the system lets us use addresses that are not ours

sub transparent {
	my $s = IO::Socket::INET->new(Proto => 'tcp', LocalAddr => '127.0.0.1',
		Listen => 1) or return 0;

	# IP_TRANSPARENT of Linux

	return $^O eq 'linux' && setsockopt($s, IPPROTO_IP, 19, pack('i', 1));
}

###############################################################################

#!/usr/bin/perl

# Tests for what a connection of other modules than proxy was made for: TLS settings
# of gRPC and uwsgi, and the local address of FastCGI and memcached.

###############################################################################

use warnings;
use strict;

use Test::More;

use FindBin;
use lib ($ENV{NGINX_TESTS_DIR} ? "$ENV{NGINX_TESTS_DIR}/lib" : ()),
	"$FindBin::Bin/lib";

use IO::Select;

use Test::Nginx;
use Test::Backend;
use Test::Backend::Server;
use Test::Builtin;
use Test::Certificates;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

my $t = Test::Nginx->new()->has(qw/
	http http_ssl http_v2 sni rewrite grpc uwsgi fastcgi memcached
/)->has_daemon('openssl');

my $d = $t->testdir();

certificate($t, $_) for qw/ a.example b.example alice bob /;

# what two locations say; MODULE is grpc or uwsgi

my $sni = 'MODULE_ssl_server_name on;';
my $trust = 'MODULE_ssl_verify on; MODULE_ssl_name a.example; '
	. "MODULE_ssl_trusted_certificate $d/a.example.crt;";
my $alice = "MODULE_ssl_certificate $d/alice.crt; "
	. "MODULE_ssl_certificate_key $d/alice.key;";
my $named = $alice =~ s/alice/\$arg_c/gr;

my @cases = (
	{ name => 'name', one => "$sni MODULE_ssl_name a.example;",
		two => "$sni MODULE_ssl_name b.example;" },
	{ name => 'variable_name', one => "$sni MODULE_ssl_name \$arg_n;",
		two => "$sni MODULE_ssl_name \$arg_n;",
		ask => [ '?n=a.example', '?n=b.example' ] },
	{ name => 'server_name', one => "$sni MODULE_ssl_name a.example;",
		two => 'MODULE_ssl_name a.example;' },
	{ name => 'verify', one => 'MODULE_ssl_name b.example;', refused => 1,
		two => $trust =~ s/(?<=ssl_name )a/b/r },
	{ name => 'trust', one => $trust, refused => 1,
		two => $trust =~ s/a\.example\.crt/b.example.crt/r },
	{ name => 'depth', one => "$trust MODULE_ssl_verify_depth 2;",
		two => "$trust MODULE_ssl_verify_depth 3;" },
	{ name => 'certificate', one => $alice, two => $alice =~ s/alice/bob/gr },
	{ name => 'no_certificate', one => $alice, two => '' },
	{ name => 'variable_certificate', one => $named, two => $named,
		ask => [ '?c=alice', '?c=bob' ] },
	{ name => 'protocols', one => 'MODULE_ssl_protocols TLSv1.2;',
		two => 'MODULE_ssl_protocols TLSv1.3;' },
	{ name => 'ciphers',
		one => 'MODULE_ssl_ciphers ECDHE-ECDSA-AES128-GCM-SHA256;',
		two => 'MODULE_ssl_ciphers ECDHE-ECDSA-AES256-GCM-SHA384;' },
	{ name => 'command',
		one => 'MODULE_ssl_conf_command Options ServerPreference;',
		two => 'MODULE_ssl_conf_command Options -ServerPreference;' },
	{ name => 'bind', one => 'MODULE_bind 127.0.0.2;',
		two => 'MODULE_bind 127.0.0.3;' },
);

# the local address alone, of modules without TLS

my %bound = (
	fastcgi => 'fastcgi_pass u_fastcgi; fastcgi_keep_conn on;',
	memcached => 'memcached_pass u_memcached; set $memcached_key $uri;',
);

$t->plan(4 * @cases + 3 * @cases + @cases + 11 * keys %bound);

my ($upstreams, $locations) = ('', '');

for my $case (@cases) {
	for my $module (qw/ grpc uwsgi /) {
		my ($one, $two) = map { s/MODULE/$module/gr } @$case{qw/ one two /};
		my ($port, $scheme) = $module eq 'grpc' ? (8081, 'grpcs')
			: (8082, 'suwsgi');
		my $name = "${module}_$case->{name}";
		my $pass = "${module}_pass $scheme://u_$name;";

		$upstreams .= "upstream u_$name { server 127.0.0.1:$port; "
			. "keepalive 8; }\n";
		$locations .= "location /$name/1 { $pass $one }\n"
			. "location /$name/2 { $pass $two }\n"
			. "location /$name/3 { $pass $one }\n";
	}
}

for my $module (sort keys %bound) {
	my $port = $module eq 'fastcgi' ? 8083 : 8084;

	$upstreams .= "upstream u_$module { server 127.0.0.1:$port; keepalive 8; }\n";

	my %binds = (1 => '127.0.0.2', 2 => '127.0.0.3', 3 => '127.0.0.2',
		variable => '$arg_b', none => 'off');

	$locations .= "location /$module/$_ { $bound{$module} "
		. "${module}_bind $binds{$_}; }\n" for sort keys %binds;
}

$t->write_file_expand('nginx.conf', <<"EOF");

%%TEST_GLOBALS%%

daemon off;

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    grpc_ssl_session_reuse off;
    uwsgi_ssl_session_reuse off;

    $upstreams

    server {
        listen       127.0.0.1:8080;
        server_name  localhost;

        $locations
    }

    ssl_certificate $d/a.example.crt;
    ssl_certificate_key $d/a.example.key;
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_verify_client optional_no_ca;

    # nginx keeps no gRPC connection of TLS 1.3 after a response without a body

    server {
        listen       127.0.0.1:8081 ssl http2;
        add_header   X-Connection \$connection always;
        return 200 OK;
    }

    # it has no server for uwsgi, but says 400 to it, which is a response for the
    # client that sent it

    server {
        listen       127.0.0.1:8082 ssl;
        add_header   X-Connection \$connection always;
        return 200;
    }
}

EOF

start_backend($t, 8083);
$t->run_daemon(\&memcached, port(8084));
$t->waitforsocket('127.0.0.1:' . port(8084)) or die "Can't start memcached\n";
$t->run();

###############################################################################

for my $case (@cases) {
	my ($first, $second) = @{ $case->{ask} || ['', ''] };
	my $name = "grpc_$case->{name}";

	is_new(my $c = get("/$name/1$first"), $name);
	is(get("/$name/3$first"), $c, "$name, same in another location");

	my $other = get("/$name/2$second");

	if ($case->{refused}) {
		like($other, qr/ 502 /, "$name, other is refused");

	} else {
		is_new($other, "$name, other");
	}

	is(get("/$name/1$first"), $c, "$name, first again");
}

# nginx keeps no connection of uwsgi, so there is nothing that could be mixed

for my $case (@cases) {
	my ($first, $second) = @{ $case->{ask} || ['', ''] };
	my $name = "uwsgi_$case->{name}";

	is_new(get("/$name/1$first"), $name);
	is_new(get("/$name/1$first"), "$name, again");

	my $other = get("/$name/2$second");

	if ($case->{refused}) {
		like($other, qr/ 502 /, "$name, other is refused");

	} else {
		is_new($other, "$name, other");
	}
}

# these are servers with numbers of their own

for my $module (sort keys %bound) {
	my $c = get("/$module/1");
	like($c, qr/^\d+$/, "$module bind");
	is(get("/$module/3"), $c, "$module bind, same in another location");
	isnt(my $other = get("/$module/2"), $c, "$module bind, other");
	is(get("/$module/1"), $c, "$module bind, first again");
	is(get("/$module/2"), $other, "$module bind, other again");

	my $none = get("/$module/none");
	ok($none ne $c && $none ne $other, "$module bind, none");
	is(get("/$module/none"), $none, "$module bind, none again");
	is(get("/$module/1"), $c, "$module bind, first after none");

	my ($v4, $v5) = map { get("/$module/variable?b=127.0.0.$_") } 4, 5;
	isnt($v5, $v4, "$module bind, variable");
	is(get("/$module/variable?b=127.0.0.4"), $v4,
		"$module bind, variable again");
}

SKIP: {
	skip 'no built-in keepalive', @cases + keys %bound
		unless $t->has_module('upstream_keepalive');

	run_builtin($t);

	for my $case (@cases) {
		my ($first, $second) = @{ $case->{ask} || ['', ''] };
		my $name = "grpc_$case->{name}";

		my $c = get("/$name/1$first");
		is(get("/$name/2$second"), $c, "$name, mixed by the built-in");
	}

	for my $module (sort keys %bound) {
		my $c = get("/$module/1");
		is(get("/$module/2"), $c, "$module bind, mixed by the built-in");
	}
}

###############################################################################

# answers each request with what a script looks for in a response

sub memcached {
	my ($port) = @_;

	$SIG{PIPE} = 'IGNORE';

	my $listen = listen_on($port);
	my $select = IO::Select->new($listen);
	my (%number, $connections);

	while (my @ready = $select->can_read()) {
		for my $s (@ready) {
			if ($s == $listen) {
				my $c = $listen->accept() or next;
				$number{$c} = ++$connections;
				$select->add($c);

			} elsif (sysread($s, my $request, 65536)) {
				my ($key) = $request =~ /^get (\S+)/;
				my $value = "X-Connection: $number{$s}";

				syswrite($s, "VALUE $key 0 " . length($value)
					. "\r\n$value\r\nEND\r\n");

			} else {
				$select->remove($s);
				close $s;
			}
		}
	}
}

###############################################################################

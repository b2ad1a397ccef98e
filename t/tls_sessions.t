#!/usr/bin/perl

# Tests for TLS sessions: one is offered only where its connection could have been
# used, so not for another name, client certificate, trust, key or server.

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
use Test::Processes;
use Test::Wait;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

my $t = Test::Nginx->new()->has(qw/
	http http_ssl http_v2 proxy grpc uwsgi sni rewrite map
/)->has_daemon('openssl');

my $d = $t->testdir();

certificate($t, $_) for qw/ a.example b.example alice bob /;

$t->write_file('ca.crt',
	$t->read_file('a.example.crt') . $t->read_file('b.example.crt'));

# servers, of which each has a cache of sessions, or tickets

my %servers = (
	'1.2' => 'ssl_protocols TLSv1.2; ssl_session_tickets off; '
		. 'ssl_session_cache CACHE;',
	'1.2 tickets' => 'ssl_protocols TLSv1.2; ssl_session_cache off;',
	'1.3' => 'ssl_protocols TLSv1.3; ssl_session_tickets off; '
		. 'ssl_session_cache CACHE;',
	'1.3 tickets' => 'ssl_protocols TLSv1.3; ssl_session_cache off;',
);

my @versions = sort keys %servers;

my $alice = "proxy_ssl_certificate $d/alice.crt; "
	. "proxy_ssl_certificate_key $d/alice.key;";
my $bob = $alice =~ s/alice/bob/gr;
my $named = $alice =~ s/alice/\$arg_c/gr;
my $name = 'proxy_ssl_server_name on; proxy_ssl_name';
my $trust = "proxy_ssl_verify on; proxy_ssl_trusted_certificate $d/ca.crt;";
my $of_a = "$name a.example; $trust";
my $of_b = "$name b.example; $trust";

# upstreams, and locations of each; SECOND is another port of the same server

my %upstreams = (
	certificate => [ 'keepalive 8;', alice => $alice, bob => $bob, none => '',
		same => $alice ],
	variable => [ 'keepalive 8;', x => $named ],
	zero => [ 'keepalive 0;', alice => $alice, none => '' ],
	name => [ 'keepalive 8;', a => $of_a, b => $of_b ],
	names => [ 'keepalive 8;', x => "$name \$arg_n; $trust" ],
	changing => [ 'keepalive 8;', x => "$name \$changing; $trust" ],
	trust => [ 'keepalive 8;', a => $of_a,
		other => $of_a =~ s/ca\.crt/b.example.crt/r ],
	verify => [ 'keepalive 8;', off => "$name a.example;", on => $of_a ],
	key => [ 'keepalive 8 slice_key=$arg_k;', x => '' ],
	strict => [ 'keepalive 8 slice_key=$arg_k slice_keylen=2 slice_strict;',
		x => '' ],
	local => [ 'keepalive 8 local;', x => '', y => '' ],
	bind => [ 'keepalive 8;', x => 'proxy_bind 127.0.0.2;', y => '' ],
	ntlm => [ 'keepalive 8; ntlm;', x => '' ],
	off => [ 'keepalive 8;', x => 'proxy_ssl_session_reuse off;' ],
	on => [ 'keepalive 8;', x => '', y => 'proxy_ssl_session_reuse off;' ],
	one => [ 'keepalive 8;', x => '', y => '' ],
	zone => [ 'zone ZONE 64k; keepalive 8;', x => '', y => '' ],
	zones => [ 'zone ZONE 64k; keepalive 8;', a => $of_a, b => $of_b ],
	least => [ 'least_conn; keepalive 8;', a => $of_a, b => $of_b ],
	shared => [ 'keepalive 8 shared;', a => $of_a, b => $of_b ],
	two => [ 'SECOND keepalive 8;', x => '' ],
	two_names => [ 'SECOND keepalive 8;', a => $of_a, b => $of_b ],
	grpc => [ 'keepalive 8;', a => $of_a, b => $of_b ],
	uwsgi => [ 'keepalive 8;', a => $of_a, b => $of_b ],
	modules => [ 'keepalive 8;', x => '', uwsgi => '' ],
	many => [ 'keepalive 512;', x => "$name \$arg_n;" ],
);

# requests in their order, with this Authorization, if there is one: whether a session is resumed (r, or a dot; a star is
# either), and for which client certificate

my @requests = map { [ split ] } split /\n/, <<'EOF';
certificate/alice       . alice
certificate/alice       r alice
certificate/bob         . bob
certificate/none        . -
certificate/bob         r bob
certificate/none        r -
certificate/alice       r alice
certificate/same        r alice
certificate/alice       r alice
variable/x?c=alice      . alice
variable/x?c=bob        . bob
variable/x?c=alice      r alice
variable/x?c=bob        r bob
zero/alice              * alice
zero/none               . -
zero/alice              * alice
name/a                  . -
name/b                  . -
name/a                  r -
name/b                  r -
names/x?n=a.example     . -
names/x?n=b.example     . -
names/x?n=a.example     r -
names/x?n=b.example     r -
changing/x?n=change     . -
changing/x?n=stay       . -
changing/x?n=change     * -
changing/x?n=stay       r -
trust/a                 . -
trust/other             502
trust/a                 r -
trust/other             502
verify/off              . -
verify/on               . -
verify/off              r -
verify/on               r -
key/x?k=a               . -
key/x?k=a               r -
key/x?k=b               . -
key/x?k=b               r -
key/x?k=a               r -
strict/x?k=abc          . -
strict/x?k=abc          . -
strict/x?k=             . -
strict/x?k=abc          . -
strict/x?k=             r -
local/x                 . -
local/y                 . -
local/x                 r -
local/y                 r -
bind/x                  . -
bind/y                  . -
bind/x                  r -
bind/y                  r -
ntlm/x                  . -
ntlm/x=NTLM             . -
ntlm/x=NTLM             . -
ntlm/x                  r -
off/x                   . -
off/x                   . -
on/x                    . -
on/y                    . -
on/x                    r -
on/y                    . -
one/x                   . -
one/y                   r -
one/x                   r -
zone/x                  . -
zone/y                  r -
zone/x                  r -
zones/a                 . -
zones/b                 . -
zones/a                 r -
zones/b                 r -
least/a                 . -
least/b                 . -
least/a                 r -
least/b                 r -
shared/a                . -
shared/b                . -
shared/a                r -
shared/b                r -
two/x                   . -
two/x                   . -
two/x                   r -
two/x                   r -
two_names/a             . -
two_names/b             . -
two_names/b             . -
two_names/a             . -
two_names/a             r -
two_names/b             r -
grpc/a                  . -
grpc/b                  . -
grpc/a                  r -
grpc/b                  r -
uwsgi/a                 . -
uwsgi/b                 . -
uwsgi/a                 r -
uwsgi/b                 r -
modules/x               . -
modules/uwsgi           . -
modules/x               r -
modules/uwsgi           r -
EOF

# and by nginx's own keepalive: what a location gets after the other

my @mixed = map { [ split ] } split /\n/, <<'EOF';
certificate/alice       certificate/none        r alice
certificate/alice       certificate/bob         r alice
variable/x?c=bob        variable/x?c=alice      r bob
zero/alice              zero/none               r alice
name/a                  name/b                  502
names/x?n=a.example     names/x?n=b.example     502
changing/x?n=change     changing/x?n=stay       502
trust/a                 trust/other             r -
verify/off              verify/on               502
key/x?k=a               key/x?k=b               r -
bind/x                  bind/y                  r -
ntlm/x=NTLM             ntlm/x                  r -
zones/a                 zones/b                 502
least/a                 least/b                 502
grpc/a                  grpc/b                  502
uwsgi/a                 uwsgi/b                 502
EOF

use constant NAMES => 400;
use constant BOUND => 256;

my @after = grep { $_->[0] =~ /^(?:certificate|name|key)/ } @requests;

$t->plan(@versions * (@requests + @after + 7 + @mixed) + 2);

###############################################################################

my ($upstreams, $locations, $servers) = ('', '', '');

for my $i (0 .. $#versions) {
	my ($port, $second, $http2) = map { $_ + $i } 8081, 8091, 8101;

	for my $u (sort keys %upstreams) {
		my ($says, %of) = @{ $upstreams{$u} };

		my $first = $u eq 'grpc' ? $http2 : $port;

		$says =~ s/ZONE/$u$i/;
		$says =~ s/SECOND/server 127.0.0.1:$second;/;

		$upstreams .= "upstream $u$i { server 127.0.0.1:$first; $says "
			. "keepalive_requests 1; }\n";

		for my $l (sort keys %of) {
			my ($module) = grep { /^(?:grpc|uwsgi)$/ } $u, $l;
			$module ||= 'proxy';
			my $pass = $module eq 'grpc' ? "grpc_pass grpcs://$u$i;"
				: $module eq 'uwsgi' ? "uwsgi_pass suwsgi://$u$i;"
				: "proxy_pass https://$u$i;";
			(my $ssl = $of{$l}) =~ s/proxy_/${module}_/g;
			$locations .= "location /$i/$u/$l { $pass $ssl }\n";
		}
	}

	# nginx as a server says 400 to uwsgi, which is a response as well

	(my $says = $servers{$versions[$i]}) =~ s/CACHE/shared:of$i:1m/;

	$servers .= "server { listen 127.0.0.1:$port ssl; "
		. "listen 127.0.0.1:$second ssl; "
		. "listen 127.0.0.1:$http2 ssl http2; $says return 200 OK;\n"
		. 'add_header X-Name "[$ssl_server_name]" always; '
		. 'add_header X-Session "$ssl_session_reused $ssl_client_s_dn" '
		. "always; }\n";
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

    # up to nginx 1.23.3, the default is without TLS 1.3

    proxy_ssl_protocols TLSv1.2 TLSv1.3;
    grpc_ssl_protocols TLSv1.2 TLSv1.3;
    uwsgi_ssl_protocols TLSv1.2 TLSv1.3;

    $upstreams

    # one name before there is a connection, and another one after

    map "\$arg_n:\$upstream_addr" \$changing {
        volatile;
        default     a.example;
        "~^change:." b.example;
    }

    server {
        listen       127.0.0.1:8080;
        server_name  localhost;

        $locations
    }

    map \$ssl_server_name \$certificate {
        default     a.example;
        b.example   b.example;
    }

    ssl_certificate $d/\$certificate.crt;
    ssl_certificate_key $d/\$certificate.key;
    ssl_verify_client optional_no_ca;

    $servers
}

EOF

$t->run();

###############################################################################

asked(@requests);

# more names than sessions that are kept

for my $i (0 .. $#versions) {
	my ($wrong, $resumed, $last) = (0, 0, '');

	for my $n (1 .. NAMES, reverse 1 .. NAMES) {
		my $r = http_get("/$i/many/x?n=n$n.example");

		$wrong++ if $r !~ /^X-Name: \[n$n\.example\]/m;
		$resumed++ if $r =~ /^X-Session: r/m;
		$last = $r if $n == 1;
	}

	is($wrong, 0, "$versions[$i], many names");
	cmp_ok($resumed, '<=', BOUND, "$versions[$i], many names, resumed");
	cmp_ok($resumed, '>', 0, "$versions[$i], many names, some are");
	like($last, qr/^X-Session: \./m, "$versions[$i], many names, not the first");

	is(session("/$i/many/x?n=n1.example"), 'r -',
		"$versions[$i], many names, again");
	is(session("/$i/many/x?n=n" . NAMES . '.example'), '. -',
		"$versions[$i], many names, the last made room");

	# a name has one session, however often it is used

	session("/$i/many/x?n=n1.example") for 1 .. BOUND;
	is(session("/$i/many/x?n=n2.example"), 'r -',
		"$versions[$i], many requests for one name");
}

# new workers begin anew

my ($old) = (started($t))[-1];

reload($t);
ok(wait_for(sub { !kill 0, $old }), 'reload');
asked(@after);

is(join("\n", $t->read_file('error.log') =~ /^.*\[warn\].*session_reuse.*$/mg), '',
	'no warning');

SKIP: {
	skip 'no built-in keepalive', @versions * @mixed
		unless $t->has_module('upstream_keepalive');

	run_builtin($t);

	for my $i (0 .. $#versions) {
		for (@mixed) {
			my ($first, $second, @session) = @$_;

			session("/$i/$first");
			is(session("/$i/$second"), "@session", "$versions[$i], "
				. "$second after $first by the built-in");
		}
	}
}

###############################################################################

sub asked {
	my (@requests) = @_;

	for my $i (0 .. $#versions) {
		my %count;

		for (@requests) {
			my ($uri, @session) = @$_;

			my $is = join ' ', map { $_ eq '*' ? '[.r]' : quotemeta }
				@session;

			like(session("/$i/$uri"), qr/^$is$/,
				"$versions[$i], $uri " . ++$count{$uri});
		}
	}
}

sub session {
	my ($uri) = @_;

	my ($authorization) = $uri =~ s/=(NTLM)$// ? "Authorization: $1\n" : '';
	my $r = http(request('GET', $uri, 'localhost', $authorization));

	return $1 if $r =~ m{^HTTP/1\.. (5\d\d) };

	my ($resumed, $certificate)
		= $r =~ /^X-Session: (\S)(?: CN=(\w+))?/mi or return $r;

	return "$resumed " . ($certificate || '-');
}

###############################################################################

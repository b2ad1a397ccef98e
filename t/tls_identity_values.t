#!/usr/bin/perl

# Tests for names and client certificates that differ by request: a connection
# serves those that it was made for, whatever their values are and whenever they
# change.

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
use Test::Wait;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

use constant NAMES => 300;

my $t = Test::Nginx->new()->has(qw/http http_ssl proxy sni rewrite map/)
	->has_daemon('openssl')->plan(67);

my $d = $t->testdir();

# names of 255 and 300 bytes

my $room = label(255);
my $long = label(300);
my @long = map { $_ . substr($long, 1) } qw/ x y /;

certificate($t, 'a.example', qw/ a.example b.example 127.0.0.1 /, $room, @long);
certificate($t, $_) for qw/ alice bob /;

my $name = 'proxy_ssl_server_name on; proxy_ssl_name';
my $trust = "proxy_ssl_verify on; proxy_ssl_trusted_certificate $d/a.example.crt;";

$t->write_file_expand('nginx.conf', <<"EOF");

%%TEST_GLOBALS%%

daemon off;

events {
    worker_connections 2048;
}

http {
    %%TEST_GLOBALS_HTTP%%

    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_ssl_session_reuse off;

    upstream u {
        server 127.0.0.1:8081;
        keepalive 16;
    }

    upstream long {
        server 127.0.0.1:8081;
        keepalive 16;
    }

    # longer keys are not kept

    upstream strict {
        server 127.0.0.1:8081;
        keepalive 16 slice_key=\$arg_k slice_keylen=2 slice_strict;
    }

    upstream change {
        server 127.0.0.1:8081;
        keepalive 16;
    }

    # the first server has nothing

    upstream retry {
        server 127.0.0.1:8082;
        server 127.0.0.1:8081;
        keepalive 16;
    }

    upstream all {
        server 127.0.0.1:8081;
        keepalive 300;
    }

    upstream few {
        server 127.0.0.1:8081;
        keepalive 64;
    }

    # what they are before there is a connection, and after

    map "\$arg_n:\$upstream_addr" \$changing_name {
        volatile;
        default     a.example;
        "~^change:." b.example;
    }

    map "\$arg_n:\$upstream_addr" \$changing_certificate {
        volatile;
        default     alice;
        "~^change:." bob;
    }

    # of the last server

    map \$upstream_addr \$name_of_server {
        volatile;
        default              none.example;
        ~:%%PORT_8082%%\$    b.example;
        ~:%%PORT_8081%%\$    a.example;
    }

    # the same, and nginx remembers the value

    map \$upstream_addr \$remembered {
        default              none.example;
        ~:%%PORT_8082%%\$    b.example;
        ~:%%PORT_8081%%\$    a.example;
    }

    log_format save "\$uri \$arg_n \$upstream_keepalive_save";

    server {
        listen       127.0.0.1:8080;
        server_name  localhost;

        access_log $d/save.log save;

        location /arg {
            proxy_pass https://u;
            $name \$arg_n;
        }

        location /host {
            proxy_pass https://u;
            $name \$host;
        }

        location /remembered {
            proxy_pass https://u;
            $name \$remembered;
        }

        location /direct {
            proxy_pass https://u;
            $name \$upstream_addr;
        }

        location /strict {
            proxy_pass https://strict;
            $name \$arg_n;
        }

        location /certificate {
            proxy_pass https://u;
            proxy_ssl_certificate $d/\$arg_c.crt;
            proxy_ssl_certificate_key $d/\$arg_c.key;
        }

        # both, so that neither may be taken for the other

        location /both {
            proxy_pass https://u;
            $name \$arg_n;
            proxy_bind \$arg_b;
            proxy_ssl_certificate \$arg_c;
            proxy_ssl_certificate_key \$arg_k;
        }

        # as the name is too long for the handshake, it is for verification only

        location /long {
            proxy_pass https://long;
            proxy_ssl_name \$arg_n;
            $trust
        }

        location /change/name {
            proxy_pass https://change;
            $name \$changing_name;
        }

        location /change/certificate {
            proxy_pass https://change;
            proxy_ssl_certificate $d/\$changing_certificate.crt;
            proxy_ssl_certificate_key $d/\$changing_certificate.key;
        }

        location /address {
            proxy_pass https://change;
            proxy_ssl_name \$upstream_addr;
            $trust
        }

        location /retry {
            proxy_pass https://retry;
            proxy_next_upstream http_404;
            $name \$arg_n;
        }

        location /retry/server {
            proxy_pass https://retry;
            proxy_next_upstream http_404;
            $name \$name_of_server;
        }

        location /all {
            proxy_pass https://all;
            $name \$arg_n;
        }

        location /few {
            proxy_pass https://few;
            $name \$arg_n;
        }
    }

    log_format server "\$server_port \$ssl_server_name \$uri";
    access_log $d/server.log server;

    ssl_certificate $d/a.example.crt;
    ssl_certificate_key $d/a.example.key;
    ssl_verify_client optional_no_ca;

    server {
        listen       127.0.0.1:8081 ssl;

        keepalive_requests 10000;

        add_header X-Connection \$connection;
        add_header X-Name "[\$ssl_server_name]";
        add_header X-Client "[\$ssl_client_s_dn]";
        return 200;
    }

    server {
        listen       127.0.0.1:8082 ssl;
        return 404;
    }
}

EOF

$t->run();

###############################################################################

my ($c, $e);

# names

($c, my $is) = ask('/arg?n=a.example', 'X-Name');
is($is, 'a.example', 'name');
($e, $is) = ask('/arg?n=b.example', 'X-Name');
is($is, 'b.example', 'other name');
isnt($e, $c, 'other name, other connection');
is(get('/arg?n=a.example'), $c, 'name again');
is(get('/arg?n=b.example'), $e, 'other name again');

($c, $is) = ask('/host', 'X-Name', 'a.example');
is($is, 'a.example', 'host');
($e, $is) = ask('/host', 'X-Name', 'b.example');
is($is, 'b.example', 'other host');
is(get('/host', 'a.example'), $c, 'host again');
is(get('/host', 'b.example'), $e, 'other host again');

# the beginning of another one, and what nginx makes of one

($c, $is) = ask('/arg?n=a.exampl', 'X-Name');
is($is, 'a.exampl', 'shorter name');
($c, $is) = ask('/arg?n=a.example:443', 'X-Name');
is($is, 'a.example', 'name with a port');
is(get('/arg?n=a.example', 'a'), $c, 'name without it');
($c, $is) = ask('/arg?n=127.0.0.1', 'X-Name');
is($is, '', 'an address is no name');

# no name

($c, $is) = ask('/arg', 'X-Name');
is($is, '', 'no name');
is(get('/arg'), $c, 'no name again');
is(get('/arg?n='), $c, 'empty name');
($e, $is) = ask('/arg?n=a.example', 'X-Name');
is($is, 'a.example', 'name after none');
is(get('/arg'), $c, 'no name after one');

# certificates

($c, $is) = ask('/certificate?c=alice', 'X-Client');
is($is, 'CN=alice', 'certificate');
($e, $is) = ask('/certificate?c=bob', 'X-Client');
is($is, 'CN=bob', 'other certificate');
is(get('/certificate?c=alice'), $c, 'certificate again');
is(get('/certificate?c=bob'), $e, 'other certificate again');

# several values, which are the same if they are written one behind the other

my $both = both('alice', 'a.example', '127.0.0.2');
$c = get($both);
is_new($c, 'several values');
is(get($both), $c, 'several values again');
is_new(get(both('bob', 'a.example', '127.0.0.2')), 'other certificate of several');
is_new(get(both('alice', 'b.example', '127.0.0.2')), 'other name of several');
is_new(get(both('alice', 'a.example', '127.0.0.3')), 'other address of several');
is_new(get(both('alice', '', '127.0.0.2')), 'no name of several');
is_new(get(both('alice', 'a.example', '')), 'no address of several');
is(get($both), $c, 'several values in the end');

# long ones

$c = get("/long?n=$room");
is_new($c, 'as long as there is room');
is(get("/long?n=$room"), $c, 'as long as there is room again');

for my $n (@long) {
	is_new(get("/long?n=$n"), 'too long');
	is_new(get("/long?n=$n"), 'too long again');
}

is(get("/long?n=$room"), $c, 'as long as there is room, in the end');
is(saved($t, $long[0]), 'identity', 'too long, why it is not saved');

# a key that is too long, in place of none

is_new(get('/strict?k=abc&n=strict.example'), 'key too long');
is_new(get('/strict?k=&n=strict.example'), 'no key after it');
is_new(get('/strict?k=abc&n=strict.example'), 'key too long again');
is(saved($t, 'strict.example'), 'keylen', 'key too long, why it is not saved');

# values that are others when the handshake comes

for my $of (qw/ name certificate /) {
	my ($header, $now, $then) = $of eq 'name'
		? qw/ X-Name a.example b.example /
		: qw/ X-Client CN=alice CN=bob /;

	($c, $is) = ask("/change/$of?n=change", $header);
	is($is, $then, "$of is what it is then");
	($e, $is) = ask("/change/$of?n=stay", $header);
	is($is, $now, "$of is not what it was then");
	is_new($e, "$of, not saved for what it was");
	is(get("/change/$of?n=stay"), $e, "$of that stays");
	($c, $is) = ask("/change/$of?n=change", $header);
	like($is, qr/^(?:$now|$then)$/, "$of changes again");
	($c, $is) = ask("/change/$of?n=stay", $header);
	is($is, $now, "$of in the end");
}

# by the server that was chosen: nginx looks at it later, too

($c, $is) = ask('/remembered', 'X-Name');
is($is, 'a.example', 'name of the chosen server');
is(get('/remembered'), $c, 'name of the chosen server again');
is(get('/direct'), get('/direct'), 'address of the chosen server');

like(http_get('/address'), qr/ 200 /, 'address of the server');
like(http_get('/address'), qr/ 200 /, 'address of the server again');

# more than one server

my %by;

for (1 .. 3) {
	for my $n (qw/ a.example b.example /) {
		($c, $is) = ask("/retry?n=$n", 'X-Name');
		$by{$n}{$c}++ if $is eq $n;
	}
}

is_deeply([ map { values %{ $by{$_} } } sort keys %by ], [ 3, 3 ],
	'a connection for each name, also after another server');

get('/retry/server') for 1 .. 4;

my $names = qr/^(\d+ \S+) \/retry\/server$/m;
my @names;

wait_for(sub {
	@names = $t->read_file('server.log') =~ /$names/g;
	return grep({ /^@{[ port(8081) ]} / } @names) == 4;
});

my %names = map { $_ => 1 } @names;

is_deeply(\%names, { port(8081) . ' a.example' => 1,
	port(8082) . ' b.example' => 1 }, 'name of the server that is asked');

# many names

my (%conns, $wrong, $changed);

($wrong, $changed) = (0, 0);

for my $round (1 .. 3) {
	for my $i (1 .. NAMES) {
		my ($conn, $name) = ask("/all?n=n$i.example", 'X-Name');
		$conns{$i} = $conn if $round == 1;
		$wrong++ if $name ne "n$i.example";
		$changed++ if $conn ne $conns{$i};
	}
}

is($wrong, 0, 'many names, no wrong one');
is($changed, 0, 'many names, each has its connection');

$wrong = 0;

for my $i ((1 .. NAMES, 1 .. 100) x 2) {
	my ($conn, $name) = ask("/few?n=n$i.example", 'X-Name');
	$wrong++ if $name ne "n$i.example";
}

is($wrong, 0, 'more names than connections');

SKIP: {
	skip 'no built-in keepalive', 3
		unless $t->has_module('upstream_keepalive');

	my $conf = $t->read_file('nginx.conf');
	$conf =~ s/ \$upstream_keepalive_save//;
	$t->write_file('nginx.conf', $conf);

	run_builtin($t);

	ask('/arg?n=a.example');
	is((ask('/arg?n=b.example', 'X-Name'))[1], 'a.example',
		'names are mixed by the built-in');

	ask('/change/name?n=change');
	is((ask('/change/name?n=stay', 'X-Name'))[1], 'b.example',
		'changed names are mixed by the built-in');

	ask('/all?n=1.example');
	is((ask('/all?n=2.example', 'X-Name'))[1], '1.example',
		'many names are mixed by the built-in');
}

###############################################################################

# the connection, and what the server saw

sub ask {
	my ($uri, $header, $host) = @_;

	my $r = http(request('GET', $uri, $host));
	my $is = defined $header && $r =~ /^$header: \[(.*?)\]/m ? $1 : 'none';

	return (conn($r), $is);
}

sub both {
	my ($certificate, $name, $address) = @_;

	return "/both?n=$name&b=$address&c=$d/$certificate.crt&k=$d/$certificate.key";
}

# why not, as the log says

sub saved {
	my ($t, $name) = @_;

	my $why;

	wait_for(sub {
		($why) = $t->read_file('save.log') =~ /^\S+ \Q$name\E (.*)$/m;
	});

	return $why;
}

# a host name of so many bytes

sub label {
	my ($length) = @_;

	return substr(('x' x 50 . '.') x $length, 0, $length - 2) . '.x';
}

###############################################################################

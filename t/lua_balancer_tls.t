#!/usr/bin/perl

# Tests for a balancing method in Lua, with the module of Debian, and TLS: the
# name may be one that Lua chooses, and Lua may switch TLS on and off.  A
# connection is not used for another name, nor with TLS for without.

###############################################################################

use warnings;
use strict;

use Test::More;

use FindBin;
use lib ($ENV{NGINX_TESTS_DIR} ? "$ENV{NGINX_TESTS_DIR}/lib" : ()),
	"$FindBin::Bin/lib";

use Test::Nginx;
use Test::Certificates;
use Test::Lua;
use Test::Requests;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

my $t = Test::Nginx->new()->has(qw/http http_ssl proxy rewrite sni/)
	->has_daemon('openssl');

my $modules = lua_modules();
my $path = lua_path();

$t->plan(25);

certificate($t, 'localhost');

(my $conf = <<'EOC') =~ s/%%MODULES%%/$modules/;

%%MODULES%%

%%TEST_GLOBALS%%

daemon off;

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    lua_package_path '%%PATH%%';

    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_ssl_server_name on;
    log_format save $upstream_keepalive_save;

    init_by_lua_block {
        package.loaded.choose = function ()
            local balancer = require "ngx.balancer"
            local var = ngx.var

            assert(balancer.set_current_peer("127.0.0.1",
                                             tonumber(var.arg_s
                                                      or "%%PORT_8082%%"),
                                             var.arg_host))

            if var.arg_name then
                var.name = var.arg_name
            end

            if var.arg_timeouts then
                assert(balancer.set_timeouts(5, 5, 5))
            end

            if var.arg_own then
                assert(balancer.enable_keepalive(60, 1000))
            end

            if var.arg_tls then
                assert(balancer.set_upstream_tls(var.arg_tls == "on"))
            end
        end
    }

    upstream u {
        server 127.0.0.1:8083;
        balancer_by_lua_block { require "choose" () }
        keepalive 8 slice_key=$host;
    }

    server {
        listen       127.0.0.1:8080;
        server_name  localhost;

        add_header X-Keepalive $upstream_keepalive always;
        access_log %%TESTDIR%%/save.log save;

        location /host {
            proxy_pass https://u;
        }

        location /name {
            set $name "";
            proxy_pass https://u;
            proxy_ssl_name $name;
        }

        # a scheme that Lua changes

        location /scheme {
            set $name "";
            set $scheme_of_u http;
            proxy_pass $scheme_of_u://u;
            proxy_ssl_name $name;
        }
    }

    server {
        listen       127.0.0.1:8081;
        listen       127.0.0.1:8082 ssl;

        ssl_certificate %%TESTDIR%%/localhost.crt;
        ssl_certificate_key %%TESTDIR%%/localhost.key;

        add_header X-Connection $connection always;
        add_header X-Made "$scheme $ssl_server_name $ssl_session_reused" always;

        location / {
            return 200;
        }
    }
}

EOC

$conf =~ s/%%PATH%%/$path/;

$t->write_file_expand('nginx.conf', $conf);
$t->run();

###############################################################################

# a name in a variable that Lua sets, with any version

my $a = made('/name?name=a.example');
is($a->{made}, 'https a.example .', 'name');
is($a->{save}, 'saved', 'name, kept');
is(made('/name?name=a.example')->{c}, $a->{c}, 'name again');
is(made('/name?name=a.example&timeouts=1')->{c}, $a->{c}, 'with timeouts');
is(made('/name?name=b.example')->{made}, 'https b.example .', 'another name');
isnt(made('/name?name=a.example', 'other')->{c}, $a->{c}, 'another key');
is(made('/name?name=a.example')->{c}, $a->{c}, 'name once more');

SKIP: {
skip 'no set_upstream_tls in Lua', 18 unless lua_has('set_upstream_tls');

# a name that Lua sets itself

my $default = made('/host');
my $c = made('/host?host=c.example');
is($c->{made}, 'https c.example .', 'name of Lua');
is(made('/host?host=c.example')->{c}, $c->{c}, 'name of Lua again');
is(made('/host?host=d.example')->{made}, 'https d.example .', 'another one');
is(made('/host')->{c}, $default->{c}, 'default name, its own connection');

# switched on: with the name of each

my $on = made('/scheme?tls=on&name=e.example');
is($on->{made}, 'https e.example .', 'TLS switched on');
is(made('/scheme?tls=on&name=e.example')->{c}, $on->{c}, 'switched on again');
is(made('/scheme?tls=on&name=f.example')->{made}, 'https f.example .',
	'switched on, another name');

# with the same key and server, but without

like(http_get('/scheme?name=e.example'), qr/ 400 .*^X-Keepalive: MISS\r$/ms,
	'not switched on');

# switched off

my $plain = '/host?tls=off&s=' . port(8081);
my $off = made($plain);
like($off->{made}, qr/^http\b/, 'TLS switched off');
is(made($plain)->{c}, $off->{c}, 'switched off again');
is(made('/scheme?s=' . port(8081))->{c}, $off->{c},
	'the same as where there was none');
like(http_get('/host?s=' . port(8081)), qr/ 502 .*^X-Keepalive: MISS\r$/ms,
	'not switched off');

# there is no room for it where no location says that names vary

$t->stop();
$conf =~ s/location \/(?:name|scheme) \{.*?\n        \}//gs;
$t->write_file_expand('nginx.conf', $conf);
$t->run();

$default = made('/host');
is($default->{save}, 'saved', 'no room, default name, kept');

for my $own ('', '&own=1') {
	my $c = made("/host?host=c.example$own");
	is("$c->{made} $c->{save}", 'https c.example . identity',
		"no room, name of Lua$own, not kept");
	is(made("/host?host=c.example$own")->{made}, 'https c.example .',
		"no room, name of Lua$own, new session");
}

is(made('/host')->{c}, $default->{c}, 'no room, default name');
}

###############################################################################

# the connection of a response, with what it was made as the server sees it, and
# what became of it

sub made {
	my ($uri, $host) = @_;

	my $r = http(request('GET', $uri, $host));
	my ($made) = $r =~ /^X-Made: ([^\r\n]*)/m;
	my ($save) = $t->read_file('save.log') =~ /(\S+)\n\z/;

	return { c => conn($r), made => $made, save => $save };
}

###############################################################################

END { undef $t; }

###############################################################################

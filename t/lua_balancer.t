#!/usr/bin/perl

# Tests for a balancing method in Lua, with the module of Debian: whatever the
# order of the directives and of the modules, a connection is only used for its
# own key and server, and what this module does not keep, Lua's own keepalive
# does not keep either.

###############################################################################

use warnings;
use strict;

use Test::More;

use FindBin;
use lib ($ENV{NGINX_TESTS_DIR} ? "$ENV{NGINX_TESTS_DIR}/lib" : ()),
	"$FindBin::Bin/lib";

use Test::Nginx;
use Test::Backend;
use Test::Lua;
use Test::Processes;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

my $t = Test::Nginx->new()->has(qw/http proxy/);

my $modules = lua_modules();
my $path = lua_path();

$t->plan(114);

my $conf = <<'EOC';

%%BEFORE%%

%%TEST_GLOBALS%%

%%AFTER%%

daemon off;

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    lua_package_path '%%PATH%%';

    proxy_http_version 1.1;
    proxy_set_header Connection "";

    log_format save $upstream_keepalive_save;

    # the servers in the arguments, by their ports, one for each attempt; or none, and
    # then it is that of the upstream

    init_by_lua_block {
        package.loaded.choose = function ()
            local balancer = require "ngx.balancer"
            local ctx, var = ngx.ctx, ngx.var

            if var.arg_s == "none" then
                return
            end

            if not ctx.servers then
                ctx.servers = {}

                for port in (var.arg_s or "%%PORT_8081%%"):gmatch("%d+") do
                    table.insert(ctx.servers, tonumber(port))
                end

                assert(balancer.set_more_tries(#ctx.servers - 1))
            end

            assert(balancer.set_current_peer("127.0.0.1",
                                             table.remove(ctx.servers, 1)))

            if var.arg_timeouts then
                assert(balancer.set_timeouts(5, 5, 5))
            end

            if var.arg_own then
                assert(balancer.enable_keepalive(60, 1000))
            end

            if var.arg_bind then
                assert(balancer.bind_to_local_addr("127.0.0.2"))
            end
        end
    }

    upstream before {
        server 127.0.0.1:8083;
        keepalive 4 slice_key=$host slice_conn=2;
        balancer_by_lua_block { require "choose" () }
    }

    upstream after {
        server 127.0.0.1:8083;
        balancer_by_lua_block { require "choose" () }
        keepalive 4 slice_key=$host slice_conn=2;
    }

    # connections that are not kept: of a long key, or of a second request

    upstream strict {
        server 127.0.0.1:8083;
        balancer_by_lua_block { require "choose" () }
        keepalive 8 slice_key=$host slice_keylen=8 slice_strict;
    }

    upstream second {
        server 127.0.0.1:8083;
        balancer_by_lua_block { require "choose" () }
        keepalive 8 slice_key=$host;
        keepalive_requests 2;
    }

    upstream none {
        server 127.0.0.1:8083;
        balancer_by_lua_block { require "choose" () }
        keepalive 8 slice_key=$host slice_dyn=$arg_n;
    }

    # a location says that local addresses vary

    upstream bound {
        server 127.0.0.1:8083;
        balancer_by_lua_block { require "choose" () }
        keepalive 8 slice_key=$host;
    }

    # with the servers that Lua chooses, and without

    upstream shared {
        server 127.0.0.1:8081;
        server 127.0.0.1:8082;
        balancer_by_lua_block { require "choose" () }
        keepalive 8 slice_key=$host shared;
    }

    upstream shared_other {
        server 127.0.0.1:8083;
        balancer_by_lua_block { require "choose" () }
        keepalive 8 slice_key=$host shared;
    }

    server {
        listen       127.0.0.1:8080;
        server_name  localhost;

        proxy_next_upstream error http_404;
        add_header X-Keepalive $upstream_keepalive always;
        access_log %%TESTDIR%%/save.log save;

        location /before/ {
            proxy_pass http://before/;
        }

        location /after/ {
            proxy_pass http://after/;
        }

        location /strict/ {
            proxy_pass http://strict/;
        }

        location /second/ {
            proxy_pass http://second/;
        }

        location /none/ {
            proxy_pass http://none/;
        }

        location /bound/ {
            proxy_pass http://bound/;
        }

        location /bound/by_nginx/ {
            proxy_pass http://bound/;
            proxy_bind 127.0.0.3;
        }

        location /shared/ {
            proxy_pass http://shared/;
        }

        location /shared_other/ {
            proxy_pass http://shared_other/;
        }
    }
}

EOC

# the first server fails if that is asked for, without a body that nginx would not
# read

my ($first, $second, $closed) = map { port($_) } 8081, 8082, 8089;

on_request(sub {
	my ($c, $head) = @_;

	return $c->{port} == $first && $head =~ m!^GET /empty!
		? '404 Not Found' : '200 OK';
});

start_backend($t, 8081, 8082, 8083);

###############################################################################

# whichever module is loaded first

for my $order (qw/ BEFORE AFTER /) {
	(my $text = $conf) =~ s/%%$order%%/$modules/;
	$text =~ s/%%(?:BEFORE|AFTER)%%//;
	$text =~ s/%%PATH%%/$path/;

	$t->write_file_expand('nginx.conf', $text);
	$t->run();

	check("/$_/", "Lua loaded \L$order\E, keepalive $_") for qw/ before after /;
	check_own() if $order eq 'AFTER';
	check_reload() if $order eq 'AFTER';

	unlike($t->read_file('error.log'), qr/\[(?:warn|error)\](?!.*refused)/,
		'no warnings');

	$t->stop();
	is(wait_open(0), 0, 'all closed at the end');
}

###############################################################################

# keys, servers and limits of an upstream

sub check {
	my ($uri, $name) = @_;

	my $c = get($uri, 'a');
	is(get($uri, 'a'), $c, "$name, a key");
	is_new(my $d = get($uri, 'b'), "$name, another key");
	is(get($uri, 'a'), $c, "$name, the key again");
	is(get($uri, 'b'), $d, "$name, the other key again");
	is(get("$uri?timeouts=1", 'a'), $c, "$name, with timeouts");

	# the other server has connections of its own

	is_new(my $e = get("$uri?s=$second", 'a'), "$name, another server");
	is(get("$uri?s=$second", 'a'), $e, "$name, the other server again");
	is(get($uri, 'a'), $c, "$name, the server again");

	# a server that fails keeps its connection, and so does the next one

	my $r = http(request('GET', "${uri}empty?s=$first,$second", 'a'));

	is(conn($r), $e, "$name, next server");
	like($r, qr/^X-Keepalive: HIT, HIT\r$/m, "$name, both reused");
	is(get($uri, 'a'), $c, "$name, of the server that failed");
	is(get("$uri?s=$second", 'a'), $e, "$name, of the next server");
	is(get("$uri?s=$closed,$second", 'a'), $e, "$name, no connection");
	is(get("$uri?s=$closed,$second", 'b'), get("$uri?s=$second", 'b'),
		"$name, no connection, another key");

	# the server of the upstream, if Lua chooses none

	$r = http(request('GET', "$uri?s=none", 'a'));
	is_new($c = conn($r), "$name, no choice");
	like($r, qr/^X-Server: @{[ port(8083) ]}\r$/m, "$name, no choice, server");
	is(get("$uri?s=none", 'a'), $c, "$name, no choice again");
	is_new(get("$uri?s=none", 'b'), "$name, no choice, another key");

	# a slice, and all

	break_idle('finish');
	wait_open(0);

	my @limited = together($uri, ('a') x 3);
	is(wait_open(2), 2, "$name, limit of a slice");
	together($uri, qw/ a a a b b b c c c /);
	is(wait_open(4), 4, "$name, limit of all");
}

# the keepalive that Lua's module has

sub check_own {
	SKIP: {
	skip 'no keepalive in Lua', 22 unless lua_has('enable_keepalive');

	break_idle('finish');
	wait_open(0);

	for my $uri (qw/ before after /) {
		my $c = get("/$uri/?own=1", 'a');
		is(get("/$uri/?own=1", 'a'), $c, "$uri, with Lua's, a key");
		is(get("/$uri/", 'a'), $c, "$uri, and without");
		is_new(get("/$uri/?own=1", 'b'), "$uri, with Lua's, another key");

		together("/$uri/?own=1", ('a') x 4, ('b') x 4, ('c') x 4);
		is(wait_open(4), 4, "$uri, with Lua's, limits");

		break_idle('finish');
		wait_open(0);
	}

	# what is not kept, by any of the two

	my $c = get('/strict/?own=1', 'a-long-key');
	is(wait_open(0), 0, 'key too long, closed');
	like($t->read_file('save.log'), qr/^keylen\n\z/m, 'not kept for that');
	is_new(get('/strict/?own=1', 'another-long-key'), 'another long key');
	is_new(get('/strict/?own=1', 'b'), 'a short key');

	$c = get('/second/?own=1', 'a');
	is(get('/second/?own=1', 'a'), $c, 'second request');
	is_new(get('/second/?own=1', 'a'), 'third request');

	$c = get('/none/?own=1&n=0', 'a');
	is_new(get('/none/?own=1&n=5', 'b'), 'limit of none, another key');

	# from another local address

	$c = get('/after/?own=1&bind=1', 'a');
	like($t->read_file('save.log'), qr/^identity\n\z/m, 'bound, no room');
	is_new(get('/after/?own=1', 'a'), 'bound, no room, and not bound');

	$c = get('/bound/?bind=1', 'a');
	is(get('/bound/?bind=1', 'a'), $c, 'bound');
	is_new(my $d = get('/bound/', 'a'), 'not bound');
	is_new(get('/bound/by_nginx/', 'a'), 'bound by nginx');
	is(get('/bound/by_nginx/?bind=1', 'a'), $c, 'bound by Lua, not by nginx');
	is(get('/bound/', 'a'), $d, 'not bound again');
	}
}

# the next workers

sub check_reload {
	my $c = get('/after/', 'a');
	my $shared = get('/shared/', 'a');
	my $other = get('/shared_other/', 'a');

	is(get('/shared/', 'a'), $shared, 'shared');
	is(get('/shared_other/', 'a'), $other, 'shared, a server that is not named');

	reload($t);
	is(wait_open(1), 1, 'closed by the reload, but for one');

	is_new(get('/after/', 'a'), 'after a reload');
	is(get('/shared/', 'a'), $shared, 'shared, after a reload');
	is_new(get('/shared/', 'b'), 'shared, after a reload, another key');
	is_new($other = get('/shared_other/', 'a'),
		'shared, after a reload, a server that is not named');
	is(get('/shared_other/', 'a'), $other, 'and again');
}

###############################################################################

END { undef $t; }

###############################################################################

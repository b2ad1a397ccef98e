#!/usr/bin/perl

# Tests for master_process off: a single process keeps connections, and survives a
# reload with idle ones.

###############################################################################

use warnings;
use strict;

use Test::More;

use FindBin;
use lib ($ENV{NGINX_TESTS_DIR} ? "$ENV{NGINX_TESTS_DIR}/lib" : ()),
	"$FindBin::Bin/lib";

use Test::Nginx;
use Test::Backend;
use Test::Processes;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

my $t = Test::Nginx->new()->has(qw/http proxy/)->plan(11);

$t->write_file_expand('nginx.conf', <<"EOC");

%%TEST_GLOBALS%%

daemon off;
master_process off;

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    proxy_http_version 1.1;
    proxy_set_header Connection "";

    upstream u {
        server 127.0.0.1:8081;
        keepalive 16 slice_key=\$host;
    }

    server {
        listen       127.0.0.1:8080;
        server_name  localhost;

        location / {
            proxy_pass http://u;
        }
    }
}

EOC

start_backend($t, 8081);
$t->run();

###############################################################################

my $ca = get('/', 'a');
is(get('/', 'a'), $ca, 'same host');
is_new(my $cb = get('/', 'b'), 'other host');
is(get('/', 'a'), $ca, 'first host again');
is(get('/', 'b'), $cb, 'other host again');

my @c = together('/', qw/ a a a a b b b b c c c c /);
is(open_conns(), 12, 'idle');

# After a reload in a single process, nginx has no connections for requests until
# those of the old configuration are closed.  All that can be seen is that they
# are closed as always, and that the process does not mind.

my ($pid) = $t->read_file('nginx.pid') =~ /^(\d+)/;

# nginx may miss a signal until the next event; OpenResty's ends with it

ok(wait_for(sub {
	kill 'HUP', $pid;
	select undef, undef, undef, 0.1;
	$t->read_file('error.log') =~ /#\d+: reconfiguring|HUP.*, exiting/;
}), 'reload');

SKIP: {
skip 'a reload ends the process', 4
	if $t->read_file('error.log') =~ /HUP.*, exiting/;

is(open_conns(), 12, 'idle after reload');
is(break_idle('finish'), 12, 'closed by backend');
is(wait_open(0), 0, 'closed');
ok(kill(0, $pid), 'process stays');
}

kill 'QUIT', $pid;
ok(ended($t, $pid), 'process exited');

###############################################################################

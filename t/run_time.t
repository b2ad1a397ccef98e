#!/usr/bin/perl

# Tests for an upstream that is made in a running worker, and deleted again:
# its connections are sliced, and closed with it.  The module that makes it
# is compiled here, see module/runtime_upstream.c.

###############################################################################

use warnings;
use strict;

use Test::More;

use FindBin;
use lib ($ENV{NGINX_TESTS_DIR} ? "$ENV{NGINX_TESTS_DIR}/lib" : ()),
	"$FindBin::Bin/lib";

use Test::Nginx;
use Test::Backend;
use Test::Module;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

my $t = Test::Nginx->new()->has(qw/http proxy/);

compile_module($t, 'runtime_upstream');

$t->plan(37);

$t->write_file_expand('nginx.conf', <<'EOC');

load_module %%TESTDIR%%/runtime_upstream.so;

%%TEST_GLOBALS%%

daemon off;

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    proxy_http_version 1.1;
    proxy_set_header Connection "";

    upstream u {
        server 127.0.0.1:8082;
        keepalive 8 slice_key=$host;
    }

    server {
        listen       127.0.0.1:8080;
        server_name  localhost;

        location /made {
            runtime_upstream %%TESTDIR%%/upstream.conf;
        }

        location / {
            set $name runtime;
            proxy_pass http://$name;
        }

        location /u/ {
            proxy_pass http://u/;
        }
    }
}

EOC

start_backend($t, 8081, 8082);
write_upstream('keepalive 3 slice_key=$host slice_conn=1;');
$t->run();

###############################################################################

like(http_get('/made?add'), qr/ 204 /, 'made');

# a worker's first request shows whether nginx has the structures for which the
# module was built

like(request_status('/?other=1', 'a'), qr/ 500 /, 'another nginx');
like($t->read_file('error.log'), qr/\[emerg\] .* ngx_http_upstream_t differs/,
	'another nginx, refused');

my $static = get('/u/', 'a');

# sliced, and within its limits

my $a = get('/', 'a');
is_new($a, 'first host');
is_new(my $b = get('/', 'b'), 'second host');
is(get('/', 'a'), $a, 'first host again');
is(get('/', 'b'), $b, 'second host again');
is(get('/u/', 'a'), $static, 'another upstream');

together('/', 'a', 'a', 'b');
is(wait_open(2, 8081), 2, 'limit of a slice');

together('/', 'c', 'd');
is(wait_open(3, 8081), 3, 'limit');

# deleted with all that is idle

like(http_get('/made?delete'), qr/ 204 /, 'deleted');
is(wait_open(0, 8081), 0, 'idle connections closed');
like(request_status('/', 'a'), qr/ 50\d /, 'no upstream');
is(get('/u/', 'a'), $static, 'another upstream is not touched');

# behind a load balancing method, and many times

for my $directives (
	'least_conn; keepalive 2 slice_key=$host;',
	'keepalive 2 slice_key=$host; keepalive_timeout 60s;'
) {
	write_upstream($directives);

	for (1 .. 2) {
		http_get('/made?add');

		is_new($a = get('/', 'a'), "new: $directives");
		is(get('/', 'a'), $a, "again: $directives");

		http_get('/made?delete');
	}
}

is(wait_open(0, 8081), 0, 'all closed');

# a variable that the configuration file does not use

write_upstream('keepalive 2 slice_key=$request_method;');

like(http_get('/made?add'), qr/ 500 /, 'variable not known');
like($t->read_file('error.log'),
	qr/\[emerg\].*unknown "request_method" variable/, 'variable named');

write_upstream('keepalive many;');
like(http_get('/made?add'), qr/ 500 /, 'invalid');

write_upstream('keepalive 2 slice_key=$host;');
like(http_get('/made?add'), qr/ 204 /, 'made after errors');
is_new($a = get('/', 'a'), 'new after errors');
is(get('/', 'a'), $a, 'again after errors');

# workers cannot share what one of them has made

unlike($t->read_file('error.log'), qr/"shared" has no effect/, 'no warning');

http_get('/made?delete');
write_upstream('keepalive 2 slice_key=$host shared;');
like(http_get('/made?add'), qr/ 204 /, 'made with shared');
is(() = $t->read_file('error.log') 
	=~ /\[warn\] .*parameter "shared" has no effect in an upstream that is created/g,
	1, 'one warning');
is_new($a = get('/', 'a'), 'new with shared');
is(get('/', 'a'), $a, 'again with shared');
is_new(get('/', 'b'), 'other host with shared');
together('/', 'c', 'd', 'e');
is(wait_open(2, 8081), 2, 'limit with shared');

$t->stop();
is(open_conns(8081), 0, 'closed at the end');

###############################################################################

sub write_upstream {
	my ($directives) = @_;

	$t->write_file_expand('upstream.conf',
		"server 127.0.0.1:8081; $directives\n");
}

sub request_status {
	my ($response) = http(request('GET', @_)) =~ /^([^\r\n]*)/;

	return $response;
}

# it ends with the script, although functions refer to it

END { undef $t; }

###############################################################################

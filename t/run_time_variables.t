#!/usr/bin/perl

# Tests for variables in an upstream that is made in a running worker: those
# that the configuration file does not use are not known, however often they
# are asked for.  The module is compiled here, see module/runtime_upstream.c.

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

$t->plan(10);

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

# an unknown one is unknown also the next time, and leaves nothing behind

for my $n (1, 2) {
	write_upstream('keepalive 2 slice_key=$request_method;');

	like(http_get('/made?add'), qr/ 500 /, "variable not known $n");
	like(request_status('/', 'a'), qr/ 50\d /, "no upstream $n");
}

# a name of the same length is compared with those that are known

write_upstream('keepalive 2 slice_key=$request_length;');
like(http_get('/made?add'), qr/ 500 /, 'another one not known');

write_upstream('keepalive 2 slice_key=$host slice_dyn=request_method;');
like(http_get('/made?add'), qr/ 500 /, 'slice_dyn not known');

my @names = $t->read_file('error.log')
	=~ /\[emerg\].*unknown "(\w+)" variable/g;
is(join(' ', @names), 'request_method request_method request_length'
	. ' request_method', 'variables named');

write_upstream('keepalive 2 slice_key=$host;');
like(http_get('/made?add'), qr/ 204 /, 'made after errors');
is_new(my $c = get('/', 'a'), 'new after errors');
is(get('/', 'a'), $c, 'again after errors');

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

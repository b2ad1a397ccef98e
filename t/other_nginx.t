#!/usr/bin/perl

# Tests for an nginx with other structures than those for which the module was
# built, as forks have with the same version: it is refused, and nothing crashes.
# A module that is compiled here makes it look so, see module/other_nginx.c.

###############################################################################

use warnings;
use strict;

use Test::More;

use FindBin;
use lib ($ENV{NGINX_TESTS_DIR} ? "$ENV{NGINX_TESTS_DIR}/lib" : ()),
	"$FindBin::Bin/lib";

use Test::Nginx;
use Test::Configuration;
use Test::Module;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

my $t = Test::Nginx->new()->has(qw/http proxy fastcgi/);

compile_module($t, 'other_nginx');

my %structures = (
	ngx_http_core_main_conf_t => [ qw/
		variables_hash_max_size server_names_hash_bucket_size
	/ ],
	ngx_http_core_srv_conf_t => [ qw/
		client_header_timeout underscores_in_headers
	/ ],
	ngx_http_core_loc_conf_t => [ qw/
		client_body_timeout log_not_found open_file_cache_events
		types_hash_bucket_size
	/ ],
	ngx_http_request_t => [ qw/ http_host request_uri / ],
	ngx_http_upstream_conf_t => [ qw/
		proxy_connect_timeout proxy_read_timeout proxy_next_upstream_tries
		proxy_buffering proxy_intercept_errors proxy_socket_keepalive
		fastcgi_read_timeout
	/ ],
);

my @directives = map { @$_ } values %structures;

$t->plan(@directives + 4);

###############################################################################

my $other = 'load_module ' . $t->testdir() . '/other_nginx.so; other_nginx';
my $refusal = 'ngx_http_upstream_sliced_keepalive_module was built from the '
	. 'sources of another nginx, or of a fork:';

for my $structure (sort keys %structures) {
	for my $directive (@{ $structures{$structure} }) {
		my $out = check($t, { main => "$other $directive;" });

		is(messages($out, 'emerg'),
			"$refusal $structure differs" . place($t, 'http {'),
			"$directive elsewhere");
	}
}

# what is in another place, of which nothing is known is of no interest

check($t, { main => "$other types_hash_max_size;" });
is($?, 0, 'another directive');

check($t, { main => "$other nosuch;" });
is($?, 0, 'as it is');

# larger connections are seen by the process that has them, which ends at once

$t->write_file_expand('nginx.conf', <<"EOC");

%%TEST_GLOBALS%%

daemon off;
master_process off;
$other connections;

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    server {
        listen       127.0.0.1:8080;
        server_name  localhost;
    }
}

EOC

my $dir = $t->testdir();

system("timeout 10 $Test::Nginx::NGINX -p $dir/ -c nginx.conf -e error.log");
is($? >> 8, 2, 'larger connections, exit status');
like($t->read_file('error.log'),
	qr/\[emerg\] \S+ \Q$refusal\E ngx_connection_t differs$/m,
	'larger connections');

###############################################################################

#!/usr/bin/perl

# Tests for keepalive_status: its formats and how one is chosen, what stands in
# them, and that what clients and configurations call things is never more than
# text.  What is counted is tested in status_reasons.t and status_workers.t.

###############################################################################

use warnings;
use strict;

use Test::More;

use FindBin;
use lib ($ENV{NGINX_TESTS_DIR} ? "$ENV{NGINX_TESTS_DIR}/lib" : ()),
	"$FindBin::Bin/lib";

use JSON::PP ();

use Test::Nginx;
use Test::Backend;
use Test::Status;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

my $t = Test::Nginx->new()->has(qw/http proxy rewrite gzip/)->plan(60);

$t->write_file_expand('nginx.conf', <<'EOF');

%%TEST_GLOBALS%%

daemon off;

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    proxy_http_version 1.1;
    proxy_set_header Connection "";

    upstream u {
        server 127.0.0.1:8081;
        keepalive 300 slice_key=$uri slice_conn=2 slice_poolsize=200
                      slice_keylen=80;
    }

    upstream plain {
        server 127.0.0.1:8081;
        keepalive 4;
    }

    # no configuration of this module, so not shown

    upstream none {
        server 127.0.0.1:8081;
    }

    # never used

    upstream 'we"ird\\<b>&
name' {
        server 127.0.0.1:8081;
        keepalive 4 slice_key=$host;
    }

    server {
        listen       127.0.0.1:8080;
        server_name  localhost;

        location /u/ {
            proxy_pass http://u;
        }

        location /plain/ {
            proxy_pass http://plain;
        }

        location = /status {
            keepalive_status;
        }

        location = /json {
            keepalive_status json;
        }

        location = /prometheus {
            keepalive_status prometheus slices;
        }

        location = /html {
            keepalive_status html;
        }

        location = /slices {
            keepalive_status slices;
        }

        location = /html/slices {
            keepalive_status html slices;
        }

        # it is the same location

        location = /if {
            keepalive_status html slices;

            if ($arg_if) {
                set $seen 1;
            }
        }

        location = /gzip {
            keepalive_status;
            gzip on;
            gzip_http_version 1.0;
            gzip_min_length 1;
            gzip_types application/json text/plain;
        }

        # what is inside of it is no status

        location /outer {
            keepalive_status;

            location /outer/inner {
                return 200 "inner\n";
            }
        }
    }
}

EOF

start_backend($t, 8081);
$t->run();

###############################################################################

my %types = (
	json => 'application/json',
	prometheus => 'text/plain; charset=utf-8; version=0.0.4',
	html => 'text/html; charset=utf-8',
);

# the directive's format, else the argument's, else JSON

is(type('/status'), $types{json}, 'default');

for my $format (sort keys %types) {
	is(type("/$format"), $types{$format}, "$format only");
	is(type("/$format?format=html"), $types{$format}, "$format, argument");
	is(type("/status?format=$format"), $types{$format}, "argument $format");
}

like(http_get('/status?format=xml'), qr/ 400 /, 'unknown format');
like(http_get('/status?format='), qr/ 400 /, 'empty format');
is(type('/status?fmt=html'), $types{json}, 'other argument');
like($t->read_file('error.log'),
	qr/\[info\].* client sent invalid "format" "xml", client: /, 'logged');

# methods

my ($length) = http_get('/html') =~ /Content-Length: (\d+)/;
my $head = http_head('/html');
like($head, qr/ 200 .*Content-Length: $length\r.*\r\n\r\n\z/s, 'HEAD');
like(http(request('POST', '/status', 'a', "Content-Length: 1\n") . 'x'),
	qr/ 405 /, 'POST');
like(http(request('GET', '/status', 'a', "Content-Length: 1\n") . 'x'),
	qr/ 200 /, 'body');
like(http_get('/outer'), qr/"upstreams"/, 'location');
like(http_get('/outer/inner'), qr/^inner$/m, 'location inside of it');

for my $format (sort keys %types) {
	my $r = http(request('GET', "/gzip?format=$format", 'a',
		"Accept-Encoding: gzip\n"));
	like($r, qr/^Content-Encoding: gzip\r?$/m, "$format compressed");
}

# before anything happened

my $upstreams = json()->{upstreams};
my $weird = "we\"ird\\<b>&\nname";
is_deeply([ sort keys %$upstreams ], [ 'plain', 'u', $weird ], 'upstreams');
is_deeply($upstreams->{u}{limits},
	{ connections => 300, slice_conn => 2, slice_poolsize => 200 }, 'limits');
is_deeply($upstreams->{plain}{limits},
	{ connections => 4, slice_conn => undef, slice_poolsize => undef },
	'limits without slices');
is_deeply([ @{ $upstreams->{plain} }{qw/ requests idle slices /} ],
	[ 0, 0, undef ], 'nothing happened');
like(status('/html'), qr/>0 %</, 'nothing to share');

# slices: only if the directive says so

get("/u/$_", 'a') for 1 .. 3;
get("/u/$_", 'a') for 2, 3, 3;
together('/u/2', 'a', 'a');
get('/plain/', 'a');

ok(!exists json('/status')->{upstreams}{u}{busiest_slices}, 'not asked for');
unlike(status('/status?format=html&slices'), qr!/u/2!, 'not by clients');
unlike(status('/html'), qr!/u/2!, 'not in the page');
unlike(status('/prometheus'), qr!/u/2!, 'never in metrics');

my $slices = json('/slices')->{upstreams};
is_deeply($slices->{u}{busiest_slices}, [
	{ key => '/u/2', idle => 2, hits => 2 },
	{ key => '/u/3', idle => 1, hits => 2 },
	{ key => '/u/1', idle => 1, hits => 0 },
], 'slices');
is_deeply($slices->{plain}{busiest_slices}, [], 'no slices');
my $page = status('/html/slices');
like($page, qr!>/u/2</td><td>2</td><td>2</td>.*>/u/3</td>.*>/u/1</td>!s,
	'slices in the page');
like($page, qr/u: busiest slices of worker process \d+/, 'of which worker');

like(status('/if'), qr/u: busiest slices/, 'if');
like(status('/if?if=1'), qr/u: busiest slices/, 'inside of if');

my ($u) = grep { $_->[0] eq 'u' } html($page);
like($u->[1], qr/width:50\.0%.*>50\.0 %</, 'share');

get("/u/many$_", 'a') for 1 .. 100;
is(@{ json('/slices')->{upstreams}{u}{busiest_slices} }, 50, 'at most 50');
is(json('/slices')->{upstreams}{u}{slices}, 103, 'of all');

# keys come from clients

my %keys = (
	'script' => '<script>alert(1)</script>',
	'quotes' => '"\'`',
	'entity' => '&lt;&amp;',
	'line' => "a\nb\r\tc",
	'escape' => '\\" \\n \\',
	'template' => '{{ 7 }}{% %}',
	'utf8' => "gr\xc3\xbcn \xe2\x82\xac",
	'invalid' => "\xff\xc3(\xf0\x9f",
	'null' => "a\0b",
);

# so that none of them is pushed out, or among too many

$t->stop();
$t->run();

for my $name (sort keys %keys) {
	(my $uri = "/u/$keys{$name}") =~ s/([^\/\w])/sprintf '%%%02x', ord $1/ge;
	get($uri, 'a') if $name ne 'null';
}

my $json = status('/slices');
my %seen = map { $_->{key} => 1 } @{
	JSON::PP->new()->utf8()->decode($json)->{upstreams}{u}{busiest_slices} };
$page = status('/html/slices');

delete $keys{null};

for my $name (sort keys %keys) {
	my $key = "/u/$keys{$name}";
	utf8::decode($key);
	$key =~ s/([\x80-\xff])/sprintf '\\x%02X', ord $1/ge if $name eq 'invalid';
	ok($seen{$key}, "json: $name");

	$key =~ s/([<>&"'])/'&#' . ord($1) . ';'/ge;
	utf8::encode($key);
	like($page, qr/<td class="key">\Q$key\E<\/td>/, "html: $name");
}

unlike($page, qr/<script|alert\(1\)<|<b>/, 'nothing else');

# upstreams come from configurations

like($page, qr/<td class="key">we&#34;ird\\&#60;b&#62;&#38;\nname<\/td>/,
	'html: upstream');
like(status('/prometheus'), qr/_hits_total\{upstream="we\\"ird\\\\<b>&\\nname"\} 0$/m,
	'prometheus: upstream');

SKIP: {
	skip 'no TEST_NGINX_PROMTOOL', 1 unless $ENV{TEST_NGINX_PROMTOOL};

	get('/u/a', 'a');
	$t->write_file('metrics', status('/prometheus'));
	my $d = $t->testdir();
	is(`'$ENV{TEST_NGINX_PROMTOOL}' check metrics <'$d/metrics' 2>&1; echo \$?`,
		"0\n", 'promtool');
}

###############################################################################

sub type {
	my ($uri) = @_;

	my $r = http_get($uri);

	return $r =~ /^Content-Type: (.*?)\r?$/m ? $1 : $r;
}

###############################################################################

#!/usr/bin/perl

# Tests for the page of keepalive_status in a real browser, under load: it is
# what the browser shows, it is loaded again and again, and keys that are scripts
# are not run.  The browser is TEST_NGINX_BROWSER, a headless Chromium; a picture
# of the page is left in TEST_NGINX_PICTURE, if that is set.

###############################################################################

use warnings;
use strict;

use Test::More;

use FindBin;
use lib ($ENV{NGINX_TESTS_DIR} ? "$ENV{NGINX_TESTS_DIR}/lib" : ()),
	"$FindBin::Bin/lib";

use Test::Nginx;
use Test::Backend;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

my $browser = $ENV{TEST_NGINX_BROWSER};
plan(skip_all => 'no TEST_NGINX_BROWSER') unless $browser;

my $t = Test::Nginx->new()->has(qw/http proxy rewrite map/)->plan(11);

$t->write_file_expand('nginx.conf', <<'EOF');

%%TEST_GLOBALS%%

daemon off;
worker_processes 2;

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    proxy_http_version 1.1;
    proxy_set_header Host $host;
    proxy_set_header Connection "";

    log_format agent '$uri $status $http_user_agent';
    log_format status '$status';

    map $host $limit {
        default        2;
        shop.example   8;
        spam.example   0;
    }

    upstream apache {
        server 127.0.0.1:8082;
        keepalive 32 slice_key=$host slice_dyn=limit slice_poolsize=12;
        keepalive_requests 100;
    }

    upstream api {
        server 127.0.0.1:8082;
        keepalive 8 slice_key=$http_x_client slice_keylen=80;
    }

    upstream legacy {
        server 127.0.0.1:8082;
        keepalive 8 slice_key=$host slice_conn=2;
    }

    server {
        listen       127.0.0.1:8080 reuseport;
        server_name  localhost;
        access_log   %%TESTDIR%%/load.log status;

        location / {
            proxy_pass http://apache;
        }

        location /api/ {
            proxy_pass http://api;
        }

        location /legacy/ {
            proxy_pass http://legacy/legacy/;
        }

        location /upstreams {
            keepalive_status html slices;
            access_log %%TESTDIR%%/agent.log agent;
        }
    }

    server {
        listen       127.0.0.1:8082;
        access_log   off;

        location / {
            return 200 "$connection";
        }

        location /legacy/ {
            keepalive_timeout 0;
            return 200;
        }
    }
}

EOF

my $port = port(8080);
$t->run();

###############################################################################

$t->run_daemon(\&load, $_) for 1 .. 3;
ok(wait_for(sub { page() =~ /slice_poolsize \d.*script/s }), 'load');

my $dom = browse('--dump-dom');
my ($row) = $dom =~ m{<td class="key">apache</td>(.*?)</tr>}s;

like($dom, qr{<title>Upstream keepalive</title>}, 'title, by no script');
like($row || '', qr{width:\s*\d+\.\d%.*<td>\d{2,}</td>}s, 'row');
like($dom, qr{<td class="key">shop\.example</td>}, 'slice');
unlike($dom, qr{<script|<img}, 'no script');
like($dom, qr{&lt;(script|img)}, 'but the text of one');

# the numbers go on, without a script

my ($requests) = $row =~ m{<td>(\d+)</td>};
ok(wait_for(sub {
	my ($now) = page() =~ m{>apache</td>.*?</td>\s*<td>(\d+)</td>}s;
	$now > $requests;
}), 'load goes on');

$t->write_file('agent.log', '');
$t->run_daemon('sh', '-c', "exec timeout 60 '$browser' @{[ options() ]} "
	. "--remote-debugging-port=0 http://127.0.0.1:$port/upstreams "
	. ">>'" . $t->testdir() . "/browser.log' 2>&1");
ok(wait_for(sub {
	my $loads = () = $t->read_file('agent.log') =~ /Chrom/g;
	$loads > 1;
}, 30), 'loaded again');
unlike($t->read_file('agent.log'), qr/^(?!\/upstreams 200)/m, 'nothing else');

# a picture

my $picture = $ENV{TEST_NGINX_PICTURE} || $t->testdir() . '/page.png';
browse("--screenshot=$picture");
cmp_ok(-s $picture || 0, '>', 10000, 'picture');

$t->stop_daemons();
unlike($t->read_file('load.log'), qr/^(?!200|499)/m, 'all answered');

###############################################################################

sub options {
	return '--no-sandbox', '--hide-scrollbars', '--window-size=1180,770',
		"--user-data-dir='" . $t->testdir() . "/profile'",
		"--host-resolver-rules='MAP * ~NOTFOUND, EXCLUDE 127.0.0.1'";
}

# what the browser prints when it has loaded the page

sub browse {
	my ($how) = @_;

	my $d = $t->testdir();

	return `timeout 60 '$browser' @{[ options() ]} '$how' \\
		http://127.0.0.1:$port/upstreams 2>>'$d/browser.log'`;
}

sub page {
	return http_get('/upstreams') || '';
}

# a client of a few hosts, and of many, until it is stopped

sub load {
	my ($n) = @_;

	my @hosts = ((map { ($_) x 12 } qw/ shop.example www.example /),
		(map { ("blog$_.example") x 3 } 1 .. 12), ('spam.example') x 2);
	my @clients = ('mobile', 'web', "<script>document.title='run'</script>",
		"<img src=x onerror=document.title='run'>");

	for (;; $n++) {
		my $host = $hosts[$n * 7 % @hosts];
		my $uri = $n % 5 == 0 ? '/api/' : $n % 23 == 0 ? '/legacy/' : '/';
		http(request('GET', $uri, $host, "X-Client: $clients[$n % 4]\n"));
		select undef, undef, undef, 0.001;
	}
}

# it ends with the script, although functions refer to it

END { undef $t; }

###############################################################################

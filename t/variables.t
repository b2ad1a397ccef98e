#!/usr/bin/perl

# Tests for the variables $upstream_keepalive, $upstream_keepalive_slice and
# $upstream_keepalive_save.  What the last one says of each reason is tested in
# status_reasons.t.

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

my $t = Test::Nginx->new()->has(qw/http proxy rewrite map auth_request/)
	->plan(39);

my $dead = join "\n", ('server 127.0.0.1:8089 max_fails=0;') x 70;

$t->write_file_expand('nginx.conf', <<"EOF");

%%TEST_GLOBALS%%

daemon off;

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    proxy_http_version 1.1;
    proxy_set_header Host \$host;
    proxy_set_header Connection "";

    map "\$upstream_keepalive/\$upstream_keepalive_slice" \$mapped {
        HIT/a    "hit of a";
        default  other;
    }

    log_format all escape=none
        '\$uri [\$upstream_addr] [\$upstream_keepalive]'
        ' [\$upstream_keepalive_slice] [\$upstream_keepalive_save] \$mapped';

    log_subrequest on;

    upstream u {
        server 127.0.0.1:8081;
        keepalive 8 slice_key=\$host slice_keylen=12;
    }

    upstream empty {
        server 127.0.0.1:8081;
        keepalive 8 slice_key=\$arg_none;
    }

    upstream text {
        server 127.0.0.1:8081;
        keepalive 8 slice_key=\$arg_key;
    }

    upstream strict {
        server 127.0.0.1:8081;
        keepalive 8 slice_key=\$host slice_keylen=12 slice_strict;
    }

    upstream plain {
        server 127.0.0.1:8081;
        keepalive 8;
    }

    upstream none {
        server 127.0.0.1:8081;
    }

    upstream next {
        server 127.0.0.1:8089 max_fails=0;
        server 127.0.0.1:8081 backup;
        keepalive 8 slice_key=\$host;
    }

    upstream dead {
        $dead
        server 127.0.0.1:8081 backup;
        keepalive 8 slice_key=\$host;
    }

    upstream down {
        server 127.0.0.1:8089 down;
        keepalive 8 slice_key=\$host;
    }

    upstream redirect {
        server 127.0.0.1:8082;
        keepalive 8 slice_key=redirect;
    }

    upstream gone {
        server 127.0.0.1:8082;
        keepalive 8 slice_key=gone;
    }

    server {
        listen       127.0.0.1:8080;
        server_name  localhost;

        access_log   %%TESTDIR%%/all.log all;
        add_header   X-Seen "\$upstream_keepalive/\$upstream_keepalive_slice/\$upstream_keepalive_save" always;

        location ^~ /status/ {
            return 204;
        }

        location ^~ /auth/ {
            auth_request /gone;
            proxy_pass http://u;
        }

        location = /gone {
            proxy_pass http://gone/gone;
        }

        # no address of this machine, so not even an attempt to connect

        location = /none_such {
            proxy_pass http://u;
            proxy_bind 192.0.2.1;
        }

        location = /none_such_first {
            proxy_pass http://u;
            proxy_bind 192.0.2.1;
            error_page 500 = /u/;
        }

        location ~ ^/(?<name>\\w+)/ {
            proxy_pass http://\$name;
        }
    }

    server {
        listen       127.0.0.1:8082;

        location / {
            add_header X-Accel-Redirect \$arg_to;
            return 204;
        }

        location = /gone {
            return 204;
        }
    }
}

EOF

start_backend($t, 8081);
port(8089);
$t->run();

my ($alive, $refused, $other) = map { '127.0.0.1:' . port($_) } 8081, 8089, 8082;

###############################################################################

# one attempt

logged('/u/', 'a', "[$alive] [MISS] [a] [saved] other");
logged('/u/', 'a', "[$alive] [HIT] [a] [saved] hit of a");
logged('/u/', 'b', "[$alive] [MISS] [b] [saved] other");
logged('/u/close', 'a', "[$alive] [HIT] [a] [closed] hit of a");
logged('/u/', 'a.long.host.name', "[$alive] [MISS] [a.long.host.] [saved] other");
logged('/u/', 'a.long.host.other',
	"[$alive] [HIT] [a.long.host.] [saved] other");
logged('/strict/', 'a.long.host.name', "[$alive] [MISS] [] [keylen] other");
logged('/empty/', 'a', "[$alive] [MISS] [] [saved] other");
logged('/plain/', 'a', "[$alive] [MISS] [] [saved] other");
logged('/plain/', 'a', "[$alive] [HIT] [] [saved] other");

# no connection of ours

logged('/none/', 'a', "[$alive] [-] [] [] other");
logged('/status/', 'a', '[] [] [] [] other');

# several

logged('/next/', 'a', "[$refused, $alive] [MISS, MISS] [a] [saved] other");
logged('/next/', 'a', "[$refused, $alive] [MISS, HIT] [a] [saved] other");
logged('/down/', 'a', '[down] [-] [a] [] other');

my $many = "[" . join(', ', ($refused) x 70, $alive) . "]";
logged('/dead/', 'a', "$many [" . join(', ', ('MISS') x 71)
	. '] [a] [saved] other');
logged('/dead/', 'a', "$many [" . join(', ', ('MISS') x 70, 'HIT')
	. '] [a] [saved] other');

# several upstreams: the last one's slice, whatever it is

logged('/redirect/?to=/u/', 'r',
	"[$other : $alive] [MISS : MISS] [r] [saved] other", '/u/');
logged('/redirect/?to=/u/', 'r',
	"[$other : $alive] [HIT : HIT] [r] [saved] other", '/u/');
logged('/redirect/?to=/none/', 'r',
	"[$other : $alive] [HIT : -] [] [] other", '/none/');
logged('/redirect/?to=/next/', 'r',
	"[$other : $refused, $alive] [HIT : MISS, MISS] [r] [saved] other", '/next/');
logged('/redirect/?to=/status/', 'r',
	"[$other] [HIT] [redirect] [saved] other", '/status/');
logged('/redirect/?to=/unknown/', 'r',
	"[$other : ] [HIT : ] [redirect] [saved] other", '/unknown/');

# a server that nginx could not even try, as in $upstream_addr

logged('/none_such', 'n', '[] [] [n] [failed] other');
logged('/none_such_first', 'n', "[ : $alive] [ : MISS] [n] [saved] other",
	'/u/');

# a subrequest has its own

logged('/auth/', 's', "[$alive] [MISS] [s] [saved] other");
like($t->read_file('all.log'),
	qr!^/gone \[$other\] \[MISS\] \[gone\] \[saved\] other$!m, 'subrequest');
logged('/auth/', 's', "[$alive] [HIT] [s] [saved] other");
like($t->read_file('all.log'),
	qr!^/gone \[$other\] \[HIT\] \[gone\] \[saved\] other$!m, 'subrequest hit');

# before the request is done with its connection

is(seen('/u/', 'h'), 'MISS/h/', 'header of miss');
is(seen('/u/', 'h'), 'HIT/h/', 'header of hit');
is(seen('/next/', 'h'), 'MISS, MISS/h/', 'header after a failure');
is(seen('/status/', 'h'), '//', 'header without upstream');

# what clients send is nothing but text

logged('/text/?key=a%25n%22<x>', 'a', qq([$alive] [MISS] [a%25n%22<x>] [saved] other));
logged('/text/?key=a%25n%22<x>', 'a', qq([$alive] [HIT] [a%25n%22<x>] [saved] other));

# none of it is empty where it has a value, and "-" elsewhere in an ordinary log

my $conf = $t->read_file('nginx.conf');
$conf =~ s/ escape=none//;
$t->write_file('nginx.conf', $conf);
$t->stop();
$t->run();

logged('/empty/', 'a', "[$alive] [MISS] [] [saved] other");
logged('/none/', 'a', "[$alive] [-] [-] [-] other");
logged('/status/', 'a', '[-] [-] [-] [-] other');
logged('/strict/', 'a.long.host.name', "[$alive] [MISS] [-] [keylen] other");

# nginx says that it could not bind, and nothing else is wrong

$t->stop();
my $log = $t->read_file('error.log');
$log =~ s/^.*\[crit\].* bind\(192\.0\.2\.1\) failed .*\n//mg;
$t->write_file('error.log', $log);

###############################################################################

# the last line that was logged

sub logged {
	my ($uri, $host, $expected, $logged) = @_;

	($logged) = $logged || $uri =~ /^([^?]*)/;
	http(request('GET', $uri, $host));

	my ($line) = $t->read_file('all.log') =~ /([^\n]*)\n\z/;

	local $Test::Builder::Level = $Test::Builder::Level + 1;

	is($line, "$logged $expected", "$uri $host");
}

sub seen {
	my ($uri, $host) = @_;
	return http(request('GET', $uri, $host)) =~ /^X-Seen: (.*?)\r?$/m ? $1 : undef;
}

# it ends with the script, although functions refer to it

END { undef $t; }

###############################################################################

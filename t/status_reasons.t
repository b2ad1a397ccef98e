#!/usr/bin/perl

# Tests for what is counted: each reason for which a connection is closed, or is
# not kept, can be provoked, and is counted once, in each format of
# keepalive_status.

###############################################################################

use warnings;
use strict;

use Test::More;

use FindBin;
use lib ($ENV{NGINX_TESTS_DIR} ? "$ENV{NGINX_TESTS_DIR}/lib" : ()),
	"$FindBin::Bin/lib";

use Test::Nginx;
use Test::Backend;
use Test::Status;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

my $t = Test::Nginx->new()->has(qw/http proxy map rewrite/)->plan(58);

$t->write_file_expand('nginx.conf', <<'EOF');

%%TEST_GLOBALS%%

daemon off;

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    proxy_http_version 1.1;
    proxy_set_header Host $host;
    proxy_set_header Connection "";
    proxy_next_upstream error timeout;

    log_format save $upstream_keepalive_save;

    upstream u {
        server 127.0.0.1:8081;
        keepalive 8 slice_key=$host;
    }

    upstream plain {
        server 127.0.0.1:8081;
        keepalive 8;
    }

    upstream timeout {
        server 127.0.0.1:8081;
        keepalive 8 slice_key=$host;
        keepalive_timeout 100ms;
    }

    upstream hint {
        server 127.0.0.1:8082;
        keepalive 8 slice_key=$host;
        keepalive_hints on margin=900ms;
        keepalive_timeout 100s;
    }

    upstream connections {
        server 127.0.0.1:8081;
        keepalive 1 slice_key=$host;
    }

    upstream slice_conn {
        server 127.0.0.1:8081;
        keepalive 8 slice_key=$host slice_conn=1;
    }

    upstream slice_poolsize {
        server 127.0.0.1:8081;
        keepalive 8 slice_key=$host slice_poolsize=1;
    }

    upstream client {
        server 127.0.0.1:8081;
        keepalive 8 slice_key=$host;
        ntlm;
    }

    upstream zero {
        server 127.0.0.1:8081;
        keepalive 0 slice_key=$host;
    }

    upstream zero_poolsize {
        server 127.0.0.1:8081;
        keepalive 8 slice_key=$host slice_poolsize=0;
    }

    upstream zero_timeout {
        server 127.0.0.1:8081;
        keepalive 8 slice_key=$host;
        keepalive_timeout 0;
    }

    upstream zero_conn {
        server 127.0.0.1:8081;
        keepalive 8 slice_key=$host slice_conn=0;
    }

    upstream dyn {
        server 127.0.0.1:8081;
        keepalive 8 slice_key=$host slice_dyn=$arg_dyn;
    }

    upstream refused {
        server 127.0.0.1:8089;
        keepalive 8 slice_key=$host;
    }

    upstream next {
        server 127.0.0.1:8089 max_fails=0;
        server 127.0.0.1:8081 backup;
        keepalive 8 slice_key=$host;
    }

    upstream requests {
        server 127.0.0.1:8081;
        keepalive 8 slice_key=$host;
        keepalive_requests 2;
    }

    upstream time {
        server 127.0.0.1:8081;
        keepalive 8 slice_key=$host;
        keepalive_time 20ms;
    }

    upstream keylen {
        server 127.0.0.1:8081;
        keepalive 8 slice_key=$host slice_keylen=4 slice_strict;
    }

    server {
        listen       127.0.0.1:8080;
        server_name  localhost;

        location ~ ^/(?<name>\w+)/ {
            proxy_pass http://$name;
            access_log %%TESTDIR%%/save.log save;
        }

        location = /status {
            keepalive_status;
        }
    }

    server {
        listen       127.0.0.1:8082;

        location / {
            add_header Keep-Alive $arg_keepalive;
            return 204;
        }
    }
}

EOF

start_backend($t, 8081);
port(8089);
$t->run();

changes();

###############################################################################

# what is ordinary

my $new = 'misses 1, requests 1';
my $first = 'idle 1, misses 1, requests 1, saved 1';

counted('miss', 'saved', "u: $first, slices 1", sub { get('/u/', 'a') });
counted('hit', 'saved', 'u: hits 1, requests 1, saved 1',
	sub { get('/u/', 'a') });
counted('another key', 'saved', "u: $first, slices 1", sub { get('/u/', 'b') });
counted('two at once', 'saved',
	'u: hits 1, idle 1, misses 1, requests 2, saved 2',
	sub { together('/u/', 'a', 'a') });
counted('without slices', 'saved', "plain: $first", sub { get('/plain/', 'a') });

# closed

counted('timeout', 'saved', "timeout: closed.timeout 1, $new, saved 1", sub {
	get('/timeout/', 'a');
	wait_for(sub { idle('timeout') == 0 });
});
counted('hint', 'saved', "hint: closed.hint 1, $new, saved 1", sub {
	http_get('/hint/?keepalive=timeout=1');
	wait_for(sub { idle('hint') == 0 });
});
counted('longer hint', 'saved', "hint: $first, slices 1", sub {
	http_get('/hint/?keepalive=timeout=60');
});
counted('connections', 'saved', 'connections: closed.connections 1, idle 1, '
	. 'misses 2, requests 2, saved 2, slices 1',
	sub { get('/connections/', $_) for 'a', 'b' });
counted('slice_conn', 'saved', 'slice_conn: closed.slice_conn 1, idle 1, '
	. 'misses 2, requests 2, saved 2, slices 1',
	sub { together('/slice_conn/', 'a', 'a') });
counted('slice_poolsize', 'saved', 'slice_poolsize: closed.slice_poolsize 1, '
	. 'idle 1, misses 2, requests 2, saved 2, slices 1',
	sub { get('/slice_poolsize/', $_) for 'a', 'b' });

counted('client', 'saved', "client: closed.client 1, $new, saved 1", sub {
	http(request('GET', '/client/', 'a', "Authorization: NTLM a\n"));
	wait_for(sub { idle('client') == 0 });
});

counted('peer', 'saved', 'connections: closed.peer 1, idle -1, slices -1; '
	. 'plain: closed.peer 1, idle -1; '
	. 'slice_conn: closed.peer 1, idle -1, slices -1; '
	. 'slice_poolsize: closed.peer 1, idle -1, slices -1; '
	. 'u: closed.peer 3, idle -3, slices -2', sub {
	break_idle('finish');
	wait_for(sub { idle($_) == 0 }) for qw/ u plain connections
		slice_conn slice_poolsize /;
});

# not kept

for my $zero (qw/ zero zero_poolsize zero_timeout /) {
	counted($zero, 'disabled', "$zero: " . refused('disabled'),
		sub { get("/$zero/", 'a') });
}

counted('slice_conn=0', 'limit', "zero_conn: " . refused('limit'),
	sub { get('/zero_conn/', 'a') });

for my $value ('', '0', 'many') {
	counted("slice_dyn '$value'", 'limit', "dyn: " . refused('limit'),
		sub { get("/dyn/?dyn=$value", 'a') });
}

for my $how (qw/ close http10 nolength /) {
	counted($how, 'closed', "u: " . refused('closed'),
		sub { get("/u/$how", 'a') });
}

counted('refused', 'failed', "refused: " . refused('failed'),
	sub { get('/refused/', 'a') });
counted('next server', 'saved', 'next: idle 1, misses 2, refused.failed 1, '
	. 'requests 2, saved 1, slices 1', sub { get('/next/', 'a') });
counted('requests', 'requests', 'requests: hits 1, misses 1, '
	. 'refused.requests 1, requests 2, saved 1',
	sub { get('/requests/', 'a') for 1, 2 });
counted('time', 'time', "time: " . refused('time'), sub {
	my $held = hold('/time/', 'a');
	select undef, undef, undef, 0.1;
	release($held);
});
counted('hint of none', 'hint', "hint: " . refused('hint'),
	sub { get('/hint/?keepalive=max=0', 'b') });
counted('key', 'keylen', "keylen: " . refused('keylen'),
	sub { get('/keylen/', 'abcde') });

###############################################################################

# what is counted meanwhile, and what is logged for the last request

sub counted {
	my ($name, $save, $expected, $sub) = @_;

	$sub->();

	local $Test::Builder::Level = $Test::Builder::Level + 1;

	is(changes(), $expected, $name);
	like($t->read_file('save.log'), qr/^\Q$save\E\n\z/m, "$name logged");
}

sub refused {
	my ($reason) = @_;
	return "misses 1, refused.$reason 1, requests 1";
}

sub idle {
	my ($upstream) = @_;
	return json()->{upstreams}{$upstream}{idle};
}

# it ends with the script, although functions refer to it

END { undef $t; }

###############################################################################

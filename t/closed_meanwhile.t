#!/usr/bin/perl

# Tests for a connection that the server closes when the request for it is
# already there: nginx sees the request first, and a POST is not sent twice.
# And for one that has been idle for too long when the request is seen.

###############################################################################

use warnings;
use strict;

use Test::More;

use FindBin;
use lib ($ENV{NGINX_TESTS_DIR} ? "$ENV{NGINX_TESTS_DIR}/lib" : ()),
	"$FindBin::Bin/lib";

use Test::Nginx qw/ :DEFAULT http_end /;
use Test::Backend;
use Test::Status;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

my $t = Test::Nginx->new()->has(qw/http proxy/)->plan(15);

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
        keepalive 8 slice_key=$host;
    }

    upstream limited {
        server 127.0.0.1:8081;
        keepalive 8 slice_key=$host;
        keepalive_timeout 500ms;
    }

    server {
        listen       127.0.0.1:8080;
        server_name  localhost;

        location / {
            proxy_pass http://u;
        }

        location /status {
            keepalive_status slices;
        }

        location /limited {
            proxy_pass http://limited;
        }
    }
}

EOF

start_backend($t, 8081);
$t->run();

###############################################################################

# once there is an answer, there is a worker

get('/', 'first');

my $master = $t->read_file('nginx.pid') + 0;
my ($worker) = split ' ', slurp("/proc/$master/task/$master/children");

for my $how (qw/ finish reset junk /) {
	my $c = get('/', $how);

	my $s = begin("POST / HTTP/1.0\nHost: $how\n");

	select undef, undef, undef, 1.1;

	kill 'STOP', $worker;
	ok(wait_for(sub { slurp("/proc/$worker/stat") =~ /\) T / }), 'stopped');

	syswrite $s, "Content-Length: 4\n\nbody";
	break_idle($how);

	kill 'CONT', $worker;

	my $r = conn(http_end($s));
	is_new($r, "request before $how");
	is(get('/', $how), $r, "kept after $how");

	# what was found, and could not be used, is no hit

	my ($slice) = grep { $_->{key} eq $how }
		@{ json()->{upstreams}{u}{busiest_slices} };
	is($slice->{hits}, 1, "hits after $how");
}

# past its time, with the request and the timer due at once

my $c = get('/limited', 'late');
my $s = begin("GET /limited HTTP/1.0\nHost: late\n");

kill 'STOP', $worker;
select undef, undef, undef, 0.7;
syswrite $s, "\n";
kill 'CONT', $worker;

is_new(conn(http_end($s)), 'not used past its time');
is(json()->{upstreams}{limited}{closed}{timeout}, 1, 'its time is counted');
is(wait_open(2), 2, 'but closed: "first" and "junk" are left');

###############################################################################

# begins a request, and has an answer to another one: nginx has then read it

sub begin {
	my ($request) = @_;

	my $s = http($request, start => 1);
	get('/', 'first');

	return $s;
}

sub slurp {
	my ($path) = @_;

	open my $file, '<', $path or return '';
	local $/;

	return scalar <$file>;
}

###############################################################################

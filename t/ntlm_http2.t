#!/usr/bin/perl

# Tests for ntlm with clients of HTTP/2, where requests of several users may be
# on one connection: a request with NTLM or Negotiate has a connection to itself,
# which is not kept, and all others share connections that nobody is bound to.

###############################################################################

use warnings;
use strict;

use Test::More;

use FindBin;
use lib ($ENV{NGINX_TESTS_DIR} ? "$ENV{NGINX_TESTS_DIR}/lib" : ()),
	"$FindBin::Bin/lib";

use Test::Nginx;
use Test::Backend;
use Test::Backend::NTLM;
use Test::HTTP2;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

my $t = Test::Nginx->new()->has(qw/http http_v2 proxy/)->plan(40);

$t->write_file_expand('nginx.conf', <<"EOF");

%%TEST_GLOBALS%%

daemon off;

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    proxy_http_version 1.1;
    proxy_set_header Connection "";

    log_format keepalive '\$request_uri \$upstream_keepalive '
                         '\$upstream_keepalive_save';
    access_log %%TESTDIR%%/keepalive.log keepalive;

    upstream u {
        server 127.0.0.1:8081;
        keepalive 64;
        ntlm;
    }

    server {
        listen       127.0.0.1:8080;
        listen       127.0.0.1:8082 http2;
        server_name  localhost;

        location / {
            proxy_pass http://u;
        }
    }
}

EOF

on_request(\&authenticated);
start_backend($t, 8081);
$t->run();

###############################################################################

my $shared = conn(ask(client()));
my $client = http2_client(8082);

is(as($client, '/first'), "401 $shared", 'HTTP/2, as HTTP/1.1');
is(logged($t, '/first'), 'HIT saved', 'HTTP/2, kept');

# Kerberos: one message, on a connection that nobody else gets

my $r = asked($client, '/ticket', 'Negotiate ticket=alice');
is(who2($r), 'alice', 'ticket');
is_new(conn($r), 'ticket, new connection');
is(wait_open(1, 8081), 1, 'ticket, closed');
is(logged($t, '/ticket'), 'MISS identity', 'ticket, not kept');

is(as($client, '/next'), "401 $shared", 'after the ticket');
is(as($client, '/basic', 'Basic eDp5'), "401 $shared", 'other credentials');
is(logged($t, '/basic'), 'HIT saved', 'other credentials, kept');
is(as($client, '/x', 'NTL hello'), "401 $shared", 'another scheme');
is(as(http2_client(8082), '/'), "401 $shared", 'another client');
is(user(client()), '401', 'another client, HTTP/1.1');

# NTLM: three messages do not find their connection, and nothing is mixed up

$r = asked($client, '/hello', 'NTLM hello');
isnt(my $challenge = challenge($r), '', 'challenge');
is_new(conn($r), 'challenge, new connection');
is(logged($t, '/hello'), 'MISS identity', 'challenge, not kept');
is(wait_open(1, 8081), 1, 'challenge, closed');

$r = asked($client, '/answer', "NTLM user=alice $challenge");
is(who2($r), '401', 'answer');
is_new(conn($r), 'answer, new connection');
is(logged($t, '/answer'), 'MISS identity', 'answer, not kept');
is(as($client, '/'), "401 $shared", 'after the answer');

$r = asked($client, '/case', 'nTLM hello');
isnt(challenge($r), '', 'case of the scheme');
is(logged($t, '/case'), 'MISS identity', 'case of the scheme, not kept');

# whether something is found or not

break_idle('finish');
is(wait_open(0, 8081), 0, 'nothing idle');
is(user2($client, '/', 'Negotiate ticket=alice'), 'alice', 'nothing found');
is(wait_open(0, 8081), 0, 'nothing found, nothing kept');
is_new($shared = conn(asked($client, '/')), 'first one kept');
is(as($client, '/'), "401 $shared", 'kept');

# users on one connection at the same time

my @ids = map { held($client, $_, "Negotiate ticket=user$_") } 1 .. 5;
push @ids, held($client, 6);
is(open_conns(8081), 6, 'one connection to each, one shared');
Test::Backend::control("release $_") for 6, 2, 4, 1, 3, 5;
is(join(' ', map { who2(http2_body($client, $_)) } @ids),
	'user1 user2 user3 user4 user5 401', 'each is who it is');
is(wait_open(1, 8081), 1, 'closed again');

# a client that closes while its requests wait

my $closing = http2_client(8082);
held($closing, 7, 'Negotiate ticket=alice');
is(open_conns(8081), 2, 'waiting');
close $closing->{socket};
is(wait_open(1, 8081), 1, 'closed while waiting');

# those of HTTP/1.1 are bound as ever, and not for HTTP/2

my $alice = client();
is(log_in_as($alice, 'alice'), 'alice', 'HTTP/1.1');
is(as($client, '/'), "401 $shared", 'HTTP/2 in the meantime');
is(user2($client, '/', 'Negotiate ticket=bob'), 'bob', 'ticket in the meantime');
is(user($alice), 'alice', 'HTTP/1.1 again');
is(wait_open(2, 8081), 2, 'bound and shared');
close $client->{socket};
is(user($alice), 'alice', 'HTTP/2 closed');
close $alice;
is(wait_open(1, 8081), 1, 'HTTP/1.1 closed');

$client = http2_client(8082);
is(as($client, '/'), "401 $shared", 'and the shared one stays');

# nginx, when it quits, waits for clients of HTTP/2

close $client->{socket};

###############################################################################

# the body of a response has what its header says

sub asked {
	my ($client, $uri, $says, %more) = @_;

	$more{authorization} = $says if defined $says;

	return http2_get($client, $uri, %more);
}

sub who2 {
	my ($body) = @_;

	return $1 if $body =~ /^X-User: (\w+)/m;
	return $body =~ /^WWW-Authenticate: /m ? '401' : 'none';
}

sub user2 {
	return who2(asked(@_));
}

sub as {
	my ($r) = asked(@_);

	return who2($r) . ' ' . conn($r);
}

# a stream whose request waits at the server

sub held {
	my ($client, $id, $says) = @_;

	my $stream = http2_send($client, "/held$id", 'x-hold' => $id,
		defined $says ? (authorization => $says) : ());

	Test::Backend::control("held $id");

	return $stream;
}

# what is logged of a request

sub logged {
	my ($t, $uri) = @_;

	my $logged;

	wait_for(sub {
		($logged) = $t->read_file('keepalive.log')
			=~ /^\Q$uri\E (.*)$/m;
	});

	return $logged;
}

###############################################################################


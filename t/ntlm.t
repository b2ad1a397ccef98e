#!/usr/bin/perl

# Tests for ntlm: a request with NTLM or Negotiate binds its client connection
# to connections of its own, which no other client uses, and which are closed
# when the client closes.  All other requests share connections as ever.

###############################################################################

use warnings;
use strict;

use Test::More;

use FindBin;
use lib ($ENV{NGINX_TESTS_DIR} ? "$ENV{NGINX_TESTS_DIR}/lib" : ()),
	"$FindBin::Bin/lib";

use Test::Nginx qw/ :DEFAULT http_end /;
use Test::Backend;
use Test::Backend::NTLM;
use Test::Processes;
use Test::Workers qw/ alive dead found_by /;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

my $t = Test::Nginx->new()->has(qw/http proxy/)->plan(157);

$t->write_file_expand('nginx.conf', <<"EOF");

%%TEST_GLOBALS%%

daemon off;

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    proxy_http_version 1.1;
    proxy_set_header Connection "";

    add_header X-Keepalive \$upstream_keepalive always;

    upstream u {
        server 127.0.0.1:8081;
        keepalive 64;
        ntlm;
    }

    upstream other {
        server 127.0.0.1:8082;
        keepalive 64;
        ntlm;
    }

    upstream two {
        server 127.0.0.1:8083;
        server 127.0.0.1:8084;
        keepalive 64;
        ntlm;
    }

    upstream sliced {
        server 127.0.0.1:8085;
        keepalive 64 slice_key=\$http_x_key slice_conn=2;
        ntlm;
    }

    upstream few {
        server 127.0.0.1:8086;
        keepalive 1;
        ntlm;
    }

    upstream requests {
        server 127.0.0.1:8087;
        keepalive 64;
        keepalive_requests 3;
        ntlm;
    }

    upstream without {
        server 127.0.0.1:8088;
        keepalive 64;
    }

    server {
        listen       127.0.0.1:8080;
        server_name  localhost;

        location / {
            proxy_pass http://u;
        }

        location /again {
            proxy_pass http://u;
        }

        location /ignore {
            proxy_pass http://u;
            proxy_ignore_client_abort on;
        }

        location /other {
            proxy_pass http://other;
        }

        location /two {
            proxy_pass http://two;
        }

        location /sliced {
            proxy_pass http://sliced;
        }

        location /few {
            proxy_pass http://few;
        }

        location /requests {
            proxy_pass http://requests;
        }

        location /without {
            proxy_pass http://without;
        }
    }
}

EOF

on_request(\&authenticated);
start_backend($t, map { 8080 + $_ } 1 .. 8);
$t->run();

###############################################################################

# before, with and after the request that binds

is_new(my $shared = conn(ask(client())), 'first request');

my $alice = client();
is(as($alice), "401 $shared", 'shared before');

my $r = ask($alice, 'NTLM hello');
is_new(my $bound = conn($r), 'bound to a new connection');
is(found_by($r), 'MISS', 'bound, not found');
isnt(challenge($r), '', 'challenge');

$r = ask($alice, 'NTLM user=alice ' . challenge($r));
is(who($r) . ' ' . conn($r), "alice $bound", 'authenticated');
is(found_by($r), 'HIT', 'bound, found');

is(as($alice), "alice $bound", 'without credentials');
is(as($alice, undef, '/again'), "alice $bound", 'another location');
is(as($alice, 'Basic eDp5'), "alice $bound", 'other credentials');

$r = exchange($alice, "POST / HTTP/1.1\r\nHost: localhost\r\n"
	. "Content-Length: 4\r\n\r\nbody");
is(who($r) . ' ' . conn($r), "alice $bound", 'POST');

my $bob = client();
is(as($bob), "401 $shared", 'another client');
is(as($bob, 'Basic eDp5'), "401 $shared", 'another client, other credentials');
is(log_in_as($bob, 'bob'), 'bob', 'another client authenticated');
isnt(my $bobs = conn(ask($bob)), $bound, 'another bound connection');
is(as($alice), "alice $bound", 'first client again');
is(as($bob), "bob $bobs", 'other client again');
is(as(client()), "401 $shared", 'one more client');
is(open_conns(8081), 3, 'two bound, one shared');

# who it is may change, on the same connection

is(log_in_as($bob, 'carol'), 'carol', 'authenticated as another user');
is(as($bob), "carol $bobs", 'the same bound connection');

# closed with the client, and only then

close $bob;
is(wait_open(2, 8081), 2, 'client closed');
is(as($alice), "alice $bound", 'not that of another client');
is(as(client()), "401 $shared", 'not the shared one');

close $alice;
is(wait_open(1, 8081), 1, 'last bound client closed');
is(as(client()), "401 $shared", 'the shared one stays');

###############################################################################

# what binds, whatever the server says

for my $says ('NTLM hello', 'ntlm hello', 'nTlM hello', 'NTLM', 'NTLM  hello',
	'NTLM unknown', 'Negotiate hello', 'negotiate hello', 'NEGOTIATE hello',
	'Negotiate', 'Negotiate unknown', 'NTLMx hello', 'NTLMhello', 'NTLM,hello',
	"NTLM\thello", "NTLM\x0bhello", 'NTLM=hello', 'Negotiatex',
	'Negotiate-hello')
{
	is(binds($says), 'binds', "\"$says\" binds");
}

for my $says ('NTL', 'NTL M hello', 'Negotiat', 'xNTLM hello', 'Basic eDp5',
	'Basic NTLM', 'Bearer Negotiate hello', 'Digest username="NTLM"', '')
{
	is(binds($says), 'shares', "\"$says\" does not bind");
}

is(binds(undef, "AUTHORIZATION: NTLM hello\r\n"), 'binds', 'name of the header');
is(binds(undef, "Proxy-Authorization: NTLM hello\r\n"), 'shares',
	'another header');

# Negotiate, in one, two and three messages

my $one = client();
is(ticket($one, 'alice'), 'alice', 'Negotiate in one step');
is(user($one), 'alice', 'one step, without credentials');

my $more = client();
is(log_in_as($more, 'bob', '/', 'Negotiate'), 'bob', 'Negotiate in two rounds');
is(user($more), 'bob', 'two rounds, without credentials');
is(user($one), 'alice', 'one step again');
is(user(client()), '401', 'nobody');
close $_ for $one, $more;
is(wait_open(1, 8081), 1, 'clients closed');

# half a handshake is nobody's

my $half = client();
my $challenge = challenge(ask($half, 'NTLM hello'));
is(answer(client(), 'mallory', $challenge), '401', 'challenge of another');
is(answer($half, 'carol', $challenge), 'carol', 'challenge of its own');
close $half;
is(wait_open(1, 8081), 1, 'handshake closed');

$half = client();
$challenge = challenge(ask($half, 'NTLM hello'));
close $half;
is(wait_open(1, 8081), 1, 'half a handshake closed');
is(answer(client(), 'mallory', $challenge), '401', 'half a handshake is gone');
is(wait_open(1, 8081), 1, 'nothing of it');

# clients that close after each request

$r = http(request('GET', '/', undef, "Authorization: Negotiate ticket=alice\n"));
is(who($r), 'alice', 'HTTP/1.0');
is(wait_open(1, 8081), 1, 'HTTP/1.0 closed');

$r = ask(client(), 'Negotiate ticket=alice', '/', "Connection: close\r\n");
is(who($r), 'alice', 'Connection: close');
is(wait_open(1, 8081), 1, 'Connection: close closed');

###############################################################################

# requests that come together

my @r = pipeline($alice = client(), undef, 'Negotiate ticket=alice', undef);
is(join(' ', map { who($_) } @r), '401 alice alice', 'pipelined');
@r = map { conn($_) } @r;
is($r[0], $shared, 'pipelined, before');
isnt($r[1], $shared, 'pipelined, bound');
is($r[2], $r[1], 'pipelined, after');
is(as(client()), "401 $shared", 'pipelined, another client');
close $alice;
is(wait_open(1, 8081), 1, 'pipelined, closed');

# clients that close while a request waits

my $keep = "Connection: keep-alive\n";
my $held = hold('/', undef, logged_in('alice'), $keep);
is(open_conns(8081), 2, 'waiting');
close $held->{socket};
is(wait_open(1, 8081), 1, 'closed while waiting');

$held = hold('/', undef, client(), "${keep}Authorization: NTLM hello\n");
is(open_conns(8081), 2, 'handshake waiting');
close $held->{socket};
is(wait_open(1, 8081), 1, 'closed while the handshake waits');

$held = hold('/ignore', undef, logged_in('alice'), $keep);
close $held->{socket};
is(as(client()), "401 $shared", 'closed, ignored');
is(open_conns(8081), 2, 'closed, ignored, still waiting');
let_go($held);
is(wait_open(1, 8081), 1, 'closed, ignored, answered');
is(strangers('/', 5), '', 'nobody after them');

$held = hold('/ignore', undef, client(),
	"${keep}Authorization: Negotiate ticket=alice\n");
close $held->{socket};
let_go($held);
is(wait_open(1, 8081), 1, 'ticket, closed, ignored, answered');
is(strangers('/', 5), '', 'nobody after them, either');

# one waits, and others neither wait nor are it

$held = hold('/', undef, logged_in('alice'), $keep);
is(as(client()), "401 $shared", 'another client in the meantime');
is(user(logged_in('bob')), 'bob', 'authenticated in the meantime');
let_go($held);
like(exchange($held->{socket}, ''), qr/^X-User: alice/m, 'first client');
is(user($held->{socket}), 'alice', 'first client again');
close $held->{socket};
is(wait_open(1, 8081), 1, 'waiting clients closed');

###############################################################################

# a server that closes, says so, or has sent enough: what is next is as private

$alice = logged_in('alice');
break_idle('finish');
is(wait_open(0, 8081), 0, 'server closes');
is_new(my $next = conn(ask($alice)), 'server closed, new connection');
is_new($shared = conn(ask(client())), 'which no other client uses');
is(as($alice), "401 $next", 'has to authenticate again');
is(log_in_as($alice, 'alice'), 'alice', 'does so');
is(as($alice), "alice $next", 'on the same connection');

$r = ask($alice, undef, '/close');
is(who($r) . ' ' . conn($r), "alice $next", 'server says that it closes');
is_new($next = conn(ask($alice)), 'said so, new connection');
is(as($alice), "401 $next", 'said so, has to authenticate again');
is(as(client()), "401 $shared", 'said so, another client');
close $alice;
is(wait_open(1, 8081), 1, 'said so, client closed');

my $counted = conn(ask(client(), undef, '/requests'));
$alice = client();
is(log_in_as($alice, 'alice', '/requests'), 'alice', 'two requests');
is(user($alice, undef, '/requests'), 'alice', 'the last request');
is(wait_open(1, 8087), 1, 'enough requests');
is_new($next = conn(ask($alice, undef, '/requests')), 'one more is on another');
is(as(client(), undef, '/requests'), "401 $counted", 'not that of others');
is(as($alice, undef, '/requests'), "401 $next", 'which stays its own');
close $alice;
is(wait_open(1, 8087), 1, 'enough requests, client closed');

###############################################################################

# limits count bound connections: who has to make room authenticates again

my @clients = map { client() } 0 .. 19;

is(join(' ', map { log_in_as($clients[$_], "user$_", '/few') } 0 .. 19),
	join(' ', map { "user$_" } 0 .. 19), 'each authenticates');
is(wait_open(1, 8086), 1, 'one is kept');
is(user($clients[19], undef, '/few'), 'user19', 'the last one');
is(join(' ', map { user($clients[$_], undef, '/few') } 0 .. 18),
	join(' ', ('401') x 19), 'each has to authenticate again');
is(join(' ', map { ticket($clients[$_], "user$_", '/few') } 0 .. 19),
	join(' ', map { "user$_" } 0 .. 19), 'each does so');
is(strangers('/few', 3), '', 'nobody else');
is(user($clients[19], undef, '/few'), '401', 'a shared one takes the room');
is(strangers('/few', 3), '', 'still nobody else');
is(wait_open(1, 8086), 1, 'still one');

my $last = logged_in('alice', '/few');
@clients = ();
is(user($last, undef, '/few'), 'alice', 'others close what they have not');
close $last;
is(wait_open(0, 8086), 0, 'nothing is left');

###############################################################################

# several servers: one bound connection to each

my @servers = map { header(ask(client(), undef, '/two'), 'X-Server') } 1, 2;
isnt($servers[0], $servers[1], 'two servers');

$alice = client();
is(join(' ', map { ticket($alice, 'alice', '/two') } 1, 2), 'alice alice',
	'authenticated with both');
@r = map { ask($alice, undef, '/two') } 1 .. 4;
is(join(' ', map { who($_) } @r), 'alice alice alice alice', 'both');
@r = map { conn($_) } @r;
is("$r[0] $r[1]", "$r[2] $r[3]", 'one connection to each');
is(strangers('/two', 4), '', 'both, nobody else');

is(ticket($half = client(), 'bob', '/two'), 'bob', 'authenticated with one');
is_new(conn(ask($half, undef, '/two')), 'the other is as private');
is(join(' ', open_conns(8083), open_conns(8084)), '3 3', 'both have three');

close $_ for $alice, $half;
is(join(' ', wait_open(1, 8083), wait_open(1, 8084)), '1 1', 'both closed');
is(strangers('/two', 4), '', 'nobody is left');

###############################################################################

# keys divide bound connections too, and their limits count them

$alice = client();
my $kept = conn(keyed(client(), 'a'));
is_new(my $in_a = conn(keyed($alice, 'a', 'Negotiate ticket=alice')), 'key');
is_new(my $in_b = conn(keyed($alice, 'b', 'Negotiate ticket=bob')), 'other key');
is(as_keyed($alice, 'a'), "alice $in_a", 'key again');
is(as_keyed($alice, 'b'), "bob $in_b", 'other key again');
is(as_keyed(client(), 'a'), "401 $kept", 'key of another client');
isnt(conn(keyed(client(), 'b')), $in_b, 'other key of another client');

$bob = client();
is(who(keyed($bob, 'a', 'Negotiate ticket=carol')), 'carol', 'limit of a key');
is(who(keyed($bob, 'a')), 'carol', 'limit of a key, the last one');
is(who(keyed($alice, 'a')), '401', 'limit of a key, the first one');
is(who(keyed($alice, 'b')), 'bob', 'limit of another key');

###############################################################################

# upstreams are bound one by one, and others not at all

my $both = client();
my $other = conn(ask(client(), undef, '/other'));
is(ticket($both, 'alice'), 'alice', 'bound to one upstream');
is(as($both, undef, '/other'), "401 $other", 'not to another one');
is(ticket($both, 'bob', '/other'), 'bob', 'bound to both');
is(join(' ', map { user($both, undef, $_) } '/', '/other'), 'alice bob',
	'one by one');
is(join(' ', map { user(client(), undef, $_) } '/', '/other'), '401 401',
	'nobody else');
close $both;
is(join(' ', wait_open(1, 8081), wait_open(1, 8082)), '1 1', 'both closed');

my $plain = conn(ask(client(), undef, '/without'));
is(as(client(), 'Negotiate ticket=alice', '/without'), "alice $plain",
	'without ntlm');
is(as(client(), undef, '/without'), "alice $plain", 'without ntlm, others');

###############################################################################

# a reload: what waits is answered, and nothing is left

$alice = logged_in('alice');
$held = hold('/', undef, logged_in('bob'), $keep);

my @old = alive(started($t));
reload($t);
is(strangers('/', 5), '', 'reload');
let_go($held);
like(http_end($held->{socket}), qr/^X-User: bob/m, 'waited during the reload');
ok(wait_for(sub { dead(@old) }), 'old worker is gone');

# the old worker may have taken those before

is(strangers('/', 5), '', 'nobody after the reload');
is(wait_open(1, 8081), 1, 'and what was bound');
is(user(logged_in('alice')), 'alice', 'authenticated after the reload');

###############################################################################

# who a request is answered as, and by which connection

sub as {
	my ($r) = ask(@_);

	return who($r) . ' ' . conn($r);
}

sub keyed {
	my ($client, $value, $says) = @_;

	return ask($client, $says, '/sliced', "X-Key: $value\r\n");
}

sub as_keyed {
	my ($r) = keyed(@_);

	return who($r) . ' ' . conn($r);
}

sub logged_in {
	my ($user, $uri) = @_;

	my $client = client();
	log_in_as($client, $user, $uri);

	return $client;
}

# new clients that are taken for somebody

sub strangers {
	my ($uri, $n) = @_;

	return join ' ', grep { $_ ne '401' }
		map { user(client(), undef, $uri) } 1 .. $n;
}

# whether a request binds, by all signs: a new connection, which the next request
# uses too and another client does not, and which is closed with the client

sub binds {
	my ($says, $more) = @_;

	my $shared = conn(ask(client()));
	my $open = open_conns(8081);
	my $client = client();
	my $with = conn(ask($client, $says, '/', $more));
	my $next = conn(ask($client));
	my $other = conn(ask(client()));

	return "$shared, $with, then $next, other $other" if $with ne $next
		|| $shared ne $other;

	my $now = open_conns(8081);

	return $now == $open ? 'shares' : "$now open" if $with eq $shared;
	return "$now open" if $now != $open + 1;

	close $client;

	return wait_open($open, 8081) == $open ? 'binds' : 'stays open';
}

# requests that are sent together, and their responses

sub pipeline {
	my ($client, @says) = @_;

	my ($in, @r) = exchange($client, join '', map {
		"GET / HTTP/1.1\r\nHost: localhost\r\n"
		. (defined $_ ? "Authorization: $_\r\n" : '') . "\r\n"
	} @says);

	while ($in =~ /^(.*?\r\n\r\n)/s) {
		my $length = length($1) + header($1, 'Content-Length');

		$in .= exchange($client, '') if length $in < $length;
		push @r, substr $in, 0, $length, '';
		$in = exchange($client, '') if $in eq '' && @r < @says;
	}

	return @r;
}

###############################################################################

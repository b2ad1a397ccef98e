#!/usr/bin/perl

# Tests for ntlm in subrequests: they are requests of the client connection, so
# they bind it, and use what it is bound to.

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

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

my $t = Test::Nginx->new()->has(qw/http proxy ssi auth_request mirror/)
	->plan(24);

$t->write_file_expand('nginx.conf', <<"EOF");

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
        keepalive 64;
        ntlm;
    }

    server {
        listen       127.0.0.1:8080;
        server_name  localhost;

        location / {
            proxy_pass http://u;
        }

        location /checked {
            auth_request /check/empty;
            proxy_pass http://u;
            proxy_set_header Connection "";
            proxy_set_header Authorization "";
        }

        location /check {
            proxy_pass http://u;
        }

        location /page {
            ssi on;
            default_type text/html;
        }

        location /mirrored {
            mirror /mirror;
            proxy_pass http://u;
        }

        location /mirror {
            proxy_pass http://u;
        }
    }
}

EOF

my $wait = '<!--# include virtual="/a" wait="yes" -->';

$t->write_file('page1', $wait);
$t->write_file('page2', $wait x 2);
$t->write_file('page_both',
	'<!--# include virtual="/a" --><!--# include virtual="/b" -->');

on_request(\&authenticated);
start_backend($t, 8081);
$t->run();

###############################################################################

my $shared = conn(ask(client()));

# auth_request, whose connection nginx keeps if the response has no body: a ticket
# in the subrequest, and then for the request itself

my $alice = client();
my $r = ask($alice, 'Negotiate ticket=alice', '/checked');
is(who($r), 'alice', 'auth_request');
is_new(my $bound = conn($r), 'auth_request, new connection');
is(open_conns(8081), 2, 'auth_request, the same for both');
is(as($alice, '/checked'), "alice $bound", 'auth_request, again');
is(as($alice, '/'), "alice $bound", 'without auth_request');
is(who(ask(client(), undef, '/checked')), '401', 'another client');

my $bob = client();
my $challenge = challenge(ask($bob, 'NTLM hello', '/checked'));
is(answer($bob, 'bob', $challenge, '/checked'), 'bob',
	'auth_request, three messages');
is(user($bob, undef, '/checked'), 'bob', 'auth_request, without credentials');
is(user($alice, undef, '/checked'), 'alice', 'auth_request, first client');

close $_ for $alice, $bob;
is(wait_open(1, 8081), 1, 'auth_request, closed');

# SSI: the page has no server, what is in it has

is(pages(my $stranger = client(), '/page1'), "401 $shared", 'SSI, shared');
is(pages($alice = logged_in('alice'), '/page1'),
	'alice ' . ($bound = conn(ask($alice))), 'SSI, bound');
is(pages($alice, '/page2'), "alice $bound, alice $bound", 'SSI, one by one');
is(pages($stranger, '/page2'), "401 $shared, 401 $shared",
	'SSI, another client');

# two at once: the second is as private

my $both = pages($alice, '/page_both');
like($both, qr/alice $bound/, 'SSI, at once');
unlike($both, qr/ $shared\b/, 'SSI, at once, not the shared one');
is(wait_open(3, 8081), 3, 'SSI, two bound');
close $alice;
is(wait_open(1, 8081), 1, 'SSI, closed');
is(strangers(5), '', 'SSI, nobody is left');

# a page whose part binds

$alice = client();
like(my $part = pages($alice, '/page1', 'Negotiate ticket=alice'),
	qr/^alice \d+$/, 'SSI, part binds');
is(as($alice, '/'), $part, 'SSI, bound by its part');
close $alice;
is(wait_open(1, 8081), 1, 'SSI, part, closed');

# a copy of a request, which nobody waits for

is(ticket($alice = client(), 'alice', '/mirrored'), 'alice', 'mirror');
close $alice;
is(wait_open(1, 8081), 1, 'mirror, closed');

###############################################################################

sub as {
	my ($client, $uri) = @_;

	my $r = ask($client, undef, $uri);

	return who($r) . ' ' . conn($r);
}

# whom the parts of a page are for, and by which connections they came

sub pages {
	my ($client, $uri, $says) = @_;

	my $in = my $more = ask($client, $says, $uri);

	# in chunks, whose last one is empty

	$in .= $more = exchange($client, '')
		until $in =~ /\r\n0\r\n\r\n$/ || $more eq '';

	my @parts = $in =~ /^X-Connection: (\d+)\n(.*)\n/mg;
	my @is;

	while (my ($conn, $line) = splice @parts, 0, 2) {
		push @is, ($line =~ /^X-User: (\w+)/ ? $1 : '401') . " $conn";
	}

	return join ', ', @is;
}

sub logged_in {
	my ($user) = @_;

	my $client = client();
	log_in_as($client, $user);

	return $client;
}

sub strangers {
	my ($n) = @_;

	return join ' ', grep { $_ ne '401' } map { user(client()) } 1 .. $n;
}

###############################################################################

#!/usr/bin/perl

# Tests for ntlm with shared: what is bound to a client connection stays with its
# worker and ends there, all the rest is for all workers.

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
use Test::Workers;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

my $t = Test::Nginx->new()->has(qw/http proxy rewrite/)->plan(29);

$t->write_file_expand('nginx.conf', <<"EOF");

%%TEST_GLOBALS%%

daemon off;
worker_processes 2;

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    proxy_http_version 1.1;
    proxy_set_header Connection "";

    add_header X-Worker \$pid always;
    add_header X-Keepalive \$upstream_keepalive always;

    upstream u {
        server 127.0.0.1:8081;
        keepalive 64 shared;
        ntlm;
    }

    upstream few {
        server 127.0.0.1:8082;
        keepalive 2 shared;
        ntlm;
    }

    upstream later {
        server 127.0.0.1:8083;
        keepalive 256 shared;
    }

    server {
        listen       127.0.0.1:8080 reuseport;
        server_name  localhost;

        location / {
            proxy_pass http://u;
        }

        location /few {
            proxy_pass http://few;
        }

        location /later {
            proxy_pass http://later;
        }

        location = /pid {
            return 204;
        }
    }
}

EOF

on_request(\&authenticated);
start_backend($t, 8081, 8082, 8083);
$t->run();

###############################################################################

my ($one, $two) = workers($t, 2);

# shared, as long as nobody is bound

my $shared = conn(ask(at($one)));
my $r = ask(at($two));
is(conn($r), $shared, 'another worker');
is(found_by($r), 'BORROWED', 'another worker borrows');
is(found_by(ask(at($one))), 'BORROWED', 'and back');

# bound in one worker

my $alice = at($one);
is(log_in_as($alice, 'alice'), 'alice', 'bound');
my $bound = conn(ask($alice));
isnt($bound, $shared, 'bound, not shared');
is(strangers($one, 5), '', 'nobody in the same worker');
is(strangers($two, 5), '', 'nobody in the other worker');

my $bob = at($two);
is_new(conn($r = ask($bob, 'Negotiate ticket=bob')), 'bound in the other worker');
is(found_by($r), 'MISS', 'bound, not borrowed');
is(user($alice), 'alice', 'first client again');
is(user($bob), 'bob', 'other client again');
is(open_conns(8081), 3, 'two bound, one shared');

# closed with the client, at once in either worker

close $alice;
is(wait_open(2, 8081), 2, 'client closed');
close $bob;
is(wait_open(1, 8081), 1, 'other client closed');
is(conn(ask(at($one))), $shared, 'the shared one stays');

# the limit is that of all workers

$alice = at($one);
$bob = at($two);
is(ticket($alice, 'alice', '/few'), 'alice', 'limit, one');
is(ticket($bob, 'bob', '/few'), 'bob', 'limit, two');
ask(at($two), undef, '/few');
is(wait_open(2, 8082), 2, 'limit, one has to make room');
is(user($bob, undef, '/few'), 'bob', 'limit, not this one');
is(user($alice, undef, '/few'), '401', 'limit, has to authenticate again');

# only what nobody is bound to outlives a reload

$alice = at($one);
is(log_in_as($alice, 'alice'), 'alice', 'before the reload');

my @new = renew($t, 2);
is(wait_open(1, 8081), 1, 'after the reload, one');
is(conn(ask(at($new[0]))), $shared, 'after the reload, the shared one');
is(strangers($new[0], 5), '', 'after the reload, nobody');
is(strangers($new[1], 5), '', 'after the reload, nobody in the other worker');

# "ntlm" is added: the memory has no room for what connections are bound to

is_new(conn(ask(at($new[0]), undef, '/later')), 'before it is added');

(my $conf = $t->read_file('nginx.conf')) =~ s/keepalive 256 shared;/$& ntlm;/;
$t->write_file('nginx.conf', $conf);
@new = renew($t, 2);
is(wait_open(0, 8083), 0, 'after it is added, none is left');

$alice = at($new[0]);
is(ticket($alice, 'alice', '/later'), 'alice', 'after it is added');
is(user($alice, undef, '/later'), 'alice', 'after it is added, bound');

###############################################################################

# a client of a worker

sub at {
	my ($worker) = @_;

	return Test::Workers::to($worker);
}

# new clients of a worker that are taken for somebody

sub strangers {
	my ($worker, $n) = @_;

	return join ' ', grep { $_ ne '401' } map { user(at($worker)) } 1 .. $n;
}

###############################################################################

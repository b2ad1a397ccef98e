#!/usr/bin/perl

# Tests for ntlm with clients that do anything: nobody is ever taken for a user
# who has not authenticated on this client connection.  With nginx's own keepalive,
# the same steps mix users up.

###############################################################################

use warnings;
use strict;

use Test::More;

use FindBin;
use lib ($ENV{NGINX_TESTS_DIR} ? "$ENV{NGINX_TESTS_DIR}/lib" : ()),
	"$FindBin::Bin/lib";

use Test::Nginx;
use Test::Backend;
use Test::Builtin;
use Test::Backend::NTLM;
use Test::HTTP2;
use Test::Processes;
use Test::Recipe;
use Test::Workers qw/ alive dead /;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

my $t = Test::Nginx->new()->has(qw/http http_v2 proxy/)->plan(14);

# the upstreams: room for all, and for fewer than there are clients

$t->write_file_expand('nginx.conf', <<"EOF");

%%TEST_GLOBALS%%

daemon off;

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    proxy_http_version 1.1;
    proxy_set_header Connection "";

    upstream all {
        server 127.0.0.1:8081;
        keepalive 64;
        ntlm;
    }

    upstream few {
        server 127.0.0.1:8082;
        server 127.0.0.1:8083;
        keepalive 8;
        ntlm;
    }

    server {
        listen       127.0.0.1:8080;
        listen       127.0.0.1:8084 http2;
        server_name  localhost;

        location /all {
            proxy_pass http://all;
        }

        location /few {
            proxy_pass http://few;
        }
    }
}

EOF

use constant { CLIENTS => 20, STEPS => 1000 };

on_request(\&authenticated);
start_backend($t, 8081, 8082, 8083);
$t->run();

###############################################################################

my %seen = steps($t);

is($seen{foreign}, '', 'nobody is somebody else');
is($seen{failed}, '', 'all answered');
is($seen{lost}, '', 'with enough room, everybody stays who it is');
cmp_ok($seen{kept}, '>', 50, 'without credentials');
cmp_ok($seen{again}, '>', 0, 'too little room, has to authenticate again');
cmp_ok($seen{half}, '>', 0, 'handshakes with others in between');
cmp_ok($seen{nobody}, '>', 50, 'clients that have not authenticated');
cmp_ok($seen{http2}, '>', 50, 'HTTP/2');
cmp_ok($seen{ticket2}, '>', 10, 'HTTP/2, tickets');
cmp_ok($seen{reload}, '>', 1, 'reloads');

# all clients have closed

ok(wait_for(sub { open_conns(8081) <= $seen{unbound} }), 'what was bound is gone');
is(strangers(20), '', 'nobody is left');

SKIP: {
skip 'no upstream_keepalive available', 2
	unless $t->has_module('upstream_keepalive');

run_builtin($t);

%seen = steps($t);

isnt($seen{foreign}, '', 'built-in, users are mixed up');
cmp_ok($seen{nobody}, '>', 0, 'built-in, clients that have not authenticated');

}

###############################################################################

# What happens to clients, at random but the same each time.  A foreign user is
# one whose name this client connection has not authenticated with.

sub steps {
	my ($t) = @_;

	my (%clients, @foreign, @failed, @lost, %count);

	$count{$_} = 0 for qw/ kept again half nobody http2 ticket2 reload /;

	# connections that nobody is bound to: one at a time, and no more than
	# there are requests of HTTP/2 at the same time

	$count{unbound} = 3;

	srand(16);

	for my $step (1 .. STEPS) {
		my $who = int rand CLIENTS;
		my $does = rand;
		my $uri = rand() < 0.5 ? '/all' : '/few';
		my $name = 'user' . int rand 10;

		if ($step % 300 == 0) {
			$count{reload}++;
			%clients = ();
			renewed($t);
			next;
		}

		# some clients use HTTP/2

		if ($who < 4) {
			my $c = $clients{$who} ||= http2_client(8084);

			my @says = map { $does < 0.3 ? "Negotiate ticket=$name$_"
				: $does < 0.4 ? 'NTLM hello'
				: $does < 0.5 ? 'Basic eDp5' : undef } 0, 1;

			my @ids = map { http2_send($c, $uri,
				defined $_ ? (authorization => $_) : ()) } @says;

			for my $i (0, 1) {
				my $r = http2_body($c, $ids[$i]);
				my ($is) = $r =~ /^X-User: (\w+)/m;
				my $expected = $does < 0.3 ? "$name$i" : '';

				$count{http2}++;
				$count{ticket2}++ if $does < 0.3;

				push @failed, "$step: HTTP/2" if $r eq '';
				push @foreign, "$step: HTTP/2 $is"
					if defined $is && $is ne $expected;
				push @lost, "$step: HTTP/2"
					if !defined $is && $expected ne '';
			}

			delete $clients{$who} if $does > 0.95;
			next;
		}

		my $c = $clients{$who} ||= { socket => client() };
		my $known = $c->{$uri} ||= { may => {} };
		my $r;

		if ($does < 0.1) {

			# closes, and comes again with another connection

			delete $clients{$who};
			next;

		} elsif ($does < 0.2) {
			$r = ask($c->{socket}, "Negotiate ticket=$name", $uri);
			$known->{may}{$name} = 1;
			$known->{is} = $name;
			delete $known->{challenge};

		} elsif ($does < 0.3) {
			my $challenge = challenge(ask($c->{socket},
				'NTLM hello', $uri));

			$r = ask($c->{socket}, "NTLM user=$name $challenge",
				$uri);
			$known->{may}{$name} = 1;
			$known->{is} = $name;
			delete $known->{challenge};

		} elsif ($does < 0.4) {

			# the answer comes in a later step

			$r = ask($c->{socket}, 'NTLM hello', $uri);
			$known->{challenge} = challenge($r);
			delete $known->{is};
			push @failed, "$step: no challenge"
				unless $known->{challenge};
			next;

		} elsif (defined $known->{challenge}) {
			$r = ask($c->{socket}, "NTLM user=$name "
				. delete $known->{challenge}, $uri);
			$known->{may}{$name} = 1;
			$known->{is} = $name;
			$count{half}++;

		} elsif ($does < 0.45) {
			$r = ask($c->{socket}, 'Basic eDp5', $uri);

		} else {
			$r = ask($c->{socket}, undef, $uri);
			$count{kept}++ if defined $known->{is}
				&& who($r) eq $known->{is};
			$count{nobody}++ if !%{ $known->{may} };
		}

		my $is = who($r);

		if ($is =~ /^user/) {
			push @foreign, "$step: $is" unless $known->{may}{$is};

		} elsif ($is ne '401') {
			push @failed, "$step: $is";

		} elsif (defined $known->{is}) {

			# on another connection, of one of two servers, or since
			# there is no room

			if ($uri eq '/all') {
				push @lost, "$step: $known->{is}";
				delete $known->{is};

			} else {
				$count{again}++;
			}
		}
	}

	return %count, foreign => some(@foreign), failed => some(@failed),
		lost => some(@lost);
}

sub some {
	return join ', ', @_ > 5 ? (@_[0 .. 4], '...') : @_;
}

sub renewed {
	my ($t) = @_;

	my @old = alive(started($t));

	reload($t);
	wait_for(sub { dead(@old) }) or die "Old workers stay\n";
}

sub strangers {
	my ($n) = @_;

	return join ' ', grep { $_ ne '401' }
		map { user(client(), undef, $_ % 2 ? '/all' : '/few') } 1 .. $n;
}

###############################################################################

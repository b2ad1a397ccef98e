#!/usr/bin/perl

# Not a test by itself: traffic for ci/memcheck, which runs it with
# MEMCHECK_ROUNDS 1 and 2, and compares what the processes hold at the end.
# What is done in a round is done 5 times at least.  The worker is ended by
# SIGABRT, so that nothing is freed before valgrind looks.

###############################################################################

use warnings;
use strict;

use Test::More;

use FindBin;
use lib "$FindBin::Bin/../../t/lib";

use Test::Nginx;
use Test::Backend;

###############################################################################

select STDERR; $| = 1;
select STDOUT; $| = 1;

my $rounds = $ENV{MEMCHECK_ROUNDS} or die "MEMCHECK_ROUNDS is not set\n";

my $t = Test::Nginx->new()->has(qw/http http_ssl proxy/)
	->has_daemon('openssl')->plan(4);

$t->write_file_expand('nginx.conf', <<'EOC');

%%TEST_GLOBALS%%

daemon off;

events {
}

http {
    %%TEST_GLOBALS_HTTP%%

    proxy_http_version 1.1;
    proxy_set_header Connection "";

    upstream sliced {
        server 127.0.0.1:8081;
        keepalive 4 slice_key=$arg_key slice_conn=2 slice_poolsize=3;
    }

    upstream cut {
        server 127.0.0.1:8081;
        keepalive 2 slice_key=$arg_key$host slice_keylen=6 slice_dyn=arg_limit;
    }

    upstream short {
        server 127.0.0.1:8081;
        keepalive 2 slice_key=$arg_key slice_strict;
        keepalive_timeout 1ms;
        keepalive_hints off;
    }

    upstream once {
        server 127.0.0.1:8081;
        keepalive 2;
        keepalive_requests 2;
    }

    upstream tls {
        server 127.0.0.1:8082;
        keepalive 1 slice_key=$arg_key;
    }

    server {
        listen       127.0.0.1:8080;
        server_name  localhost;

        add_header X-Pid $pid always;

        location /sliced/ {
            proxy_pass http://sliced/;
        }

        location /cut/ {
            proxy_pass http://cut/;
        }

        location /short/ {
            proxy_pass http://short/;
        }

        location /once/ {
            proxy_pass http://once/;
        }

        location /tls/ {
            proxy_pass https://tls/;
        }

        location /pid {
            return 204;
        }
    }

    server {
        listen       127.0.0.1:8082 ssl;
        server_name  localhost;

        ssl_certificate localhost.crt;
        ssl_certificate_key localhost.key;

        location / {
            add_header Keep-Alive timeout=5;
            return 204;
        }
    }
}

EOC

my $d = $t->testdir();

$t->write_file('openssl.conf', <<'EOC');
[ req ]
default_bits = 2048
encrypt_key = no
distinguished_name = req_distinguished_name
[ req_distinguished_name ]
EOC

system("openssl req -x509 -new -config $d/openssl.conf -subj /CN=localhost/"
	. " -out $d/localhost.crt -keyout $d/localhost.key"
	. " >>$d/openssl.out 2>&1") == 0
	or die "Can't create certificate: $!\n";

start_backend($t, 8081);
$t->run();

###############################################################################

my ($answers, $requests) = (0, 0);

reload($t) for 1 .. 5 * $rounds;
round() for 1 .. 5 * $rounds;

is($answers, $requests, 'all answered');
cmp_ok($requests, '>', 100 * $rounds, 'requests');

my $pid = pid();

kill 'ABRT', $pid;
ok(wait_for(sub { !kill 0, $pid }, 60), 'worker ended');
ok(wait_for(sub { pid() ne $pid }, 60), 'another one');

# which nginx says, and nothing else is wrong

$t->stop();
my @log = grep { !/\[alert\].* exited on signal 6/ }
	split /^/, $t->read_file('error.log');
$t->write_file('error.log', join '', @log);

###############################################################################

# all the ways in which a connection comes and goes

sub round {

	# reused; a limit of the slice; of slices; of connections

	request_to("/sliced/?key=$_") for qw/ a a a b c d d a /;
	together('/sliced/?key=e', ('localhost') x 4);
	together("/sliced/?key=$_", ('localhost') x 2) for qw/ a b c /;

	# closed by the backend, with and without bytes, or after a response

	break_idle('finish');
	wait_open(0, 8081);
	request_to('/sliced/?key=a');
	break_idle('junk');
	wait_open(0, 8081);
	request_to("/sliced/$_?key=a") for qw/ close nolength 500 chunked /;

	request_to("/cut/?key=$_") for qw/ aaaaaaa aaaaaab b /;
	request_to("/cut/?key=$_&limit=0") for qw/ b aaaaaaa /;
	request_to('/cut/?key=c&limit=x');

	# the timer; too long a key

	request_to("/short/?key=$_") for 'a', 'b', 'c' x 100;
	request_to('/once/') for 1 .. 4;

	# each closes the one before it

	request_to("/tls/?key=$_") for qw/ a a b c /;
}

sub request_to {
	my ($uri) = @_;

	$requests++;
	$answers++ if http_get($uri) =~ m!^HTTP/1\.\d (?:20[04]|500) !;
}

sub pid {
	my $response = http_get('/pid');

	return defined $response && $response =~ /X-Pid: (\d+)/ ? $1 : 0;
}

sub reload {
	my ($t) = @_;

	my $old = pid();

	$t->reload();
	wait_for(sub { !kill 0, $old }, 60) or die "worker did not end\n";
	wait_for(sub { pid() }, 60) or die "no worker answers\n";
}

###############################################################################

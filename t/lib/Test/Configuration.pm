package Test::Configuration;

# What nginx says about a configuration, for tests of good and bad ones.

###############################################################################

use warnings;
use strict;

use base qw/ Exporter /;

our @EXPORT = qw/ check place messages /;

###############################################################################

# what "nginx -t" prints about a configuration with these directives in an
# upstream, or in another context, or with those of a hash in several; $? is then
# what it ended with

sub check {
	my ($t, $directives, $context) = @_;

	my %at = map { $_ => '' } qw/ main http upstream server location /;
	my %given = ref $directives ? %$directives
		: ($context || 'upstream' => $directives);

	for my $name (keys %given) {
		die "No such context: $name\n" unless exists $at{$name};
		$at{$name} = $given{$name};
	}

	$t->write_file_expand('check.conf', <<"EOF");
%%TEST_GLOBALS%%

daemon off;
$at{main}

events {
}

http {
    %%TEST_GLOBALS_HTTP%%
    $at{http}

    upstream u {
        server 127.0.0.1:8081;
        $at{upstream}
    }

    server {
        listen       127.0.0.1:8080;
        server_name  localhost;
        $at{server}

        location / {
            proxy_pass http://u;
            $at{location}
        }
    }
}
EOF

	my $dir = $t->testdir();
	my $run = "$Test::Nginx::NGINX -t -p $dir/ -c check.conf -e check.log";

	my $out = `$run 2>&1`;

	# it leaves one without a number in it, as if nginx were there

	unlink "$dir/nginx.pid" unless -s "$dir/nginx.pid";

	return $out;
}

# the place of these directives in the configuration, in nginx's words

sub place {
	my ($t, $directives) = @_;

	my ($before) = $t->read_file('check.conf') =~ /^(.*?)\Q$directives/s;
	my $line = 1 + ($before =~ tr/\n//);

	return ' in ' . $t->testdir() . "/check.conf:$line";
}

# the messages of a level

sub messages {
	my ($out, $level) = @_;

	return join "\n", $out =~ /^nginx: \[$level\] (.*)$/gm;
}

###############################################################################

1;

###############################################################################

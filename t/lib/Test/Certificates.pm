package Test::Certificates;

# Certificates for tests with TLS, in the test's folder.  Keys are of elliptic
# curves, which are made at once.

###############################################################################

use warnings;
use strict;

use base qw/ Exporter /;

our @EXPORT = qw/ certificate revocation_list /;

###############################################################################

# NAME.crt and NAME.key, signed by itself; for these host names, if there are any

sub certificate {
	my ($t, $name, @hosts) = @_;

	my @names = @hosts ? ('-addext', 'subjectAltName='
		. join(',', map { "DNS:$_" } @hosts)) : ();
	my $d = $t->testdir();

	openssl($t, qw/ req -x509 -nodes -days 3650 -newkey ec -pkeyopt
		ec_paramgen_curve:prime256v1 /, '-subj', "/CN=$name", @names,
		'-keyout', "$d/$name.key", '-out', "$d/$name.crt");
}

# NAME.crl, by the certificate, which revokes nothing: whether one that revokes
# itself is accepted depends on the version of OpenSSL

sub revocation_list {
	my ($t, $name) = @_;

	my $d = $t->testdir();

	$t->write_file('ca.conf', <<"EOC");
[ ca ]
default_ca = own
[ own ]
database = $d/certindex
new_certs_dir = $d
default_md = sha256
default_crl_days = 30
EOC

	$t->write_file('certindex', '');

	my @ca = ('ca', '-config', "$d/ca.conf", '-keyfile', "$d/$name.key",
		'-cert', "$d/$name.crt");

	openssl($t, @ca, '-gencrl', '-out', "$d/$name.crl");
}

sub openssl {
	my ($t, @arguments) = @_;

	my $out = $t->testdir() . '/openssl.out';
	my $command = join ' ', map { "'$_'" } @arguments;

	system("openssl $command >>$out 2>&1") == 0
		or die "Can't run openssl: see $out\n";
}

###############################################################################

1;

###############################################################################

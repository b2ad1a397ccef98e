package Test::Backend::NTLM;

# A server that authenticates connections and not requests, for on_request() of
# Test::Backend, and clients of it.
#
# As with NTLM and Negotiate, who has authenticated on a connection is whom all
# later requests on it are answered as, in X-User, also without credentials.
# What a client says in Authorization, after the scheme:
#
#     hello                    the answer is 401 with a challenge, which is good
#                              once, on this connection, with this scheme
#     user=NAME challenge=...  the answer to it: from now on it is NAME
#     ticket=NAME              Negotiate only, as with Kerberos: at once
#
# Anything else with these schemes ends who it was.  Other schemes change nothing.

###############################################################################

use warnings;
use strict;

use base qw/ Exporter /;

our @EXPORT = qw/
	authenticated client ask user who challenge answer log_in_as ticket
	header status
/;

###############################################################################

use IO::Socket::INET;

use Test::Nginx;
use Test::Requests;
use Test::Recipe qw/ header /;

my $challenges;

###############################################################################

# the server

sub authenticated {
	my ($c, $head) = @_;

	return '400 Bad Request' if $head !~ m! HTTP/1\.1\r\n!
		|| header($head, 'Connection') eq 'close';

	my ($scheme, $says) = header($head, 'Authorization')
		=~ /^(NTLM|Negotiate)(?: +(.*))?$/i;

	return says_who($c) unless defined $scheme;

	my $expected = delete $c->{challenge};

	$scheme = lc $scheme eq 'ntlm' ? 'NTLM' : 'Negotiate';
	$says = '' unless defined $says;
	delete $c->{user};

	if ($says eq 'hello') {
		my $challenge = "challenge=$c->{number}-" . ++$challenges;

		$c->{challenge} = "$scheme $challenge";
		return '401 Unauthorized', "WWW-Authenticate: $scheme $challenge";
	}

	if ($says =~ /^user=(\w+) (challenge=\S+)$/) {
		$c->{user} = $1 if defined $expected
			&& $expected eq "$scheme $2";

	} elsif ($says =~ /^ticket=(\w+)$/ && $scheme eq 'Negotiate') {
		$c->{user} = $1;
	}

	return says_who($c);
}

sub says_who {
	my ($c) = @_;

	return '200 OK', "X-User: $c->{user}" if defined $c->{user};
	return '401 Unauthorized', 'WWW-Authenticate: Negotiate',
		'WWW-Authenticate: NTLM';
}

###############################################################################

# clients, which stay connected

sub client {
	return IO::Socket::INET->new(
		Proto => 'tcp',
		PeerAddr => '127.0.0.1:' . port(8080),
	) || die "Can't connect to nginx: $!\n";
}

# the response to a request on a client's connection

sub ask {
	my ($client, $says, $uri, $more) = @_;

	$uri = '/' unless defined $uri;
	$more = '' unless defined $more;
	$more .= "Authorization: $says\r\n" if defined $says;

	return exchange($client,
		"GET $uri HTTP/1.1\r\nHost: localhost\r\n$more\r\n");
}

# who a request is answered as

sub user {
	return who(ask(@_));
}

sub who {
	my ($r) = @_;

	return header($r, 'X-User') if status($r) eq '200';
	return join ' ', grep { length } status($r), challenge($r);
}

sub challenge {
	my ($r) = @_;

	return defined $r && $r =~ /(challenge=[^\s"]+)/ ? $1 : '';
}

# the last of three messages

sub answer {
	my ($client, $user, $challenge, $uri, $scheme) = @_;

	$scheme = 'NTLM' unless defined $scheme;

	return user($client, "$scheme user=$user $challenge", $uri);
}

sub log_in_as {
	my ($client, $user, $uri, $scheme) = @_;

	$scheme = 'NTLM' unless defined $scheme;

	return answer($client, $user,
		challenge(ask($client, "$scheme hello", $uri)), $uri, $scheme);
}

# the only message

sub ticket {
	my ($client, $user, $uri) = @_;

	return user($client, "Negotiate ticket=$user", $uri);
}

sub status {
	my ($r) = @_;

	return defined $r && $r =~ m!^HTTP/1.1 (\d+)! ? $1 : 'none';
}

###############################################################################

1;

###############################################################################

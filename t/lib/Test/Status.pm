package Test::Status;

# What keepalive_status says, in each of its formats.

###############################################################################

use warnings;
use strict;

use base qw/ Exporter /;

our @EXPORT = qw/ status json html changes /;

###############################################################################

use JSON::PP ();
use Test::More ();

use Test::Nginx;

###############################################################################

# the body of a successful response

sub status {
	my ($uri, $headers) = @_;

	$headers = '' unless defined $headers;

	my $r = http("GET $uri HTTP/1.0\nHost: status\n$headers\n");

	die "No status: $r\n" unless $r =~ /^HTTP\S+ 200 .*?\r\n\r\n(.*)/s;

	return $1;
}

sub json {
	my ($uri) = @_;
	return JSON::PP->new()->utf8()->decode(status($uri || '/status'));
}

# The counters of each upstream, under the same names whatever the format:
# hits, closed.timeout, and so on, but for what is zero.

sub of_json {
	my $upstreams = json('/status?format=json')->{upstreams};
	my %counts;

	for my $name (keys %$upstreams) {
		my $u = $upstreams->{$name};

		$counts{$name}{$_} = $u->{$_}
			for qw/ requests hits misses balancer saved idle slices workers /;

		for my $reasons (qw/ closed refused /) {
			$counts{$name}{"$reasons.$_"} = $u->{$reasons}{$_}
				for keys %{ $u->{$reasons} };
		}
	}

	return without_zeroes(\%counts);
}

# the samples of a metric, by what is between its braces

sub prometheus {
	my ($text) = @_;
	my %samples;

	for my $line (split /\n/, $text) {
		next if $line =~ /^#/;
		$line =~ /^nginx_upstream_keepalive_(\w+)\{(.*)\} (\d+)$/
			or die "No sample: $line\n";
		die "Twice: $line\n" if exists $samples{$1}{$2};
		$samples{$1}{$2} = $3;
	}

	return \%samples;
}

sub of_prometheus {
	my $samples = prometheus(status('/status?format=prometheus'));
	my %counts;

	for my $metric (keys %$samples) {
		(my $name = $metric) =~ s/_total$|_connections$//;
		next if $name =~ /^limit/;

		for my $labels (keys %{ $samples->{$metric} }) {
			$labels =~ /^upstream="(.*?)"(?:,reason="(\w+)")?$/
				or die "No labels: $labels\n";
			$counts{$1}{defined $2 ? "$name.$2" : $name}
				= $samples->{$metric}{$labels};
		}
	}

	return without_zeroes(\%counts);
}

# the cells of each row of the table of upstreams

sub html {
	my ($page) = @_;
	my ($table) = $page =~ m{<tbody>(.*?)</tbody>}s;

	return map { [ m{<td[^>]*>(.*?)</td>}gs ] } $table =~ m{<tr>(.*?)</tr>}gs;
}

sub of_html {
	my %counts;

	for my $row (html(status('/status?format=html'))) {
		my ($name, undef, @cells) = @$row;
		my @reasons = splice @cells, 7, 2;

		@{ $counts{$name} }{
			qw/ requests hits misses balancer idle slices saved workers /
		} = @cells;

		for my $reasons (qw/ closed refused /) {
			my $cell = shift @reasons;
			$counts{$name}{"$reasons.$1"} = $2
				while $cell =~ /(\w+) (\d+)<br>/g;
		}
	}

	return without_zeroes(\%counts);
}

sub without_zeroes {
	my ($counts) = @_;

	for my $upstream (values %$counts) {
		delete @$upstream{grep { !$upstream->{$_} } keys %$upstream};
	}

	return $counts;
}

# What has changed since the last call: "saved 1, hits 2". All formats must say
# the same.

my $last = {};

sub changes {
	my $now = of_json();
	my %formats = (prometheus => of_prometheus(), html => of_html());

	for my $format (sort keys %formats) {
		my ($is, $of) = map { text($_) } $formats{$format}, $now;
		Test::More::diag("$format differs from json:\n$is\n$of")
			if $is ne $of;
		return "$format differs" if $is ne $of;
	}

	my %changes;

	for my $upstream (keys %$now) {
		for my $name (keys %{ { %{ $last->{$upstream} || {} },
			%{ $now->{$upstream} } } })
		{
			my $change = ($now->{$upstream}{$name} || 0)
				- ($last->{$upstream}{$name} || 0);
			$changes{$upstream}{$name} = $change if $change;
		}
	}

	$last = $now;

	return text(\%changes);
}

sub text {
	my ($counts) = @_;

	return join '; ', map {
		my $upstream = $counts->{$_};
		my $of = join ', ', map { "$_ $upstream->{$_}" } sort keys %$upstream;
		$of eq '' ? () : "$_: $of";
	} sort keys %$counts;
}

###############################################################################

1;

###############################################################################

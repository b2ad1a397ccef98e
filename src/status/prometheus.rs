//! The status in the text-based exposition format of Prometheus, version 0.0.4:
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>.

#![forbid(unsafe_code)]

use core::fmt::{self, Display, Formatter, Write};

use super::report::{Printable, Report, UpstreamReport};
use crate::counters::SharedTotals;

/// Writes the status, without slices: each key that a client invents would become a time series.
///
/// # Errors
///
/// Those of the writer.
pub fn write(report: &Report<'_>, to: &mut impl Write) -> fmt::Result {
    for (name, help, value) in COUNTERS {
        let family = Family { name, help, kind: "counter" };
        family.write(report, to, |upstream| Some(value(upstream)))?;
    }
    family_by_reason(
        report,
        to,
        ("closed_total", "Idle connections that were closed, by reason."),
        |upstream| upstream.totals.closed(),
    )?;
    family_by_reason(
        report,
        to,
        ("refused_total", "Connections that were not kept after a request, by reason."),
        |upstream| upstream.totals.refused(),
    )?;
    for (name, help, value) in SHARED {
        let family = Family { name, help, kind: "counter" };
        family.write(report, to, |upstream| upstream.totals.shared.map(|shared| value(&shared)))?;
    }
    for (name, help, value) in GAUGES {
        Family { name, help, kind: "gauge" }.write(report, to, value)?;
    }
    idle_timeouts(report, to)
}

type Value<T> = fn(&UpstreamReport<'_>) -> T;

const COUNTERS: [(&str, &str, Value<u64>); 5] = [
    ("requests_total", "Requests sent to servers of the upstream.", |u| u.totals.requests()),
    ("hits_total", "Requests that used an idle connection.", |u| u.totals.hits),
    ("misses_total", "Requests that found no idle connection.", |u| u.totals.misses),
    ("balancer_total", "Requests that used a connection of the balancer's own.", |u| {
        u.totals.balancer
    }),
    ("saved_total", "Connections that were kept after a request.", |u| u.totals.saved),
];

type SharedValue = fn(&SharedTotals) -> u64;

const SHARED: [(&str, &str, SharedValue); 4] = [
    ("borrowed_total", "Requests that used an idle connection of another worker process.", |s| {
        s.borrowed
    }),
    ("lost_races_total", "Connections that another worker process was faster to use.", |s| {
        s.lost_races
    }),
    (
        "refused_handovers_total",
        "Connections that the system refused to hand over between worker processes.",
        |s| s.refused_handovers,
    ),
    ("kept_over_reload_total", "Connections taken over from before a reload.", |s| {
        s.kept_over_reload
    }),
];

const GAUGES: [(&str, &str, Value<Option<u64>>); 6] = [
    ("idle_connections", "Idle connections.", |u| Some(u.totals.idle)),
    ("slices", "Slices that hold idle connections.", |u| u.slices_in_use()),
    ("workers", "Worker processes that have this upstream.", |u| Some(u.totals.workers.into())),
    (
        "limit_connections",
        "Most idle connections, of each worker process unless they are shared.",
        |u| Some(u.limits.connections.into()),
    ),
    (
        "limit_slice_conn",
        "Most idle connections of a slice, in each worker process unless they are shared.",
        |u| u.limits.slice_conn.map(u64::from),
    ),
    (
        "limit_slice_poolsize",
        "Most slices that hold idle connections, in each worker process unless they are shared.",
        |u| u.limits.slice_poolsize.map(u64::from),
    ),
];

/// Metrics of one name.
struct Family<'a> {
    name: &'a str,
    help: &'a str,
    kind: &'a str,
}

impl Family<'_> {
    fn head(&self, to: &mut impl Write) -> fmt::Result {
        let Family { name, help, kind } = self;
        writeln!(to, "# HELP nginx_upstream_keepalive_{name} {help}")?;
        writeln!(to, "# TYPE nginx_upstream_keepalive_{name} {kind}")
    }

    /// One metric for each upstream that has a value.
    fn write(
        &self,
        report: &Report<'_>,
        to: &mut impl Write,
        value: impl Fn(&UpstreamReport<'_>) -> Option<u64>,
    ) -> fmt::Result {
        self.head(to)?;
        for upstream in report.upstreams {
            if let Some(value) = value(upstream) {
                let (name, label) = (self.name, Label(upstream.name));
                writeln!(to, "nginx_upstream_keepalive_{name}{{upstream=\"{label}\"}} {value}")?;
            }
        }
        Ok(())
    }
}

/// One metric for each upstream and reason.
fn family_by_reason<I: Iterator<Item = (&'static str, u64)>>(
    report: &Report<'_>,
    to: &mut impl Write,
    (name, help): (&str, &str),
    values: impl Fn(&'_ UpstreamReport<'_>) -> I,
) -> fmt::Result {
    Family { name, help, kind: "counter" }.head(to)?;
    for upstream in report.upstreams {
        let label = Label(upstream.name);
        for (reason, value) in values(upstream) {
            writeln!(
                to,
                "nginx_upstream_keepalive_{name}{{upstream=\"{label}\",reason=\"{reason}\"}} {value}"
            )?;
        }
    }
    Ok(())
}

/// One metric for each server.
fn idle_timeouts(report: &Report<'_>, to: &mut impl Write) -> fmt::Result {
    let name = "idle_timeout_seconds";
    let help = "Idle time after which a server closes connections, as learned.";
    Family { name, help, kind: "gauge" }.head(to)?;
    for server in report.idle_timeouts.unwrap_or_default() {
        let (label, value) = (Label(server.address), server.idle_timeout);
        writeln!(to, "nginx_upstream_keepalive_{name}{{server=\"{label}\"}} {value}")?;
    }
    Ok(())
}

/// The value of a label, in which backslashes, quotes and line feeds are escaped.
struct Label<'a>(Printable<'a>);

impl Display for Label<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(Escape(f), "{}", self.0)
    }
}

struct Escape<'a, 'b>(&'a mut Formatter<'b>);

impl Write for Escape<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for part in text.split_inclusive(['\\', '"', '\n']) {
            match part.split_at_checked(part.len().saturating_sub(1)) {
                Some((start, "\\")) => write!(self.0, "{start}\\\\")?,
                Some((start, "\"")) => write!(self.0, "{start}\\\"")?,
                Some((start, "\n")) => write!(self.0, "{start}\\n")?,
                _ => self.0.write_str(part)?,
            }
        }
        Ok(())
    }
}

//! The status as JSON.

#![forbid(unsafe_code)]

use std::io;

use serde::ser::{Serialize, SerializeStruct, Serializer};

use super::report::{Printable, Report, ServerReport, ShownLimits, UpstreamReport};
use crate::counters::SharedTotals;
use crate::pool::UsedSlice;

/// Writes the status.
///
/// # Errors
///
/// Those of the writer.
pub fn write(report: &Report<'_>, to: impl io::Write) -> io::Result<()> {
    serde_json::to_writer(to, report).map_err(io::Error::from)
}

impl Serialize for Report<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut report = serializer.serialize_struct("Report", 3)?;
        report.serialize_field("worker", &self.worker)?;
        report.serialize_field("upstreams", &Upstreams(self.upstreams))?;
        match self.idle_timeouts {
            Some(servers) => report.serialize_field("idle_timeouts", &IdleTimeouts(servers))?,
            None => report.skip_field("idle_timeouts")?,
        }
        report.end()
    }
}

/// The idle timeouts, in seconds, by server.
struct IdleTimeouts<'a>(&'a [ServerReport<'a>]);

impl Serialize for IdleTimeouts<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let seconds = |server: &ServerReport<'_>| f64::from(server.idle_timeout.0) / 1000.0;
        serializer.collect_map(self.0.iter().map(|server| (server.address, seconds(server))))
    }
}

/// The upstreams, by name.
struct Upstreams<'a>(&'a [UpstreamReport<'a>]);

impl Serialize for Upstreams<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|upstream| (upstream.name, upstream)))
    }
}

impl Serialize for UpstreamReport<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let totals = &self.totals;
        let mut upstream = serializer.serialize_struct("Upstream", 13)?;
        upstream.serialize_field("workers", &totals.workers)?;
        upstream.serialize_field("requests", &totals.requests())?;
        upstream.serialize_field("hits", &totals.hits)?;
        upstream.serialize_field("misses", &totals.misses)?;
        upstream.serialize_field("balancer", &totals.balancer)?;
        upstream.serialize_field("saved", &totals.saved)?;
        upstream.serialize_field("closed", &Reasons(|| totals.closed()))?;
        upstream.serialize_field("refused", &Reasons(|| totals.refused()))?;
        upstream.serialize_field("idle", &totals.idle)?;
        upstream.serialize_field("slices", &self.slices_in_use())?;
        upstream.serialize_field("limits", &self.limits)?;
        match &totals.shared {
            Some(shared) => upstream.serialize_field("shared", shared)?,
            None => upstream.skip_field("shared")?,
        }
        match self.slices {
            Some(slices) => upstream.serialize_field("busiest_slices", slices)?,
            None => upstream.skip_field("busiest_slices")?,
        }
        upstream.end()
    }
}

/// Counters by reason.
struct Reasons<F>(F);

impl<F: Fn() -> I, I: Iterator<Item = (&'static str, u64)>> Serialize for Reasons<F> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0())
    }
}

impl Serialize for ShownLimits {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut limits = serializer.serialize_struct("ShownLimits", 3)?;
        limits.serialize_field("connections", &self.connections)?;
        limits.serialize_field("slice_conn", &self.slice_conn)?;
        limits.serialize_field("slice_poolsize", &self.slice_poolsize)?;
        limits.end()
    }
}

impl Serialize for SharedTotals {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut shared = serializer.serialize_struct("SharedTotals", 4)?;
        shared.serialize_field("borrowed", &self.borrowed)?;
        shared.serialize_field("lost_races", &self.lost_races)?;
        shared.serialize_field("refused_handovers", &self.refused_handovers)?;
        shared.serialize_field("kept_over_reload", &self.kept_over_reload)?;
        shared.end()
    }
}

impl Serialize for UsedSlice<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut slice = serializer.serialize_struct("UsedSlice", 3)?;
        slice.serialize_field("key", &Printable(self.key))?;
        slice.serialize_field("idle", &self.idle)?;
        slice.serialize_field("hits", &self.hits)?;
        slice.end()
    }
}

impl Serialize for Printable<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

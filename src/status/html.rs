//! The status as a page for people.

#![forbid(unsafe_code)]

use core::fmt::{self, Display, Formatter, Write};

use askama::Template;

use super::report::{MOST_SLICES, Printable, Report, UpstreamReport};

/// Writes the status.
///
/// # Errors
///
/// Those of the writer.
pub fn write(report: &Report<'_>, to: &mut impl Write) -> fmt::Result {
    Page { report }.render_into(to).map_err(|_| fmt::Error)
}

#[derive(Template)]
#[template(path = "status.html")]
struct Page<'a> {
    report: &'a Report<'a>,
}

/// A share of a whole, in tenths of a percent.
struct Share(Option<u64>);

impl Share {
    fn of(upstream: &UpstreamReport<'_>) -> Self {
        let (part, whole) = (upstream.totals.hits, upstream.totals.requests());
        Share(part.saturating_mul(1000).checked_div(whole))
    }
}

impl Display for Share {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Some(share) = self.0 else { return f.write_str("0") };
        write!(f, "{}.{}", share / 10, share % 10)
    }
}

//! The formats of the status, and which one a client wants.

#![forbid(unsafe_code)]

use core::cmp::Reverse;
use core::str;

use mediatype::names::{_STAR, APPLICATION, HTML, JSON, PLAIN, TEXT};
use mediatype::{MediaType, MediaTypeList, Name, ReadParams};

/// A format of the status.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Format {
    /// JSON, RFC 8259.
    Json,
    /// The text-based exposition format of Prometheus, version 0.0.4.
    Prometheus,
    /// A page for people.
    Html,
}

impl Format {
    /// The format of a name, as in the directive and in the `format` argument.
    pub fn named(name: &[u8]) -> Option<Self> {
        match name {
            b"json" => Some(Format::Json),
            b"prometheus" => Some(Format::Prometheus),
            b"html" => Some(Format::Html),
            _ => None,
        }
    }

    /// The format that a client prefers by the lines of its `Accept` header (RFC 9110, section
    /// 12.5.1); JSON if it does not say, or wants nothing that there is.
    pub fn accepted<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Self {
        lines
            .filter_map(|line| str::from_utf8(line).ok())
            .flat_map(MediaTypeList::new)
            .flatten()
            .filter_map(|range| Some((Format::of(&range)?, quality(&range)?)))
            .zip(0_usize..)
            // The first one of the best.
            .max_by_key(|&((_, quality), nth)| (quality, Reverse(nth)))
            .map_or(Format::Json, |((format, _), _)| format)
    }

    /// The format of a media range.
    fn of(range: &MediaType<'_>) -> Option<Self> {
        let ranges = [
            ((APPLICATION, JSON), Format::Json),
            ((APPLICATION, _STAR), Format::Json),
            ((_STAR, _STAR), Format::Json),
            ((TEXT, PLAIN), Format::Prometheus),
            ((TEXT, HTML), Format::Html),
        ];
        let found = ranges.into_iter().find(|&(names, _)| names == (range.ty, range.subty));
        found.map(|(_, format)| format)
    }

    /// The `Content-Type`, without parameters.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Json => "application/json",
            Format::Prometheus => "text/plain",
            Format::Html => "text/html",
        }
    }

    /// The `charset` of the `Content-Type`, if it has one, and what nginx is to add behind it:
    /// `gzip_types` and the like only know types without parameters.
    pub fn charset(self) -> &'static str {
        match self {
            Format::Json => "",
            Format::Prometheus => "utf-8; version=0.0.4",
            Format::Html => "utf-8",
        }
    }
}

/// The weight of a media range, in thousandths; `None` if it is not wanted at all, or there is no
/// such weight.
fn quality(range: &MediaType<'_>) -> Option<u16> {
    const Q: Name<'_> = Name::new_unchecked("q");
    let Some(weight) = range.get_param(Q) else { return Some(1000) };
    let weight: f32 = weight.as_str().parse().ok()?;
    (weight > 0.0 && weight <= 1.0).then_some((weight * 1000.0) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(lines: &[&str]) -> Format {
        Format::accepted(lines.iter().map(|line| line.as_bytes()))
    }

    #[test]
    fn clients_get_what_they_prefer() {
        for (line, expected) in [
            // curl
            ("*/*", Format::Json),
            // Firefox
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", Format::Html),
            // Prometheus 2.53
            (
                "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;\
                 version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
                Format::Prometheus,
            ),
            ("application/json", Format::Json),
            ("Text/HTML", Format::Html),
            ("text/plain", Format::Prometheus),
            ("text/html;q=0.5, application/json;q=0.6", Format::Json),
            ("text/html;q=0.6, application/json;q=0.5", Format::Html),
            ("text/html;q=0.123, application/json;q=0.122", Format::Html),
            ("text/html, text/plain", Format::Html),
            ("text/plain, text/html", Format::Prometheus),
            ("text/html;q=0, */*;q=0.1", Format::Json),
            ("application/*, text/html;q=0.9", Format::Json),
        ] {
            assert_eq!(accepted(&[line]), expected, "{line}");
        }
        assert_eq!(accepted(&["text/html;q=0.5", "text/plain"]), Format::Prometheus);
    }

    #[test]
    fn who_wants_nothing_of_it_gets_json() {
        for line in ["", ",", "image/png", "text/html;q=0", "text/html;q=2", "text/html;q=x", "%"] {
            assert_eq!(accepted(&[line]), Format::Json, "{line}");
        }
        assert_eq!(accepted(&[]), Format::Json);
        assert_eq!(Format::accepted([&b"text/\xff"[..]].into_iter()), Format::Json);
    }

    #[test]
    fn names() {
        assert_eq!(Format::named(b"json"), Some(Format::Json));
        assert_eq!(Format::named(b"prometheus"), Some(Format::Prometheus));
        assert_eq!(Format::named(b"html"), Some(Format::Html));
        for name in ["", "JSON", "xml", "json "] {
            assert_eq!(Format::named(name.as_bytes()), None, "{name}");
        }
    }
}

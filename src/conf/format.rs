//! The formats of the status.

#![forbid(unsafe_code)]

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

    /// The `Content-Type`, without parameters.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Json => "application/json",
            Format::Prometheus => "text/plain",
            Format::Html => "text/html",
        }
    }

    /// The `charset` of the `Content-Type`, if it has one, and the parameters that nginx adds after
    /// it: `gzip_types` and similar directives only know types without parameters.
    pub fn charset(self) -> &'static str {
        match self {
            Format::Json => "",
            Format::Prometheus => "utf-8; version=0.0.4",
            Format::Html => "utf-8",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

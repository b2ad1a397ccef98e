//! The grammar of the `keepalive_status` directive's arguments.

#![forbid(unsafe_code)]

use super::format::Format;
use super::params::Error;

/// The arguments of one `keepalive_status` directive.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct StatusParams {
    /// The format; `None` if the client chooses.
    pub format: Option<Format>,
    /// Whether slices are listed.
    pub slices: bool,
}

/// Parses the arguments of `keepalive_status`.
///
/// # Errors
///
/// The first argument that is wrong.
pub fn parse_status<'a>(
    args: impl IntoIterator<Item = &'a [u8]>,
) -> Result<StatusParams, Error<'a>> {
    let mut params = StatusParams::default();
    for arg in args {
        match (Format::named(arg), arg) {
            (Some(format), _) if params.format.is_none() && !params.slices => {
                params.format = Some(format);
            }
            (None, b"slices") if !params.slices => params.slices = true,
            (None, b"slices") => return Err(Error::Duplicate(arg)),
            _ => return Err(Error::Parameter(arg)),
        }
    }
    Ok(params)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status() {
        let parsed = |line: &'static str| parse_status(line.split_whitespace().map(str::as_bytes));
        let json = Some(Format::Json);
        for (line, format, slices) in [
            ("", None, false),
            ("json", json, false),
            ("json slices", json, true),
            ("slices", None, true),
        ] {
            assert_eq!(parsed(line), Ok(StatusParams { format, slices }), "{line}");
        }
        for line in ["xml", "json html", "json json", "slices json", "slices=on", "JSON"] {
            let wrong = line.split(' ').next_back().unwrap().as_bytes();
            assert_eq!(parsed(line), Err(Error::Parameter(wrong)), "{line}");
        }
        assert_eq!(parsed("slices slices"), Err(Error::Duplicate(b"slices")));
    }
}

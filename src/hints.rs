//! The grammar of the `Keep-Alive` response header, in which a server announces how long it keeps
//! an idle connection and how many more requests it accepts.
//!
//! ```text
//! Keep-Alive: timeout=5, max=100
//! ```
//!
//! RFC 2068, section 19.7.1.1, defined the header as a list of parameters. Apache, Node, Jetty and
//! Tomcat send `timeout`, in seconds, and some of them `max`, in requests.

#![forbid(unsafe_code)]

use nom::branch::alt;
use nom::bytes::complete::{tag_no_case, take, take_while, take_while1};
use nom::character::complete::{char, digit1};
use nom::combinator::{all_consuming, map, opt, peek, recognize, value};
use nom::multi::many0_count;
use nom::sequence::{delimited, preceded, terminated};
use nom::{IResult, Parser};

/// The hints of a server about its connection. `None`: the server gave no such hint.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Hints {
    /// The time for which it keeps an idle connection, in seconds.
    pub timeout: Option<u32>,
    /// The number of further requests that it accepts.
    pub max: Option<u32>,
}

/// A header that is not a list of parameters, or has a `timeout` or `max` that is not a number.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Malformed;

impl Hints {
    /// Parses the value of one `Keep-Alive` header line.
    ///
    /// For a repeated parameter, the smallest value applies. A number that is too large becomes the
    /// largest one.
    ///
    /// # Errors
    ///
    /// [`Malformed`]: the whole line is then ignored.
    pub fn parse(line: &[u8]) -> Result<Hints, Malformed> {
        all_consuming(list).parse(line).map(|(_, hints)| hints).map_err(|_| Malformed)
    }

    /// Joins the hints of two lines; the smaller values apply.
    #[must_use]
    pub fn and(self, other: Hints) -> Hints {
        Hints { timeout: smaller(self.timeout, other.timeout), max: smaller(self.max, other.max) }
    }

    /// The time for which the connection may be idle, in milliseconds, so that it is closed
    /// `margin` milliseconds before the server closes it: `Some(0)` if it may not be idle, `None`
    /// if there is no limit.
    pub fn idle_limit(self, margin: u64) -> Option<u64> {
        if self.max == Some(0) {
            return Some(0);
        }
        self.timeout.map(|seconds| u64::from(seconds).saturating_mul(1000).saturating_sub(margin))
    }
}

/// The smaller of two values; `None` is no value.
fn smaller<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// `#( parameter )`, where elements may be empty: RFC 9110, section 5.6.1.2.
fn list(mut input: &[u8]) -> IResult<&[u8], Hints> {
    let mut hints = Hints::default();
    loop {
        let element = delimited(space, opt(parameter), space);
        let (rest, found) = terminated(element, peek(end_of_element)).parse(input)?;
        hints = hints.and(found.unwrap_or_default());
        match rest.split_first() {
            Some((_, rest)) => input = rest,
            None => return Ok((rest, hints)),
        }
    }
}

fn end_of_element(input: &[u8]) -> IResult<&[u8], ()> {
    alt((value((), char(',')), value((), nom::combinator::eof))).parse(input)
}

fn parameter(input: &[u8]) -> IResult<&[u8], Hints> {
    alt((
        map(preceded(name("timeout"), number), |n| Hints { timeout: Some(n), max: None }),
        map(preceded(name("max"), number), |n| Hints { timeout: None, max: Some(n) }),
        value(Hints::default(), unknown),
    ))
    .parse(input)
}

/// A parameter's name and the `=`; spaces are allowed.
fn name<'a>(name: &'static str) -> impl Parser<&'a [u8], Output = &'a [u8], Error = Error<'a>> {
    recognize((tag_no_case(name), space, char('='), space))
}

type Error<'a> = nom::error::Error<&'a [u8]>;

/// A decimal number, also in quotes.
fn number(input: &[u8]) -> IResult<&[u8], u32> {
    map(alt((delimited(char('"'), digit1, char('"')), digit1)), |digits: &[u8]| {
        let digit = |n: u32, d: &u8| n.saturating_mul(10).saturating_add(u32::from(d & 0x0f));
        digits.iter().fold(0, digit)
    })
    .parse(input)
}

/// A parameter with another name; its value may be missing.
fn unknown(input: &[u8]) -> IResult<&[u8], &[u8]> {
    let known =
        |name: &[u8]| name.eq_ignore_ascii_case(b"timeout") || name.eq_ignore_ascii_case(b"max");
    let name = nom::combinator::verify(token, move |name: &[u8]| !known(name));
    let value = (space, char('='), space, alt((token, quoted_string)));
    recognize((name, opt(value))).parse(input)
}

/// RFC 9110, section 5.6.2.
fn token(input: &[u8]) -> IResult<&[u8], &[u8]> {
    take_while1(|byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
        .parse(input)
}

/// RFC 9110, section 5.6.4.
fn quoted_string(input: &[u8]) -> IResult<&[u8], &[u8]> {
    let text = take_while1(|byte| byte != b'"' && byte != b'\\');
    let escaped = preceded(char('\\'), take(1usize));
    recognize(delimited(char('"'), many0_count(alt((text, escaped))), char('"'))).parse(input)
}

/// Optional white space: RFC 9110, section 5.6.3.
fn space(input: &[u8]) -> IResult<&[u8], &[u8]> {
    take_while(|byte| byte == b' ' || byte == b'\t').parse(input)
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hints(timeout: impl Into<Option<u32>>, max: impl Into<Option<u32>>) -> Hints {
        Hints { timeout: timeout.into(), max: max.into() }
    }

    #[test]
    fn what_servers_send() {
        for (line, expected) in [
            ("timeout=5, max=100", hints(5, 100)),
            ("timeout=5", hints(5, None)),
            ("max=100", hints(None, 100)),
            ("timeout=15,max=99", hints(15, 99)),
            ("300", hints(None, None)),
            ("", hints(None, None)),
        ] {
            assert_eq!(Hints::parse(line.as_bytes()), Ok(expected), "{line}");
        }
    }

    #[test]
    fn forms_that_mean_the_same() {
        for line in [
            "timeout=5, max=7",
            "max=7, timeout=5",
            "TimeOut=5, MAX=7",
            " \ttimeout=5 ,\tmax=7 ",
            "timeout = 5 , max =\t7",
            "timeout=\"5\", max=\"7\"",
            ", ,timeout=5,,, max=7,",
            "timeout=005, max=7",
            "timeout=5, max=7, timeout=6, max=8",
            "timeout=6, timeout=5, max=9, max=7",
            "x, timeout=5, y=1, z=\"a, timeout=1\\\", max=1\", max=7, timeouts=1, maximum=1",
        ] {
            assert_eq!(Hints::parse(line.as_bytes()), Ok(hints(5, 7)), "{line}");
        }
    }

    #[test]
    fn malformed() {
        for line in [
            "timeout",
            "timeout=",
            "max",
            "max=",
            "timeout=a",
            "timeout=-1",
            "timeout=+5",
            "timeout=5s",
            "timeout=1.5",
            "timeout=0x5",
            "timeout=\"5",
            "timeout=5\"",
            "timeout=\"\"",
            "timeout=\" 5\"",
            "timeout=5 max=7",
            "timeout=5; max=7",
            "timeout:5",
            "=5",
            "x=",
            "x=\"a",
            "x=\"a\\\"",
            "timeout=5, max=\"7\"x",
            "timeout=5, \u{e9}=1",
            "timeout=5\0",
        ] {
            assert_eq!(Hints::parse(line.as_bytes()), Err(Malformed), "{line}");
        }
    }

    #[test]
    fn overlong_numbers_are_the_largest() {
        for digits in ["4294967295", "4294967296", "18446744073709551616", &"9".repeat(1000)] {
            let line = format!("timeout={digits}, max={digits}");
            assert_eq!(Hints::parse(line.as_bytes()), Ok(hints(u32::MAX, u32::MAX)), "{line}");
        }
    }

    #[test]
    fn lines_are_joined() {
        assert_eq!(hints(5, None).and(hints(7, 3)), hints(5, 3));
        assert_eq!(hints(None, 4).and(hints(7, 3)), hints(7, 3));
        assert_eq!(hints(None, None).and(hints(None, None)), hints(None, None));
    }

    #[test]
    fn idle_limits() {
        for (said, margin, expected) in [
            (hints(None, None), 1000, None),
            (hints(None, 1), 1000, None),
            (hints(5, None), 1000, Some(4000)),
            (hints(5, 1), 0, Some(5000)),
            (hints(5, 0), 0, Some(0)),
            (hints(None, 0), 1000, Some(0)),
            (hints(1, None), 1000, Some(0)),
            (hints(1, None), 999, Some(1)),
            (hints(0, None), 0, Some(0)),
            (hints(1, None), u64::MAX, Some(0)),
            (hints(u32::MAX, None), 0, Some(4_294_967_295_000)),
        ] {
            assert_eq!(said.idle_limit(margin), expected, "{said:?} {margin}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 20_000, ..ProptestConfig::default() })]

        #[test]
        fn no_bytes_make_it_panic(line: Vec<u8>) {
            let _ = Hints::parse(&line);
        }

        /// Lists of elements whose meaning is known when they are made.
        #[test]
        fn numbers_are_what_their_digits_say(
            elements in proptest::collection::vec(element(), 0..6),
            comma in prop_oneof![Just(","), Just(", "), Just(" ,\t,")],
        ) {
            let line = elements.iter().map(|(text, _)| &text[..]).collect::<Vec<_>>().join(comma);
            let expected = elements.iter().try_fold(Hints::default(), |hints, (_, said)| {
                said.map(|said| hints.and(said))
            });
            prop_assert_eq!(Hints::parse(line.as_bytes()).ok(), expected, "{}", line);
        }

        /// Texts that are nearly headers: a number is taken only from `name=digits`, whole.
        #[test]
        fn no_number_comes_from_nowhere(
            line in "([tT]imeout|max|x|,| |=|\"|\\\\|-|[0-9]{1,12}){0,12}",
        ) {
            if let Ok(said) = Hints::parse(line.as_bytes()) {
                let numbers: Vec<u32> = line
                    .split(|c: char| !c.is_ascii_digit())
                    .filter(|digits| !digits.is_empty())
                    .map(|digits| digits.parse().unwrap_or(u32::MAX))
                    .collect();
                for number in [said.timeout, said.max].into_iter().flatten() {
                    prop_assert!(numbers.contains(&number), "{}", line);
                }
            }
        }
    }

    /// The grammar once more, by splitting and trimming.
    fn naive(line: &[u8]) -> Result<Hints, Malformed> {
        let (mut elements, mut quoted, mut escaped) = (vec![vec![]], false, false);
        for &byte in line {
            match byte {
                b',' if !quoted => {
                    elements.push(vec![]);
                    continue;
                }
                b'"' if !escaped => quoted = !quoted,
                _ => {}
            }
            escaped = quoted && byte == b'\\' && !escaped;
            elements.last_mut().unwrap().push(byte);
        }
        let mut hints = Hints::default();
        for element in elements {
            let element = trim(&element);
            let mut parts = element.splitn(2, |&byte| byte == b'=');
            let name = trim(parts.next().unwrap()).to_ascii_lowercase();
            let value = parts.next().map(trim);
            let known = name == b"timeout" || name == b"max";
            match value.and_then(|value| naive_number(value).filter(|_| known)) {
                Some(n) if name == b"max" => hints = hints.and(self::hints(None, n)),
                Some(n) => hints = hints.and(self::hints(n, None)),
                None if element.is_empty() => {}
                None if known || !is_token(&name) => return Err(Malformed),
                None if !value.is_none_or(|value| is_token(value) || is_quoted(value)) => {
                    return Err(Malformed);
                }
                None => {}
            }
        }
        Ok(hints)
    }

    fn trim(text: &[u8]) -> &[u8] {
        let is_space = |byte: &u8| b" \t".contains(byte);
        let start = text.iter().position(|byte| !is_space(byte)).unwrap_or(text.len());
        let end = text.iter().rposition(|byte| !is_space(byte)).map_or(start, |end| end + 1);
        &text[start..end]
    }

    fn naive_number(value: &[u8]) -> Option<u32> {
        let bare = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
        let digits = core::str::from_utf8(bare.unwrap_or(value)).ok()?;
        let all = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        all.then(|| digits.parse().unwrap_or(u32::MAX))
    }

    fn is_token(text: &[u8]) -> bool {
        let special = b"\"(),/:;<=>?@[\\]{}";
        !text.is_empty()
            && text.iter().all(|byte| byte.is_ascii_graphic() && !special.contains(byte))
    }

    /// Whether the first quote is closed by the last byte, and by no other.
    fn is_quoted(text: &[u8]) -> bool {
        let mut escaped = false;
        let closed = text.iter().skip(1).position(|&byte| {
            let closes = byte == b'"' && !escaped;
            escaped = byte == b'\\' && !escaped;
            closes
        });
        text.first() == Some(&b'"') && closed == Some(text.len().wrapping_sub(2))
    }

    /// `cargo test --release -- --ignored`: ten million texts made of parts of headers.
    #[test]
    #[ignore = "takes long unless optimised"]
    fn ten_million_texts_mean_what_they_say() {
        const PIECES: [&[u8]; 20] = [
            b"timeout=",
            b"max=",
            b"timeout",
            b"max",
            b"Max=5",
            b"x",
            b"x=",
            b"=",
            b"=",
            b",",
            b",",
            b", ",
            b" ",
            b"\t",
            b"\"",
            b"\"",
            b"\\",
            b"5",
            b"0",
            b"99999999999",
        ];
        let mut state: u64 = 1;
        let mut random = || {
            // SplitMix64.
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (z ^ (z >> 31)) as usize
        };
        let (mut line, mut accepted) = (Vec::new(), 0);
        for _ in 0..10_000_000 {
            line.clear();
            for _ in 0..random() % 12 {
                match random() % 32 {
                    31 => line.push(random() as u8),
                    n => line.extend_from_slice(PIECES[n % PIECES.len()]),
                }
            }
            let said = Hints::parse(&line);
            assert_eq!(said, naive(&line), "{}", line.escape_ascii());
            accepted += usize::from(said.is_ok_and(|said| said != Hints::default()));
        }
        assert!(accepted > 100_000, "{accepted}");
    }

    /// An element and its hints; `None` if it is malformed.
    fn element() -> impl Strategy<Value = (String, Option<Hints>)> {
        let said = |name: &str, n: u64| {
            let n = u32::try_from(n).unwrap_or(u32::MAX);
            Some(if name == "timeout" { hints(n, None) } else { hints(None, n) })
        };
        let name = prop_oneof![Just("timeout"), Just("max")];
        prop_oneof![
            4 => (name.clone(), any::<u64>())
                .prop_map(move |(name, n)| (format!("{name}={n}"), said(name, n))),
            2 => (name.clone(), 0..100u64)
                .prop_map(move |(name, n)| (format!("{name} = \"{n}\""), said(name, n))),
            2 => "[a-l]{1,6}(=[a-z0-9]{1,4}|=\"[ -!#-\\[\\]-~]{0,6}\")?"
                .prop_map(|text| (text, Some(Hints::default()))),
            1 => (name, "[a-z-][0-9]{0,3}")
                .prop_map(|(name, text)| (format!("{name}={text}"), None)),
        ]
    }
}

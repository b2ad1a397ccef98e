//! The grammar of the `keepalive` directive's arguments.

#![forbid(unsafe_code)]

use nom::branch::alt;
use nom::bytes::complete::{tag, take_while1};
use nom::character::complete::digit1;
use nom::combinator::{all_consuming, map, map_opt, recognize, rest, value, verify};
use nom::sequence::{delimited, preceded};
use nom::{IResult, Parser};

/// The arguments of one `keepalive` directive. `None` is a parameter that was not given.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Params<'a> {
    /// Most idle connections.
    pub connections: u32,
    /// The key.
    pub slice_key: Option<Value<'a>>,
    /// Most idle connections of one key.
    pub slice_conn: Option<u32>,
    /// The most idle connections of one key, as a text with variables.
    pub slice_dyn: Option<Value<'a>>,
    /// Most slices that hold idle connections at once.
    pub slice_poolsize: Option<u32>,
    /// Longest slice key, in bytes.
    pub slice_keylen: Option<u16>,
    /// Connections whose key is longer are not kept.
    pub slice_strict: bool,
    /// Connections are reused within one location only.
    pub local: bool,
    /// The limits hold over all workers, which share their connections.
    pub shared: bool,
    /// Accepted for old configurations; no effect.
    pub single: bool,
}

impl Params<'_> {
    /// The names of the parameters that were given and have no effect without `slice_key`.
    pub fn without_key(&self) -> impl Iterator<Item = &'static str> {
        let given = [
            ("slice_conn", self.slice_conn.is_some()),
            ("slice_dyn", self.slice_dyn.is_some()),
            ("slice_poolsize", self.slice_poolsize.is_some()),
            ("slice_keylen", self.slice_keylen.is_some()),
            ("slice_strict", self.slice_strict),
        ];
        let keyed = self.slice_key.is_some();
        given.into_iter().filter(move |(_, given)| *given && !keyed).map(|(name, _)| name)
    }
}

/// A value that can differ by request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Value<'a> {
    /// The name of a variable, which is the value.
    Variable(&'a [u8]),
    /// Text with variables, or a constant.
    Text(&'a [u8]),
}

/// An error, with the argument.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Error<'a> {
    /// The number of connections is not a number.
    Value(&'a [u8]),
    /// The parameter is unknown, or its value is invalid.
    Parameter(&'a [u8]),
    /// The parameter was given before.
    Duplicate(&'a [u8]),
}

#[derive(Clone, Copy)]
enum Param<'a> {
    SliceKey(Value<'a>),
    SliceConn(u32),
    SliceDyn(Value<'a>),
    SlicePoolsize(u32),
    SliceKeylen(u16),
    SliceStrict,
    Local,
    Shared,
    Single,
}

/// Parses the arguments that follow the directive's name.
///
/// # Errors
///
/// The first argument is not a number, or one of the others is not a parameter.
pub fn parse<'a>(args: impl IntoIterator<Item = &'a [u8]>) -> Result<Params<'a>, Error<'a>> {
    let mut args = args.into_iter();
    let first = args.next().unwrap_or_default();
    let connections = number(first).ok_or(Error::Value(first))?;
    let mut params = Params { connections, ..Params::default() };

    for arg in args {
        let (_, param) = all_consuming(param).parse(arg).map_err(|_| Error::Parameter(arg))?;
        if !set(&mut params, param) {
            return Err(Error::Duplicate(arg));
        }
    }
    Ok(params)
}

/// The arguments of `keepalive_hints`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HintsParams {
    /// `off`.
    Off,
    /// `on`.
    On {
        /// The `margin` if it was given, in milliseconds.
        margin: Option<usize>,
        /// `learn`.
        learn: bool,
    },
}

/// Parses the arguments that follow `keepalive_hints`. `time` parses a time as nginx writes it
/// into milliseconds.
///
/// # Errors
///
/// The first argument is neither `on` nor `off`, or one of the others is no parameter of it.
pub fn parse_hints<'a>(
    args: impl IntoIterator<Item = &'a [u8]>,
    time: impl Fn(&[u8]) -> Option<usize>,
) -> Result<HintsParams, Error<'a>> {
    let mut args = args.into_iter();
    match args.next().unwrap_or_default() {
        b"off" => args.next().map_or(Ok(HintsParams::Off), |param| Err(Error::Parameter(param))),
        b"on" => parse_hints_on(args, time),
        value => Err(Error::Value(value)),
    }
}

type Nom<'a> = nom::Err<nom::error::Error<&'a [u8]>>;

fn parse_hints_on<'a>(
    args: impl Iterator<Item = &'a [u8]>,
    time: impl Fn(&[u8]) -> Option<usize>,
) -> Result<HintsParams, Error<'a>> {
    let (mut margin, mut learn) = (None, false);
    for arg in args {
        let param =
            (map(map_opt(preceded(tag("margin="), text), &time), Some), value(None, tag("learn")));
        let (_, param): (&[u8], _) =
            all_consuming(alt(param)).parse(arg).map_err(|_: Nom<'_>| Error::Parameter(arg))?;
        let is_new = match param {
            Some(time) => margin.replace(time).is_none(),
            None => !core::mem::replace(&mut learn, true),
        };
        if !is_new {
            return Err(Error::Duplicate(arg));
        }
    }
    Ok(HintsParams::On { margin, learn })
}

/// Parses a number of connections or slices: decimal digits alone, as `ngx_atoi()`.
pub fn number(text: &[u8]) -> Option<u32> {
    all_consuming(digits).parse(text).ok().map(|(_, number)| number)
}

/// Stores a parameter; false if it was given before.
fn set<'a>(params: &mut Params<'a>, param: Param<'a>) -> bool {
    match param {
        Param::SliceKey(text) => params.slice_key.replace(text).is_none(),
        Param::SliceConn(number) => params.slice_conn.replace(number).is_none(),
        Param::SliceDyn(text) => params.slice_dyn.replace(text).is_none(),
        Param::SlicePoolsize(number) => params.slice_poolsize.replace(number).is_none(),
        Param::SliceKeylen(length) => params.slice_keylen.replace(length).is_none(),
        Param::SliceStrict => !core::mem::replace(&mut params.slice_strict, true),
        Param::Local => !core::mem::replace(&mut params.local, true),
        Param::Shared => !core::mem::replace(&mut params.shared, true),
        Param::Single => !core::mem::replace(&mut params.single, true),
    }
}

fn param(arg: &[u8]) -> IResult<&[u8], Param<'_>> {
    alt((
        map(preceded(tag("slice_key="), slice_key), Param::SliceKey),
        map(preceded(tag("slice_conn="), digits), Param::SliceConn),
        map(preceded(tag("slice_dyn="), slice_dyn), Param::SliceDyn),
        map(preceded(tag("slice_poolsize="), digits), Param::SlicePoolsize),
        map(preceded(tag("slice_keylen="), length), Param::SliceKeylen),
        value(Param::SliceStrict, tag("slice_strict")),
        value(Param::Local, tag("local")),
        value(Param::Shared, tag("shared")),
        value(Param::Single, tag("single")),
    ))
    .parse(arg)
}

/// Any text that is not empty.
fn text(input: &[u8]) -> IResult<&[u8], &[u8]> {
    verify(rest, |text: &[u8]| !text.is_empty()).parse(input)
}

/// A number that fits. The largest one is invalid, so that any limit can be exceeded.
fn digits(input: &[u8]) -> IResult<&[u8], u32> {
    let parse = |digits: &[u8]| core::str::from_utf8(digits).ok()?.parse().ok();
    verify(map_opt(digit1, parse), |&number| number < u32::MAX).parse(input)
}

/// A length in bytes; not zero, since all keys would be equal then.
fn length(input: &[u8]) -> IResult<&[u8], u16> {
    verify(map_opt(digits, |number| number.try_into().ok()), |&length| length > 0).parse(input)
}

fn slice_key(input: &[u8]) -> IResult<&[u8], Value<'_>> {
    alt((map(variable, Value::Variable), map(text, Value::Text))).parse(input)
}

fn slice_dyn(input: &[u8]) -> IResult<&[u8], Value<'_>> {
    let constant = all_consuming(recognize(digits));
    let name = verify(all_consuming(take_while1(is_of_name)), |name: &[u8]| {
        !name.iter().all(u8::is_ascii_digit)
    });
    let with_variable = verify(text, |text: &[u8]| text.contains(&b'$'));

    alt((
        map(constant, Value::Text),
        map(alt((variable, name)), Value::Variable),
        map(with_variable, Value::Text),
    ))
    .parse(input)
}

/// A variable and no other text. A name that begins with a digit would be a capture.
fn variable(input: &[u8]) -> IResult<&[u8], &[u8]> {
    let name = || {
        verify(take_while1(is_of_name), |name: &[u8]| !name.first().is_some_and(u8::is_ascii_digit))
    };
    let braces = delimited(tag("${"), name(), tag("}"));
    all_consuming(alt((braces, preceded(tag("$"), name())))).parse(input)
}

fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(line: &str) -> Result<Params<'_>, Error<'_>> {
        parse(line.split(' ').map(str::as_bytes))
    }

    #[test]
    fn all_parameters_in_any_order() {
        let all = Params {
            connections: 30,
            slice_key: Some(Value::Variable(b"host")),
            slice_conn: Some(2),
            slice_dyn: Some(Value::Variable(b"conn")),
            slice_poolsize: Some(50),
            slice_keylen: Some(64),
            slice_strict: true,
            local: true,
            shared: true,
            single: true,
        };
        let line = "30 slice_key=$host slice_conn=2 slice_dyn=$conn slice_poolsize=50 \
                    slice_keylen=64 slice_strict local shared single";
        assert_eq!(parsed(line), Ok(all));

        let (first, others) = line.split_once(' ').unwrap();
        let mut others: Vec<&str> = others.split(' ').collect();
        others.reverse();
        assert_eq!(parsed(&format!("{first} {}", others.join(" "))), Ok(all));
    }

    #[test]
    fn connections_alone() {
        assert_eq!(parsed("1"), Ok(Params { connections: 1, ..Params::default() }));
        assert_eq!(parsed("0"), Ok(Params::default()));
    }

    #[test]
    fn connections_must_be_a_number() {
        for value in
            ["", "a", "-1", "+1", "1k", "0x10", "1.5", "4294967295", "99999999999999999999", " 1"]
        {
            assert_eq!(parse([value.as_bytes()]), Err(Error::Value(value.as_bytes())), "{value}");
        }
        assert_eq!(parse([]), Err(Error::Value(b"")));
        assert_eq!(parsed("slice_key=$host 30"), Err(Error::Value(b"slice_key=$host")));
        assert_eq!(parsed("4294967294").unwrap().connections, u32::MAX - 1);
    }

    #[test]
    fn invalid_parameters() {
        for arg in [
            "",
            "slice_key",
            "slice_key=",
            "Slice_key=$host",
            "slice_conn",
            "slice_conn=",
            "slice_conn=abc",
            "slice_conn=-1",
            "slice_conn=+1",
            "slice_conn=0x1",
            "slice_conn=1m",
            "slice_conn=4294967295",
            "slice_connX=1",
            "slice_con=1",
            "slice_dyn",
            "slice_dyn=",
            "slice_dyn=conn-x",
            "slice_dyn=99999999999",
            "slice_poolsize=",
            "slice_poolsize=many",
            "slice_keylen=",
            "slice_keylen=0",
            "slice_keylen=65536",
            "slice_strict=",
            "slice_strict=on",
            "slice_stricter",
            "local=1",
            "locale",
            "shareds",
            "shared=on",
            "singles",
            "timeout=1",
            "20",
        ] {
            let error = Err(Error::Parameter(arg.as_bytes()));
            assert_eq!(parse([b"1".as_slice(), arg.as_bytes()]), error, "{arg}");
        }
    }

    #[test]
    fn duplicates() {
        for (first, second) in [
            ("slice_key=$host", "slice_key=$uri"),
            ("slice_conn=1", "slice_conn=1"),
            ("slice_dyn=$a", "slice_dyn=b"),
            ("slice_poolsize=1", "slice_poolsize=2"),
            ("slice_keylen=1", "slice_keylen=2"),
            ("slice_strict", "slice_strict"),
            ("local", "local"),
            ("shared", "shared"),
            ("single", "single"),
        ] {
            let line = format!("1 {first} {second}");
            assert_eq!(parsed(&line), Err(Error::Duplicate(second.as_bytes())));
        }
    }

    #[test]
    fn zero_is_a_limit() {
        let params = parsed("0 slice_key=a slice_conn=0 slice_poolsize=0").unwrap();
        assert_eq!((params.slice_conn, params.slice_poolsize), (Some(0), Some(0)));
    }

    #[test]
    fn forms_of_slice_dyn() {
        for (value, expected) in [
            ("conn", Value::Variable(b"conn")),
            ("conn_2", Value::Variable(b"conn_2")),
            ("2conn", Value::Variable(b"2conn")),
            ("$conn", Value::Variable(b"conn")),
            ("${conn}", Value::Variable(b"conn")),
            ("$2", Value::Text(b"$2")),
            ("1$conn", Value::Text(b"1$conn")),
            ("${conn}0", Value::Text(b"${conn}0")),
            ("$", Value::Text(b"$")),
            ("12", Value::Text(b"12")),
        ] {
            let line = format!("1 slice_dyn={value}");
            assert_eq!(parsed(&line).unwrap().slice_dyn, Some(expected), "{value}");
        }
    }

    #[test]
    fn forms_of_slice_key() {
        for (value, expected) in [
            ("$host", Value::Variable(b"host")),
            ("${host}", Value::Variable(b"host")),
            ("$_1", Value::Variable(b"_1")),
            ("host", Value::Text(b"host")),
            ("$host:", Value::Text(b"$host:")),
            ("$host$uri", Value::Text(b"$host$uri")),
            ("${host}$", Value::Text(b"${host}$")),
            ("${host", Value::Text(b"${host")),
            ("${}", Value::Text(b"${}")),
            ("$", Value::Text(b"$")),
            ("$1", Value::Text(b"$1")),
            ("${1}", Value::Text(b"${1}")),
            ("1", Value::Text(b"1")),
        ] {
            let line = format!("1 slice_key={value}");
            assert_eq!(parsed(&line).unwrap().slice_key, Some(expected), "{value}");
        }
    }

    #[test]
    fn a_key_may_hold_anything() {
        let key = b"slice_key=a=b $host \xff\"";
        let expected = Some(Value::Text(&key[10..]));
        assert_eq!(parse([b"1".as_slice(), key]).unwrap().slice_key, expected);
    }

    #[test]
    fn parameters_that_need_a_key() {
        let names = |line: &str| parsed(line).unwrap().without_key().collect::<Vec<_>>();
        let all = "1 slice_strict slice_keylen=1 slice_poolsize=1 slice_dyn=1 slice_conn=1";
        let expected =
            ["slice_conn", "slice_dyn", "slice_poolsize", "slice_keylen", "slice_strict"];
        assert_eq!(names(all), expected);
        assert_eq!(names(&format!("{all} slice_key=a")), [""; 0]);
        assert_eq!(names("1 local single"), [""; 0]);
    }

    #[test]
    fn arguments_of_keepalive_hints() {
        let time = |text: &[u8]| core::str::from_utf8(text).ok()?.parse().ok();
        let parsed = |line: &'static str| parse_hints(line.split(' ').map(str::as_bytes), time);
        assert_eq!(parsed("off"), Ok(HintsParams::Off));
        for (line, margin, learn) in [
            ("on", None, false),
            ("on margin=5", Some(5), false),
            ("on learn", None, true),
            ("on margin=5 learn", Some(5), true),
            ("on learn margin=5", Some(5), true),
        ] {
            assert_eq!(parsed(line), Ok(HintsParams::On { margin, learn }), "{line}");
        }
        for value in ["", "On", "yes", "margin=5"] {
            assert_eq!(parsed(value), Err(Error::Value(value.as_bytes())), "{value}");
        }
        for line in [
            "on margin=",
            "on margin=x",
            "on margin",
            "on margn=5",
            "on learn margin",
            "on margin=5 learned",
            "on learn=1",
            "off margin=5",
            "off learn",
        ] {
            let param = line.split(' ').next_back().unwrap();
            assert_eq!(parsed(line), Err(Error::Parameter(param.as_bytes())), "{line}");
        }
        for line in ["on margin=5 margin=5", "on learn learn", "on learn margin=1 margin=2"] {
            let param = line.split(' ').next_back().unwrap();
            assert_eq!(parsed(line), Err(Error::Duplicate(param.as_bytes())), "{line}");
        }
    }

    #[test]
    fn numbers() {
        for (text, expected) in [
            ("0", Some(0)),
            ("007", Some(7)),
            ("4294967294", Some(4294967294)),
            ("4294967295", None),
            ("", None),
            (" 1", None),
            ("1 ", None),
            ("-1", None),
            ("1e3", None),
        ] {
            assert_eq!(number(text.as_bytes()), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(args: Vec<Vec<u8>>) {
            let _ = parse(args.iter().map(Vec::as_slice));
        }

        #[test]
        fn a_number_is_what_its_digits_say(text in "[0-9+ -]{0,12}") {
            let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            let expected = text.parse::<u32>().ok().filter(|&n| digits && n < u32::MAX);
            prop_assert_eq!(number(text.as_bytes()), expected);
        }
    }
}

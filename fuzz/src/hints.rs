//! The grammar of the `Keep-Alive` response header, by splitting and trimming.

use crate::module::hints::{Hints, Malformed};

/// In milliseconds; around what is written most often, and the ends.
const MARGINS: [u64; 5] = [0, 1, 1000, 5000, u64::MAX];

/// Lines of one response, with what they say together.
pub fn check(input: &[u8]) {
    let mut hints = Hints::default();
    let mut expected = (None, None);
    for line in input.split(|&byte| byte == b'\n') {
        let said = Hints::parse(line);
        let naive = naive(line);
        let pair = said.map(|hints| (hints.timeout, hints.max));
        assert_eq!(pair, naive, "{}", line.escape_ascii());
        if let (Ok(said), Ok((timeout, max))) = (said, naive) {
            hints = hints.and(said);
            expected = (smallest(expected.0, timeout), smallest(expected.1, max));
        }
    }
    assert_eq!((hints.timeout, hints.max), expected);
    for margin in MARGINS {
        assert_eq!(hints.idle_limit(margin), naive_limit(expected, margin), "{margin}");
    }
}

type Said = (Option<u32>, Option<u32>);

fn naive_limit((timeout, max): Said, margin: u64) -> Option<u64> {
    let margin = i128::from(margin);
    let left = timeout.map(|seconds| (i128::from(seconds) * 1000 - margin).max(0) as u64);
    if max == Some(0) { Some(0) } else { left }
}

fn smallest(a: Option<u32>, b: Option<u32>) -> Option<u32> {
    [a, b].into_iter().flatten().min()
}

fn naive(line: &[u8]) -> Result<Said, Malformed> {
    let (mut timeout, mut max) = (None, None);
    for element in elements(line) {
        let element = trim(&element);
        let (name, value) = match element.iter().position(|&byte| byte == b'=') {
            Some(i) => (trim(&element[..i]).to_ascii_lowercase(), Some(trim(&element[i + 1..]))),
            None => (element.to_ascii_lowercase(), None),
        };
        match (&name[..], value) {
            (b"", None) => {}
            (b"timeout", value) => timeout = smallest(timeout, Some(number(value)?)),
            (b"max", value) => max = smallest(max, Some(number(value)?)),
            (name, value) if is_token(name) && value.is_none_or(is_token_or_quoted) => {}
            _ => return Err(Malformed),
        }
    }
    Ok((timeout, max))
}

/// What is between commas that are not inside of quotes.
fn elements(line: &[u8]) -> Vec<Vec<u8>> {
    let (mut elements, mut quoted, mut escaped) = (vec![vec![]], false, false);
    for &byte in line {
        if byte == b',' && !quoted {
            elements.push(vec![]);
            continue;
        }
        if byte == b'"' && !escaped {
            quoted = !quoted;
        }
        escaped = quoted && byte == b'\\' && !escaped;
        if let Some(last) = elements.last_mut() {
            last.push(byte);
        }
    }
    elements
}

fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

/// Digits, also in quotes; too many of them are the largest number.
fn number(value: Option<&[u8]>) -> Result<u32, Malformed> {
    let value = value.ok_or(Malformed)?;
    let digits = match value {
        [b'"', digits @ .., b'"'] => digits,
        digits => digits,
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Malformed);
    }
    Ok(String::from_utf8_lossy(digits).parse().unwrap_or(u32::MAX))
}

fn is_token_or_quoted(text: &[u8]) -> bool {
    is_token(text) || is_quoted(text)
}

fn is_token(text: &[u8]) -> bool {
    let special = b"\"(),/:;<=>?@[\\]{}";
    !text.is_empty() && text.iter().all(|byte| byte.is_ascii_graphic() && !special.contains(byte))
}

/// Whether the first quote is closed by the last byte, and by no other.
fn is_quoted(text: &[u8]) -> bool {
    let [b'"', inside @ .., b'"'] = text else { return false };
    let mut escaped = false;
    for &byte in inside {
        if byte == b'"' && !escaped {
            return false;
        }
        escaped = byte == b'\\' && !escaped;
    }
    !escaped
}

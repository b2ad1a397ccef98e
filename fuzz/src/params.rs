//! The grammar of the directives' arguments, by taking texts apart.

use crate::module::conf::params::{self, Error, HintsParams, Params, Value};

/// Arguments, one in a line, of either directive.
pub fn check(input: &[u8]) {
    let args: Vec<&[u8]> = input.split(|&byte| byte == b'\n').collect();

    let parsed = params::parse(args.iter().copied());
    assert_eq!(parsed, naive(&args), "{}", input.escape_ascii());
    if let Ok(params) = parsed {
        let names: Vec<_> = params.without_key().collect();
        assert_eq!(names, without_key(&params));
    }
    let parsed = params::parse_hints(args.iter().copied(), time);
    assert_eq!(parsed, naive_hints(&args), "{}", input.escape_ascii());

    for arg in args {
        assert_eq!(params::number(arg), number(arg), "{}", arg.escape_ascii());
    }
}

fn naive<'a>(args: &[&'a [u8]]) -> Result<Params<'a>, Error<'a>> {
    let connections = number(args[0]).ok_or(Error::Value(args[0]))?;
    let mut params = Params { connections, ..Params::default() };
    let mut given = Vec::new();
    for arg in &args[1..] {
        let end = arg.iter().position(|&byte| byte == b'=').map_or(arg.len(), |i| i + 1);
        let (name, value) = arg.split_at(end);
        set(&mut params, name, value).ok_or(Error::Parameter(arg))?;
        if given.contains(&name) {
            return Err(Error::Duplicate(arg));
        }
        given.push(name);
    }
    Ok(params)
}

/// Sets a parameter; of one that is given twice, the value does not matter.
fn set<'a>(params: &mut Params<'a>, name: &[u8], value: &'a [u8]) -> Option<()> {
    match name {
        b"slice_key=" => params.slice_key = Some(slice_key(value)?),
        b"slice_conn=" => params.slice_conn = Some(number(value)?),
        b"slice_dyn=" => params.slice_dyn = Some(slice_dyn(value)?),
        b"slice_poolsize=" => params.slice_poolsize = Some(number(value)?),
        b"slice_keylen=" => params.slice_keylen = Some(length(value)?),
        b"slice_strict" => params.slice_strict = true,
        b"local" => params.local = true,
        b"shared" => params.shared = true,
        b"single" => params.single = true,
        _ => return None,
    }
    Some(())
}

fn number(text: &[u8]) -> Option<u32> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let number = core::str::from_utf8(text).ok()?.parse().ok()?;
    (digits && number != u32::MAX).then_some(number)
}

fn length(text: &[u8]) -> Option<u16> {
    number(text)?.try_into().ok().filter(|&length| length != 0)
}

fn slice_key(text: &[u8]) -> Option<Value<'_>> {
    match variable(text) {
        Some(name) => Some(Value::Variable(name)),
        None if text.is_empty() => None,
        None => Some(Value::Text(text)),
    }
}

fn slice_dyn(text: &[u8]) -> Option<Value<'_>> {
    if let Some(name) = variable(text) {
        return Some(Value::Variable(name));
    }
    if text.iter().all(u8::is_ascii_digit) {
        return number(text).map(|_| Value::Text(text));
    }
    if is_name(text) {
        return Some(Value::Variable(text));
    }
    text.contains(&b'$').then_some(Value::Text(text))
}

/// The name in `$name` or `${name}`, unless it is a capture.
fn variable(text: &[u8]) -> Option<&[u8]> {
    let name = match text {
        [b'$', b'{', name @ .., b'}'] => name,
        [b'$', name @ ..] => name,
        _ => return None,
    };
    (is_name(name) && !name[0].is_ascii_digit()).then_some(name)
}

fn is_name(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|&byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn without_key(params: &Params<'_>) -> Vec<&'static str> {
    let mut names = Vec::new();
    if params.slice_key.is_none() {
        names.extend(params.slice_conn.map(|_| "slice_conn"));
        names.extend(params.slice_dyn.map(|_| "slice_dyn"));
        names.extend(params.slice_poolsize.map(|_| "slice_poolsize"));
        names.extend(params.slice_keylen.map(|_| "slice_keylen"));
        names.extend(params.slice_strict.then_some("slice_strict"));
    }
    names
}

/// Like nginx, which reads a time: of what it is made does not matter here.
fn time(text: &[u8]) -> Option<usize> {
    core::str::from_utf8(text).ok()?.parse().ok()
}

fn naive_hints<'a>(args: &[&'a [u8]]) -> Result<HintsParams, Error<'a>> {
    match (args[0], args.get(1)) {
        (b"off", None) => return Ok(HintsParams::Off),
        (b"off", Some(param)) => return Err(Error::Parameter(param)),
        (b"on", _) => {}
        (value, _) => return Err(Error::Value(value)),
    }
    let (mut margin, mut learn) = (None, false);
    for &arg in &args[1..] {
        let is_duplicate = match arg.strip_prefix(b"margin=") {
            Some(text) => {
                let value = time(text).filter(|_| !text.is_empty());
                margin.replace(value.ok_or(Error::Parameter(arg))?).is_some()
            }
            None if arg == b"learn" => core::mem::replace(&mut learn, true),
            None => return Err(Error::Parameter(arg)),
        };
        if is_duplicate {
            return Err(Error::Duplicate(arg));
        }
    }
    Ok(HintsParams::On { margin, learn })
}

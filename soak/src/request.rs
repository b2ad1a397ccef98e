//! A request at a backend.

use crate::upstreams::{Identity, LOCATIONS, Location, UPSTREAMS};
use crate::wire::Fields;

/// The parts of it that a backend must know.
pub struct Request {
    /// Its number.
    pub id: u64,
    /// Whether it is a `HEAD`.
    pub head: bool,
    /// Whether the answer may be cached.
    pub cacheable: bool,
    /// Whether its client may have been answered already.
    pub answered: bool,
    /// Whether the answer may be that the cached one is still valid.
    pub conditional: bool,
    /// The identity under which nginx looked for a connection.
    pub identity: Identity,
    /// The worker that sent it.
    pub worker: u32,
    /// Whether its connection is never kept.
    pub refused: bool,
    /// The length of its body.
    pub length: usize,
}

impl Request {
    /// Makes it from its method, its target and its fields.
    pub fn parse(method: &str, target: &str, fields: Fields<'_>) -> Option<Self> {
        let (_, id) = target.split_once('?')?;
        // nginx sends no field without a value.
        let (location, key) =
            (fields.number("X-Location")?, fields.get("X-Slice").unwrap_or_default());
        let Location { cache, upstream, .. } = LOCATIONS.get(location)?;
        let cacheable = cache.is_some() && method != "POST";
        let identity = Identity::new(location, key);
        Some(Request {
            id: u64::from_str_radix(id, 16).ok()?,
            head: method == "HEAD",
            cacheable,
            answered: cacheable && LOCATIONS[location].answers_first(),
            conditional: fields.get("If-None-Match").is_some(),
            refused: UPSTREAMS[*upstream].refuses(key),
            length: fields.number("Content-Length").unwrap_or(0),
            identity,
            worker: fields.number("X-Worker")?,
        })
    }
}

//! The upstreams and locations of the soak: one table, from which nginx's configuration is made and
//! by which the backends and the checks judge; and the identity of a connection in its terms.

use std::collections::HashMap;
use std::fmt::{Display, Formatter};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// The time for which servers with hints keep an idle connection, in seconds.
pub const KEPT: u64 = 2;

/// The number of bytes of an answer that nginx reads first: `proxy_buffer_size`. With TLS, the rest
/// may have left the socket already.
pub const BUFFER: usize = 4096;

/// One `upstream` block.
pub struct Upstream {
    /// Its name.
    pub name: &'static str,
    /// The `keepalive` directive's arguments, without the following ones.
    pub rest: &'static str,
    /// The variable of the slice key; empty if there is none.
    pub key: &'static str,
    /// Most idle connections of a worker, or of all of them if they are shared.
    pub connections: usize,
    /// `slice_poolsize`.
    pub slices: usize,
    /// `slice_keylen`.
    pub key_length: usize,
    /// The most idle connections of a key.
    pub slice_limit: fn(&str) -> usize,
    /// Longer keys are not kept: `slice_strict`.
    pub strict: bool,
    /// Reuse stays within one location: `local`.
    pub local: bool,
    /// Whether the limits hold over all workers, which use each other's connections: `shared`.
    pub shared: bool,
    /// `keepalive_timeout`.
    pub timeout: &'static str,
    /// The number of servers.
    pub servers: u8,
    /// Whether the servers close idle connections and say so in `Keep-Alive`.
    pub hints: bool,
}

/// One `location` block.
pub struct Location {
    /// Its path.
    pub path: &'static str,
    /// The index of its upstream.
    pub upstream: usize,
    /// The scheme of its `proxy_pass`.
    pub scheme: &'static str,
    /// The frequency of its requests, in relation to the others.
    pub weight: u32,
    /// Directives about its cache, if it has one.
    pub cache: Option<&'static str>,
}

/// One server of an upstream.
#[derive(Clone, Copy)]
pub struct Server {
    /// The index of the upstream.
    pub upstream: usize,
    /// The server's address.
    pub address: SocketAddr,
}

/// The identity of a connection: requests that differ in it must never share one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Identity {
    /// The index of the location.
    pub location: usize,
    /// The slice key, cut to its length.
    pub key: String,
}

impl Identity {
    /// Makes it from the number of a location and the whole key.
    pub fn new(location: usize, key: &str) -> Self {
        let upstream = &UPSTREAMS[LOCATIONS[location].upstream];
        Identity { location, key: upstream.cut(key).to_owned() }
    }
}

impl Display for Identity {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match (LOCATIONS[self.location].path, &self.key[..]) {
            (path, "") => f.write_str(path),
            (path, key) => write!(f, "{path} {key}"),
        }
    }
}

const NO_LIMIT: fn(&str) -> usize = |_| usize::MAX;

const PLAIN: Upstream = Upstream {
    name: "",
    rest: "",
    key: "$host",
    connections: 64,
    slices: 40,
    key_length: 40,
    slice_limit: NO_LIMIT,
    strict: false,
    local: false,
    shared: false,
    timeout: "2s",
    servers: 2,
    hints: false,
};

/// All upstreams.
pub const UPSTREAMS: [Upstream; 15] = [
    Upstream {
        name: "host",
        rest: "slice_conn=4",
        connections: 128,
        slices: 64,
        slice_limit: |_| 4,
        hints: true,
        ..PLAIN
    },
    Upstream {
        name: "owner",
        rest: "slice_conn=8",
        key: "$owner",
        slice_limit: |_| 8,
        strict: true,
        key_length: 253,
        servers: 1,
        ..PLAIN
    },
    Upstream {
        name: "dyn",
        rest: "slice_dyn=limit slice_conn=2",
        connections: 48,
        slices: 40,
        slice_limit: dynamic_limit,
        servers: 3,
        ..PLAIN
    },
    Upstream { name: "strict", strict: true, key_length: 10, ..PLAIN },
    Upstream { name: "cut", key_length: 4, slices: 20, servers: 1, ..PLAIN },
    Upstream { name: "local", rest: "slice_conn=4", local: true, slice_limit: |_| 4, ..PLAIN },
    Upstream { name: "tls", ..PLAIN },
    Upstream { name: "stale", ..PLAIN },
    Upstream { name: "revalidated", servers: 1, ..PLAIN },
    Upstream { name: "updated", ..PLAIN },
    Upstream {
        name: "shared",
        rest: "slice_conn=2",
        connections: 24,
        slices: 16,
        slice_limit: |_| 2,
        shared: true,
        hints: true,
        ..PLAIN
    },
    Upstream { name: "shared-whole", key: "", connections: 12, slices: 1, shared: true, ..PLAIN },
    Upstream {
        name: "shared-tls",
        rest: "slice_conn=3",
        connections: 20,
        slices: 12,
        slice_limit: |_| 3,
        shared: true,
        ..PLAIN
    },
    Upstream {
        name: "shared-brief",
        rest: "slice_conn=4",
        connections: 32,
        slices: 8,
        slice_limit: |_| 4,
        key_length: 4,
        shared: true,
        timeout: "300ms",
        servers: 1,
        ..PLAIN
    },
    Upstream {
        name: "shared-local",
        rest: "slice_dyn=limit slice_conn=2",
        connections: 16,
        slices: 16,
        slice_limit: dynamic_limit,
        local: true,
        shared: true,
        ..PLAIN
    },
];

/// All locations.
pub const LOCATIONS: [Location; 19] = [
    Location { path: "/host", upstream: 0, scheme: "http", weight: 25, cache: None },
    Location { path: "/owner", upstream: 1, scheme: "http", weight: 15, cache: None },
    Location { path: "/dyn", upstream: 2, scheme: "http", weight: 12, cache: None },
    Location { path: "/strict", upstream: 3, scheme: "http", weight: 10, cache: None },
    Location { path: "/cut", upstream: 4, scheme: "http", weight: 10, cache: None },
    Location { path: "/local-a", upstream: 5, scheme: "http", weight: 8, cache: None },
    Location { path: "/local-b", upstream: 5, scheme: "http", weight: 8, cache: None },
    Location { path: "/tls", upstream: 6, scheme: "https", weight: 7, cache: None },
    Location { path: "/plain", upstream: 6, scheme: "http", weight: 5, cache: None },
    Location { path: "/stale", upstream: 7, scheme: "http", weight: 8, cache: Some(STALE) },
    Location { path: "/revalidated", upstream: 8, scheme: "http", weight: 8, cache: Some(AGAIN) },
    Location { path: "/updated", upstream: 9, scheme: "https", weight: 8, cache: Some(UPDATED) },
    Location { path: "/shared", upstream: 10, scheme: "http", weight: 20, cache: None },
    Location { path: "/shared-whole", upstream: 11, scheme: "http", weight: 20, cache: None },
    Location { path: "/shared-tls", upstream: 12, scheme: "https", weight: 8, cache: None },
    Location { path: "/shared-plain", upstream: 12, scheme: "http", weight: 8, cache: None },
    Location { path: "/shared-brief", upstream: 13, scheme: "http", weight: 12, cache: None },
    Location { path: "/shared-local-a", upstream: 14, scheme: "http", weight: 6, cache: None },
    Location { path: "/shared-local-b", upstream: 14, scheme: "http", weight: 6, cache: None },
];

/// The cached answer is used if a server fails; a `HEAD` is sent as a `HEAD`.
const STALE: &str = "proxy_cache_use_stale error timeout invalid_header http_500;
            proxy_cache_convert_head off;";

/// The server is asked whether the cached answer is still valid.
const AGAIN: &str = "proxy_cache_use_stale error timeout http_500;
            proxy_cache_convert_head off;
            proxy_cache_revalidate on;";

/// The same, while clients get the cached answer.
const UPDATED: &str = "proxy_cache_use_stale updating error timeout http_500;
            proxy_cache_background_update on;
            proxy_cache_revalidate on;";

/// The value of the `map` of `$limit`, as the limit of a slice.
fn dynamic_limit(host: &str) -> usize {
    let digit = host.strip_suffix(".soak").filter(|name| name.starts_with('k'));
    match digit.and_then(|name| name.bytes().last()) {
        Some(b'0'..=b'3') => 1,
        Some(b'4'..=b'6') => 3,
        Some(b'7' | b'8') => 2,
        _ => 0,
    }
}

/// The `map` blocks behind the keys and limits. Each minute, the cache begins anew, since killed
/// workers leave entries that nginx takes for ones being updated, without end.
pub const MAPS: &str = r"
    map $host $owner {
        default $host;
        ~^k\d\d(?<number>\d\d)\.soak$ user:$number;
    }

    map $host $limit {
        default 0;
        ~^k\d+[0-3]\.soak$ 1;
        ~^k\d+[4-6]\.soak$ 3;
        ~^k\d+[78]\.soak$ '';
    }

    map $time_iso8601 $minute {
        ~:(?<now>\d\d):\d\d $now;
    }
";

impl Location {
    /// Whether nginx may answer a client before it has the whole answer of the server: it asks in
    /// the background, or instead of a `HEAD` sends a `GET`.
    pub fn answers_first(&self) -> bool {
        self.cache == Some(UPDATED)
    }
}

impl Upstream {
    /// The directive's arguments.
    pub fn keepalive(&self, low: bool) -> String {
        let Upstream { rest, key, slices, key_length, .. } = self;
        let connections = self.limit(low);
        let strict = if self.strict { "slice_strict" } else { "" };
        let local = if self.local { "local" } else { "" };
        let shared = if self.shared { "shared" } else { "" };
        if key.is_empty() {
            return format!("{connections} {local} {shared}");
        }
        format!(
            "{connections} slice_key={key} slice_poolsize={slices} slice_keylen={key_length} \
             {rest} {strict} {local} {shared}"
        )
    }

    /// The whole key of a request.
    pub fn key_of(&self, host: &str) -> String {
        match (self.key, host.strip_prefix('k')) {
            ("", _) => String::new(),
            ("$owner", Some(name)) => format!("user:{}", &name[2..4]),
            _ => host.to_owned(),
        }
    }

    /// A key as the module uses it.
    pub fn cut<'a>(&self, key: &'a str) -> &'a str {
        key.get(..self.key_length).unwrap_or(key)
    }

    /// Whether each connection can pass from one worker to another: without TLS.
    pub fn is_movable(&self) -> bool {
        let mut own = LOCATIONS.iter().filter(|own| UPSTREAMS[own.upstream].name == self.name);
        self.shared && own.all(|location| location.scheme == "http")
    }

    /// The most idle connections. With `low`, it is that of the other configuration.
    pub fn limit(&self, low: bool) -> usize {
        if low && self.shared { self.connections / 2 } else { self.connections }
    }

    /// What is too much in idle connections, of which there are so many under each key, if so
    /// many of them may not count.
    pub fn excess(&self, keys: &HashMap<String, usize>, low: bool, less: usize) -> Vec<String> {
        let (name, mut excess, idle) = (self.name, vec![], keys.values().sum::<usize>());
        if idle > self.limit(low) + less {
            excess.push(format!("{idle} idle connections of {name}"));
        }
        if keys.len() > self.slices + less {
            excess.push(format!("{} slices of {name}", keys.len()));
        }
        for (key, count) in keys {
            if *count > (self.slice_limit)(key).saturating_add(less) {
                excess.push(format!("{count} idle connections of {name} under {key:?}"));
            }
        }
        excess
    }

    /// Whether connections under a key are never kept.
    pub fn refuses(&self, key: &str) -> bool {
        self.strict && key.len() > self.key_length || (self.slice_limit)(key) == 0
    }
}

/// The address of an upstream's server; each server has its own.
pub fn address(upstream: usize, server: u8) -> IpAddr {
    let upstream = u8::try_from(upstream + 1).unwrap_or(u8::MAX);
    IpAddr::V4(Ipv4Addr::new(127, 0, upstream, server + 1))
}

/// The upstream of an address.
pub fn upstream_of(address: SocketAddr) -> Option<usize> {
    let IpAddr::V4(ip) = address.ip() else { return None };
    let [127, 0, upstream, _] = ip.octets() else { return None };
    usize::from(upstream).checked_sub(1).filter(|&upstream| upstream < UPSTREAMS.len())
}

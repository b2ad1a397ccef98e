//! The directives of an upstream: arguments become settings, plain data that does not change after
//! the configuration is read.

use core::ptr::NonNull;

use nginx_sys::{ngx_msec_t, ngx_shm_zone_t, ngx_uint_t};

pub(crate) use self::keepalive::Keepalive;
use self::params::HintsParams;
use crate::attributes::Variety;
use crate::location::Numbers;
use crate::policy::UseLimits;

pub mod format;
mod keepalive;
pub mod params;
pub mod status;

/// The default of `keepalive_requests`, as in nginx.
const REQUESTS: ngx_uint_t = 1000;
/// The default of `keepalive_time`, as in nginx: 1 hour, in milliseconds.
const TIME: ngx_msec_t = 3_600_000;
/// The default of `margin` of `keepalive_hints`, in milliseconds.
const HINTS_MARGIN: u64 = 1000;

/// `NGX_CONF_UNSET_MSEC` and `NGX_CONF_UNSET_UINT`.
const UNSET: usize = usize::MAX;

/// The module's configuration of all upstreams together.
#[derive(Debug, Default)]
pub struct MainConf {
    /// Whether there is a `keepalive_status`; otherwise the counters are not shown.
    pub(crate) status: bool,
    /// Whether the upstreams of the configuration file are set up. An upstream that is read later
    /// is created at run time.
    pub(crate) configured: bool,
    /// The zone in which its workers learn the idle timeouts of servers, if they do.
    pub(crate) learned: Option<NonNull<ngx_shm_zone_t>>,
    /// Its number, higher than those of all configurations before.
    pub(crate) number: u64,
    /// In what the connections can differ of locations that choose the upstream by request.
    pub(crate) of_any: Variety,
    /// Whether a location must have the same number after a reload.
    pub(crate) stable_locations: bool,
    /// The numbers of its locations, until all of them are read.
    pub(crate) locations: Numbers,
}

/// The directives of one upstream, as they are read.
pub(crate) struct Directives {
    /// `keepalive_requests`, or [`UNSET`].
    pub requests: ngx_uint_t,
    /// `keepalive_time`, or [`UNSET`].
    pub time: ngx_msec_t,
    /// `keepalive_timeout`, or [`UNSET`].
    pub timeout: ngx_msec_t,
    /// `keepalive_hints`.
    pub hints: Option<HintsParams>,
    /// `keepalive`.
    pub keepalive: Option<Keepalive>,
    /// `ntlm`.
    pub ntlm: bool,
}

impl Default for Directives {
    fn default() -> Self {
        Directives {
            requests: UNSET,
            time: UNSET,
            timeout: UNSET,
            hints: None,
            keepalive: None,
            ntlm: false,
        }
    }
}

impl Directives {
    /// The settings of the upstream; `None` without `keepalive`.
    pub fn settings(&mut self) -> Option<Settings> {
        let keepalive = self.keepalive.take()?;
        let set = |value, default| if value == UNSET { default } else { value };
        Some(Settings {
            keepalive,
            use_limits: UseLimits {
                requests: set(self.requests, REQUESTS),
                time: set(self.time, TIME) as u64,
            },
            ntlm: self.ntlm,
            timeout: (self.timeout != UNSET).then_some(self.timeout as u64),
            hints: match self.hints.unwrap_or(HintsParams::On { margin: None, learn: false }) {
                HintsParams::Off => None,
                HintsParams::On { margin, learn } => Some(Hints {
                    margin: margin.map_or(HINTS_MARGIN, |margin| margin as u64),
                    learn,
                }),
            },
        })
    }

    /// The directives of the upstream that have no effect without `keepalive`. The directives of
    /// the built-in module are left out if it keeps connections by `default`.
    pub fn without_keepalive(&self, default: bool) -> impl Iterator<Item = &'static str> + use<> {
        let alone = self.keepalive.is_none();
        [
            (self.hints.is_some(), "keepalive_hints"),
            (!default && self.requests != UNSET, "keepalive_requests"),
            (!default && self.time != UNSET, "keepalive_time"),
            (!default && self.timeout != UNSET, "keepalive_timeout"),
        ]
        .into_iter()
        .filter_map(move |(given, name)| (alone && given).then_some(name))
    }
}

/// The settings of an upstream with a `keepalive`.
pub(crate) struct Settings {
    /// The `keepalive` directive.
    pub keepalive: Keepalive,
    /// `ntlm`: connections on which users authenticate are bound to their client connections.
    pub ntlm: bool,
    /// `keepalive_requests` and `keepalive_time`.
    pub use_limits: UseLimits,
    /// `keepalive_timeout`, in milliseconds; `None`: no limit.
    pub timeout: Option<u64>,
    /// `keepalive_hints`; `None`: `off`.
    pub hints: Option<Hints>,
}

impl Settings {
    /// Whether connections with the same server and the same attributes can be of different identities.
    pub fn divides(&self) -> bool {
        self.keepalive.slice_key.is_some() || self.keepalive.local || self.ntlm
    }

    /// Whether the idle timeouts of servers are learned.
    pub fn learns(&self) -> bool {
        self.hints.is_some_and(|hints| hints.learn)
    }
}

/// How long a server keeps connections: what it says in the `Keep-Alive` header, and what is learned.
#[derive(Clone, Copy)]
pub(crate) struct Hints {
    /// The time by which the use of a connection ends before the server closes it, in milliseconds.
    pub margin: u64,
    /// Whether the idle timeouts of servers are learned.
    pub learn: bool,
}

//! Why idle connections are closed, and why connections are not kept.

#![forbid(unsafe_code)]

use crate::pool;

/// Why an idle connection was closed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Closed {
    /// `keepalive_timeout`.
    Timeout,
    /// The server's `Keep-Alive: timeout=`.
    Hint,
    /// The server closed it, or sent unrequested data.
    Peer,
    /// It made room: the limit of connections.
    Connections,
    /// It made room: the limit of its slice.
    SliceConn,
    /// It made room: the limit of slices.
    SlicePoolsize,
    /// The client connection that it was bound to has ended.
    Client,
    /// The worker was short of `worker_connections`.
    WorkerConnections,
    /// The worker, or the upstream, has ended.
    Shutdown,
}

impl Closed {
    /// All reasons, each under its own number.
    pub const ALL: [Closed; 9] = [
        Closed::Timeout,
        Closed::Hint,
        Closed::Peer,
        Closed::Connections,
        Closed::SliceConn,
        Closed::SlicePoolsize,
        Closed::Client,
        Closed::WorkerConnections,
        Closed::Shutdown,
    ];

    /// The name by which users know it.
    pub fn name(self) -> &'static str {
        match self {
            Closed::Timeout => "timeout",
            Closed::Hint => "hint",
            Closed::Peer => "peer",
            Closed::Connections => "connections",
            Closed::SliceConn => "slice_conn",
            Closed::SlicePoolsize => "slice_poolsize",
            Closed::Client => "client",
            Closed::WorkerConnections => "worker_connections",
            Closed::Shutdown => "shutdown",
        }
    }
}

impl From<pool::Evicted> for Closed {
    fn from(evicted: pool::Evicted) -> Self {
        match evicted {
            pool::Evicted::Connections => Closed::Connections,
            pool::Evicted::SliceLimit => Closed::SliceConn,
            pool::Evicted::Slices => Closed::SlicePoolsize,
        }
    }
}

/// Why a connection was not kept after a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refused {
    /// Nothing is kept: `keepalive 0`, `slice_poolsize=0` or `keepalive_timeout 0`.
    Disabled,
    /// The limit of its slice is zero, empty or not a number.
    Limit,
    /// It cannot carry another request: the server closes it, the response or the request was not
    /// complete, or surplus bytes followed the response.
    Closed,
    /// The server has failed, or there was an error or a timeout.
    Failed,
    /// `keepalive_requests`.
    Requests,
    /// `keepalive_time`.
    Time,
    /// The server's `Keep-Alive` header leaves no time.
    Hint,
    /// The slice key is too long, and `slice_strict` is set.
    Keylen,
    /// The server address is too long.
    Address,
    /// What it was made with is not known, or too long, or is for one request only.
    Identity,
    /// The worker is shutting down.
    Exiting,
    /// There is no room, and this worker cannot close connections of other workers.
    Workers,
}

impl Refused {
    /// All reasons, each under its own number.
    pub const ALL: [Refused; 12] = [
        Refused::Disabled,
        Refused::Limit,
        Refused::Closed,
        Refused::Failed,
        Refused::Requests,
        Refused::Time,
        Refused::Hint,
        Refused::Keylen,
        Refused::Address,
        Refused::Identity,
        Refused::Exiting,
        Refused::Workers,
    ];

    /// The name by which users know it.
    pub fn name(self) -> &'static str {
        match self {
            Refused::Disabled => "disabled",
            Refused::Limit => "limit",
            Refused::Closed => "closed",
            Refused::Failed => "failed",
            Refused::Requests => "requests",
            Refused::Time => "time",
            Refused::Hint => "hint",
            Refused::Keylen => "keylen",
            Refused::Address => "address",
            Refused::Identity => "identity",
            Refused::Exiting => "exiting",
            Refused::Workers => "workers",
        }
    }
}

impl From<pool::NotKept> for Refused {
    fn from(refused: pool::NotKept) -> Self {
        match refused {
            pool::NotKept::Disabled => Refused::Disabled,
            pool::NotKept::SliceLimit => Refused::Limit,
            pool::NotKept::KeyLength => Refused::Keylen,
            pool::NotKept::AddressLength => Refused::Address,
            pool::NotKept::AttributesLength => Refused::Identity,
        }
    }
}

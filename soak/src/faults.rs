//! The deliberate faults of backends, their frequency, and their visible effects for clients.

use std::time::Duration;

use rand::Rng;

/// The fault of a backend in one request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// Closes the connection without an answer.
    Close,
    /// Resets the connection without an answer.
    Reset,
    /// Ends its own direction of the connection without an answer.
    HalfClose,
    /// Answers late, but in time.
    Slow,
    /// Closes the connection in the middle of the answer.
    Truncate,
    /// Answers with an invalid header.
    BrokenHeader,
    /// Stops past nginx's read timeout, before the answer or in the middle of it.
    Stall,
    /// Answers before it reads the body.
    Early,
    /// The request arrived just after an idle fault: it gets no answer.
    Late,
    /// Answers 500, with a body that arrives late and has the form of an answer.
    LateBody,
    /// Sends surplus bytes after an answer without a body: they have the form of another answer.
    Surplus,
}

/// The fault of a backend in a connection between requests.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum IdleFault {
    /// Closes a new connection at once.
    Accept,
    /// Closes the connection: right after an answer, or later.
    Close,
    /// Resets the connection.
    Reset,
    /// Ends its own direction of the connection.
    HalfClose,
    /// Sends an unrequested answer.
    Bytes,
}

/// The failure of a request, as its client sees it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Failure {
    /// Another status than 200.
    Status(u16),
    /// The connection ended without any byte of an answer.
    Closed,
    /// The connection ended in the middle of the answer.
    Cut,
    /// An answer that no backend made.
    Strange,
    /// Bytes that were not sent as an answer, but arrived late or after one.
    Stray,
    /// No answer in time.
    Hung,
}

impl Fault {
    /// Every fault, in the order of its mark.
    pub const ALL: [Fault; 11] = [
        Fault::Close,
        Fault::Reset,
        Fault::HalfClose,
        Fault::Slow,
        Fault::Truncate,
        Fault::BrokenHeader,
        Fault::Stall,
        Fault::Early,
        Fault::Late,
        Fault::LateBody,
        Fault::Surplus,
    ];

    /// The fault for one request, in rare cases. If the answer may be cached, the server is asked
    /// so seldom that it must often give nginx a reason to answer from the cache. If an answer has
    /// no body, as for a `HEAD`, nginx does not read further bytes.
    pub fn pick(rng: &mut impl Rng, cacheable: bool, head: bool) -> Option<Fault> {
        match rng.random_range(0..100) {
            0..15 if cacheable => return Some(Fault::LateBody),
            15..20 if cacheable || head => return Some(Fault::Surplus),
            _ => {}
        }
        Some(match rng.random_range(0..10_000) {
            0..10 => Fault::Close,
            10..20 => Fault::Reset,
            20..30 => Fault::HalfClose,
            30..50 => Fault::Slow,
            50..60 => Fault::Truncate,
            60..70 => Fault::BrokenHeader,
            70..72 => Fault::Stall,
            80..100 => Fault::Early,
            100..105 => Fault::LateBody,
            105..125 => Fault::Surplus,
            _ => return None,
        })
    }

    /// Whether it ends an answer in the middle. If its client was answered already, nginx then closes
    /// the client's connection, on which there may be another request, and does not log the attempt
    /// if it was in the background.
    pub fn breaks_off(self) -> bool {
        matches!(self, Fault::Truncate | Fault::Stall)
    }

    /// The bit that records this fault among the marks of a request.
    pub fn mark(self) -> u32 {
        1 << (self as u32)
    }

    /// Whether a request with this fault may fail in this way.
    pub fn explains(self, failure: Failure) -> bool {
        match failure {
            Failure::Status(502) => matches!(
                self,
                Fault::Close
                    | Fault::Reset
                    | Fault::HalfClose
                    | Fault::Truncate
                    | Fault::BrokenHeader
                    | Fault::Late
            ),
            Failure::Status(500) => self == Fault::LateBody,
            Failure::Status(504) => self == Fault::Stall,
            Failure::Cut => matches!(self, Fault::Truncate | Fault::Stall),
            Failure::Status(408) => self == Fault::Late,
            Failure::Strange => self == Fault::BrokenHeader,
            Failure::Status(_) | Failure::Closed | Failure::Stray | Failure::Hung => false,
        }
    }
}

impl IdleFault {
    /// The fault for the time after an answer, in rare cases, and its delay.
    pub fn pick(rng: &mut impl Rng) -> Option<(IdleFault, Duration)> {
        let fault = match rng.random_range(0..1000) {
            0..4 => IdleFault::Close,
            4..6 => IdleFault::Reset,
            6..8 => IdleFault::HalfClose,
            8..10 => IdleFault::Bytes,
            _ => return None,
        };
        let after = match rng.random_range(0..4) {
            0 => 0,
            1 => rng.random_range(0..20),
            _ => rng.random_range(0..1500),
        };
        Some((fault, Duration::from_millis(after)))
    }

    /// Whether to close a new connection at once.
    pub fn at_accept(rng: &mut impl Rng) -> bool {
        rng.random_range(0..1000) < 2
    }

    /// Whether a request that meets this fault may fail in this way.
    pub fn explains(self, failure: Failure) -> bool {
        match failure {
            Failure::Status(502) => true,
            Failure::Status(408) => self == IdleFault::Bytes,
            _ => false,
        }
    }
}

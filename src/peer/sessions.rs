//! TLS sessions: a balancer of nginx has one for each server, whatever that was made with. So it is
//! asked only where all connections are alike, and otherwise the upstream has sessions of its own.

use super::attempt::Attempt;
use super::attributes;

/// Whether the balancer may have the session of an attempt: there are no others.
pub fn are_the_balancers(attempt: Attempt) -> bool {
    let is_alike = attempt.data().attributes().is_some_and(<[u8]>::is_empty);
    is_alike && !attempt.upstream().has_sessions()
}

/// Offers the session of the attempt's identity for its new connection. `false` if that fails.
pub fn offer(attempt: Attempt) -> bool {
    // nginx has used the name and the certificate just now.
    if attempt.data().has_attributes() {
        attributes::confirm(attempt);
    }
    if attempt.data().may_be_kept().is_err() {
        return true;
    }
    let session = attempt.upstream().session(&attempt.identity());
    session.is_none_or(|session| attempt.offer_session(&session))
}

/// Saves the session of the attempt's connection.
pub fn save(attempt: Attempt) {
    if attempt.data().may_be_kept().is_err() {
        return;
    }
    if let Some(session) = attempt.session() {
        attempt.upstream().save_session(&attempt.identity(), session);
    }
}

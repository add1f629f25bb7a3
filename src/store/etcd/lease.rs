//! Leases of a cluster. They have whole seconds, and the cluster has a shortest time of its own.

use super::http::Failure;
use super::members::{Members, Told, Unanswered};
use super::message;
use crate::auth;
use std::time::{Duration, Instant};

/// gRPC's code for what is not there.
pub const NOT_FOUND: u64 = 5;

/// A new lease, and the time it has got.
pub fn grant(members: &Members, ttl: Duration, deadline: Instant) -> Told<(u64, Duration)> {
    let mut id = [0; 8];
    auth::fill_random(&mut id).map_err(Unanswered::Failed)?;
    // Chosen here, so that asking again does not make another one. Positive for etcd, and 0 is none.
    let id = (u64::from_le_bytes(id) >> 1).max(1);
    let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
    let question = message::grant(id, seconds);
    members.attempt(deadline, |attempt| match attempt.ask("/v3/lease/grant", &question) {
        Ok(answer) => match message::number(&answer, "TTL") {
            Ok(granted @ 1..) => Ok((id, Duration::from_secs(granted))),
            Ok(0) => Err(attempt.nonsense(crate::store::wire::Malformed("a lease without a time"))),
            Err(what) => Err(attempt.nonsense(what)),
        },
        // By an attempt whose answer got lost.
        Err(Failure::Refused(_, text)) if attempt.doubtful && text.contains("already exists") => {
            Ok((id, Duration::from_secs(seconds)))
        }
        Err(e) => Err(e),
    })
}

/// Gives a lease its whole time again; answers how many seconds these are, 0 when it has ended.
pub fn keep_alive(members: &Members, id: u64, deadline: Instant) -> Told<u64> {
    let question = message::lease(id);
    members.attempt(deadline, |attempt| {
        let mut lines = attempt.stream("/v3/lease/keepalive", &question, attempt.until)?;
        let line =
            lines.next()?.ok_or_else(|| Failure::Unknown("keeping a lease alive took too long".into()))?;
        let result = message::result(&line).map_err(|what| attempt.nonsense(what))?;
        message::number(result, "TTL").map_err(|what| attempt.nonsense(what))
    })
}

/// Ends a lease; that it has ended already is as good.
pub fn revoke(members: &Members, id: u64, deadline: Instant) -> Told<()> {
    match members.ask("/v3/lease/revoke", &message::lease(id), deadline) {
        Ok(_) | Err(Unanswered::Refused(NOT_FOUND, _)) => Ok(()),
        Err(e) => Err(e),
    }
}

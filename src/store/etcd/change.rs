//! Changes that are made once, however often they have to be asked for.
//!
//! An answer can get lost, and then nobody knows whether the change was made, or will be, once a member gets round
//! to it. So each change is a transaction that also writes its number to a key of this client's, its *guard*, and
//! that is only made while the guard is as it was before: of all attempts at it at most one succeeds, and whether
//! one did is in the guard. And before a change is said not to have been made although an attempt is still out,
//! the guard is written to, so that none can be made any more.

use super::http::Failure;
use super::members::{Attempt, Members, Told, Unanswered};
use super::message::{self, Keys, Outcome, Pair};
use crate::auth;
use crate::error::{Code, Error, Extent};
use crate::sync::Mutex;
use serde_json::Value;
use std::time::{Duration, Instant};

/// Guards vanish so long after their client's last change.
pub const GUARD_TTL: Duration = Duration::from_secs(60);
const TRANSACTION: &str = "/v3/kv/txn";
/// Guards that may vanish during one call before something must be wrong.
const ATTEMPTS: usize = 5;

/// A key that changes go by, one at a time.
#[derive(Debug)]
struct Guard {
    key: Vec<u8>,
    /// When it was last written; 0: never.
    modified: u64,
    /// Of the last change.
    number: u64,
}

/// A change to be made.
#[derive(Debug, Default)]
pub struct Change {
    /// If this is so,
    pub compare: Vec<Value>,
    /// then do this;
    pub success: Vec<Value>,
    /// else only look.
    pub failure: Vec<Value>,
}

/// What has come of a change.
#[derive(Debug, PartialEq, Eq)]
pub enum Made {
    /// It was made, and this is how many keys it has deleted, if that is known.
    Yes(Option<u64>),
    /// It was not, and will not be; and what was there instead.
    No(Vec<Vec<Pair>>),
}

/// Makes changes.
#[derive(Debug)]
pub struct Changes {
    prefix: Vec<u8>,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Of the guards, and when it was last kept alive.
    lease: Option<(u64, Instant)>,
    /// Not in use.
    guards: Vec<Guard>,
}

impl Changes {
    /// With guards under `prefix`.
    pub fn new(prefix: Vec<u8>) -> Changes {
        Changes { prefix, inner: Mutex::default() }
    }

    /// The guards' lease, if there is one.
    pub fn lease(&self) -> Option<u64> {
        self.inner.lock().lease.map(|(id, _)| id)
    }

    /// Makes a change, or finds that it does not apply.
    pub fn make(&self, members: &Members, change: &Change, deadline: Instant) -> Told<Made> {
        for _ in 0..ATTEMPTS {
            let lease = self.prepared_lease(members, deadline)?;
            let mut guard = self.guard().map_err(Unanswered::Failed)?;
            guard.number += 1;
            let made = attempt(members, &mut guard, lease, change, deadline);
            match made {
                Ok(Some(made)) => {
                    self.inner.lock().guards.push(guard);
                    return Ok(made);
                }
                // Somebody has removed it, or this client was silent for long. Nothing was done, and nothing will be.
                Ok(None) => self.forget(),
                // Whose lease it is that is not there only the caller can tell.
                Err(e) => return Err(e),
            }
        }
        let text = format!("store at {}: somebody removes the keys of this client", members.name());
        Err(Unanswered::Failed(Error::new(Code::System, Extent::Operation, text)))
    }

    /// Forgets the lease and the guards: the next change begins anew.
    pub fn forget(&self) {
        *self.inner.lock() = Inner::default();
    }

    fn guard(&self) -> crate::error::Result<Guard> {
        if let Some(guard) = self.inner.lock().guards.pop() {
            return Ok(guard);
        }
        let mut random = [0; 16];
        auth::fill_random(&mut random)?;
        let name: String = random.iter().map(|b| format!("{b:02x}")).collect();
        Ok(Guard { key: [&self.prefix, name.as_bytes()].concat(), modified: 0, number: 0 })
    }

    /// A lease for guards that has enough time left.
    fn prepared_lease(&self, members: &Members, deadline: Instant) -> Told<u64> {
        let known = self.inner.lock().lease;
        if let Some((id, kept)) = known {
            if kept.elapsed() < GUARD_TTL / 3 {
                return Ok(id);
            }
            let now = Instant::now();
            if super::lease::keep_alive(members, id, deadline)? > 0 {
                let mut inner = self.inner.lock();
                if inner.lease.is_some_and(|(current, _)| current == id) {
                    inner.lease = Some((id, now));
                }
                return Ok(id);
            }
            self.forget();
        }
        let now = Instant::now();
        let (id, _) = super::lease::grant(members, GUARD_TTL, deadline)?;
        let mut inner = self.inner.lock();
        // Another thread may have been faster. Then this one ends by itself.
        Ok(inner.lease.get_or_insert((id, now)).0)
    }
}

/// Makes the change, finds that it does not apply, or, `None`, that the guard is not what it was.
fn attempt(
    members: &Members,
    guard: &mut Guard,
    lease: u64,
    change: &Change,
    deadline: Instant,
) -> Told<Option<Made>> {
    let mark = guard.number.to_string().into_bytes();
    let mut compare = vec![message::unchanged(&guard.key, guard.modified)];
    compare.extend(change.compare.iter().cloned());
    let mut success = vec![message::put_step(&guard.key, &mark, lease)];
    success.extend(change.success.iter().cloned());
    let mut failure = vec![message::range_step(Keys::One(&guard.key))];
    failure.extend(change.failure.iter().cloned());
    let question = message::transaction(compare, success, failure);
    let mut doubtful = false;
    let outcome = members.attempt(deadline, |attempt| {
        doubtful = attempt.doubtful;
        transact(attempt, &question)
    })?;
    if outcome.succeeded {
        guard.modified = outcome.revision;
        return Ok(Some(Made::Yes(Some(outcome.deleted))));
    }
    let mut found = outcome.found;
    if found.is_empty() {
        let text = format!("store at {}: the answer to a transaction lacks a part", members.name());
        return Err(Unanswered::Failed(Error::new(Code::System, Extent::Operation, text)));
    }
    let seen = found.remove(0).pop();
    match state(guard, &mark, seen) {
        GuardIs::AsBefore if !doubtful => Ok(Some(Made::No(found))),
        GuardIs::AsBefore => Ok(fence(members, guard, lease, &mark, deadline)?.map(|made| match made {
            Made::No(_) => Made::No(found),
            yes => yes,
        })),
        GuardIs::Marked => Ok(Some(Made::Yes(None))),
        GuardIs::Lost if !doubtful => Ok(None),
        GuardIs::Lost => Err(Unanswered::Failed(in_doubt(members))),
    }
}

enum GuardIs {
    /// No attempt has succeeded yet.
    AsBefore,
    /// One has.
    Marked,
    /// It has vanished or was altered.
    Lost,
}

/// What the guard, as it was found, says about the change with this mark.
fn state(guard: &mut Guard, mark: &[u8], seen: Option<Pair>) -> GuardIs {
    let modified = seen.as_ref().map_or(0, |pair| pair.modified);
    if modified == guard.modified {
        return GuardIs::AsBefore;
    }
    if seen.is_some_and(|pair| pair.value == mark) {
        guard.modified = modified;
        return GuardIs::Marked;
    }
    GuardIs::Lost
}

/// Sees to it that no attempt that is still out can succeed, unless one has.
fn fence(
    members: &Members,
    guard: &mut Guard,
    lease: u64,
    mark: &[u8],
    deadline: Instant,
) -> Told<Option<Made>> {
    let fence = [mark, b" not"].concat();
    let question = message::transaction(
        vec![message::unchanged(&guard.key, guard.modified)],
        vec![message::put_step(&guard.key, &fence, lease)],
        vec![message::range_step(Keys::One(&guard.key))],
    );
    let outcome = members.attempt(deadline, |attempt| transact(attempt, &question))?;
    if outcome.succeeded {
        guard.modified = outcome.revision;
        return Ok(Some(Made::No(Vec::new())));
    }
    let seen = outcome.found.into_iter().flatten().next();
    if let Some(pair) = seen.as_ref().filter(|pair| pair.value == fence) {
        // The answer to an earlier attempt at this got lost.
        guard.modified = pair.modified;
        return Ok(Some(Made::No(Vec::new())));
    }
    match state(guard, mark, seen) {
        GuardIs::Marked => Ok(Some(Made::Yes(None))),
        _ => Err(Unanswered::Failed(in_doubt(members))),
    }
}

fn in_doubt(members: &Members) -> Error {
    let text = format!("store at {}: it is not known whether a change was made", members.name());
    Error::new(Code::System, Extent::Operation, text)
}

fn transact(attempt: &Attempt, question: &Value) -> Result<Outcome, Failure> {
    let answer = attempt.ask(TRANSACTION, question)?;
    message::outcome(&answer).map_err(|what| attempt.nonsense(what))
}

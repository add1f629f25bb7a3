//! A store in an etcd cluster: `etcd://host:port,host:port...`, for those who have one and whose joining must survive
//! the loss of any machine.
//!
//! | module | provides |
//! |---|---|
//! | `message` | what is said, as JSON; no I/O |
//! | `http` | a question to one member |
//! | `members` | a question to whichever member answers |
//! | `change` | changes that are made once, however often they have to be asked for |
//! | `lease` | leases of the cluster |
//! | `tls` | certificates |
//!
//! Keys lie under `<prefix>keys/`, guards of changes (see `change`) under `<prefix>guards/`. Spoken is etcd's JSON
//! gateway, version 3.4 or later, over a small HTTP client; no thread runs here. A lease is kept alive by the calls
//! of its client, those that wait included, so a process that dies is noticed when its leases' time is over.

mod change;
mod http;
mod lease;
mod members;
mod message;
mod tls;

use super::calls::Ask;
use super::wire::{Answer, Malformed, Refusal, Request};
use super::{Cluster, Entry, LeaseId, Revision, Snapshot, Swap};
use crate::error::{Code, Error, Extent, Result};
use crate::sync::{Arc, Mutex};
use crate::sys::process;
use change::{Change, Changes, Made};
use http::Failure;
use lease::NOT_FOUND;
use members::{Attempt, Members, Told, Unanswered};
use message::{Keys, News, Pair};
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

const RANGE: &str = "/v3/kv/range";
/// A watch is begun anew so often: the member that it is with may have been cut off from the others.
const LONGEST_WATCH: Duration = Duration::from_secs(10);
/// And not so often that a busy member gets no round to it.
const SHORTEST_WATCH: Duration = Duration::from_millis(300);
/// How long a client that ends tries to end its leases.
const FAREWELL: Duration = Duration::from_millis(500);

/// One client of an etcd cluster.
pub struct Etcd {
    members: Members,
    changes: Changes,
    /// In front of all keys.
    prefix: Vec<u8>,
    leases: Mutex<Leases>,
    /// Keys under prefixes, as they were last listed, and the revision then.
    seen: Mutex<HashMap<Vec<u8>, Seen>>,
    process: u32,
}

type Seen = (Revision, Vec<Vec<u8>>);
/// Prefixes that are remembered, and keys of each.
const SEEN_PREFIXES: usize = 64;
const SEEN_KEYS: usize = 8192;

#[derive(Default)]
struct Leases {
    held: HashMap<u64, Held>,
    /// Those that were this client's.
    ended: HashSet<u64>,
}

#[derive(Clone, Copy)]
struct Held {
    ttl: Duration,
    /// When it was last given its whole time.
    kept: Instant,
}

impl Held {
    fn due(&self) -> Instant {
        self.kept + self.ttl / 3
    }
}

impl Etcd {
    /// A client of this cluster, once a member has answered.
    pub fn connect(cluster: Cluster, deadline: Instant) -> Result<Etcd> {
        let prefix = cluster.prefix.as_bytes();
        let etcd = Etcd {
            changes: Changes::new([prefix, b"guards/"].concat()),
            prefix: [prefix, b"keys/"].concat(),
            members: Members::new(cluster)?,
            leases: Mutex::default(),
            seen: Mutex::default(),
            process: process::pid(),
        };
        let probe = message::count(Keys::One(&etcd.prefix));
        etcd.members.ask(RANGE, &probe, deadline).map_err(|e| etcd.explain(e))?;
        Ok(etcd)
    }

    fn full(&self, key: &[u8]) -> Vec<u8> {
        [&self.prefix, key].concat()
    }

    fn nonsense(&self, what: Malformed) -> Unanswered {
        let text = format!("store at {}: answered {}", self.members.name(), what.0);
        Unanswered::Failed(Error::new(Code::System, Extent::Operation, text))
    }

    fn get(&self, key: &[u8], deadline: Instant) -> Told<Option<Vec<u8>>> {
        let key = self.full(key);
        let answer = self.members.ask(RANGE, &message::range(Keys::One(&key)), deadline)?;
        let pairs = message::pairs(&answer).map_err(|what| self.nonsense(what))?;
        self.only(&key, pairs)
    }

    /// The value of `key` among what was found under it.
    fn only(&self, key: &[u8], pairs: Vec<Pair>) -> Told<Option<Vec<u8>>> {
        match pairs.into_iter().next() {
            Some(pair) if pair.key == key => Ok(Some(pair.value)),
            Some(_) => Err(self.nonsense(Malformed("a key that was not asked for"))),
            None => Ok(None),
        }
    }

    /// What lies under `prefix`, and the revision of the last change that shows there.
    fn list(&self, prefix: &[u8], deadline: Instant) -> Told<(Snapshot, Revision)> {
        let full = self.full(prefix);
        let answer = self.members.ask(RANGE, &message::range(Keys::Under(&full)), deadline)?;
        let listed = self.snapshot(&full, &answer).map_err(|what| self.nonsense(what))?;
        let mut seen = self.seen.lock();
        if seen.len() >= SEEN_PREFIXES {
            seen.clear();
        }
        if listed.0.entries.len() <= SEEN_KEYS {
            let keys = listed.0.entries.iter().map(|e| e.key.clone()).collect();
            seen.insert(prefix.to_vec(), (listed.0.revision, keys));
        }
        Ok(listed)
    }

    fn snapshot(
        &self,
        prefix: &[u8],
        answer: &serde_json::Value,
    ) -> std::result::Result<(Snapshot, Revision), Malformed> {
        let pairs = message::pairs(answer)?;
        let modified = pairs.iter().map(|pair| pair.modified).max().unwrap_or(0);
        let entry = |pair: Pair| match pair.key.strip_prefix(&self.prefix[..]) {
            Some(key) if pair.key.starts_with(prefix) => Ok(Entry { key: key.to_vec(), value: pair.value }),
            _ => Err(Malformed("a key that was not asked for")),
        };
        let mut entries = pairs.into_iter().map(entry).collect::<std::result::Result<Vec<_>, _>>()?;
        entries.sort_by(|a, b| a.key.cmp(&b.key));
        Ok((Snapshot { revision: message::revision(answer)?, entries }, modified))
    }

    /// Makes a change under a lease of this client's, if one is given.
    fn change(&self, change: &Change, lease: Option<LeaseId>, deadline: Instant) -> Told<Option<Made>> {
        // Twice: the lease that is not there may be the guards'.
        for _ in 0..2 {
            if lease.is_some_and(|id| !self.leases.lock().held.contains_key(&id.0)) {
                return Ok(None);
            }
            match self.changes.make(&self.members, change, deadline) {
                Err(Unanswered::Refused(NOT_FOUND, _)) => {
                    self.changes.forget();
                    if let Some(id) = lease {
                        self.keep(id.0, deadline)?;
                    }
                }
                other => return other.map(Some),
            }
        }
        let text = format!("store at {}: leases end at once", self.members.name());
        Err(Unanswered::Failed(Error::new(Code::System, Extent::Operation, text)))
    }

    fn swap(
        &self,
        key: &[u8],
        expected: Option<&[u8]>,
        new: Option<Vec<u8>>,
        lease: Option<LeaseId>,
        deadline: Instant,
    ) -> Told<Answer> {
        let key = self.full(key);
        let success = match &new {
            Some(value) => vec![message::put_step(&key, value, lease.map_or(0, |id| id.0))],
            None => vec![message::delete_step(Keys::One(&key))],
        };
        let change = Change {
            compare: vec![message::holds(&key, expected)],
            success,
            failure: vec![message::range_step(Keys::One(&key))],
        };
        let lease = lease.filter(|_| new.is_some());
        Ok(match self.change(&change, lease, deadline)? {
            None => Answer::Refused(Refusal::NoLease),
            Some(Made::Yes(_)) => Answer::Swap(Swap { swapped: true, current: new }),
            Some(Made::No(found)) => {
                let found = found.into_iter().next().ok_or(Malformed("a transaction without its answers"));
                let current = self.only(&key, found.map_err(|what| self.nonsense(what))?)?;
                Answer::Swap(Swap { swapped: false, current })
            }
        })
    }

    fn set(&self, key: &[u8], value: &[u8], lease: Option<LeaseId>, deadline: Instant) -> Told<Answer> {
        let put = message::put_step(&self.full(key), value, lease.map_or(0, |id| id.0));
        let change = Change { success: vec![put], ..Change::default() };
        Ok(match self.change(&change, lease, deadline)? {
            None => Answer::Refused(Refusal::NoLease),
            Some(_) => Answer::Done,
        })
    }

    fn delete_prefix(&self, prefix: &[u8], deadline: Instant) -> Told<Answer> {
        let prefix = self.full(prefix);
        let keys = Keys::Under(&prefix);
        // For the case that the answer to the change gets lost, with the number in it.
        let answer = self.members.ask(RANGE, &message::count(keys), deadline)?;
        let before = message::number(&answer, "count").map_err(|what| self.nonsense(what))?;
        if before == 0 {
            return Ok(Answer::Count(0));
        }
        let change = Change { success: vec![message::delete_step(keys)], ..Change::default() };
        Ok(match self.change(&change, None, deadline)? {
            Some(Made::Yes(Some(count))) => Answer::Count(count),
            _ => Answer::Count(before),
        })
    }

    fn watch(&self, prefix: &[u8], after: Revision, deadline: Instant) -> Told<Answer> {
        let seen = self.seen.lock().get(prefix).filter(|(revision, _)| *revision == after).cloned();
        let full = self.full(prefix);
        // A member tells at once what comes, but takes its time with what was. So that is looked at, as soon as the
        // member tells; and what shows no more, as it was deleted, by what the caller has seen of it. Only if that
        // is not known the member has to say.
        let question = message::watch(Keys::Under(&full), seen.is_none().then(|| after.saturating_add(1)));
        loop {
            self.tend(deadline);
            let now = Instant::now();
            let due = self.leases.lock().held.values().map(Held::due).min();
            let pause = due.map_or(LONGEST_WATCH, |due| due.saturating_duration_since(now));
            let until = deadline.min(now + pause.clamp(SHORTEST_WATCH, LONGEST_WATCH));
            let look = || self.look(prefix, after, seen.as_ref(), until);
            match self.members.attempt(until, |attempt| watch_once(attempt, &question, until, &look)) {
                Ok(Watched::Found(snapshot)) => return Ok(Answer::Snapshot(Arc::new(snapshot))),
                Ok(Watched::Changed) => {
                    return self.list(prefix, deadline).map(|(s, _)| Answer::Snapshot(Arc::new(s)));
                }
                Ok(Watched::Nothing) if until < deadline => {}
                Ok(Watched::Nothing) => {
                    let text = format!("store at {}: nothing has changed in time", self.members.name());
                    return Err(Unanswered::Failed(Error::timeout(text)));
                }
                Err(Unanswered::Failed(e)) if e.code == Code::Timeout && until < deadline => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// What lies under `prefix`, if it shows that something has changed after revision `after`.
    fn look(
        &self,
        prefix: &[u8],
        after: Revision,
        seen: Option<&Seen>,
        deadline: Instant,
    ) -> std::result::Result<Option<Snapshot>, Failure> {
        let (now, modified) = self.list(prefix, deadline).map_err(|e| match e {
            Unanswered::Refused(code, text) => Failure::Refused(code, text),
            Unanswered::TooLarge => Failure::TooLarge,
            Unanswered::Failed(e) if e.code == Code::Timeout => Failure::Unsent(e.text.to_string()),
            Unanswered::Failed(e) => Failure::Final(e),
        })?;
        let is_missing = seen.is_some_and(|(_, keys)| {
            keys.len() != now.entries.len() || keys.iter().zip(&now.entries).any(|(key, e)| *key != e.key)
        });
        // A revision from the future is one of an earlier cluster at this address: all has changed since.
        Ok((modified > after || is_missing || now.revision < after).then_some(now))
    }

    /// Gives signs of life for the leases for which it is time.
    fn tend(&self, deadline: Instant) {
        let now = Instant::now();
        let due = |(id, held): (&u64, &Held)| (held.due() <= now).then_some((*id, held.ttl));
        let due: Vec<(u64, Duration)> = self.leases.lock().held.iter().filter_map(due).collect();
        for (id, ttl) in due {
            if let Err(e) = self.keep(id, deadline.min(now + ttl / 3)) {
                // The call itself will find out whether the cluster is there.
                tracing::debug!("store at {}: keeping a lease alive: {e:?}", self.members.name());
            }
        }
    }

    /// Gives a sign of life for a lease; one that has ended is forgotten.
    fn keep(&self, id: u64, deadline: Instant) -> Told<()> {
        let now = Instant::now();
        let left = lease::keep_alive(&self.members, id, deadline)?;
        let mut leases = self.leases.lock();
        match leases.held.get_mut(&id) {
            Some(held) if left > 0 => held.kept = now,
            _ => leases.end(id),
        }
        Ok(())
    }

    fn grant(&self, ttl: Duration, deadline: Instant) -> Told<Answer> {
        let kept = Instant::now();
        let (id, ttl) = lease::grant(&self.members, ttl, deadline)?;
        self.leases.lock().held.insert(id, Held { ttl, kept });
        Ok(Answer::Lease(LeaseId(id)))
    }

    fn revoke(&self, id: LeaseId, deadline: Instant) -> Told<Answer> {
        {
            let leases = self.leases.lock();
            if leases.ended.contains(&id.0) {
                return Ok(Answer::Done);
            }
            if !leases.held.contains_key(&id.0) {
                return Ok(Answer::Refused(Refusal::NoLease));
            }
        }
        lease::revoke(&self.members, id.0, deadline)?;
        self.leases.lock().end(id.0);
        Ok(Answer::Done)
    }

    fn answer(&self, request: &Request, deadline: Instant) -> Told<Answer> {
        self.tend(deadline);
        match request {
            Request::Get { key } => self.get(key, deadline).map(Answer::Value),
            Request::List { prefix } => {
                self.list(prefix, deadline).map(|(s, _)| Answer::Snapshot(Arc::new(s)))
            }
            Request::Watch { prefix, after } => self.watch(prefix, *after, deadline),
            Request::Set { key, value, lease } => self.set(key, value, *lease, deadline),
            Request::CompareAndSet { key, expected: None, new: None, .. } => {
                let current = self.get(key, deadline)?;
                Ok(Answer::Swap(Swap { swapped: current.is_none(), current }))
            }
            Request::CompareAndSet { key, expected, new, lease } => {
                self.swap(key, expected.as_deref(), new.clone(), *lease, deadline)
            }
            Request::DeletePrefix { prefix } => self.delete_prefix(prefix, deadline),
            Request::Lease { ttl } => self.grant(*ttl, deadline),
            Request::Revoke { lease } => self.revoke(*lease, deadline),
            Request::Ping
            | Request::Alive
            | Request::Cancel { .. }
            | Request::Settled { .. }
            | Request::Leave => Ok(Answer::Done),
        }
    }

    /// An error that the caller can do something with.
    fn explain(&self, e: Unanswered) -> Error {
        let (code, text) = match e {
            Unanswered::Failed(e) => return e,
            Unanswered::TooLarge => return Error::usage("store: an answer is larger than is taken"),
            Unanswered::Refused(code, text) => (code, text),
        };
        const INVALID_ARGUMENT: u64 = 3;
        const PERMISSION_DENIED: u64 = 7;
        const UNAUTHENTICATED: u64 = 16;
        let is_user = ["authentication failed", "user name", "password"].iter().any(|w| text.contains(w));
        let kind = match code {
            PERMISSION_DENIED | UNAUTHENTICATED => Code::Unauthorized,
            INVALID_ARGUMENT if is_user => Code::Unauthorized,
            _ => Code::System,
        };
        Error::new(kind, Extent::Operation, format!("store at {}: refused: {text}", self.members.name()))
    }
}

impl Leases {
    fn end(&mut self, id: u64) {
        const REMEMBERED: usize = 4096;
        if self.held.remove(&id).is_some() {
            if self.ended.len() >= REMEMBERED {
                self.ended.clear();
            }
            self.ended.insert(id);
        }
    }
}

/// What has come of waiting for a change.
enum Watched {
    /// There was one before, and this is what lies there now.
    Found(Snapshot),
    /// There was one now.
    Changed,
    /// There was none.
    Nothing,
}

/// Waits for a change until `until`; looks what was before once a member tells what comes.
fn watch_once(
    attempt: &Attempt,
    question: &serde_json::Value,
    until: Instant,
    look: &dyn Fn() -> std::result::Result<Option<Snapshot>, Failure>,
) -> std::result::Result<Watched, Failure> {
    let mut lines = attempt.stream("/v3/watch", question, until)?;
    let mut begun = false;
    while let Some(line) = lines.next()? {
        match message::news(&line).map_err(|what| attempt.nonsense(what))? {
            News::Begun => {
                begun = true;
                if let Some(snapshot) = look()? {
                    return Ok(Watched::Found(snapshot));
                }
            }
            News::Changed => return Ok(Watched::Changed),
            News::Ended(why) if why.contains("permission") => return Err(Failure::Refused(7, why)),
            News::Ended(why) => return Err(Failure::Unsent(why)),
            News::Nothing => {}
        }
    }
    if begun { Ok(Watched::Nothing) } else { Err(Failure::Unsent("a watch did not begin in time".into())) }
}

impl Ask for Etcd {
    fn ask(&self, request: Request, deadline: Instant) -> Result<Answer> {
        match self.answer(&request, deadline) {
            Ok(answer) => Ok(answer),
            Err(Unanswered::TooLarge) => Ok(Answer::Refused(Refusal::TooLarge)),
            Err(Unanswered::Refused(8, text)) if text.contains("space exceeded") => {
                Ok(Answer::Refused(Refusal::Full))
            }
            Err(e) => Err(self.explain(e)),
        }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // A forked process must not end what is its parent's.
        if self.process != process::pid() {
            return;
        }
        let deadline = Instant::now() + FAREWELL;
        let held: Vec<u64> = self.leases.lock().held.keys().copied().collect();
        for id in held.into_iter().chain(self.changes.lease()) {
            if lease::revoke(&self.members, id, deadline).is_err() {
                // They end by themselves.
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests;

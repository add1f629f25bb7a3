//! What the store knows and how it answers: requests, disconnections and the time go in, answers come out.
//!
//! Used by the server and by [`super::memory`]. No I/O, no clock.
//!
//! A client with a **session** may lose its connection and come back. What its requests have done is remembered
//! until it says that the answers have arrived: a request that is sent again is answered and not carried out
//! twice. Its leases, on the other hand, end with its connection, so that a process that dies is missed at once.
//! Only where the store itself was away do they wait for their client: for as long as they would have without a
//! sign of life.
//!
//! A state that is kept in a log ([`State::recorded`]) tells what has changed it; whoever applies that again, in
//! order, gets the same state. See [`super::record`].
//!
//! Invariants:
//! 1. Each change of a key has a revision of its own; `revision` is the last one.
//! 2. An entry with a lease is in that lease's set of keys, and the other way round.
//! 3. A lease is in its client's set, and has one entry in `expiries`, whose time is not later than its end.
//! 4. A watch is in `watches` under its prefix and in its client's map.
//! 5. Every client that is not connected is in `absent`.

mod image;

use super::deleted::Deleted;
use super::record::{Outcome, Record};
use super::wire::{Answer, Refusal, Request};
use super::{Entry, LeaseId, Revision, Snapshot, Swap, under};
use crate::sync::Arc;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

/// Names one client of the store: with [`SESSION`] for as long as it wants, else while it is connected.
pub type ClientId = u64;

/// Set in the ids of clients that have a session. Such a client has chosen its id itself, at random.
pub const SESSION: ClientId = 1 << 63;
/// How long it is remembered after a client's last sign of life what its requests have done.
pub const MEMORY: Duration = Duration::from_secs(60);

/// Bytes that an entry takes beyond its key and its value, roughly.
const ENTRY_OVERHEAD: usize = 96;
const MIN_TTL: Duration = Duration::from_millis(1);
const MAX_TTL: Duration = Duration::from_secs(30 * 24 * 3600);
/// Requests of a client of which it is remembered what they have done; a client says what it need not be.
pub(super) const OUTCOMES: usize = 1024;
/// Clients that are remembered without being connected.
const ABSENT: usize = 4096;

/// How much a store holds.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Keys.
    pub entries: usize,
    /// Bytes of all keys and values, with an overhead for each.
    pub bytes: usize,
    /// Watches that one client may have pending.
    pub watches: usize,
    /// Leases that one client may have.
    pub leases: usize,
}

impl Limits {
    /// None: what was within them once is taken again, whatever they are by now.
    const NONE: Limits =
        Limits { entries: usize::MAX, bytes: usize::MAX, watches: usize::MAX, leases: usize::MAX };
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { entries: 256 * 1024, bytes: 64 * 1024 * 1024, watches: 1024, leases: 1024 }
    }
}

/// An answer that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action {
    /// To whom.
    pub client: ClientId,
    /// To which of its requests.
    pub request: u64,
    /// What.
    pub answer: Answer,
}

#[derive(Debug)]
struct Item {
    value: Vec<u8>,
    modified: Revision,
    lease: Option<LeaseId>,
}

#[derive(Debug)]
struct Client {
    last_seen: Instant,
    leases: BTreeSet<LeaseId>,
    /// Prefix of each pending watch, by request.
    watches: HashMap<u64, Vec<u8>>,
    connected: bool,
    /// What its requests have done of which it may not know yet; of a session only.
    outcomes: BTreeMap<u64, Outcome>,
    /// The answers to all requests before this one have arrived.
    settled: u64,
    /// Whether a record names it.
    recorded: bool,
}

impl Client {
    fn new(now: Instant, connected: bool) -> Client {
        Client {
            last_seen: now,
            leases: BTreeSet::new(),
            watches: HashMap::new(),
            connected,
            outcomes: BTreeMap::new(),
            settled: 0,
            recorded: false,
        }
    }

    fn settle(&mut self, below: u64) {
        if below > self.settled {
            self.settled = below;
            self.outcomes = self.outcomes.split_off(&below);
        }
    }

    fn remember(&mut self, request: u64, outcome: Outcome) {
        self.outcomes.insert(request, outcome);
        if self.outcomes.len() > OUTCOMES {
            self.outcomes.pop_first();
        }
    }
}

#[derive(Debug)]
struct Lease {
    client: ClientId,
    ttl: Duration,
    keys: BTreeSet<Vec<u8>>,
}

/// A store.
#[derive(Debug)]
pub struct State {
    limits: Limits,
    /// Where it began to count.
    base: Revision,
    revision: Revision,
    entries: BTreeMap<Vec<u8>, Item>,
    bytes: usize,
    deleted: Deleted,
    clients: HashMap<ClientId, Client>,
    leases: HashMap<LeaseId, Lease>,
    last_lease: u64,
    /// When to look at which lease. A sign of life does not move it; the look does.
    expiries: BTreeSet<(Instant, LeaseId)>,
    watches: BTreeMap<Vec<u8>, BTreeSet<(ClientId, u64)>>,
    /// Watched prefixes under which something has changed since the last [`State::settle`].
    changed: BTreeSet<Vec<u8>>,
    /// Clients that are not connected, by when to look whether they are to be forgotten.
    absent: BTreeSet<(Instant, ClientId)>,
    actions: Vec<Action>,
    /// What has changed it, if that is kept.
    records: Option<Vec<Record>>,
}

impl State {
    /// An empty store whose changes, and whose leases, are numbered from `revision` + 1.
    pub fn new(limits: Limits, revision: Revision) -> State {
        State {
            limits,
            base: revision,
            revision,
            entries: BTreeMap::new(),
            bytes: 0,
            deleted: Deleted::new(revision),
            clients: HashMap::new(),
            leases: HashMap::new(),
            last_lease: revision,
            expiries: BTreeSet::new(),
            watches: BTreeMap::new(),
            changed: BTreeSet::new(),
            absent: BTreeSet::new(),
            actions: Vec::new(),
            records: None,
        }
    }

    /// The same; and what changes it is told by [`State::take_records`].
    pub fn recorded(limits: Limits, revision: Revision) -> State {
        State { records: Some(vec![Record::Began { revision }]), ..State::new(limits, revision) }
    }

    /// The last change's number.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Whether it holds nothing and has no client.
    pub fn is_idle(&self) -> bool {
        self.clients.is_empty() && self.entries.is_empty()
    }

    /// A client is here, for the first time or again. Answers whether its session is known: what it has asked before
    /// is remembered then. A watch of before is not.
    pub fn connect(&mut self, client: ClientId, now: Instant) -> bool {
        let Some(known) = self.clients.get_mut(&client) else {
            self.clients.insert(client, Client::new(now, true));
            return false;
        };
        known.connected = true;
        known.last_seen = now;
        for (request, prefix) in std::mem::take(&mut known.watches) {
            self.forget_watch(&prefix, client, request);
        }
        true
    }

    /// A client's connection is gone: so are its leases and watches.
    pub fn disconnect(&mut self, client: ClientId) {
        let forget = self.clients.get(&client).is_none_or(|c| c.outcomes.is_empty());
        self.leave(client, forget);
    }

    fn leave(&mut self, client: ClientId, forget: bool) {
        let Some(gone) = self.clients.get_mut(&client) else { return };
        let (watches, leases) = (std::mem::take(&mut gone.watches), gone.leases.clone());
        gone.connected = false;
        let (until, recorded) = (gone.last_seen + MEMORY, gone.recorded);
        for (request, prefix) in watches {
            self.forget_watch(&prefix, client, request);
        }
        for lease in leases {
            self.end_lease(lease);
        }
        if forget {
            self.clients.remove(&client);
        } else {
            self.expect(until, client);
        }
        if recorded {
            self.record(Record::Left { client, forget });
        }
    }

    /// The client is not connected; at `until` it may be forgotten.
    fn expect(&mut self, until: Instant, client: ClientId) {
        self.absent.insert((until, client));
        if self.absent.len() > ABSENT
            && let Some((_, first)) = self.absent.pop_first()
            && self.clients.get(&first).is_some_and(|c| !c.connected)
        {
            self.leave(first, true);
        }
    }

    /// The leases that a client has.
    pub fn leases_of(&self, client: ClientId) -> Vec<LeaseId> {
        self.clients.get(&client).map(|c| c.leases.iter().copied().collect()).unwrap_or_default()
    }

    /// Something was heard of a client.
    pub fn alive(&mut self, client: ClientId, now: Instant) {
        if let Some(c) = self.clients.get_mut(&client) {
            c.last_seen = now;
        }
    }

    /// A request of a connected client. The answer, if it has one already, is among [`State::take_actions`].
    pub fn request(&mut self, client: ClientId, id: u64, request: Request, now: Instant) {
        self.alive(client, now);
        if let Some(outcome) = self.clients.get(&client).and_then(|c| c.outcomes.get(&id)) {
            let answer = outcome.answer(request);
            self.actions.push(Action { client, request: id, answer });
            return;
        }
        let changes = request.changes();
        let kept = (changes && self.records.is_some()).then(|| request.clone());
        let answer = match request {
            Request::Get { key } => Some(Answer::Value(self.value(&key))),
            Request::Set { key, value, lease } => Some(self.set(client, key, value, lease)),
            Request::CompareAndSet { key, expected, new, lease } => {
                Some(self.compare_and_set(client, key, expected.as_deref(), new, lease))
            }
            Request::DeletePrefix { prefix } => Some(Answer::Count(self.delete_prefix(&prefix))),
            Request::List { prefix } => Some(Answer::Snapshot(Arc::new(self.snapshot(&prefix)))),
            Request::Watch { prefix, after } => self.watch(client, id, prefix, after),
            Request::Lease { ttl } => Some(self.grant(client, ttl, now)),
            Request::Revoke { lease } => Some(self.revoke(client, lease)),
            Request::Ping => Some(Answer::Done),
            Request::Alive => None,
            Request::Cancel { request } => {
                self.cancel(client, request);
                None
            }
            Request::Settled { below } => {
                if let Some(c) = self.clients.get_mut(&client) {
                    c.settle(below);
                }
                None
            }
            Request::Leave => {
                if let Some(c) = self.clients.get_mut(&client) {
                    c.outcomes.clear();
                }
                None
            }
        };
        let Some(answer) = answer else { return };
        if changes && let Some(outcome) = Outcome::of(&answer) {
            self.note(client, id, outcome, kept);
        }
        self.actions.push(Action { client, request: id, answer });
    }

    /// A request has had an effect.
    fn note(&mut self, client: ClientId, id: u64, outcome: Outcome, kept: Option<Request>) {
        let Some(c) = self.clients.get_mut(&client) else { return };
        if client & SESSION != 0 {
            c.remember(id, outcome);
        }
        if let Some(request) = kept {
            c.recorded = true;
            let settled = c.settled;
            let revision = self.revision;
            self.record(Record::Asked { client, id, settled, revision, request });
        }
    }

    fn record(&mut self, record: Record) {
        if let Some(records) = &mut self.records {
            records.push(record);
        }
    }

    /// Ends the leases whose time is over. Signs of life that have arrived must have been reported before.
    pub fn tick(&mut self, now: Instant) {
        while let Some(&(at, id)) = self.expiries.first()
            && at <= now
        {
            self.expiries.pop_first();
            let Some(end) = self.end_of(id) else { continue };
            if end <= now {
                self.end_lease(id);
                self.record(Record::Ended { lease: id });
            } else {
                self.expiries.insert((end, id));
            }
        }
        while let Some(&(at, id)) = self.absent.first()
            && at <= now
        {
            self.absent.pop_first();
            let Some(client) = self.clients.get(&id).filter(|c| !c.connected) else { continue };
            let until = client.last_seen + MEMORY;
            if until <= now && client.leases.is_empty() {
                self.leave(id, true);
            } else {
                self.absent.insert((until.max(now + MEMORY / 8), id));
            }
        }
    }

    /// When [`State::tick`] has something to do next, at the earliest.
    pub fn next_deadline(&self) -> Option<Instant> {
        let (lease, client) = (self.expiries.first(), self.absent.first());
        lease.map(|&(at, _)| at).into_iter().chain(client.map(|&(at, _)| at)).min()
    }

    /// Answers the watches under whose prefix something has changed. Called once after everything that has
    /// arrived together was taken in, so that many changes at a time cost each watch one answer.
    pub fn settle(&mut self) {
        for prefix in std::mem::take(&mut self.changed) {
            let Some(waiting) = self.watches.remove(&prefix) else { continue };
            let snapshot = Arc::new(self.snapshot(&prefix));
            for (client, request) in waiting {
                if let Some(c) = self.clients.get_mut(&client) {
                    c.watches.remove(&request);
                }
                self.actions.push(Action { client, request, answer: Answer::Snapshot(snapshot.clone()) });
            }
        }
    }

    /// The answers that have become due since the last call.
    pub fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// What has changed the store since the last call, if that is kept.
    pub fn take_records(&mut self) -> Vec<Record> {
        self.records.as_mut().map(std::mem::take).unwrap_or_default()
    }

    fn value(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.entries.get(key).map(|r| r.value.clone())
    }

    fn snapshot(&self, prefix: &[u8]) -> Snapshot {
        let entries = under(&self.entries, prefix)
            .map(|(key, r)| Entry { key: key.clone(), value: r.value.clone() })
            .collect();
        Snapshot { revision: self.revision, entries }
    }

    fn set(&mut self, client: ClientId, key: Vec<u8>, value: Vec<u8>, lease: Option<LeaseId>) -> Answer {
        match self.check(client, &key, &value, lease) {
            Ok(()) => {
                self.put(key, value, lease);
                Answer::Done
            }
            Err(refusal) => Answer::Refused(refusal),
        }
    }

    fn compare_and_set(
        &mut self,
        client: ClientId,
        key: Vec<u8>,
        expected: Option<&[u8]>,
        new: Option<Vec<u8>>,
        lease: Option<LeaseId>,
    ) -> Answer {
        let current = self.entries.get(&key).map(|r| r.value.as_slice());
        if current != expected {
            return Answer::Swap(Swap { swapped: false, current: current.map(<[u8]>::to_vec) });
        }
        match new {
            Some(value) => {
                if let Err(refusal) = self.check(client, &key, &value, lease) {
                    return Answer::Refused(refusal);
                }
                self.put(key, value.clone(), lease);
                Answer::Swap(Swap { swapped: true, current: Some(value) })
            }
            None => {
                self.delete(&key);
                Answer::Swap(Swap { swapped: true, current: None })
            }
        }
    }

    fn delete_prefix(&mut self, prefix: &[u8]) -> u64 {
        let keys: Vec<Vec<u8>> = under(&self.entries, prefix).map(|(key, _)| key.clone()).collect();
        for key in &keys {
            self.delete(key);
        }
        keys.len() as u64
    }

    fn watch(&mut self, client: ClientId, id: u64, prefix: Vec<u8>, after: Revision) -> Option<Answer> {
        if self.changed_after(&prefix, after) {
            return Some(Answer::Snapshot(Arc::new(self.snapshot(&prefix))));
        }
        self.cancel(client, id);
        let c = self.clients.get_mut(&client)?;
        if c.watches.len() >= self.limits.watches {
            return Some(Answer::Refused(Refusal::TooMany));
        }
        c.watches.insert(id, prefix.clone());
        self.watches.entry(prefix).or_default().insert((client, id));
        None
    }

    fn changed_after(&self, prefix: &[u8], after: Revision) -> bool {
        // Who has seen nothing yet has not missed what was here before this store began.
        let after = if after == 0 { self.base } else { after };
        // A revision from the future is one of an earlier store at this address: all has changed since.
        after > self.revision
            || (after < self.revision
                && (under(&self.entries, prefix).any(|(_, r)| r.modified > after)
                    || self.deleted.any_after(prefix, after)))
    }

    fn cancel(&mut self, client: ClientId, request: u64) {
        let prefix = self.clients.get_mut(&client).and_then(|c| c.watches.remove(&request));
        if let Some(prefix) = prefix {
            self.forget_watch(&prefix, client, request);
        }
    }

    fn forget_watch(&mut self, prefix: &[u8], client: ClientId, request: u64) {
        if let Some(waiting) = self.watches.get_mut(prefix) {
            waiting.remove(&(client, request));
            if waiting.is_empty() {
                self.watches.remove(prefix);
            }
        }
    }

    fn grant(&mut self, client: ClientId, ttl: Duration, now: Instant) -> Answer {
        let Some(c) = self.clients.get_mut(&client) else { return Answer::Refused(Refusal::NoLease) };
        if c.leases.len() >= self.limits.leases {
            return Answer::Refused(Refusal::TooMany);
        }
        let ttl = ttl.clamp(MIN_TTL, MAX_TTL);
        self.last_lease += 1;
        let id = LeaseId(self.last_lease);
        c.leases.insert(id);
        self.leases.insert(id, Lease { client, ttl, keys: BTreeSet::new() });
        self.expiries.insert((now + ttl, id));
        Answer::Lease(id)
    }

    /// Ending a lease that has ended already is no error: the caller has what it wants.
    fn revoke(&mut self, client: ClientId, id: LeaseId) -> Answer {
        match self.leases.get(&id) {
            Some(lease) if lease.client != client => return Answer::Refused(Refusal::NoLease),
            Some(_) => self.end_lease(id),
            None => {}
        }
        Answer::Done
    }

    fn end_of(&self, id: LeaseId) -> Option<Instant> {
        let lease = self.leases.get(&id)?;
        let client = self.clients.get(&lease.client)?;
        Some(client.last_seen + lease.ttl)
    }

    fn end_lease(&mut self, id: LeaseId) {
        let Some(lease) = self.leases.remove(&id) else { return };
        if let Some(c) = self.clients.get_mut(&lease.client) {
            c.leases.remove(&id);
            // Who does not know yet that it has this lease is to get another one.
            c.outcomes.retain(|_, outcome| *outcome != Outcome::Lease(id));
        }
        for key in lease.keys {
            self.delete(&key);
        }
    }

    /// Whether the client may write this.
    fn check(
        &self,
        client: ClientId,
        key: &[u8],
        value: &[u8],
        lease: Option<LeaseId>,
    ) -> Result<(), Refusal> {
        if let Some(id) = lease
            && self.leases.get(&id).is_none_or(|l| l.client != client)
        {
            return Err(Refusal::NoLease);
        }
        let old = self.entries.get(key).map(|r| cost(key, &r.value));
        let entries = self.entries.len() + usize::from(old.is_none());
        let bytes = self.bytes - old.unwrap_or(0) + cost(key, value);
        if entries > self.limits.entries || bytes > self.limits.bytes { Err(Refusal::Full) } else { Ok(()) }
    }

    fn put(&mut self, key: Vec<u8>, value: Vec<u8>, lease: Option<LeaseId>) {
        self.take(&key);
        self.deleted.remove(&key);
        self.revision += 1;
        self.bytes += cost(&key, &value);
        if let Some(lease) = lease.and_then(|id| self.leases.get_mut(&id)) {
            lease.keys.insert(key.clone());
        }
        self.mark(&key);
        self.entries.insert(key, Item { value, modified: self.revision, lease });
    }

    fn delete(&mut self, key: &[u8]) {
        if self.take(key) {
            self.revision += 1;
            self.deleted.insert(key.to_vec(), self.revision);
            self.mark(key);
        }
    }

    /// Takes an entry out; answers whether there was one.
    fn take(&mut self, key: &[u8]) -> bool {
        let Some(old) = self.entries.remove(key) else { return false };
        self.bytes -= cost(key, &old.value);
        if let Some(lease) = old.lease.and_then(|id| self.leases.get_mut(&id)) {
            lease.keys.remove(key);
        }
        true
    }

    /// Remembers which watched prefixes a change of `key` concerns.
    fn mark(&mut self, key: &[u8]) {
        if self.watches.is_empty() {
            return;
        }
        for n in 0..=key.len() {
            let prefix = key.get(..n).unwrap_or(key);
            if self.watches.contains_key(prefix) && !self.changed.contains(prefix) {
                self.changed.insert(prefix.to_vec());
            }
        }
    }
}

fn cost(key: &[u8], value: &[u8]) -> usize {
    key.len() + value.len() + ENTRY_OVERHEAD
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;

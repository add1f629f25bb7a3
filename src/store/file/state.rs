//! What a store in a directory knows: records of the log go in, in their order, answers come out.
//!
//! Every process keeps a copy and has the same after the same record, so nothing here may depend on anything
//! but the records: no clock, no locks, no limits that somebody could set otherwise. Who may end a lease when
//! is decided by whoever writes the record; that nobody does so too early is in the record, too.
//!
//! Invariants:
//! 1. Each change of a key has a revision of its own; `revision` is the last one.
//! 2. An entry with a lease is in that lease's set of keys, and the other way round.
//! 3. A lease is in its client's set. A client is known while it has leases, and no longer.

use super::super::deleted::Deleted;
use super::super::state::Limits;
use super::super::wire::{Answer, Malformed, Refusal, Request};
use super::super::{Entry, LeaseId, Revision, Snapshot, Swap, under};
use super::log::Record;
use crate::sync::Arc;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;

/// Names a client: random, and the place of its lock.
pub type ClientId = u64;

/// Bytes that an entry takes beyond its key and its value, roughly.
const ENTRY_OVERHEAD: usize = 96;
const MAX_TTL: Duration = Duration::from_secs(30 * 24 * 3600);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    value: Vec<u8>,
    modified: Revision,
    lease: Option<LeaseId>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Client {
    seen: u64,
    leases: BTreeSet<LeaseId>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Lease {
    client: ClientId,
    ttl: u64,
    keys: BTreeSet<Vec<u8>>,
}

impl Lease {
    /// When it ends after a sign of life. These are written only every third of its time, so one may have been
    /// given that long after the one that is known.
    fn end(&self, seen: u64) -> u64 {
        seen.saturating_add(self.ttl).saturating_add(self.ttl / 3)
    }
}

/// A store.
#[derive(Debug, Default)]
pub struct State {
    revision: Revision,
    entries: BTreeMap<Vec<u8>, Held>,
    bytes: usize,
    deleted: Deleted,
    clients: BTreeMap<ClientId, Client>,
    leases: BTreeMap<LeaseId, Lease>,
    last_lease: u64,
}

impl State {
    /// The last change's number.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Bytes of all keys and values, with an overhead for each.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes in a record; answers a request.
    pub fn apply(&mut self, record: Record) -> Option<Answer> {
        match record {
            Record::Request { client, time, request, .. } => {
                self.alive(client, time);
                return Some(match self.foresee(client, &request) {
                    Some(answer) => answer,
                    None => self.change(client, time, request),
                });
            }
            Record::Alive { client, time } => self.alive(client, time),
            Record::Expired { lease, seen } => {
                let client = self.leases.get(&lease).and_then(|l| self.clients.get(&l.client));
                if client.is_some_and(|c| c.seen <= seen) {
                    self.end_lease(lease);
                }
            }
            Record::Gone { client } => {
                let leases = self.clients.get(&client).map(|c| c.leases.clone());
                leases.into_iter().flatten().for_each(|lease| self.end_lease(lease));
            }
            Record::Image(_) | Record::Seal => {}
        }
        None
    }

    /// The answer to a request that changes nothing, as things are; `None` where it must be written down, or,
    /// if it is a watch, waited for.
    pub fn foresee(&self, client: ClientId, request: &Request) -> Option<Answer> {
        let mine = |lease: &LeaseId| self.leases.get(lease).is_some_and(|l| l.client == client);
        match request {
            Request::Get { key } => Some(Answer::Value(self.entries.get(key).map(|h| h.value.clone()))),
            Request::List { prefix } => Some(self.snapshot(prefix)),
            Request::Watch { prefix, after } => {
                self.changed_after(prefix, *after).then(|| self.snapshot(prefix))
            }
            Request::Set { key, value, lease } => {
                if lease.as_ref().is_some_and(|lease| !mine(lease)) {
                    return Some(Answer::Refused(Refusal::NoLease));
                }
                self.is_full_with(key, value).then_some(Answer::Refused(Refusal::Full))
            }
            Request::CompareAndSet { key, expected, new, lease } => {
                let current = self.entries.get(key).map(|h| &h.value);
                if current != expected.as_ref() {
                    return Some(Answer::Swap(Swap { swapped: false, current: current.cloned() }));
                }
                match new {
                    Some(_) if lease.as_ref().is_some_and(|lease| !mine(lease)) => {
                        Some(Answer::Refused(Refusal::NoLease))
                    }
                    Some(value) => self.is_full_with(key, value).then_some(Answer::Refused(Refusal::Full)),
                    None if current.is_none() => Some(Answer::Swap(Swap { swapped: true, current: None })),
                    None => None,
                }
            }
            Request::DeletePrefix { prefix } => {
                under(&self.entries, prefix).next().is_none().then_some(Answer::Count(0))
            }
            Request::Lease { .. } => {
                let count = self.clients.get(&client).map_or(0, |c| c.leases.len());
                (count >= Limits::default().leases).then_some(Answer::Refused(Refusal::TooMany))
            }
            // Ending a lease that has ended already is no error: the caller has what it wants.
            Request::Revoke { lease } => match self.leases.get(lease) {
                None => Some(Answer::Done),
                Some(l) => (l.client != client).then_some(Answer::Refused(Refusal::NoLease)),
            },
            Request::Ping
            | Request::Alive
            | Request::Cancel { .. }
            | Request::Settled { .. }
            | Request::Leave => Some(Answer::Done),
        }
    }

    /// Does what has been found to change something.
    fn change(&mut self, client: ClientId, time: u64, request: Request) -> Answer {
        match request {
            Request::Set { key, value, lease } => {
                self.put(key, value, lease);
                Answer::Done
            }
            Request::CompareAndSet { key, new, lease, .. } => {
                match new.clone() {
                    Some(value) => self.put(key, value, lease),
                    None => self.delete(&key),
                }
                Answer::Swap(Swap { swapped: true, current: new })
            }
            Request::DeletePrefix { prefix } => {
                let keys: Vec<Vec<u8>> = under(&self.entries, &prefix).map(|(key, _)| key.clone()).collect();
                keys.iter().for_each(|key| self.delete(key));
                Answer::Count(keys.len() as u64)
            }
            Request::Lease { ttl } => {
                self.last_lease += 1;
                let id = LeaseId(self.last_lease);
                let c = self.clients.entry(client).or_default();
                c.seen = c.seen.max(time);
                c.leases.insert(id);
                let ttl = u64::try_from(ttl.min(MAX_TTL).as_nanos()).unwrap_or(u64::MAX);
                self.leases.insert(id, Lease { client, ttl, keys: BTreeSet::new() });
                Answer::Lease(id)
            }
            Request::Revoke { lease } => {
                self.end_lease(lease);
                Answer::Done
            }
            // Never written down.
            _ => Answer::Done,
        }
    }

    /// When this client has to give its next sign of life, if it has leases.
    pub fn next_alive(&self, client: ClientId) -> Option<u64> {
        let c = self.clients.get(&client)?;
        let shortest = c.leases.iter().filter_map(|id| self.leases.get(id)).map(|l| l.ttl).min()?;
        Some(c.seen.saturating_add(shortest / 3))
    }

    /// The leases whose time is over, with the sign of life that this is reckoned from.
    pub fn overdue(&self, now: u64) -> Vec<Record> {
        let ends = self.ends().filter(|(end, _, _)| *end <= now);
        ends.map(|(_, lease, seen)| Record::Expired { lease, seen }).collect()
    }

    /// When the next lease's time is over.
    pub fn next_end(&self) -> Option<u64> {
        self.ends().map(|(end, _, _)| end).min()
    }

    fn ends(&self) -> impl Iterator<Item = (u64, LeaseId, u64)> {
        self.leases.iter().filter_map(|(id, lease)| {
            let seen = self.clients.get(&lease.client)?.seen;
            Some((lease.end(seen), *id, seen))
        })
    }

    /// At most `count` other clients that have leases: those that follow this one in the circle of all.
    pub fn neighbours(&self, client: ClientId, count: usize) -> Vec<ClientId> {
        let after = self.clients.range((Bound::Excluded(client), Bound::Unbounded));
        let before = self.clients.range(..client);
        after.chain(before).map(|(id, _)| *id).take(count).collect()
    }

    fn alive(&mut self, client: ClientId, time: u64) {
        if let Some(c) = self.clients.get_mut(&client) {
            c.seen = c.seen.max(time);
        }
    }

    fn snapshot(&self, prefix: &[u8]) -> Answer {
        let entries = under(&self.entries, prefix)
            .map(|(key, h)| Entry { key: key.clone(), value: h.value.clone() })
            .collect();
        Answer::Snapshot(Arc::new(Snapshot { revision: self.revision, entries }))
    }

    fn changed_after(&self, prefix: &[u8], after: Revision) -> bool {
        // A revision from the future is one of an earlier store in this place: all has changed since.
        after > self.revision
            || (after < self.revision
                && (under(&self.entries, prefix).any(|(_, h)| h.modified > after)
                    || self.deleted.any_after(prefix, after)))
    }

    fn is_full_with(&self, key: &[u8], value: &[u8]) -> bool {
        let limits = Limits::default();
        let old = self.entries.get(key).map(|h| cost(key, &h.value));
        let entries = self.entries.len() + usize::from(old.is_none());
        let bytes = self.bytes - old.unwrap_or(0) + cost(key, value);
        entries > limits.entries || bytes > limits.bytes
    }

    fn put(&mut self, key: Vec<u8>, value: Vec<u8>, lease: Option<LeaseId>) {
        self.take(&key);
        self.deleted.remove(&key);
        self.revision += 1;
        let modified = self.revision;
        self.insert(key, Held { value, modified, lease });
    }

    fn insert(&mut self, key: Vec<u8>, held: Held) {
        self.bytes += cost(&key, &held.value);
        if let Some(lease) = held.lease.and_then(|id| self.leases.get_mut(&id)) {
            lease.keys.insert(key.clone());
        }
        self.entries.insert(key, held);
    }

    fn delete(&mut self, key: &[u8]) {
        if self.take(key) {
            self.revision += 1;
            self.deleted.insert(key.to_vec(), self.revision);
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

    fn end_lease(&mut self, id: LeaseId) {
        let Some(lease) = self.leases.remove(&id) else { return };
        if let Some(c) = self.clients.get_mut(&lease.client) {
            c.leases.remove(&id);
            if c.leases.is_empty() {
                self.clients.remove(&lease.client);
            }
        }
        lease.keys.iter().for_each(|key| self.delete(key));
    }

    /// All of it, for the first record of a file. What was deleted when is left out: a watch that began before
    /// will look once in vain.
    pub fn image(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let number = |out: &mut Vec<u8>, n: u64| out.extend(n.to_le_bytes());
        let bytes = |out: &mut Vec<u8>, b: &[u8]| {
            out.extend((b.len() as u64).to_le_bytes());
            out.extend(b);
        };
        number(&mut out, self.revision);
        number(&mut out, self.last_lease);
        number(&mut out, self.clients.len() as u64);
        for (id, client) in &self.clients {
            number(&mut out, *id);
            number(&mut out, client.seen);
        }
        number(&mut out, self.leases.len() as u64);
        for (id, lease) in &self.leases {
            [id.0, lease.client, lease.ttl].into_iter().for_each(|n| number(&mut out, n));
        }
        number(&mut out, self.entries.len() as u64);
        for (key, held) in &self.entries {
            number(&mut out, held.modified);
            number(&mut out, held.lease.map_or(0, |id| id.0));
            bytes(&mut out, key);
            bytes(&mut out, &held.value);
        }
        out
    }

    /// Reads what [`State::image`] has made.
    pub fn load(image: &[u8]) -> Result<State, Malformed> {
        let mut r = Image(image);
        let mut state = State { revision: r.number()?, last_lease: r.number()?, ..State::default() };
        state.deleted = Deleted::new(state.revision);
        for _ in 0..r.number()? {
            let (id, seen) = (r.number()?, r.number()?);
            state.clients.insert(id, Client { seen, leases: BTreeSet::new() });
        }
        for _ in 0..r.number()? {
            let (id, client, ttl) = (LeaseId(r.number()?), r.number()?, r.number()?);
            let c = state.clients.get_mut(&client).ok_or(Malformed("a lease of nobody"))?;
            c.leases.insert(id);
            state.leases.insert(id, Lease { client, ttl, keys: BTreeSet::new() });
        }
        for _ in 0..r.number()? {
            let (modified, lease) = (r.number()?, r.number()?);
            let lease = (lease != 0).then_some(LeaseId(lease));
            let (key, value) = (r.bytes()?, r.bytes()?);
            state.insert(key, Held { value, modified, lease });
        }
        if r.0.is_empty() { Ok(state) } else { Err(Malformed("bytes after the end")) }
    }
}

struct Image<'a>(&'a [u8]);

impl Image<'_> {
    fn number(&mut self) -> Result<u64, Malformed> {
        let (n, rest) = self.0.split_first_chunk::<8>().ok_or(Malformed("an image that ends too early"))?;
        self.0 = rest;
        Ok(u64::from_le_bytes(*n))
    }

    fn bytes(&mut self) -> Result<Vec<u8>, Malformed> {
        let len = usize::try_from(self.number()?).ok().filter(|len| *len <= self.0.len());
        let (bytes, rest) = self.0.split_at(len.ok_or(Malformed("an image that ends too early"))?);
        self.0 = rest;
        Ok(bytes.to_vec())
    }
}

fn cost(key: &[u8], value: &[u8]) -> usize {
    key.len() + value.len() + ENTRY_OVERHEAD
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(state: &mut State, client: ClientId, time: u64, request: Request) -> Answer {
        state.apply(Record::Request { client, time, number: 0, request }).unwrap()
    }

    fn set(key: &str, lease: Option<LeaseId>) -> Request {
        Request::Set { key: key.into(), value: b"v".to_vec(), lease }
    }

    fn lease(state: &mut State, client: ClientId, time: u64, ttl: u64) -> LeaseId {
        match ask(state, client, time, Request::Lease { ttl: Duration::from_nanos(ttl) }) {
            Answer::Lease(id) => id,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_lease_ends_when_said_unless_its_client_was_heard_of_since() {
        let mut s = State::default();
        let id = lease(&mut s, 1, 1000, 300);
        assert_eq!(ask(&mut s, 1, 1010, set("k", Some(id))), Answer::Done);
        assert_eq!((s.next_alive(1), s.next_end()), (Some(1110), Some(1410)));
        assert!(s.overdue(1409).is_empty());
        let over = s.overdue(1410).pop().unwrap();
        // A sign of life that comes first in the log counts, however late it was given.
        s.apply(Record::Alive { client: 1, time: 2000 });
        s.apply(over);
        assert_eq!(s.revision(), 1);
        let over = s.overdue(3000).pop().unwrap();
        s.apply(over);
        assert_eq!(s.revision(), 2);
        assert_eq!(ask(&mut s, 1, 3001, set("k", Some(id))), Answer::Refused(Refusal::NoLease));
        assert_eq!((s.next_alive(1), s.next_end()), (None, None));
        assert!(s.changed_after(b"k", 1) && !s.changed_after(b"l", 1));
    }

    #[test]
    fn a_client_takes_its_leases_along_and_no_others() {
        let mut s = State::default();
        let ids = [lease(&mut s, 1, 0, 9), lease(&mut s, 2, 0, 9), lease(&mut s, 1, 0, 9)];
        for (client, id) in [1, 2, 1].into_iter().zip(ids) {
            ask(&mut s, client, 0, set(&format!("k{}", id.0), Some(id)));
        }
        assert_eq!(ask(&mut s, 1, 0, set("k", Some(ids[1]))), Answer::Refused(Refusal::NoLease));
        assert_eq!(s.neighbours(1, 5), [2]);
        assert_eq!(s.neighbours(2, 5), [1]);
        assert_eq!(s.neighbours(7, 1), [1]);
        s.apply(Record::Gone { client: 1 });
        s.apply(Record::Gone { client: 1 });
        let keys: Vec<_> = s.entries.keys().cloned().collect();
        assert_eq!(keys, [format!("k{}", ids[1].0).into_bytes()]);
        assert!(s.neighbours(2, 5).is_empty());
    }

    #[test]
    fn an_image_is_all_of_it_and_nonsense_is_none() {
        let mut s = State::default();
        let id = lease(&mut s, 5, 77, 9);
        ask(&mut s, 5, 80, set("leased", Some(id)));
        ask(&mut s, 6, 80, set("free", None));
        ask(&mut s, 6, 80, set("gone", None));
        ask(&mut s, 6, 80, Request::DeletePrefix { prefix: b"gone".to_vec() });
        let image = s.image();
        let loaded = State::load(&image).unwrap();
        assert_eq!(loaded.image(), image);
        assert_eq!((loaded.bytes, &loaded.leases, &loaded.entries), (s.bytes, &s.leases, &s.entries));
        assert!(loaded.changed_after(b"elsewhere", 0), "deletions before the image may have been anywhere");
        for cut in 0..image.len() {
            assert!(State::load(&image[..cut]).is_err());
        }
        assert!(State::load(&[&image[..], b"x"].concat()).is_err());
        assert!(State::load(&[0xff; 64]).is_err());
    }
}

//! A state as records, and from records.

use super::super::deleted::Deleted;
use super::super::record::{Outcome, Record};
use super::super::wire::{Decoded, Malformed};
use super::{Client, ClientId, Item, Lease, Limits, MEMORY, Revision, SESSION, State, cost};
use std::collections::BTreeSet;
use std::time::Instant;

/// Revisions that a store skips that may have lost changes which it had answered: more than they can have been.
const LEAP: Revision = 1 << 32;

impl State {
    /// All that it remembers.
    pub fn image(&self) -> impl Iterator<Item = Record> + '_ {
        let counters = Record::Counters {
            revision: self.revision,
            forgotten: self.deleted.forgotten(),
            last_lease: self.last_lease,
        };
        // Of the others nothing is remembered, nor has a log told of them.
        let clients = self.clients.iter().filter(|(_, c)| c.recorded).map(|(&client, c)| Record::Session {
            client,
            settled: c.settled,
            outcomes: c.outcomes.iter().map(|(&request, &outcome)| (request, outcome)).collect(),
        });
        let leases =
            self.leases.iter().map(|(&lease, l)| Record::Lease { lease, client: l.client, ttl: l.ttl });
        let entries = self.entries.iter().map(|(key, item)| Record::Entry {
            key: key.clone(),
            value: item.value.clone(),
            modified: item.modified,
            lease: item.lease,
        });
        let deleted =
            self.deleted.iter().map(|(key, revision)| Record::Deleted { key: key.clone(), revision });
        let began = Record::Began { revision: self.base };
        [began, counters].into_iter().chain(clients).chain(leases).chain(entries).chain(deleted)
    }

    /// A state that is to be made of records. Nobody is connected to it.
    pub fn restored(revision: Revision) -> State {
        State::new(Limits::NONE, revision)
    }

    /// Takes in the next record. What it says of times begins `now`.
    pub fn restore(&mut self, record: Record, now: Instant) -> Decoded<()> {
        match record {
            Record::Asked { client, id, settled, revision, request } => {
                self.admit(client, now).settle(settled);
                self.request(client, id, request, now);
                let answers = self.take_actions();
                if self.revision != revision || !answers.iter().any(|a| Outcome::of(&a.answer).is_some()) {
                    return Err(Malformed("a change that leads elsewhere"));
                }
            }
            Record::Left { client, forget } => self.leave(client, forget),
            Record::Ended { lease } => self.end_lease(lease),
            Record::Counters { revision, forgotten, last_lease } => {
                self.revision = revision;
                self.last_lease = last_lease;
                self.deleted = Deleted::new(forgotten);
            }
            Record::Session { client, settled, outcomes } => {
                let c = self.admit(client, now);
                c.settled = settled;
                c.outcomes = outcomes.into_iter().collect();
            }
            Record::Lease { lease, client, ttl } => {
                let c = self.clients.get_mut(&client).ok_or(Malformed("a lease of nobody"))?;
                c.leases.insert(lease);
                self.leases.insert(lease, Lease { client, ttl, keys: BTreeSet::new() });
                self.expiries.insert((now + ttl.min(super::MAX_TTL), lease));
            }
            Record::Entry { key, value, modified, lease } => {
                if let Some(lease) = lease {
                    let lease = self.leases.get_mut(&lease).ok_or(Malformed("a key under no lease"))?;
                    lease.keys.insert(key.clone());
                }
                self.bytes += cost(&key, &value);
                self.entries.insert(key, Item { value, modified, lease });
            }
            Record::Deleted { key, revision } => self.deleted.insert(key, revision),
            Record::Began { .. } | Record::Complete { .. } => {
                return Err(Malformed("a record out of place"));
            }
        }
        Ok(())
    }

    /// A client that is not connected, and is remembered from here on.
    fn admit(&mut self, client: ClientId, now: Instant) -> &mut Client {
        if !self.clients.contains_key(&client) {
            self.absent.insert((now + MEMORY, client));
        }
        let c = self.clients.entry(client).or_insert_with(|| Client::new(now, false));
        c.recorded = true;
        c
    }

    /// All records are in: from now on it has limits, and its changes are told. With `leap` changes that were answered
    /// may be missing: whoever waits for a change has to look anew.
    pub fn resume(&mut self, limits: Limits, leap: bool) {
        // Who has no session cannot come back; and the next one without may get the same id.
        let strangers: Vec<ClientId> = self.clients.keys().copied().filter(|id| id & SESSION == 0).collect();
        strangers.into_iter().for_each(|id| self.leave(id, true));
        self.limits = limits;
        self.records = Some(Vec::new());
        if leap {
            self.revision += LEAP;
            self.last_lease += LEAP;
            self.deleted = Deleted::new(self.revision);
        }
    }
}

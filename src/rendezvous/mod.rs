//! Finding each other: from a name, or from a unique id, to the list of members and how to reach them.
//!
//! Everything about one joining lies under `w/<name>/` in the store:
//!
//! | key | written by | holds |
//! |---|---|---|
//! | `lead` | rank 0, if absent | a fresh world id and the size |
//! | `<id>/m/<rank>` | each rank, if absent | how to reach it |
//! | `<id>/done` | rank 0, when all are there | all of that, in rank order |
//!
//! The fresh id keeps joinings apart that use one name, one after the other or after a crash. All keys are under
//! leases, so that a process that dies while it joins leaves nothing behind, and are gone when everybody has joined.
//! Members agree because they all take the list from `done`. What follows upon this first epoch of a named world is in
//! [`reform`].
//!
//! A store that is away for a while is waited for. If it comes back with what it knew, nobody notices; another one that
//! takes its place knows nothing of the leases either, so everybody takes a new one and begins anew.

pub mod hosting;
pub mod id;
mod record;
pub mod reform;

use crate::auth;
use crate::error::{Code, Error, Extent, Result};
use crate::fault::membership::View;
use crate::store::{LeaseId, Snapshot, Store};
use crate::types::{Address, HostId, ProcessId, WorldId};
use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// Who belongs to a world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The world.
    pub world: WorldId,
    /// Its epoch.
    pub epoch: u64,
    /// How to reach each rank.
    pub members: Vec<Address>,
}

/// Time without a sign of life after which a joining process is forgotten.
const LEASE: Duration = Duration::from_secs(3);

fn encode(a: &Address) -> Vec<u8> {
    let mut b = Vec::with_capacity(64);
    b.extend(a.process.0);
    b.extend(a.host.0);
    let ip = match a.tcp.ip() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    b.extend(ip.octets());
    b.extend(a.tcp.port().to_le_bytes());
    b
}

/// Bytes of an encoded address.
const CARD: usize = 50;

fn decode(raw: &[u8]) -> Option<Address> {
    let (process, rest) = raw.split_first_chunk::<16>()?;
    let (host, rest) = rest.split_first_chunk::<16>()?;
    let (ip, rest) = rest.split_first_chunk::<16>()?;
    let port = u16::from_le_bytes(rest.try_into().ok()?);
    let ip = IpAddr::from(*ip).to_canonical();
    Some(Address { process: ProcessId(*process), host: HostId(*host), tcp: SocketAddr::new(ip, port) })
}

/// Addresses, one after the other.
fn addresses(raw: &[u8]) -> Option<Vec<Address>> {
    raw.chunks(CARD).map(decode).collect()
}

fn hex(id: &[u8]) -> String {
    id.iter().map(|b| format!("{b:02x}")).collect()
}

/// What `lead` holds.
fn encode_lead(world: &WorldId, nranks: u32) -> Vec<u8> {
    let mut b = world.0.to_vec();
    b.extend(nranks.to_le_bytes());
    b
}

fn decode_lead(raw: &[u8]) -> Option<(WorldId, u32)> {
    let (id, rest) = raw.split_first_chunk::<16>()?;
    Some((WorldId(*id), u32::from_le_bytes(rest.try_into().ok()?)))
}

fn nonsense(key: &str) -> Error {
    Error::new(Code::System, Extent::World, format!("the store holds nonsense under '{key}'"))
}

/// One attempt to join.
pub struct Joining<'a> {
    store: &'a dyn Store,
    name: &'a str,
    nranks: u32,
    rank: u32,
    me: &'a Address,
    /// Called with the world's id before anybody else can know that this rank is a member.
    admit: &'a dyn Fn(&WorldId),
    deadline: Instant,
    lease: Cell<LeaseId>,
    /// The attempt in which this rank's card is this joining's own.
    registered: Cell<Option<WorldId>>,
    is_recorded: bool,
}

impl<'a> Joining<'a> {
    /// Prepares to join the world `name` as `rank` of `nranks`.
    pub fn new(
        store: &'a dyn Store,
        name: &'a str,
        nranks: u32,
        rank: u32,
        me: &'a Address,
        admit: &'a dyn Fn(&WorldId),
        deadline: Instant,
    ) -> Result<Joining<'a>> {
        let lease = Cell::new(store.lease(LEASE, deadline)?);
        let registered = Cell::new(None);
        Ok(Joining { store, name, nranks, rank, me, admit, deadline, lease, registered, is_recorded: false })
    }

    /// Leaves a record of this epoch, so that others can follow.
    pub fn recorded(self) -> Joining<'a> {
        Joining { is_recorded: true, ..self }
    }

    fn prefix(&self) -> String {
        format!("w/{}/", self.name)
    }

    fn lead_key(&self) -> String {
        format!("w/{}/lead", self.name)
    }

    /// Waits for the others. `me.process` may occur several times: ranks can be threads.
    pub fn run(&self) -> Result<Membership> {
        let mut seen = self.store.list(self.prefix().as_bytes(), self.deadline)?;
        loop {
            match self.look(&seen) {
                Ok(Some(m)) => return Ok(m),
                Ok(None) => {}
                // The store does not know the lease: it is another one than before, and this joining begins anew.
                Err(e) if e.code == Code::InvalidUsage && e.extent == Extent::Operation => {
                    tracing::debug!("joining world '{}' anew: {e}", self.name);
                    self.lease.set(self.store.lease(LEASE, self.deadline)?);
                    self.registered.set(None);
                    seen = self.store.list(self.prefix().as_bytes(), self.deadline)?;
                    continue;
                }
                Err(e) => return Err(e),
            }
            let next = self.store.watch(self.prefix().as_bytes(), seen.revision, self.deadline);
            seen = next.map_err(|e| if e.code == Code::Timeout { self.late(&seen) } else { e })?;
        }
    }

    /// Once everybody has joined, or when giving up: what this rank has written disappears.
    pub fn finish(&self) {
        // The lease ends by itself soon, should the store not be reachable now.
        let _ = self.store.revoke(self.lease.get(), Instant::now() + Duration::from_secs(1));
    }

    fn find<'s>(seen: &'s Snapshot, key: &str) -> Option<&'s [u8]> {
        seen.entries.iter().find(|e| e.key == key.as_bytes()).map(|e| &*e.value)
    }

    fn card_key(&self, world: &WorldId, rank: u32) -> String {
        format!("w/{}/{}/m/{rank}", self.name, hex(&world.0))
    }

    fn done_key(&self, world: &WorldId) -> String {
        format!("w/{}/{}/done", self.name, hex(&world.0))
    }

    /// The ranks that have withdrawn their cards: before everybody is connected, these are the dead and those who have
    /// given up.
    pub fn absent(&self, world: &WorldId, deadline: Instant) -> Result<Vec<u32>> {
        let prefix = format!("{}{}/m/", self.prefix(), hex(&world.0));
        let seen = self.store.list(prefix.as_bytes(), deadline)?;
        Ok(self.without_card(&seen, world))
    }

    fn without_card(&self, seen: &Snapshot, world: &WorldId) -> Vec<u32> {
        (0..self.nranks).filter(|r| Self::find(seen, &self.card_key(world, *r)).is_none()).collect()
    }

    /// Does what the state of the store asks for; answers the membership when it is complete.
    fn look(&self, seen: &Snapshot) -> Result<Option<Membership>> {
        let Some(lead) = Self::find(seen, &self.lead_key()) else {
            if self.rank == 0 {
                let mut id = [0; 16];
                auth::fill_random(&mut id)?;
                let lead = encode_lead(&WorldId(id), self.nranks);
                let key = self.lead_key();
                self.store.compare_and_set(
                    key.as_bytes(),
                    None,
                    Some(&lead),
                    Some(self.lease.get()),
                    self.deadline,
                )?;
            }
            return Ok(None);
        };
        let (world, nranks) = decode_lead(lead).ok_or_else(|| nonsense(&self.lead_key()))?;
        if nranks != self.nranks {
            return Err(Error::argument(format!(
                "nranks: world '{}' is being joined with {nranks} ranks, this rank ({}) said {}",
                self.name, self.rank, self.nranks
            )));
        }
        let done = self.done_key(&world);
        let complete = Self::find(seen, &done);
        if self.registered.get() != Some(world) {
            // Complete without this joining: an earlier attempt, of which somebody has died and which the others are
            // giving up. Likewise a card of this rank, be it somebody else's or of an attempt of this process that has
            // not been tidied up yet. It will go, or we be late.
            let key = self.card_key(&world, self.rank);
            if complete.is_none() && Self::find(seen, &key).is_none() {
                (self.admit)(&world);
                let mine = encode(self.me);
                let set = self.store.compare_and_set(
                    key.as_bytes(),
                    None,
                    Some(&mine),
                    Some(self.lease.get()),
                    self.deadline,
                )?;
                if set.swapped {
                    self.registered.set(Some(world));
                }
            }
            return Ok(None);
        }
        if let Some(raw) = complete {
            let members = addresses(raw)
                .filter(|m| m.len() == self.nranks as usize && m.get(self.rank as usize) == Some(self.me))
                .ok_or_else(|| nonsense(&done))?;
            return Ok(Some(Membership { world, epoch: 1, members }));
        }
        if self.rank == 0 {
            let cards: Option<Vec<&[u8]>> =
                (0..self.nranks).map(|r| Self::find(seen, &self.card_key(&world, r))).collect();
            if let Some(cards) = cards {
                let all = cards.concat();
                if self.is_recorded
                    && let Some(members) = addresses(&all)
                {
                    let view = View { world, epoch: 1, members: reform::Member::first(&members) };
                    reform::found(self.store, self.name, view, self.deadline)?;
                }
                self.store.compare_and_set(
                    done.as_bytes(),
                    None,
                    Some(&all),
                    Some(self.lease.get()),
                    self.deadline,
                )?;
            }
        }
        Ok(None)
    }

    /// Why nothing came of it.
    fn late(&self, seen: &Snapshot) -> Error {
        let name = self.name;
        let Some((world, _)) = Self::find(seen, &self.lead_key()).and_then(decode_lead) else {
            return Error::timeout(format!("joining world '{name}': rank 0 did not come in time"));
        };
        if let Some(theirs) = Self::find(seen, &self.card_key(&world, self.rank))
            && theirs != encode(self.me)
        {
            return Error::usage(format!(
                "rank: rank {} of world '{name}' is taken by another process",
                self.rank
            ));
        }
        if self.registered.get() != Some(world) {
            return Error::timeout(format!("joining world '{name}': an earlier attempt did not end in time"));
        }
        let missing = self.without_card(seen, &world);
        Error::timeout(format!("joining world '{name}': ranks {missing:?} did not come in time"))
    }
}

#[cfg(test)]
mod tests;

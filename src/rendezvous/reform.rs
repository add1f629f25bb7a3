//! The next epoch of a world that exists: survivors and newcomers find each other in the store.
//!
//! Everything about it lies under `r/<name>/`:
//!
//! | key | written by | holds |
//! |---|---|---|
//! | `view` | rank 0 at the first epoch, then only by compare-and-set | the world's latest epoch and its members |
//! | `b/<epoch>` | the first who wants the one after it | how many members that has to have |
//! | `c/<nonce>` | each candidate | how to reach it, and where it comes from |
//!
//! The rules are those of [`membership`]; here they meet the store and the clock. All but the record is under leases. The
//! record stays as long as the world does: a survivor that missed an epoch learns from it that it was left out.
//!
//! A store may lose the record, when it was in the memory of a process that died. Then a survivor writes down the epoch
//! that it comes from, under a fresh identity of the world: should there be members of a later epoch somewhere, nothing
//! of the two can mix. Nobody comes out of an epoch before all of its members have seen it, so whoever knows of a later
//! one corrects the record.

use super::record::Card;
use super::{hex, nonsense};
use crate::auth;
use crate::error::{Code, Error, Extent, Result};
use crate::fault::membership::{self, Candidate, Claim, Next, Sight, Terms, View};
use crate::store::{LeaseId, Snapshot, Store};
use crate::sync::Arc;
use crate::types::{Address, WorldId};
use std::time::{Duration, Instant};

pub use super::record::{Bounds, Member, Record};

/// Time without a sign of life after which a candidate is forgotten.
const LEASE: Duration = Duration::from_secs(3);
/// How long to sleep at the store before asking the old world again who has gone.
const SLICE: Duration = Duration::from_millis(20);

fn record_key(name: &str) -> String {
    format!("r/{name}/view")
}

/// Writes down the first epoch of a world, in the place of whatever world had this name.
pub fn found(store: &dyn Store, name: &str, view: View<Member>, deadline: Instant) -> Result<()> {
    store.set(record_key(name).as_bytes(), &Record { view, before: None }.encode(), None, deadline)
}

/// Takes the record away if it still is that of this epoch. For the last one that leaves.
pub fn dissolve(store: &dyn Store, name: &str, world: &WorldId, epoch: u64, deadline: Instant) -> Result<()> {
    let key = record_key(name);
    let Some(raw) = store.get(key.as_bytes(), deadline)? else { return Ok(()) };
    if Record::decode(&raw).is_some_and(|r| r.view.world == *world && r.view.epoch == epoch) {
        store.compare_and_set(key.as_bytes(), Some(&raw), None, None, deadline)?;
    }
    Ok(())
}

/// Whether an error of a call at the store says that the connection is lost, or the lease: another store may know it.
pub fn is_store_lost(e: &Error) -> bool {
    matches!(e.code, Code::System | Code::InvalidUsage) && e.extent == Extent::Operation
}

/// What a call wants.
pub struct Wish<'a> {
    /// The world's name.
    pub name: &'a str,
    /// This process.
    pub address: &'a Address,
    /// The epoch that a survivor comes from, and its rank there.
    pub from: Option<(View<Member>, u32)>,
    /// How many members there have to be. A newcomer may leave that to the others.
    pub bounds: Option<Bounds>,
    /// How long to wait for more members when there are enough.
    pub newcomers: Duration,
    /// How long to wait for members that are alive and do not come.
    pub stragglers: Duration,
    /// Until when to try.
    pub deadline: Instant,
}

/// Somebody who does not count.
struct Gone {
    member: Member,
    /// A candidate that comes from this epoch or a later one is not the one that was lost, it has come back.
    until: u64,
}

/// What a candidate calls back for.
pub trait Surroundings {
    /// Opens the door to the members of a world, before any of them can know that this one is a candidate.
    fn admit(&self, world: &WorldId);
    /// The ranks of the epoch that a survivor comes from that have failed or left since.
    fn gone(&self) -> Vec<u32>;
}

/// What a candidate has at a store; gone when the connection is lost.
struct Session {
    store: Arc<dyn Store>,
    lease: LeaseId,
    /// The card that stands there.
    card: Option<Card>,
}

/// One call, which ends in the next epoch.
pub struct Reforming<'a> {
    wish: Wish<'a>,
    around: &'a dyn Surroundings,
    me: Member,
    /// Where this candidate comes from: the epoch of the call, or a later one that came to nothing.
    from: Option<(View<Member>, u32)>,
    gone: Vec<Gone>,
    session: Option<Session>,
    order: u64,
}

/// What a snapshot of the store says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Found {
    record: Option<Record>,
    cards: Vec<Card>,
    bounds: Option<Bounds>,
}

impl<'a> Reforming<'a> {
    /// Prepares for the next epoch.
    pub fn new(wish: Wish<'a>, around: &'a dyn Surroundings) -> Result<Reforming<'a>> {
        let from = wish.from.clone();
        let me = match from.as_ref().map(|(view, rank)| view.members.get(*rank as usize)) {
            Some(Some(me)) => me.clone(),
            Some(None) => return Err(Error::internal("a rank that its world does not have")),
            None => Member::fresh(wish.address)?,
        };
        Ok(Reforming { wish, around, me, from, gone: Vec::new(), session: None, order: 0 })
    }

    /// Whether there is a store to meet the others at. It may be lost in any call.
    pub fn has_store(&self) -> bool {
        self.session.is_some()
    }

    /// Goes to a store: the first one, or after another one was lost.
    pub fn go_to(&mut self, store: Arc<dyn Store>) -> Result<()> {
        let lease = store.lease(LEASE, self.wish.deadline)?;
        self.session = Some(Session { store, lease, card: None });
        Ok(())
    }

    /// Waits for the others. Answers the epoch that they have agreed on, and this member's rank in it.
    pub fn run(&mut self) -> Result<(View<Member>, u32)> {
        let met = self.meet();
        if met.as_ref().is_err_and(is_store_lost) {
            self.session = None;
        }
        met
    }

    fn meet(&mut self) -> Result<(View<Member>, u32)> {
        let store = Arc::clone(&self.session()?.store);
        let prefix = format!("r/{}/", self.wish.name);
        let deadline = self.wish.deadline;
        let mut seen = store.list(prefix.as_bytes(), deadline)?;
        if self.order == 0 {
            // The later one came, the later its turn. The own card is not in there yet.
            self.order = seen.revision + 1;
        }
        let mut last = (Found::default(), Vec::new());
        let mut changed = Instant::now();
        loop {
            let found = self.read(&seen)?;
            let gone = self.gone(&found);
            let now = (found, gone);
            if now != last {
                changed = Instant::now();
                last = now;
            }
            let (found, gone) = &last;
            let mut wait = None;
            if !self.prepare(found)?
                && let Some(record) = &found.record
            {
                match self.next(record, found, gone, changed.elapsed()) {
                    Next::Join { view, rank } => {
                        self.from = Some((view.clone(), rank));
                        return Ok((view, rank));
                    }
                    Next::Propose(view) => self.replace(record, view)?,
                    Next::Wait(pause) => wait = pause,
                    Next::LeftOut { epoch } => return Err(self.left_out(epoch)),
                    Next::Replaced => return Err(self.replaced()),
                }
            }
            let slice = if self.from.is_some() { Some(SLICE) } else { None };
            let pause = [wait, slice].into_iter().flatten().min();
            let until = pause.map_or(deadline, |p| deadline.min(Instant::now() + p));
            match store.watch(prefix.as_bytes(), seen.revision, until) {
                Ok(snapshot) => seen = snapshot,
                Err(e) if e.code == Code::Timeout && Instant::now() < deadline => {}
                Err(e) if e.code == Code::Timeout => return Err(self.late(found, gone)),
                Err(e) => return Err(e),
            }
        }
    }

    /// The epoch of [`Reforming::run`] came to nothing, because of this rank of it if that is known. What follows comes
    /// from that epoch.
    pub fn lost(&mut self, culprit: Option<u32>) {
        let Some((view, _)) = &self.from else { return };
        if let Some(member) = culprit.and_then(|rank| view.members.get(rank as usize)) {
            self.gone.push(Gone { member: member.clone(), until: view.epoch });
        }
    }

    /// The ranks of an epoch that have withdrawn their cards: before everybody is connected, these are the dead and those
    /// who have given up.
    pub fn absent(&self, view: &View<Member>, deadline: Instant) -> Result<Vec<u32>> {
        let prefix = format!("r/{}/c/", self.wish.name);
        let seen = self.session()?.store.list(prefix.as_bytes(), deadline)?;
        let has_card = |m: &Member| seen.entries.iter().any(|e| e.key == self.card_key(m).as_bytes());
        Ok(view.members.iter().zip(0..).filter(|(m, _)| !has_card(m)).map(|(_, rank)| rank).collect())
    }

    /// Once everybody is connected, or when giving up.
    pub fn finish(&self) {
        if let Some(session) = &self.session {
            // The lease ends by itself soon, should the store not be reachable now.
            let _ = session.store.revoke(session.lease, Instant::now() + Duration::from_secs(1));
        }
    }

    fn session(&self) -> Result<&Session> {
        self.session.as_ref().ok_or_else(|| Error::internal("reforming without a store"))
    }

    fn card_key(&self, member: &Member) -> String {
        format!("r/{}/c/{}", self.wish.name, hex(&member.nonce.to_be_bytes()))
    }

    fn bounds_key(&self, epoch: u64) -> String {
        format!("r/{}/b/{epoch}", self.wish.name)
    }

    fn candidate(&self) -> Candidate<Member> {
        let claim = self.from.as_ref().map(|(view, rank)| Claim { epoch: view.epoch, rank: *rank });
        Candidate { member: self.me.clone(), claim, order: self.order }
    }

    fn read(&self, seen: &Snapshot) -> Result<Found> {
        let name = self.wish.name;
        let mut found = Found::default();
        let find = |key: &str| seen.entries.iter().find(|e| e.key == key.as_bytes()).map(|e| &*e.value);
        let key = record_key(name);
        if let Some(raw) = find(&key) {
            let record = Record::decode(raw).ok_or_else(|| nonsense(&key))?;
            let key = self.bounds_key(record.view.epoch);
            if let Some(raw) = find(&key) {
                found.bounds = Some(Bounds::decode(raw).ok_or_else(|| nonsense(&key))?);
            }
            found.record = Some(record);
        }
        let prefix = format!("r/{name}/c/");
        for entry in seen.entries.iter().filter(|e| e.key.starts_with(prefix.as_bytes())) {
            let card = Card::decode(&entry.value);
            found.cards.push(card.ok_or_else(|| nonsense(&String::from_utf8_lossy(&entry.key)))?);
        }
        Ok(found)
    }

    /// Who does not count, whatever the store says of it.
    fn gone(&self, found: &Found) -> Vec<Member> {
        let mut gone = Vec::new();
        if let Some((view, _)) = &self.wish.from {
            gone.extend(
                self.around.gone().iter().filter_map(|rank| view.members.get(*rank as usize).cloned()),
            );
        }
        let has_come_back = |g: &Gone| {
            let is_it =
                |c: &Candidate<Member>| c.member == g.member && c.claim.is_some_and(|c| c.epoch >= g.until);
            found.cards.iter().any(|c| is_it(&c.candidate))
        };
        gone.extend(self.gone.iter().filter(|g| !has_come_back(g)).map(|g| g.member.clone()));
        gone
    }

    /// Whether the record is that of the world that this candidate comes from, at its epoch or later.
    fn is_ours(&self, record: &Record) -> bool {
        self.from.as_ref().is_none_or(|(view, _)| {
            record.view.world == view.world || record.before.as_ref() == Some(&view.world)
        })
    }

    /// Brings the store in order where it is not. Answers whether it has changed something there.
    fn prepare(&mut self, found: &Found) -> Result<bool> {
        let deadline = self.wish.deadline;
        let Some(record) = &found.record else { return self.restore(None) };
        if !self.is_ours(record) {
            return Err(self.replaced());
        }
        let view = &record.view;
        if let Some((mine, _)) = &self.from {
            if view.epoch < mine.epoch {
                return self.restore(Some(record));
            }
            if view.epoch == mine.epoch && view.members != mine.members {
                return Err(nonsense(&record_key(self.wish.name)));
            }
        }
        let wanted = Card { candidate: self.candidate(), world: view.world };
        let is_member_of_later = view.rank_of(&self.me).is_some()
            && self.from.as_ref().is_none_or(|(mine, _)| mine.epoch < view.epoch);
        if is_member_of_later {
            // Chosen. The card stays as it is until everybody is connected.
            return Ok(false);
        }
        let key = self.card_key(&self.me);
        let Some(session) = &mut self.session else {
            return Err(Error::internal("reforming without a store"));
        };
        if session.card.as_ref() != Some(&wanted) {
            self.around.admit(&view.world);
            session.store.set(key.as_bytes(), &wanted.encode(), Some(session.lease), deadline)?;
            session.card = Some(wanted);
            return Ok(true);
        }
        let (store, lease) = (Arc::clone(&session.store), session.lease);
        match (found.bounds, self.wish.bounds) {
            (Some(theirs), Some(mine)) if theirs != mine => Err(Error::argument(format!(
                "{}: {} to {} members here, but {} to {} for those who reform world '{}' already",
                if theirs.min == mine.min { "maxRanks" } else { "minRanks" },
                mine.min,
                mine.max,
                theirs.min,
                theirs.max,
                self.wish.name
            ))),
            (None, Some(mine)) if self.from.is_some() => {
                let key = self.bounds_key(view.epoch);
                store.compare_and_set(key.as_bytes(), None, Some(&mine.encode()), Some(lease), deadline)?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Writes down the epoch that this survivor comes from, which the store does not know (any more).
    fn restore(&self, instead_of: Option<&Record>) -> Result<bool> {
        let Some((mine, _)) = &self.from else { return Ok(false) };
        let mut id = [0; 16];
        auth::fill_random(&mut id)?;
        let view = View { world: WorldId(id), ..mine.clone() };
        let new = Record { view, before: Some(mine.world) };
        let old = instead_of.map(Record::encode);
        let key = record_key(self.wish.name);
        let deadline = self.wish.deadline;
        self.session()?.store.compare_and_set(
            key.as_bytes(),
            old.as_deref(),
            Some(&new.encode()),
            None,
            deadline,
        )?;
        tracing::warn!(
            world = self.wish.name,
            epoch = mine.epoch,
            "the store did not know this epoch; it does now"
        );
        Ok(true)
    }

    fn terms(&self, found: &Found) -> Option<Terms> {
        let Bounds { min, max } = self.wish.bounds.or(found.bounds)?;
        Some(Terms { min, max, newcomers: self.wish.newcomers, stragglers: self.wish.stragglers })
    }

    fn next(&self, record: &Record, found: &Found, gone: &[Member], quiet: Duration) -> Next<Member> {
        let view = &record.view;
        let ready = found.cards.iter().filter(|c| c.world == view.world);
        let candidates: Vec<Candidate<Member>> = ready.map(|c| c.candidate.clone()).collect();
        let sight = Sight { view, candidates: &candidates, gone, quiet };
        // Whoever waits for the others' word can only be chosen.
        let nobody =
            Terms { min: u32::MAX, max: u32::MAX, newcomers: Duration::ZERO, stragglers: Duration::ZERO };
        let terms = self.terms(found).unwrap_or(nobody);
        membership::next(&self.candidate(), view.world, &sight, &terms)
    }

    /// Puts a view in the place of the record's, unless somebody was faster.
    fn replace(&self, old: &Record, view: View<Member>) -> Result<()> {
        let new = Record { view, before: old.before };
        let key = record_key(self.wish.name);
        let deadline = self.wish.deadline;
        self.session()?.store.compare_and_set(
            key.as_bytes(),
            Some(&old.encode()),
            Some(&new.encode()),
            None,
            deadline,
        )?;
        Ok(())
    }

    fn left_out(&self, epoch: u64) -> Error {
        let (name, mine) = (self.wish.name, self.from.as_ref().map_or(0, |(view, _)| view.epoch));
        let text = format!(
            "world '{name}': epoch {epoch} has begun without this member of epoch {mine}, which the others took for \
             failed or did not wait for; join it as a newcomer"
        );
        Error::new(Code::Remote, Extent::World, text)
    }

    fn replaced(&self) -> Error {
        let name = self.wish.name;
        Error::new(
            Code::Remote,
            Extent::World,
            format!("world '{name}': another world has its name in the store by now"),
        )
    }

    /// Why nothing came of it.
    fn late(&self, found: &Found, gone: &[Member]) -> Error {
        let name = self.wish.name;
        let Some(record) = &found.record else {
            return Error::timeout(format!(
                "reforming world '{name}': the store knows no world of this name"
            ));
        };
        let view = &record.view;
        let came =
            found.cards.iter().filter(|c| c.world == view.world && !gone.contains(&c.candidate.member));
        let came: Vec<_> = came.map(|c| &c.candidate.member).collect();
        let missing: Vec<u32> = view
            .members
            .iter()
            .zip(0..)
            .filter(|(m, _)| !came.contains(m) && !gone.contains(m))
            .map(|(_, rank)| rank)
            .collect();
        if self.from.is_none() && came.iter().all(|m| view.rank_of(m).is_none()) {
            return Error::timeout(format!(
                "reforming world '{name}': no member of epoch {} asked for a next one",
                view.epoch
            ));
        }
        let min = self.wish.bounds.or(found.bounds).map_or(0, |b| b.min);
        let missing = match &*missing {
            [] => String::new(),
            ranks => format!("; ranks {ranks:?} of epoch {} are alive and did not come", view.epoch),
        };
        Error::timeout(format!(
            "reforming world '{name}': {} members came in time, at least {min} are needed{missing}",
            came.len()
        ))
    }
}

#[cfg(test)]
#[path = "reform_tests.rs"]
mod tests;

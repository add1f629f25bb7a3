//! Who belongs to the next epoch of a world.
//!
//! All members of an epoch have it from one record in a store, the [`View`], which is only ever replaced by
//! compare-and-set: whoever comes out of a change comes out with the same list as everybody else, because there is only
//! one. What is decided here is when the record may be replaced and by what. Everybody who wants to be in the next epoch
//! is a [`Candidate`] there for as long as it lives, and applies the same rules to what it sees; whose proposal wins makes
//! no difference.
//!
//! A change goes like this, on each candidate:
//!
//! 1. It registers, with its rank in the epoch that it comes from if it is a survivor.
//! 2. It waits until nobody is missing: all members of the last epoch are candidates or gone, and there are as many
//!    candidates as there may be. Newcomers are waited for a while, and so are members that are alive and do not come.
//! 3. It proposes the successor of the view ([`successor`]), or finds that somebody else has.
//! 4. The view has a later epoch. It is a member of it, and connects to the others; should one of them die before all
//!    are connected, it begins again, coming from this epoch. Or it was left out.
//!
//! Survivors keep their ranks as long as there are enough members for that; newcomers take the holes, the lowest first.
//! Where fewer members are left than a rank needs, its owner takes the lowest hole.

use crate::types::WorldId;
use std::time::Duration;

/// One epoch of a world. What a member is, is the caller's affair; no two are ever alike.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct View<M> {
    /// The world.
    pub world: WorldId,
    /// Which epoch, from 1 on.
    pub epoch: u64,
    /// Its members, by rank.
    pub members: Vec<M>,
}

/// Where a survivor comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Claim {
    /// The epoch.
    pub epoch: u64,
    /// Its rank there.
    pub rank: u32,
}

/// One who wants to be in the next epoch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Candidate<M> {
    /// Who it is.
    pub member: M,
    /// `None` for a newcomer.
    pub claim: Option<Claim>,
    /// Newcomers with a smaller number come first.
    pub order: u64,
}

/// What the next epoch has to be like. The same for all candidates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Terms {
    /// Fewest members.
    pub min: u32,
    /// Most members; with these it begins at once.
    pub max: u32,
    /// How long to wait for more candidates when there are enough and no member is missing.
    pub newcomers: Duration,
    /// How long to wait for members that are alive and are not candidates.
    pub stragglers: Duration,
}

/// What a candidate has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next<M> {
    /// Connect to the others of this epoch.
    Join {
        /// The epoch.
        view: View<M>,
        /// Its own rank there.
        rank: u32,
    },
    /// Put this in the place of the view, if that has not changed.
    Propose(View<M>),
    /// Look again when something has changed, or after this time without a change.
    Wait(Option<Duration>),
    /// Give up: the next epoch has begun without it.
    LeftOut {
        /// Which.
        epoch: u64,
    },
    /// Give up: the record is another world's by now.
    Replaced,
}

/// What a candidate sees.
#[derive(Clone, Copy, Debug)]
pub struct Sight<'a, M> {
    /// The record.
    pub view: &'a View<M>,
    /// All candidates, itself among them.
    pub candidates: &'a [Candidate<M>],
    /// Who has failed or left, as far as this candidate knows: members, and newcomers that it waited for in vain. What
    /// the store still says of them does not count.
    pub gone: &'a [M],
    /// For how long nothing of that has changed.
    pub quiet: Duration,
}

impl<M: PartialEq> Sight<'_, M> {
    fn living(&self) -> impl Iterator<Item = &Candidate<M>> {
        self.candidates.iter().filter(|c| !self.gone.contains(&c.member))
    }
}

/// Time between the proposals of two candidates, so that usually only one is made.
const STAGGER: Duration = Duration::from_millis(2);

impl<M: Clone + PartialEq> View<M> {
    /// The rank of a member.
    pub fn rank_of(&self, member: &M) -> Option<u32> {
        self.members.iter().position(|m| m == member).map(|at| at as u32)
    }

    /// Whether a candidate is the survivor that it says it is. A claim to somebody else's rank is none.
    fn survivor(&self, candidate: &Candidate<M>) -> Option<u32> {
        let claim = candidate.claim.filter(|c| c.epoch == self.epoch)?;
        (self.members.get(claim.rank as usize) == Some(&candidate.member)).then_some(claim.rank)
    }
}

/// The epoch that follows from these candidates; `None` when they are too few, or none of them is a survivor.
pub fn successor<M: Clone + PartialEq>(
    view: &View<M>,
    candidates: &[Candidate<M>],
    terms: &Terms,
) -> Option<View<M>> {
    let mut survivors: Vec<(u32, &M)> =
        candidates.iter().filter_map(|c| Some((view.survivor(c)?, &c.member))).collect();
    survivors.sort_by_key(|(rank, _)| *rank);
    survivors.dedup_by_key(|(rank, _)| *rank);
    let mut newcomers: Vec<&Candidate<M>> = candidates.iter().filter(|c| is_newcomer(view, c)).collect();
    newcomers.sort_by_key(|c| c.order);
    let size = (survivors.len() + newcomers.len()).min(terms.max as usize);
    // Without a survivor it would be another world, and members that are only late would lose theirs.
    if size < terms.min as usize || survivors.is_empty() {
        return None;
    }
    // More survivors than there may be: the last ones have to go.
    survivors.truncate(size);
    let mut places: Vec<Option<&M>> = vec![None; size];
    let (stay, move_up): (Vec<_>, Vec<_>) =
        survivors.into_iter().partition(|(rank, _)| (*rank as usize) < size);
    for (rank, member) in stay {
        places[rank as usize] = Some(member);
    }
    let mut others =
        move_up.into_iter().map(|(_, member)| member).chain(newcomers.into_iter().map(|c| &c.member));
    let members: Option<Vec<M>> =
        places.into_iter().map(|place| place.or_else(|| others.next()).cloned()).collect();
    Some(View { world: view.world, epoch: view.epoch + 1, members: members? })
}

/// Who comes from no epoch and is not in this one. Who comes from an earlier one has missed it, and is none.
fn is_newcomer<M: Clone + PartialEq>(view: &View<M>, candidate: &Candidate<M>) -> bool {
    candidate.claim.is_none() && view.rank_of(&candidate.member).is_none()
}

/// When the candidates need not wait for anybody any more, counted from the last change. `None`: not before there is one.
fn settles<M: Clone + PartialEq>(sight: &Sight<'_, M>, terms: &Terms) -> Option<Duration> {
    let view = sight.view;
    let ranks: Vec<u32> = sight.living().filter_map(|c| view.survivor(c)).collect();
    let newcomers = sight.living().filter(|c| is_newcomer(view, c)).count();
    let number = ranks.len() + newcomers;
    if number < terms.min as usize || ranks.is_empty() {
        return None;
    }
    let mut members = view.members.iter().zip(0..);
    let missing = members.any(|(member, rank)| !ranks.contains(&rank) && !sight.gone.contains(member));
    Some(match (missing, number >= terms.max as usize) {
        (true, _) => terms.stragglers,
        (false, true) => Duration::ZERO,
        (false, false) => terms.newcomers,
    })
}

/// What a candidate for the next epoch of a world has to do.
pub fn next<M: Clone + PartialEq>(
    me: &Candidate<M>,
    world: WorldId,
    sight: &Sight<'_, M>,
    terms: &Terms,
) -> Next<M> {
    let view = sight.view;
    if view.world != world {
        return Next::Replaced;
    }
    match (view.rank_of(&me.member), me.claim) {
        // Not before this one has begun: a newcomer is in no epoch that began without it.
        (Some(rank), claim) if claim.is_none_or(|c| c.epoch < view.epoch) => {
            Next::Join { view: view.clone(), rank }
        }
        (None, Some(claim)) if claim.epoch < view.epoch => Next::LeftOut { epoch: view.epoch },
        _ => propose(me, sight, terms),
    }
}

fn propose<M: Clone + PartialEq>(me: &Candidate<M>, sight: &Sight<'_, M>, terms: &Terms) -> Next<M> {
    let Some(settled) = settles(sight, terms) else { return Next::Wait(None) };
    let living: Vec<Candidate<M>> = sight.living().cloned().collect();
    let Some(view) = successor(sight.view, &living, terms) else { return Next::Wait(None) };
    // A newcomer for whom there is no room waits for the next epoch; there are others to begin this one.
    let Some(rank) = view.rank_of(&me.member) else { return Next::Wait(None) };
    let turn = settled + STAGGER * rank;
    if sight.quiet >= turn { Next::Propose(view) } else { Next::Wait(Some(turn - sight.quiet)) }
}

#[cfg(test)]
#[path = "membership_tests.rs"]
mod tests;

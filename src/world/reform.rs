//! The next epoch of a named world, for its survivors and for newcomers.

use super::join::{
    MAX_RANKS, PATIENCE, base_secret, check_name, reach_store, reachable, watchdog, world_secret,
};
use super::{State, World};
use crate::config::Config;
use crate::error::{Code, Error, Extent, Result};
use crate::fault::health::News;
use crate::fault::membership::View;
use crate::rendezvous::reform::{self, Bounds, Member, Reforming, Surroundings, Wish};
use crate::rendezvous::{Membership, hosting};
use crate::sync::Arc;
use crate::types::{Secret, WorldId};
use crate::watchdog::Watchdog;
use std::cell::RefCell;
use std::time::{Duration, Instant};

/// How long the last one that leaves a world may take to say so to the store.
const DISSOLVE: Duration = Duration::from_millis(200);
/// Pause before another attempt where the store is not to be reached.
const RETRY: Duration = Duration::from_millis(5);

/// What a next epoch follows from.
pub(super) struct Origin {
    /// The secret of all worlds of the store.
    pub secret: Secret,
    /// The members as they stand in the store, by rank.
    pub members: Vec<Member>,
}

/// How many members the next epoch has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// As the members say; for a newcomer.
    Theirs,
    /// At least and at most.
    Between(i32, i32),
}

impl Size {
    fn bounds(self, name: &str, is_survivor: bool) -> Result<Option<Bounds>> {
        match self {
            Size::Theirs if is_survivor => Err(Error::argument(format!(
                "minRanks: a member of world '{name}' has to say how many there have to be"
            ))),
            Size::Theirs => Ok(None),
            Size::Between(min, max) => {
                if !(1..=MAX_RANKS).contains(&min) {
                    return Err(Error::argument(format!("minRanks: {min} is not between 1 and {MAX_RANKS}")));
                }
                if !(min..=MAX_RANKS).contains(&max) {
                    return Err(Error::argument(format!(
                        "maxRanks: {max} is not between minRanks ({min}) and {MAX_RANKS}"
                    )));
                }
                Ok(Some(Bounds { min: min as u32, max: max as u32 }))
            }
        }
    }
}

/// What a candidate has around it: the old world, and the doors that it has opened.
struct Around<'a> {
    w: &'a Watchdog,
    old: Option<&'a World>,
    secret: &'a Secret,
    admitted: RefCell<Vec<WorldId>>,
}

impl Surroundings for Around<'_> {
    fn admit(&self, world: &WorldId) {
        if !self.admitted.borrow().contains(world) {
            self.w.admit(*world, world_secret(self.secret, world));
            self.admitted.borrow_mut().push(*world);
        }
    }

    fn gone(&self) -> Vec<u32> {
        self.old.map(|old| old.health.lock().gone().into_iter().collect()).unwrap_or_default()
    }
}

impl Around<'_> {
    /// Connects to the members of an epoch.
    fn begin(
        &self,
        name: &str,
        view: &View<Member>,
        rank: u32,
        config: &Config,
        deadline: Instant,
        absent: &dyn Fn() -> Result<Vec<u32>>,
    ) -> Result<Arc<World>> {
        let secret = world_secret(self.secret, &view.world);
        // For the world, which takes that back when it ends.
        self.w.admit(view.world, secret.clone());
        let members = view.members.iter().map(|m| m.address.clone()).collect();
        let membership = Membership { world: view.world, epoch: view.epoch, members };
        let world = World::connect(name, rank, membership, secret, config, deadline, absent)?;
        // Set once, here.
        let _ = world.origin.set(Origin { secret: self.secret.clone(), members: view.members.clone() });
        Ok(world)
    }
}

/// Whether the store is what failed, and there is time for another attempt; takes a little of that.
fn is_passing(e: &Error, deadline: Instant) -> bool {
    let passing = reform::is_store_lost(e) && Instant::now() < deadline;
    if passing {
        tracing::debug!("reforming: {e}; once more");
        std::thread::sleep(RETRY);
    }
    passing
}

impl Drop for Around<'_> {
    fn drop(&mut self) {
        self.admitted.get_mut().drain(..).for_each(|world| self.w.dismiss(world));
    }
}

impl World {
    /// The next epoch of the world `name`: survivors call this with their world, which may have ended, newcomers without
    /// one. Survivors keep their ranks, newcomers take the holes. Ends with the new epoch, or with an error and nothing
    /// changed. The old world is destroyed when the new one is there.
    pub fn reform(old: Option<&Arc<World>>, name: &str, size: Size, config: &Config) -> Result<Arc<World>> {
        check_name(name)?;
        let bounds = size.bounds(name, old.is_some())?;
        let deadline = Instant::now() + config.join_timeout;
        let w = watchdog(config, deadline)?;
        let (secret, from) = match old {
            Some(old) => {
                let origin = old.origin()?;
                (origin.secret.clone(), Some((old.view(origin), old.rank)))
            }
            None => (base_secret(config), None),
        };
        let around = Around { w, old: old.map(|old| &**old), secret: &secret, admitted: RefCell::default() };
        let wish = Wish {
            name,
            address: reachable(w, config, &secret, deadline)?,
            from,
            bounds,
            newcomers: config.reform_wait,
            stragglers: config.join_timeout / 2,
            deadline,
        };
        let mut reforming = Reforming::new(wish, &around)?;
        let reformed = loop {
            if !reforming.has_store() {
                // Where it went down with a member, a survivor takes its place.
                let store = reach_store(w, config, &secret, old.is_some(), deadline);
                match store.and_then(|store| reforming.go_to(store)) {
                    Ok(()) => {}
                    Err(e) if is_passing(&e, deadline) => continue,
                    Err(e) => break Err(e),
                }
            }
            let (view, rank) = match reforming.run() {
                Ok(found) => found,
                Err(e) if is_passing(&e, deadline) => continue,
                Err(e) => break Err(e),
            };
            let absent = || reforming.absent(&view, deadline.min(Instant::now() + PATIENCE));
            match around.begin(name, &view, rank, config, deadline, &absent) {
                Err(e) if matches!(e.code, Code::Remote | Code::Revoked) && Instant::now() < deadline => {
                    tracing::info!(world = name, epoch = view.epoch, "did not begin: {e}");
                    reforming.lost(e.culprit);
                }
                begun => break begun,
            }
        };
        reforming.finish();
        let world = reformed?;
        if let Some(old) = old {
            old.supersede(&world);
        }
        Ok(world)
    }

    fn origin(&self) -> Result<&Origin> {
        self.origin.get().ok_or_else(|| {
            Error::usage(format!(
                "world: '{}' was not made by name, so that there is no store in which others could find it; shrink or \
                 grow it",
                self.name
            ))
        })
    }

    fn view(&self, origin: &Origin) -> View<Member> {
        View { world: self.id, epoch: self.epoch, members: origin.members.clone() }
    }

    /// Ends this epoch here: another one has begun.
    fn supersede(&self, new: &World) {
        let text = format!("world '{}' goes on as epoch {}", self.name, new.epoch);
        if let (Some(mine), Some(theirs)) = (self.origin.get(), new.origin.get()) {
            // Whoever was left out would wait for this member for ever.
            let stay = |rank: &usize| mine.members.get(*rank).is_some_and(|m| theirs.members.contains(m));
            let gone = self.health.lock().gone();
            if (0..mine.members.len()).any(|rank| !stay(&rank) && !gone.contains(&(rank as u32))) {
                let text = format!("{text} without some of its members");
                self.tell_all(&News::Broken { code: Code::Revoked, culprit: None, text });
            }
        }
        self.retire_now(&Error::new(Code::Revoked, Extent::World, text));
        if let Err(e) = self.destroy() {
            tracing::debug!(world = &*self.name, "destroying epoch {}: {e}", self.epoch);
        }
    }

    /// The last member that leaves takes the world's record out of the store.
    pub(super) fn dissolve(&self) {
        let Some(origin) = self.origin.get() else { return };
        let is_last = self.health.lock().gone().len() + 1 == self.members.len();
        if !is_last || self.state() != State::Finalized {
            return;
        }
        let deadline = Instant::now() + DISSOLVE;
        let Some(store) = self.config.store.as_deref().and_then(|a| hosting::known(a, &origin.secret)) else {
            return;
        };
        if let Err(e) = reform::dissolve(&*store, &self.name, &self.id, self.epoch, deadline) {
            tracing::debug!(world = &*self.name, "its record stays in the store: {e}");
        }
    }
}

#[cfg(test)]
#[path = "reform_tests.rs"]
mod tests;

//! What becomes of news about a world: its state, its pending operations, the events, the other members.

use super::operate::refuse_forked;
use super::{State, World};
use crate::error::{Code, Error, Result};
use crate::fault::health::{Health, News, Notice, Verdict};
use crate::observe::events::{self, Event, EventKind};
use crate::progress::{Engine, wait};
use crate::sync::Arc;
use crate::sync::atomic::Ordering;
use crate::sys::{clock, process};
use crate::types::{Fingerprint, ProcessId, WorldId};
use crate::watchdog::{Member, Watchdog};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// How long aborting waits for a thread that is in the middle of moving bytes.
const ABORT_PATIENCE: Duration = Duration::from_secs(1);
/// Silence of a peer that is tolerated at least while joining.
const JOINING_SILENCE: Duration = Duration::from_secs(1);

/// How long leaving waits at most for the others' ears.
const FAREWELL: Duration = Duration::from_secs(1);

/// Events on their way to the application, in order.
#[derive(Default)]
pub(super) struct Outbox {
    /// The number that C sees as the world's handle; 0 until it has one.
    token: usize,
    /// Events that came before the handle: without it nobody could tell what they are about.
    held: Vec<Event>,
}

impl Outbox {
    fn push(&mut self, event: Event) {
        match self.token {
            0 => self.held.push(event),
            token => events::publish(Event { world_token: token, ..event }),
        }
    }

    /// The handle is known.
    pub fn open(&mut self, token: usize) {
        self.token = token;
        std::mem::take(&mut self.held).into_iter().for_each(|e| self.push(e));
    }
}

impl World {
    /// Takes in a piece of news; answers whether it was any.
    pub(super) fn learn(&self, news: &News) -> bool {
        self.digest(news, Health::hear)
    }

    fn digest(&self, news: &News, hear: impl FnOnce(&mut Health, &News) -> Verdict) -> bool {
        let (verdict, state) = {
            let mut health = self.health.lock();
            let verdict = hear(&mut health, news);
            self.state.store(health.state() as u8, Ordering::Release);
            (verdict, health.state())
        };
        if let News::Left { rank } = news {
            self.suspects.lock().retain(|(r, _)| r != rank);
        }
        let Some(notice) = verdict.notice else { return false };
        // Whoever waits looks at the state and ends its operations itself.
        self.ring();
        self.end_device();
        tracing::info!(world = &*self.name, epoch = self.epoch, rank = self.rank, "{}", verdict.reason);
        // Whoever aborted has taken his leave: what the others make of it is no event for him.
        if state == State::Aborted {
            return true;
        }
        let (kind, rank) = match notice {
            Notice::RankFailed(r) => (EventKind::RankFailed, Some(r)),
            Notice::RankLeft(r) => (EventKind::RankLeft, Some(r)),
            Notice::Revoked => (EventKind::WorldRevoked, None),
            Notice::Broken => (EventKind::WorldBroken, None),
        };
        let code = match (notice, state) {
            (Notice::RankLeft(_), State::Active) => None,
            _ => self.error().map(|e| e.code),
        };
        self.outbox.lock().push(Event {
            kind,
            code,
            world_token: 0,
            world_name: self.name.clone(),
            epoch: self.epoch,
            rank,
            timestamp_ns: clock::monotonic_ns(),
            reason: verdict.reason.into(),
        });
        true
    }

    /// Takes in news that this member found out, and passes it on to all the others.
    pub(super) fn announce(&self, news: &News) {
        if self.learn(news) {
            self.tell_all(news);
        }
    }

    /// What went wrong with this member itself ends the world, for all members.
    pub(super) fn announce_own(&self, e: &Error) {
        let culprit = Some(e.culprit.unwrap_or(self.rank));
        let text = format!("rank {} of world '{}': {e}", self.rank, self.name);
        let news = News::Broken { code: e.code, culprit, text };
        if self.digest(&news, |health, news| health.hear_own(news, e.extent)) {
            self.tell_all(&news);
        }
    }

    pub(super) fn tell_all(&self, news: &News) {
        let Ok(w) = Watchdog::get(None) else { return };
        let world = (self.id, self.epoch);
        let processes: BTreeSet<ProcessId> = self.members.iter().map(|m| m.process).collect();
        for p in &processes {
            if *p != w.address().process {
                w.tell(p, world, news);
            }
        }
        let here = self.members.iter().filter(|m| m.process == w.address().process).count();
        w.tell_local(world, self.rank, here - 1, news);
    }

    /// The application may end the process as soon as it has left its worlds. Then the others must know that it has,
    /// or they take the end for a failure.
    fn see_off(&self) {
        if let Ok(w) = Watchdog::get(None) {
            // Who does not read for so long is taken for failed itself.
            let limit = Instant::now() + self.config.heartbeat_timeout.min(FAREWELL);
            w.see_off(self.members.iter().map(|m| m.process), limit);
        }
    }

    /// Breaks the world for everybody.
    pub fn revoke(&self) -> Result<()> {
        refuse_forked()?;
        if self.state() == State::Active {
            self.announce(&News::Revoked { by: self.rank });
        }
        Ok(())
    }

    /// Leaves at once: everything under way here ends, the others see this rank fail. Never waits for a peer.
    pub fn abort(&self) {
        if self.forgotten.load(Ordering::Acquire) || process::is_forked() {
            return;
        }
        let (error, news) = {
            let mut health = self.health.lock();
            let answer = health.abort();
            self.state.store(health.state() as u8, Ordering::Release);
            answer
        };
        news.iter().for_each(|n| self.tell_all(n));
        self.ring();
        self.abandon_device(&error);
        match self.engine.try_lock_for(ABORT_PATIENCE) {
            Some(mut e) => {
                e.end(&error);
                drop(e.dismantle());
            }
            None => tracing::error!(
                world = &*self.name,
                "a thread has been moving bytes of one operation for a second; its resources are leaked"
            ),
        }
        self.ring();
        self.forget();
    }

    /// Finishes what was accepted and tells the others that this member leaves.
    pub fn finalize(&self) -> Result<()> {
        // First: even asking for the error takes a lock, which may have been held at the fork.
        refuse_forked()?;
        if self.state() == State::Finalized {
            return Ok(());
        }
        if let Some(e) = self.error() {
            return Err(e);
        }
        let until = Instant::now() + self.config.timeout;
        let idle = || self.with_engine(|e| e.is_idle());
        loop {
            if !wait::until(&[self], &idle, Some(until)) || Instant::now() >= until {
                return Err(Error::timeout(format!(
                    "finalizing world '{}': operations are still under way",
                    self.name
                )));
            }
            if let Some(device) = self.device.get() {
                device.finalize(until)?;
            }
            if let Some(result) = self.with_engine(|e| self.retire(e)) {
                result?;
                self.tell_all(&News::Left { rank: self.rank });
                self.see_off();
                return Ok(());
            }
        }
    }

    /// Ends an idle world in good order; `None` when another thread has posted something meanwhile. Posting takes the
    /// engine, too: no operation slips in between the look and the end.
    fn retire(&self, engine: &mut Engine) -> Option<Result<()>> {
        if !engine.is_idle() {
            return None;
        }
        let mut health = self.health.lock();
        let ended = health.finalize();
        self.state.store(health.state() as u8, Ordering::Release);
        let error = health.error().cloned();
        drop(health);
        Some(match error {
            Some(e) if !ended => Err(e),
            e => {
                engine.retire(&e.unwrap_or_else(|| Error::internal("finalized without a trace")));
                Ok(())
            }
        })
    }

    /// Finalizes if that has not been done, and frees everything. The world is gone whatever this answers.
    pub fn destroy(&self) -> Result<()> {
        if self.forgotten.load(Ordering::Acquire) {
            return Ok(());
        }
        refuse_forked()?;
        let result = if self.state() == State::Active { self.finalize() } else { Ok(()) };
        let error = self.error().unwrap_or_else(|| {
            Error::new(Code::InvalidUsage, crate::error::Extent::World, "the world was destroyed")
        });
        self.abandon_device(&error);
        match self.engine.try_lock_for(ABORT_PATIENCE) {
            Some(mut e) => {
                if self.state() != State::Finalized {
                    e.end(&error);
                }
                drop(e.dismantle());
            }
            None => tracing::error!(world = &*self.name, "destroyed while in use; its resources are leaked"),
        }
        if self.state() != State::Finalized {
            // Not before the engine has ended: who hears that this rank has left takes back the buffers that this
            // rank may have been reading.
            let farewell = self.health.lock().farewell();
            farewell.iter().for_each(|n| self.tell_all(n));
            self.see_off();
        }
        self.ring();
        self.forget();
        self.dissolve();
        result
    }

    /// Ends an active world without waiting for what is under way in it, which gets this error.
    pub(super) fn retire_now(&self, error: &Error) {
        {
            let mut health = self.health.lock();
            health.finalize();
            self.state.store(health.state() as u8, Ordering::Release);
        }
        // Who moves bytes right now finds out when it comes back.
        if let Some(mut e) = self.engine.try_lock_for(ABORT_PATIENCE) {
            e.end(error);
        }
        self.ring();
    }

    /// Ends the watchdog's interest in this member.
    pub(super) fn forget(&self) {
        if !self.forgotten.swap(true, Ordering::AcqRel)
            && let Ok(w) = Watchdog::get(None)
        {
            w.unregister((self.id, self.epoch), self.rank);
        }
    }

    fn ranks_of<'a>(&'a self, process: &'a ProcessId) -> impl Iterator<Item = u32> + 'a {
        let of =
            move |(rank, m): (usize, &crate::types::Address)| (m.process == *process).then_some(rank as u32);
        self.members.iter().enumerate().filter_map(of)
    }
}

/// A world in the watchdog's list. It keeps the world alive until it is destroyed or aborted.
pub(super) struct Watched(pub Arc<World>);

impl Member for Watched {
    fn world(&self) -> (WorldId, u64) {
        (self.0.id, self.0.epoch)
    }

    fn rank(&self) -> u32 {
        self.0.rank
    }

    fn heartbeat_timeout(&self) -> Duration {
        let limit = self.0.config.heartbeat_timeout;
        // Until all have joined, a peer may not yet know how often this world wants to hear from it.
        if self.0.joined.load(Ordering::Acquire) { limit } else { limit.max(JOINING_SILENCE) }
    }

    fn heartbeat_interval(&self) -> Duration {
        self.0.config.heartbeat_interval
    }

    fn includes(&self, process: &ProcessId) -> bool {
        self.0.members.iter().any(|m| m.process == *process)
    }

    fn process_failed(&self, process: &ProcessId, reason: &str, tell: bool) {
        for rank in self.0.ranks_of(process).collect::<Vec<_>>() {
            let news = News::Failed { rank, reason: reason.to_string() };
            if tell {
                self.0.announce(&news);
            } else {
                self.0.learn(&news);
            }
        }
    }

    fn hear(&self, from: &ProcessId, news: &News) {
        if !self.includes(from) {
            return;
        }
        let speakers: Vec<u32> = self.0.ranks_of(from).collect();
        // Nobody speaks for another process about leaving.
        if let News::Left { rank } = news
            && !speakers.contains(rank)
        {
            return;
        }
        // No more than that on the watchdog's thread: whoever waits for a member that has left is woken, and finds out.
        self.0.digest(news, |health, news| health.hear_from(&speakers, news));
    }

    fn compare(&self, from: &ProcessId, rank: u32, call: &Fingerprint) {
        if self.0.ranks_of(from).any(|r| r == rank) {
            self.0.compare(rank, call);
        }
    }

    fn tick(&self, now: Instant) {
        self.0.settle_suspects(now);
    }
}

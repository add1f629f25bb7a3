//! Running operations: posting, waiting, deadlines, and trouble on the way.

use super::call::{self, Call, Message};
use super::{State, World};
use crate::error::{Code, Error, Extent, Result};
use crate::fault::health::News;
use crate::progress::wait::{self, Driver};
use crate::progress::{Attempt, Engine, Operation, Ticket, Trouble};
use crate::sync::atomic::{AtomicU32, Ordering, fence};
use crate::sync::{Arc, OnceLock};
use crate::sys::sleeper::{self, Interest};
use crate::sys::{bell, process};
use crate::types::{Fingerprint, OpKind, ProcessId};
use crate::watchdog::Watchdog;
use std::time::{Duration, Instant};

/// Waiting in a collective for so long, a rank asks the others whether they called the same.
const STUCK: Duration = Duration::from_millis(100);
/// How long to wait for the better explanation of a mismatch that a rank ahead of this one has.
const UNSAID: Duration = Duration::from_millis(500);
/// Between looks for room in a peer's memory: it rings for much room, but not for a little.
const HELD_UP: Duration = Duration::from_millis(1);
/// Looks for a message on the spot: as long as it takes a peer that has a processor to answer.
const LOOKS: u32 = 400;
/// The same where members may have to share processors: whoever looks keeps the one he waits for from running.
const CROWDED: u32 = 2;
/// How long the watchdog waits for a look at an engine that is at work; an engine at work is not stuck.
const GLANCE: Duration = Duration::from_millis(2);

/// Refuses what a fork of the member's process does. Nothing of a world may be touched there: its memory is not
/// mapped, its locks may be held by threads that do not exist, and its sockets are the parent's.
pub(super) fn refuse_forked() -> Result<()> {
    if process::is_forked() {
        return Err(Error::usage("world: it belongs to the process that this one was forked from"));
    }
    Ok(())
}

impl World {
    /// Runs one operation to its end on the calling thread.
    pub fn run(&self, call: &Call) -> Result<()> {
        self.check(call)?;
        match self.device.get() {
            Some(device) => {
                if call.kind == OpKind::PointToPoint {
                    self.check_other(call.peer as u32)?;
                }
                self.enqueue(&**device, &[*call], self.due())
            }
            None if call.kind == OpKind::PointToPoint => self.run_message(call::of_call(call)),
            None => self.run_collective(call),
        }
    }

    fn check_other(&self, peer: u32) -> Result<()> {
        if peer != self.rank {
            return Ok(());
        }
        Err(Error::usage(format!(
            "peer: {peer} is this rank itself; a send to oneself and its receive must be in one group"
        )))
    }

    /// Runs a checked message to its end: at once if nothing is in its way, which spares a short one most of its cost.
    pub fn run_message(&self, message: Message) -> Result<()> {
        self.check_other(message.peer)?;
        refuse_forked()?;
        let ticket = {
            let Some(mut engine) = self.engine.try_lock() else {
                let ticket = Ticket::spare();
                self.post(Operation::Message(message), &ticket, self.due());
                return self.wait(ticket);
            };
            let attempt = match self.state() {
                State::Active => engine.attempt(&message, self.looks(), || self.is_wanted()),
                _ => Attempt::Untried,
            };
            if matches!(attempt, Attempt::Done) {
                drop(engine);
                self.let_in();
                return Ok(());
            }
            let ticket = Ticket::spare();
            engine.post_rest(message, attempt, ticket.clone(), self.due());
            ticket
        };
        self.let_in();
        self.wait(ticket)
    }

    /// Runs a collective to its end. While nothing else is under way the engine is kept, which spares a short one the
    /// way in and out for each of its messages.
    fn run_collective(&self, call: &Call) -> Result<()> {
        refuse_forked()?;
        let Some(mut engine) =
            self.engine.try_lock().filter(|e| e.is_idle() && self.state() == State::Active)
        else {
            return self.run_until(call, self.due());
        };
        let (operation, wanted) = (self.operation(call), || self.is_wanted());
        let Some(ticket) = engine.attempt_collective(operation, self.looks(), wanted, Ticket::spare) else {
            drop(engine);
            self.let_in();
            return Ok(());
        };
        let trouble = engine.drive(&ticket, self.looks(), wanted);
        let is_done = ticket.is_done();
        if !is_done && cfg!(not(mw_without = "deadlines")) {
            // No clock was read so far.
            let now = Instant::now();
            engine.date(now, now + self.config.timeout);
        }
        drop(engine);
        self.let_in();
        if let Some(trouble) = trouble {
            self.trouble(trouble);
        }
        if is_done { Ticket::settle(ticket) } else { self.wait(ticket) }
    }

    /// Until when an operation has to be done that begins now.
    fn due(&self) -> Instant {
        static NEVER: OnceLock<Instant> = OnceLock::new();
        if cfg!(mw_without = "deadlines") {
            return *NEVER.get_or_init(|| Instant::now() + self.config.timeout);
        }
        Instant::now() + self.config.timeout
    }

    /// How often to look for a message before letting others have the engine, or the processor.
    fn looks(&self) -> u32 {
        if self.is_crowded() { CROWDED } else { LOOKS }
    }

    /// Whether another thread wants the engine, or the world is not what it was.
    fn is_wanted(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
            || self.queuing.load(Ordering::Relaxed) > 0
            || self.state.load(Ordering::Relaxed) != State::Active as u8
    }

    pub(super) fn run_until(&self, call: &Call, deadline: Instant) -> Result<()> {
        let ticket = Ticket::spare();
        self.post(self.operation(call), &ticket, deadline);
        self.wait(ticket)
    }

    /// Waits for an operation of this world.
    fn wait(&self, ticket: Arc<Ticket>) -> Result<()> {
        wait::until(&[self], &|| ticket.is_done(), None);
        Ticket::settle(ticket)
    }

    /// Starts a checked operation, or queues it behind those before it.
    fn post(&self, operation: Operation, ticket: &Arc<Ticket>, deadline: Instant) {
        if let Err(e) = self.is_open() {
            ticket.complete(Err(e));
            return;
        }
        self.with_engine(|e| e.post(operation, ticket.clone(), deadline));
    }

    /// Starts what a group has posted: collectives first, then all messages together, which count as one operation of
    /// the ticket. Leaves `messages` empty.
    pub(super) fn start<'a>(
        &self,
        collectives: impl Iterator<Item = &'a Call>,
        messages: &mut Vec<Message>,
        ticket: &Arc<Ticket>,
        deadline: Instant,
    ) {
        for call in collectives {
            ticket.add(1);
            self.post(self.operation(call), ticket, deadline);
        }
        if messages.is_empty() {
            return;
        }
        ticket.add(1);
        match self.is_open() {
            Ok(()) => self.with_engine(|e| e.post_batch(messages, ticket.clone(), deadline)),
            Err(e) => {
                messages.clear();
                ticket.complete(Err(e));
            }
        }
    }

    /// Whether operations can be started.
    fn is_open(&self) -> Result<()> {
        refuse_forked()?;
        if self.state() == State::Active {
            return Ok(());
        }
        Err(self.error().unwrap_or_else(|| Error::internal("the world ended without a reason")))
    }

    /// Runs `body` with the engine.
    pub(super) fn with_engine<R>(&self, body: impl FnOnce(&mut Engine) -> R) -> R {
        let mut engine = self.engine.try_lock().unwrap_or_else(|| {
            self.queuing.fetch_add(1, Ordering::Relaxed);
            let engine = self.engine.lock();
            self.queuing.fetch_sub(1, Ordering::Relaxed);
            engine
        });
        let answer = body(&mut engine);
        drop(engine);
        self.let_in();
        answer
    }

    /// Runs `body` with the engine unless another thread has it, which then rings when it lets go: whoever is
    /// refused may go to sleep, and what it came for is not forgotten.
    pub(super) fn try_engine<R>(&self, body: impl FnOnce(&mut Engine) -> R) -> Option<R> {
        let mut engine = match self.engine.try_lock() {
            Some(engine) => engine,
            None => {
                self.refused.store(true, Ordering::Relaxed);
                // Pairs with the fence in `let_in`: either the lock is free by now, or its holder sees the mark.
                fence(Ordering::SeqCst);
                self.engine.try_lock()?
            }
        };
        let answer = body(&mut engine);
        drop(engine);
        self.let_in();
        Some(answer)
    }

    /// After the engine was unlocked: wakes whoever was refused meanwhile.
    fn let_in(&self) {
        fence(Ordering::SeqCst);
        if self.refused.load(Ordering::Relaxed) && self.refused.swap(false, Ordering::Relaxed) {
            self.ring();
        }
    }

    /// Rings this member's own bell: another thread may wait for what this one has just done.
    pub(super) fn ring(&self) {
        bell::ring(self.bell(), sleeper::doorbell_if_any());
    }

    fn trouble(&self, trouble: Trouble) {
        match trouble {
            Trouble::Closed(peer) => self.suspect(peer),
            Trouble::Mismatch { peer, mine, theirs, my_len, their_len } => {
                let lengths = (mine == theirs).then_some((my_len, their_len));
                let collectives = mine.kind != OpKind::PointToPoint && theirs.kind != OpKind::PointToPoint;
                if collectives && theirs.seq.wrapping_sub(mine.seq) as i32 > 0 {
                    // It is ahead: what it called instead of `mine` it knows, and says when it is asked.
                    let news = self.mismatch(&mine, peer, &theirs, lengths);
                    *self.unsaid.lock() = Some((Instant::now() + UNSAID, news));
                    self.ask(&mine);
                } else {
                    self.announce(&self.mismatch(&mine, peer, &theirs, lengths));
                }
            }
            Trouble::Corrupt(peer, why) => {
                let reason = format!("its connection to rank {} is unusable: {why}", self.rank);
                self.announce(&News::Failed { rank: peer, reason });
            }
            Trouble::System(peer, why) => {
                let (name, me) = (&self.name, self.rank);
                let text =
                    format!("rank {me} of world '{name}' cannot use its connection to rank {peer}: {why}");
                self.announce(&News::Broken { code: Code::System, culprit: Some(me), text });
            }
        }
    }

    fn mismatch(
        &self,
        mine: &Fingerprint,
        peer: u32,
        theirs: &Fingerprint,
        lengths: Option<(u64, u64)>,
    ) -> News {
        let mut text = format!(
            "mismatched calls in world '{}': rank {} called {mine}, rank {peer} called {theirs}",
            self.name, self.rank
        );
        if let Some((mine, theirs)) = lengths {
            text.push_str(&format!(" with a message of {mine} against {theirs} bytes"));
        }
        News::Broken { code: Code::InvalidUsage, culprit: Some(peer), text }
    }

    /// A thread here has waited in a collective for a while: the others may have called something else that also
    /// waits, or that sent its part and went on. Asked once per collective.
    fn ask_others(&self, now: Instant) {
        let Some(engine) = self.engine.try_lock() else { return };
        let call = engine.collective();
        drop(engine);
        let call = {
            let mut stuck = self.stuck.lock();
            let Some(call) = call else {
                *stuck = None;
                return;
            };
            match &mut *stuck {
                Some((seq, since, asked)) if *seq == call.seq => {
                    if *asked || now.saturating_duration_since(*since) < STUCK {
                        return;
                    }
                    *asked = true;
                }
                other => {
                    *other = Some((call.seq, now, false));
                    return;
                }
            }
            call
        };
        self.ask(&call);
    }

    /// Asks all others whether they called the same collective.
    fn ask(&self, call: &Fingerprint) {
        if let Ok(w) = Watchdog::get(None) {
            let mut processes: Vec<ProcessId> = self.members.iter().map(|m| m.process).collect();
            processes.sort_unstable();
            processes.dedup();
            w.ask(&processes, (self.id, self.epoch), self.rank, call);
        }
    }

    /// A mismatch that nobody could explain better in time.
    fn say_unsaid(&self, now: Instant) {
        let due = self.unsaid.lock().take_if(|(at, _)| *at <= now);
        if let Some((_, news)) = due {
            self.announce(&news);
        }
    }

    /// Another rank waits in `theirs`. Whoever has not come that far yet will ask itself, should it get stuck.
    pub(super) fn compare(&self, rank: u32, theirs: &Fingerprint) {
        let mine = self.engine.try_lock_for(GLANCE).and_then(|e| e.called(theirs.seq));
        if let Some(mine) = mine.filter(|m| m != theirs) {
            self.announce(&self.mismatch(&mine, rank, theirs, None));
        }
    }

    /// The connection to a peer has ended: usually the reason is already on its way here.
    pub(super) fn suspect(&self, peer: u32) {
        if !self.health.lock().has_left(peer) {
            self.suspects.lock().push((peer, Instant::now() + self.config.heartbeat_timeout));
        }
        self.settle_leavers();
        match Watchdog::get(None) {
            Ok(w) => w.suspect(),
            Err(e) => tracing::warn!("{e}"),
        }
    }

    /// Operations that wait for a member that has left will never be done. In a world that has ended they get the
    /// world's error from whoever waits for them: its members leave because it has ended, and that is not the reason.
    pub(super) fn settle_leavers(&self) {
        if !matches!(self.state(), State::Active | State::Finalized) {
            return;
        }
        for rank in 0..self.nranks() {
            if rank == self.rank || !self.health.lock().has_left(rank) {
                continue;
            }
            let text = format!("rank {rank} has left world '{}'", self.name);
            let error = Error::new(Code::Remote, Extent::Operation, text.as_str()).by(rank);
            match self.with_engine(|e| e.give_up_peer(rank, &error)) {
                Ok(true) => self.ring(),
                Ok(false) => {
                    let text = format!("{text}: the collective under way cannot complete");
                    self.announce(&News::Broken { code: Code::Remote, culprit: Some(rank), text });
                }
                Err(mismatch) => self.trouble(mismatch),
            }
        }
    }

    /// Suspicions whose time is up become failures.
    pub(super) fn settle_suspects(&self, now: Instant) {
        let mut late = Vec::new();
        let open = {
            let mut suspects = self.suspects.lock();
            if self.state() != State::Active {
                // Connections end with a world; those who end them live.
                suspects.clear();
            }
            suspects.retain(|(rank, until)| {
                let is_late = *until <= now;
                if is_late {
                    late.push(*rank);
                }
                !is_late
            });
            !suspects.is_empty()
        };
        for rank in late {
            if !self.health.lock().has_left(rank) {
                let reason = format!("its data connection to rank {} closed", self.rank);
                self.announce(&News::Failed { rank, reason });
            }
        }
        if open && let Ok(w) = Watchdog::get(None) {
            // Not a nudge: the next tick is early enough.
            w.suspicions.store(true, Ordering::Release);
        }
    }
}

impl Driver for World {
    fn drive(&self) -> bool {
        if process::is_forked() {
            return false;
        }
        // Whoever holds the lock drives; everybody is rung when something moved.
        let turn = self.try_engine(|engine| {
            if engine.is_idle() || matches!(self.state(), State::Active | State::Finalized) {
                return engine.progress();
            }
            let e = self.error().unwrap_or_else(|| Error::internal("the world ended without a reason"));
            engine.end(&e);
            (true, None)
        });
        let Some((moved, trouble)) = turn else { return false };
        if let Some(t) = trouble {
            self.trouble(t);
        }
        if moved {
            self.ring();
        }
        moved
    }

    fn tick(&self, now: Instant) {
        self.settle_leavers();
        self.ask_others(now);
        self.say_unsaid(now);
        let overdue = self.try_engine(|e| e.overdue(now)).flatten();
        if let Some((fp, peers, waited)) = overdue {
            let whom = match &peers[..] {
                [] => "for an earlier operation of this world".to_string(),
                [one] => format!("for rank {one}"),
                many => format!("for ranks {many:?}"),
            };
            let text = format!(
                "rank {} of world '{}' waited {} ms {whom} in {fp}",
                self.rank,
                self.name,
                waited.as_millis()
            );
            let culprit = if let [one] = peers[..] { Some(one) } else { None };
            self.announce(&News::Broken { code: Code::Timeout, culprit, text });
        }
    }

    fn bell(&self) -> &AtomicU32 {
        match self.segment.get() {
            Some(s) => &s.member(self.local_index()).bell,
            None => &self.bell,
        }
    }

    fn interests(&self, out: &mut Vec<Interest>) {
        self.with_engine(|e| e.interests(out));
    }

    fn is_crowded(&self) -> bool {
        self.is_crowded.load(Ordering::Relaxed)
    }

    fn is_promising(&self) -> bool {
        self.try_engine(|e| e.is_promising()).unwrap_or(false)
    }

    fn rest(&self, resting: bool) {
        if let Some(s) = self.segment.get() {
            s.member(self.local_index()).rest.0.store(u32::from(resting), Ordering::Relaxed);
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let ask = self.stuck.lock().and_then(|(_, since, asked)| (!asked).then_some(since + STUCK));
        let say = self.unsaid.lock().as_ref().map(|(at, _)| *at);
        let (deadline, is_held_up) = self.with_engine(|e| (e.deadline(), e.is_held_up()));
        let look = is_held_up.then(|| Instant::now() + HELD_UP);
        [deadline, look, ask, say].into_iter().flatten().min()
    }
}

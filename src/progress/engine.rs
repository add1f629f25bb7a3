//! The operations of one world, in call order.
//!
//! Point-to-point operations that are not separated by a collective run side by side: each peer's two directions
//! are ordered by themselves, so nothing is lost by it and two threads may send and receive at once. A collective
//! starts when everything before it is done, and nothing after it starts before it is done.

mod express;

use super::channel::{Attempt, Channel};
use super::operation::{Message, Operation, Trouble};
use super::ticket::Ticket;
use crate::collective::{self, Action, Buf, Plan, Shape, Slice, Tuning, reduce};
use crate::error::{Error, Result};
use crate::sync::Arc;
use crate::sys::sleeper::Interest;
use crate::transport::{Endpoint, EndpointError, RecvMsg, SendMsg, Sink};
use crate::types::{Fingerprint, OpKind, Reduction};
use std::collections::VecDeque;
use std::slice;
use std::time::{Duration, Instant};

/// Collectives remembered, for ranks that ask whether they called the same and for messages that come late.
const HISTORY: usize = 64;

/// Index of an unfinished operation.
pub type TaskId = usize;

struct Collective {
    plan: Plan,
    shape: Shape,
    step: usize,
    input: *const u8,
    output: *mut u8,
    scratch: Vec<u8>,
}

struct Task {
    /// Of a batch, its last.
    operation: Operation,
    /// All of a batch that has not been started.
    batch: Vec<Message>,
    ticket: Arc<Ticket>,
    /// When it was posted, and until when it has to be done. None yet for one that may well be done before anybody reads
    /// a clock.
    term: Option<(Instant, Instant)>,
    /// Messages not yet done.
    left: usize,
    /// Payload bytes of its messages, out and in.
    bytes: (u64, u64),
    /// What became of a message that will never be done.
    error: Option<Error>,
    collective: Option<Box<Collective>>,
}

/// See the module's documentation.
pub struct Engine {
    rank: u32,
    channels: Vec<Option<Channel>>,
    /// Ranks with something under way.
    busy: Vec<u32>,
    tasks: Vec<Option<Task>>,
    free: Vec<TaskId>,
    /// Not started yet, in call order.
    queue: VecDeque<TaskId>,
    /// Point-to-point operations under way.
    running: usize,
    collective: Option<TaskId>,
    collectives: u32,
    /// The last collectives started, by number: a rank that has nothing to receive in one learns only later what the
    /// others called.
    history: [Option<Fingerprint>; HISTORY],
    self_sends: VecDeque<(SendMsg, TaskId)>,
    self_recvs: VecDeque<(RecvMsg, TaskId)>,
    tuning: Tuning,
    scratch: Vec<u8>,
    /// Of the last collective, for the next.
    spare: Option<Box<Collective>>,
    actions: Vec<Action>,
    finished: Vec<TaskId>,
    ended: Option<Error>,
    /// Operations completed.
    pub operations: u64,
    /// Payload bytes of finished operations, out and in.
    pub bytes: (u64, u64),
}

// SAFETY: the raw pointers are callers' buffers, used only by whoever holds the engine's lock.
unsafe impl Send for Engine {}

impl Engine {
    /// An engine over the endpoints of a world, indexed by rank (`None` at this rank).
    pub fn new(rank: u32, endpoints: Vec<Option<Box<dyn Endpoint>>>) -> Engine {
        // All members come to the same: they share one memory, or some pair of them, which each of them knows of,
        // does not.
        let tuning = if endpoints.iter().flatten().all(|e| e.poll_fd().is_none()) {
            Tuning::shared_memory()
        } else {
            Tuning::network()
        };
        Engine {
            rank,
            channels: endpoints.into_iter().map(|e| e.map(Channel::new)).collect(),
            busy: Vec::new(),
            tasks: Vec::new(),
            free: Vec::new(),
            queue: VecDeque::new(),
            running: 0,
            collective: None,
            collectives: 0,
            history: [None; HISTORY],
            self_sends: VecDeque::new(),
            self_recvs: VecDeque::new(),
            tuning,
            scratch: Vec::new(),
            spare: None,
            actions: Vec::new(),
            finished: Vec::new(),
            ended: None,
            operations: 0,
            bytes: (0, 0),
        }
    }

    /// Replaces what is built in, for operations from here on. On all members between the same two operations.
    pub fn tune(&mut self, tuning: Tuning) {
        self.tuning = tuning;
    }

    /// Queues an operation; `ticket` hears when it is over. Ranks have been checked. Without a deadline it has to be
    /// given one later ([`Engine::date`]), before anybody sleeps.
    pub fn post(&mut self, operation: Operation, ticket: Arc<Ticket>, deadline: impl Into<Option<Instant>>) {
        if let Some(e) = &self.ended {
            ticket.complete(Err(e.clone()));
            return;
        }
        self.enqueue(operation, Vec::new(), ticket, deadline.into());
    }

    /// Gives a deadline to what was posted without one: it has to be waited for.
    pub fn date(&mut self, since: Instant, deadline: Instant) {
        for task in self.tasks.iter_mut().flatten() {
            task.term.get_or_insert((since, deadline));
        }
    }

    /// [`Engine::post`] for point-to-point operations that belong together, as one: side by side, and over when all are.
    /// Leaves `messages` empty, and where they can be started at once its memory, too.
    pub fn post_batch(&mut self, messages: &mut Vec<Message>, ticket: Arc<Ticket>, deadline: Instant) {
        let Some(&last) = messages.last() else { return ticket.complete(Ok(())) };
        if let Some(e) = &self.ended {
            messages.clear();
            ticket.complete(Err(e.clone()));
            return;
        }
        if self.queue.is_empty() && self.collective.is_none() {
            let id = self.task(Operation::Message(last), Vec::new(), ticket, Some(deadline));
            self.running += 1;
            self.start_messages(id, messages);
            messages.clear();
        } else {
            self.enqueue(Operation::Message(last), std::mem::take(messages), ticket, Some(deadline));
        }
    }

    fn enqueue(
        &mut self,
        operation: Operation,
        batch: Vec<Message>,
        ticket: Arc<Ticket>,
        deadline: Option<Instant>,
    ) {
        let id = self.task(operation, batch, ticket, deadline);
        self.queue.push_back(id);
        self.start();
    }

    /// The index of the next task.
    fn next_task(&self) -> TaskId {
        self.free.last().copied().unwrap_or(self.tasks.len())
    }

    fn task(
        &mut self,
        operation: Operation,
        batch: Vec<Message>,
        ticket: Arc<Ticket>,
        deadline: Option<Instant>,
    ) -> TaskId {
        let deadline = deadline.filter(|_| cfg!(not(mw_without = "deadlines")));
        let task = Task {
            operation,
            batch,
            ticket,
            term: deadline.map(|deadline| (Instant::now(), deadline)),
            left: 0,
            bytes: (0, 0),
            error: None,
            collective: None,
        };
        let id = self.next_task();
        if self.free.pop().is_none() {
            self.tasks.push(None);
        }
        self.tasks[id] = Some(task);
        id
    }

    /// Starts what the order of calls allows.
    fn start(&mut self) {
        while self.collective.is_none() {
            let Some(&id) = self.queue.front() else { return };
            let Some(task) = self.tasks[id].as_mut() else { return };
            match task.operation {
                Operation::Message(last) => {
                    let batch = std::mem::take(&mut task.batch);
                    self.queue.pop_front();
                    self.running += 1;
                    self.start_messages(id, if batch.is_empty() { slice::from_ref(&last) } else { &batch });
                }
                Operation::Collective { .. } if self.running > 0 => return,
                Operation::Collective { shape, input, output, mut fp } => {
                    let collective = self.begin(&shape, input, output, &mut fp);
                    if let Some(task) = self.tasks[id].as_mut() {
                        task.operation = Operation::Collective { shape, input, output, fp };
                        task.collective = Some(collective);
                    }
                    self.queue.pop_front();
                    self.collective = Some(id);
                    self.advance(id);
                }
            }
        }
    }

    /// Numbers a collective and plans it.
    fn begin(
        &mut self,
        shape: &Shape,
        input: *const u8,
        output: *mut u8,
        fp: &mut Fingerprint,
    ) -> Box<Collective> {
        fp.seq = self.collectives;
        self.collectives = self.collectives.wrapping_add(1);
        self.history[fp.seq as usize % HISTORY] = Some(*fp);
        let plan = Plan::new(shape, &self.tuning);
        let scratch = std::mem::take(&mut self.scratch);
        let mut c = match self.spare.take() {
            Some(mut c) => {
                // One by one: moved as a whole they would be copied twice.
                (c.plan, c.shape, c.step) = (plan, *shape, 0);
                (c.input, c.output, c.scratch) = (input, output, scratch);
                c
            }
            None => Box::new(Collective { plan, shape: *shape, step: 0, input, output, scratch }),
        };
        if c.scratch.len() < c.plan.scratch_len() {
            c.scratch.resize(c.plan.scratch_len(), 0);
        }
        c
    }

    /// Keeps what a collective leaves for the next.
    fn end_collective(&mut self, mut c: Box<Collective>) {
        self.scratch = std::mem::take(&mut c.scratch);
        self.spare = Some(c);
    }

    fn start_messages(&mut self, id: TaskId, messages: &[Message]) {
        if let Some(task) = self.tasks.get_mut(id).and_then(Option::as_mut) {
            task.left = messages.len();
        }
        let (mut bytes, mut gone) = ((0, 0), 0);
        for message in messages {
            let (out, within) = message.bytes();
            bytes = (bytes.0 + out, bytes.1 + within);
            let Message { fp, ptr, len, peer, send } = *message;
            if send {
                gone += usize::from(self.send(id, peer, fp, ptr, len));
            } else {
                self.recv(id, peer, fp, Sink::Copy(ptr), len);
            }
        }
        if let Some(task) = self.tasks.get_mut(id).and_then(Option::as_mut) {
            task.bytes = bytes;
        }
        if gone > 0 {
            // What has gone is over for its caller, who may not come back soon: nothing of it may stay behind.
            self.flush();
            self.messages_over(id, gone, None);
        }
    }

    /// Runs a point-to-point operation at once if nothing is in its way, without a task: `looks` times for what is to
    /// be received, unless somebody else wants in. What [`Attempt::Done`] does not answer has to be handed to
    /// [`Engine::post_rest`].
    #[inline]
    pub fn attempt(&mut self, message: &Message, looks: u32, wanted: impl Fn() -> bool) -> Attempt {
        if self.ended.is_some() || !self.queue.is_empty() || self.collective.is_some() {
            return Attempt::Untried;
        }
        // What else is under way must not wait for this one.
        let looks = if self.busy.is_empty() { looks } else { 1 };
        let Message { fp, ptr, len, peer, send } = *message;
        let Some(Some(c)) = self.channels.get_mut(peer as usize) else { return Attempt::Untried };
        let attempt = if send {
            c.send_now(fp, ptr, len, looks, wanted)
        } else {
            c.recv_now(fp, ptr, len, looks, wanted)
        };
        if matches!(attempt, Attempt::Done) {
            self.count(message.bytes());
        }
        attempt
    }

    /// Posts what an attempt has left.
    pub fn post_rest(&mut self, message: Message, attempt: Attempt, ticket: Arc<Ticket>, deadline: Instant) {
        let operation = Operation::Message(message);
        if matches!(attempt, Attempt::Untried) {
            return self.post(operation, ticket, deadline);
        }
        let id = self.task(operation, Vec::new(), ticket, Some(deadline));
        if let Some(task) = self.tasks[id].as_mut() {
            (task.left, task.bytes) = (1, message.bytes());
        }
        self.running += 1;
        if let Some(Some(c)) = self.channels.get_mut(message.peer as usize) {
            c.adopt(attempt, id);
        }
        self.list(message.peer);
    }

    /// An operation has been completed.
    fn count(&mut self, bytes: (u64, u64)) {
        self.operations += 1;
        self.bytes = (self.bytes.0 + bytes.0, self.bytes.1 + bytes.1);
    }

    fn list(&mut self, peer: u32) {
        if let Some(Some(c)) = self.channels.get_mut(peer as usize)
            && !c.listed
        {
            c.listed = true;
            self.busy.push(peer);
        }
    }

    /// Shows the peers what was done, and forgets those with whom nothing is under way any more.
    fn flush(&mut self) {
        let channels = &mut self.channels;
        self.busy.retain(|peer| {
            let Some(Some(c)) = channels.get_mut(*peer as usize) else { return false };
            c.endpoint().flush();
            c.listed = !c.is_idle();
            c.listed
        });
    }

    /// The channels on which something is under way.
    fn busy_channels(&self) -> impl Iterator<Item = &Channel> {
        self.busy.iter().filter_map(|peer| self.channels.get(*peer as usize)?.as_ref())
    }

    /// Sends a message, or queues it. Answers whether it has gone already.
    fn send(&mut self, id: TaskId, peer: u32, mut fp: Fingerprint, ptr: *const u8, len: usize) -> bool {
        match self.channels.get_mut(peer as usize) {
            Some(Some(c)) => {
                if fp.kind == OpKind::PointToPoint {
                    fp.seq = c.send_seq;
                    c.send_seq = c.send_seq.wrapping_add(1);
                }
                let gone = c.start_send(SendMsg::new(fp, ptr, len), id);
                // Also if it has gone: it has to be flushed.
                self.list(peer);
                gone
            }
            _ => {
                self.self_sends.push_back((SendMsg::new(fp, ptr, len), id));
                false
            }
        }
    }

    fn recv(&mut self, id: TaskId, peer: u32, mut fp: Fingerprint, sink: Sink, len: usize) {
        match self.channels.get_mut(peer as usize) {
            Some(Some(c)) => {
                if fp.kind == OpKind::PointToPoint {
                    fp.seq = c.recv_seq;
                    c.recv_seq = c.recv_seq.wrapping_add(1);
                }
                c.push_recv(RecvMsg::new(fp, sink, len), id);
                self.list(peer);
            }
            _ => self.self_recvs.push_back((RecvMsg::new(fp, sink, len), id)),
        }
    }

    /// Runs a collective up to its next messages, or to its end.
    fn advance(&mut self, id: TaskId) {
        let Some(task) = self.tasks.get_mut(id).and_then(Option::as_mut) else { return };
        let Some(mut c) = task.collective.take() else { return };
        let fp = task.operation.fp();
        let mut actions = std::mem::take(&mut self.actions);
        loop {
            actions.clear();
            if !c.plan.step(c.step, &mut actions) {
                self.end_collective(c);
                self.actions = actions;
                self.collective = None;
                self.finish(id, Ok(()));
                self.start();
                return;
            }
            c.step += 1;
            let messages = self.carry_out(id, &mut c, fp, &actions);
            if messages > 0 {
                if let Some(task) = self.tasks[id].as_mut() {
                    task.left = messages;
                    task.collective = Some(c);
                }
                self.actions = actions;
                return;
            }
        }
    }

    /// Does a step's local actions and posts its messages; answers how many.
    fn carry_out(&mut self, id: TaskId, c: &mut Collective, fp: Fingerprint, actions: &[Action]) -> usize {
        let mut messages = 0;
        for action in actions {
            if let Action::Send { peer, src } = *action {
                messages += usize::from(!self.send(id, peer, fp, c.at(src), src.len));
            } else if let Some((peer, sink, len)) = c.incoming(action) {
                messages += 1;
                self.recv(id, peer, fp, sink, len);
            } else {
                // SAFETY: plans stay within the buffers that the operation's shape implies (property-tested), the
                // caller's buffers have those sizes and outlive the task by the C API's contract, and scratch was sized
                // by the plan. Local operands do not overlap unless said.
                unsafe { c.carry_out(action) };
            }
        }
        messages
    }

    fn finish(&mut self, id: TaskId, result: Result<()>) {
        if let Some(task) = self.tasks.get_mut(id).and_then(Option::take) {
            if result.is_ok() {
                self.count(task.bytes);
            }
            self.free.push(id);
            task.ticket.complete(result);
        }
    }

    /// Messages of a task are over: done, or never to be done for the reason given.
    fn messages_over(&mut self, id: TaskId, number: usize, error: Option<Error>) {
        let Some(task) = self.tasks.get_mut(id).and_then(Option::as_mut) else { return };
        task.left = task.left.saturating_sub(number);
        if task.error.is_none() {
            task.error = error;
        }
        if task.left > 0 {
            return;
        }
        if task.collective.is_some() {
            self.advance(id);
        } else {
            let result = task.error.take().map_or(Ok(()), Err);
            self.running -= 1;
            self.finish(id, result);
            self.start();
        }
    }

    /// Moves what can be moved. Answers whether anything did, and at most one trouble; call again for more.
    pub fn progress(&mut self) -> (bool, Option<Trouble>) {
        let mut moved = self.match_self();
        let mut trouble = None;
        let mut finished = std::mem::take(&mut self.finished);
        let mut i = 0;
        while let Some(&peer) = self.busy.get(i) {
            let Some(Some(c)) = self.channels.get_mut(peer as usize) else { break };
            match c.progress(&mut finished) {
                Ok(m) => moved |= m,
                Err(e) => {
                    let expected = c.expected();
                    trouble = Some(explain(peer, contradicted(&self.history, expected, &e), e));
                }
            }
            if c.is_idle() {
                c.listed = false;
                self.busy.swap_remove(i);
            } else {
                i += 1;
            }
            if trouble.is_some() {
                break;
            }
        }
        // Also of a call that ended with an error: what finished before it has others waiting.
        moved |= !finished.is_empty();
        for run in finished.chunk_by(TaskId::eq) {
            self.messages_over(run[0], run.len(), None);
        }
        finished.clear();
        self.finished = finished;
        (moved, trouble)
    }

    /// Moves what can be moved until the ticket's operation is done, or something has to be settled elsewhere: so many
    /// looks in vain, somebody who wants in, or a trouble.
    pub fn drive(&mut self, ticket: &Ticket, looks: u32, wanted: impl Fn() -> bool) -> Option<Trouble> {
        let mut left = self.busy_channels().map(|c| c.looks(looks)).min().unwrap_or(looks);
        while !ticket.is_done() {
            let (moved, trouble) = self.progress();
            if trouble.is_some() {
                return trouble;
            }
            if !moved {
                left = left.saturating_sub(1);
                if left == 0 {
                    return None;
                }
                std::hint::spin_loop();
            }
            if wanted() {
                return None;
            }
        }
        None
    }

    /// Sends to this rank itself meet its receives from itself.
    fn match_self(&mut self) -> bool {
        let mut moved = false;
        while !self.self_sends.is_empty() && !self.self_recvs.is_empty() {
            let (Some((s, st)), Some((r, rt))) = (self.self_sends.pop_front(), self.self_recvs.pop_front())
            else {
                return moved;
            };
            moved = true;
            if s.len != r.len || s.fp.dtype != r.fp.dtype {
                let text = format!("rank {0} sends {1} to itself and receives {2}", self.rank, s.fp, r.fp);
                for id in [st, rt] {
                    let error = Error::usage(text.clone()).extent(crate::error::Extent::Operation);
                    self.messages_over(id, 1, Some(error));
                }
                continue;
            }
            if let Sink::Copy(dst) = r.sink {
                // SAFETY: both buffers have `len` bytes and belong to unfinished operations; `copy` allows overlap.
                unsafe { std::ptr::copy(s.ptr, dst, s.len) };
            }
            self.messages_over(st, 1, None);
            self.messages_over(rt, 1, None);
        }
        moved
    }

    /// The collective under way.
    pub fn collective(&self) -> Option<Fingerprint> {
        match self.tasks.get(self.collective?)?.as_ref()?.operation {
            Operation::Collective { fp, .. } => Some(fp),
            _ => None,
        }
    }

    /// What this rank called as the collective of this number, if it has and that is not long ago.
    pub fn called(&self, seq: u32) -> Option<Fingerprint> {
        self.history[seq as usize % HISTORY].filter(|fp| fp.seq == seq)
    }

    /// Nothing unfinished.
    pub fn is_idle(&self) -> bool {
        self.tasks.len() == self.free.len()
    }

    /// Sockets to wait for.
    pub fn interests(&self, out: &mut Vec<Interest>) {
        for &peer in &self.busy {
            if let Some(Some(c)) = self.channels.get(peer as usize)
                && let Some(fd) = c.poll_fd()
                && let (read, write) = c.interest()
                && (read || write)
            {
                out.push(Interest { fd, read, write });
            }
        }
    }

    /// Whether something waits for room that no socket tells of.
    pub fn is_held_up(&self) -> bool {
        self.busy_channels().any(Channel::is_held_up)
    }

    /// Whether all peers that something is under way with are at work.
    pub fn is_promising(&self) -> bool {
        self.busy_channels().all(Channel::is_promising)
    }

    /// The earliest deadline of an unfinished operation.
    pub fn deadline(&self) -> Option<Instant> {
        self.tasks.iter().flatten().filter_map(|t| Some(t.term?.1)).min()
    }

    /// An operation whose deadline has passed: what it is, whom it waits for, and how long it has waited.
    pub fn overdue(&self, now: Instant) -> Option<(Fingerprint, Vec<u32>, Duration)> {
        let late = |t: &Task| t.term.is_some_and(|(_, deadline)| deadline <= now);
        let (id, task) =
            self.tasks.iter().enumerate().find_map(|(i, t)| Some((i, t.as_ref().filter(|t| late(t))?)))?;
        let fp = task.operation.fp();
        let waits = |p: &&u32| matches!(&self.channels[**p as usize], Some(c) if c.tasks().any(|t| t == id));
        let mut peers: Vec<u32> = self.busy.iter().filter(waits).copied().collect();
        peers.sort_unstable();
        Some((fp, peers, now.saturating_duration_since(task.term?.0)))
    }

    /// Fails what waits for a peer that has left and can never be done. Answers false when that cannot be confined
    /// to point-to-point operations: then the world has to break. So it has to when the peer, before it left, called
    /// something else than this rank.
    pub fn give_up_peer(&mut self, peer: u32, error: &Error) -> std::result::Result<bool, Trouble> {
        let mut finished = Vec::new();
        let Some(Some(c)) = self.channels.get_mut(peer as usize) else { return Ok(true) };
        if c.is_idle() {
            return Ok(true);
        }
        // What it did before it left counts. Other errors close a direction and need no treatment here.
        let mismatch = match c.progress(&mut finished) {
            Err(e @ EndpointError::Mismatch { .. }) => Some(explain(peer, c.expected(), e)),
            _ => None,
        };
        let ids = if mismatch.is_some() { Vec::new() } else { c.give_up() };
        for id in finished {
            self.messages_over(id, 1, None);
        }
        let mut confined = true;
        for id in ids {
            if self.tasks.get(id).and_then(Option::as_ref).is_none_or(|t| t.collective.is_some()) {
                confined = false;
            } else {
                self.messages_over(id, 1, Some(error.clone()));
            }
        }
        mismatch.map_or(Ok(confined), Err)
    }

    /// Ends everything with `error`, now and for ever. When this returns, no caller's buffer is touched any more.
    pub fn end(&mut self, error: &Error) {
        self.ended.get_or_insert_with(|| error.clone());
        for c in self.channels.iter_mut().flatten() {
            c.endpoint().cancel();
            c.clear();
            c.listed = false;
            c.closed_out = true;
            c.closed_in = true;
        }
        self.busy.clear();
        self.queue.clear();
        self.self_sends.clear();
        self.self_recvs.clear();
        self.collective = None;
        self.running = 0;
        for id in 0..self.tasks.len() {
            self.finish(id, Err(error.clone()));
        }
    }

    /// Tells the peers that nothing more will be sent, and refuses further operations with `error`.
    pub fn retire(&mut self, error: &Error) {
        self.ended.get_or_insert_with(|| error.clone());
        for c in self.channels.iter_mut().flatten() {
            c.endpoint().finish();
        }
    }

    /// Takes the endpoints out, for whoever has to keep them until the peers have read everything.
    pub fn dismantle(&mut self) -> Vec<Box<dyn Endpoint>> {
        std::mem::take(&mut self.channels).into_iter().flatten().map(Channel::into_endpoint).collect()
    }
}

/// What the peer contradicts: usually the receive at the head, but a call of old if it speaks of that one.
fn contradicted(
    history: &[Option<Fingerprint>; HISTORY],
    expected: Option<(Fingerprint, usize)>,
    e: &EndpointError,
) -> Option<(Fingerprint, usize)> {
    let EndpointError::Mismatch { theirs, .. } = e else { return expected };
    let old = history.iter().flatten().find(|fp| theirs.kind != OpKind::PointToPoint && fp.seq == theirs.seq);
    match (old, expected) {
        (Some(fp), Some((_, len))) if fp != theirs => Some((*fp, len)),
        _ => expected,
    }
}

fn explain(peer: u32, expected: Option<(Fingerprint, usize)>, e: EndpointError) -> Trouble {
    match (e, expected) {
        (EndpointError::Closed, _) => Trouble::Closed(peer),
        (EndpointError::Mismatch { theirs, their_len }, Some((mine, my_len))) => {
            Trouble::Mismatch { peer, mine, theirs, my_len: my_len as u64, their_len }
        }
        (EndpointError::Mismatch { theirs, .. }, None) => {
            Trouble::Corrupt(peer, format!("unexpected {theirs}"))
        }
        (EndpointError::System(what, e), _) => Trouble::System(peer, format!("{what}: {e}")),
        (EndpointError::Corrupt(what), _) => Trouble::Corrupt(peer, what.to_string()),
    }
}

impl Collective {
    fn at(&self, s: Slice) -> *const u8 {
        match s.buf {
            Buf::Input => self.input.wrapping_add(s.off),
            Buf::Output => self.output.wrapping_add(s.off),
            Buf::Scratch => self.scratch.as_ptr().wrapping_add(s.off),
        }
    }

    fn at_mut(&mut self, s: Slice) -> *mut u8 {
        match s.buf {
            Buf::Scratch => self.scratch.as_mut_ptr().wrapping_add(s.off),
            // A plan never writes the input; were it to, the output is the safer victim.
            Buf::Input | Buf::Output => self.output.wrapping_add(s.off),
        }
    }

    /// Does a local action; nothing for a message.
    ///
    /// # Safety
    /// The action is the plan's, and the buffers are those of its shape.
    #[inline]
    unsafe fn carry_out(&mut self, action: &Action) {
        let elem = self.shape.dtype.size();
        // SAFETY: by this function's contract.
        unsafe {
            match *action {
                Action::Copy { src, dst } => {
                    std::ptr::copy_nonoverlapping(self.at(src), self.at_mut(dst), dst.len);
                }
                Action::Reduce { src, dst } => {
                    collective::kernel(&self.shape)(self.at_mut(dst), self.at(src), dst.len / elem);
                }
                Action::Combine { a, b, dst } => {
                    let kernel = reduce::kernel3(self.shape.dtype, self.shape.reduction);
                    kernel(self.at_mut(dst), self.at(a), self.at(b), dst.len / elem);
                }
                Action::PreMul { src, dst } => {
                    if let Reduction::PreMulSum(scalar) = self.shape.reduction {
                        let premul = reduce::premul(self.shape.dtype);
                        premul(self.at_mut(dst), self.at(src), dst.len / elem, &scalar);
                    }
                }
                Action::Average { dst } => {
                    let average = reduce::average(self.shape.dtype);
                    average(self.at_mut(dst), dst.len / elem, self.shape.nranks);
                }
                Action::Send { .. }
                | Action::Recv { .. }
                | Action::RecvReduce { .. }
                | Action::RecvCombine { .. } => {}
            }
        }
    }

    /// What is to be received: from whom, where to, and how many bytes.
    #[inline]
    fn incoming(&mut self, action: &Action) -> Option<(u32, Sink, usize)> {
        let elem = self.shape.dtype.size();
        Some(match *action {
            Action::Recv { peer, dst } => (peer, Sink::Copy(self.at_mut(dst)), dst.len),
            Action::RecvReduce { peer, dst } => {
                let kernel = collective::kernel(&self.shape);
                (peer, Sink::Reduce { dst: self.at_mut(dst), kernel, elem }, dst.len)
            }
            Action::RecvCombine { peer, own, dst, own_first } => {
                let kernel = reduce::kernel3(self.shape.dtype, self.shape.reduction);
                let (own, elem) = (self.at(own), elem as u32);
                (peer, Sink::Combine { dst: self.at_mut(dst), own, kernel, elem, own_first }, dst.len)
            }
            _ => return None,
        })
    }
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;

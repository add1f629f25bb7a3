//! Groups and asynchronous operations, across worlds.

use super::call::{self, Call, Message};
use super::operate::refuse_forked;
use super::{State, World, background};
use crate::error::{Error, Result};
use crate::nccl::cuda::Mark;
use crate::progress::Ticket;
use crate::progress::wait::{self, Driver};
use crate::sync::atomic::AtomicU32;
use crate::sync::{Arc, Mutex};
use crate::sys::sleeper::Interest;
use crate::types::OpKind;
use std::time::{Duration, Instant};

/// Between looks at what a device has done.
const LOOK: Duration = Duration::from_millis(1);

/// The marks of requests, as something that a wait drives.
struct Marks<'a> {
    requests: &'a [&'a Request],
    bell: AtomicU32,
}

impl Driver for Marks<'_> {
    fn drive(&self) -> bool {
        false
    }

    fn tick(&self, _now: Instant) {}

    fn bell(&self) -> &AtomicU32 {
        &self.bell
    }

    fn interests(&self, _out: &mut Vec<Interest>) {}

    fn deadline(&self) -> Option<Instant> {
        self.requests.iter().filter_map(|r| r.next_look()).min()
    }
}

/// What a group has posted: the worlds that it is for, each once, and what for each of them.
pub struct Calls<W = World> {
    worlds: Vec<Arc<W>>,
    posts: Posts,
}

/// What was posted, checked, by the places of the worlds. Messages of worlds on host memory are kept apart, in the form
/// in which they are started: a group may have many.
#[derive(Default)]
pub struct Posts {
    calls: Vec<(usize, Call)>,
    /// At least one for each place. Emptied ones keep their memory.
    messages: Vec<Vec<Message>>,
}

impl Posts {
    /// Adds a call.
    pub fn call(&mut self, at: usize, call: Call) {
        self.calls.push((at, call));
    }

    /// Adds a message of a world on host memory.
    #[inline]
    pub fn message(&mut self, at: usize, message: Message) {
        self.messages[at].push(message);
    }

    /// The calls for a place, in order.
    fn of(&self, at: usize) -> impl Iterator<Item = &Call> {
        self.calls.iter().filter(move |(world, _)| *world == at).map(|(_, call)| call)
    }
}

impl<W> Calls<W> {
    /// None.
    pub const fn new() -> Calls<W> {
        Calls { worlds: Vec::new(), posts: Posts { calls: Vec::new(), messages: Vec::new() } }
    }

    /// The place of a world.
    pub fn place(&mut self, world: &Arc<W>) -> usize {
        self.worlds.iter().rposition(|w| Arc::ptr_eq(w, world)).unwrap_or_else(|| {
            self.worlds.push(world.clone());
            if self.posts.messages.len() < self.worlds.len() {
                self.posts.messages.push(Vec::new());
            }
            self.worlds.len() - 1
        })
    }

    /// The world at a place, and where to post for it.
    #[inline]
    pub fn at(&mut self, at: usize) -> (Option<&Arc<W>>, &mut Posts) {
        (self.worlds.get(at), &mut self.posts)
    }

    /// The worlds by their places.
    pub fn worlds(&self) -> &[Arc<W>] {
        &self.worlds
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.posts.calls.is_empty() && self.posts.messages.iter().all(Vec::is_empty)
    }

    /// Forgets all of them.
    pub fn clear(&mut self) {
        self.worlds.clear();
        self.posts.calls.clear();
        self.posts.messages.iter_mut().for_each(Vec::clear);
    }
}

impl Calls {
    /// Adds a checked call for a world.
    pub fn add(&mut self, world: &Arc<World>, call: Call) {
        let at = self.place(world);
        if call.kind == OpKind::PointToPoint && !world.is_on_device() {
            self.posts.message(at, call::of_call(&call));
        } else {
            self.posts.call(at, call);
        }
    }
}

impl<W> Default for Calls<W> {
    fn default() -> Calls<W> {
        Calls::new()
    }
}

impl FromIterator<(Arc<World>, Call)> for Calls {
    fn from_iter<I: IntoIterator<Item = (Arc<World>, Call)>>(calls: I) -> Calls {
        let mut all = Calls::new();
        for (world, call) in calls {
            all.add(&world, call);
        }
        all
    }
}

impl From<Vec<(Arc<World>, Call)>> for Calls {
    fn from(calls: Vec<(Arc<World>, Call)>) -> Calls {
        calls.into_iter().collect()
    }
}

/// Enqueues the calls of worlds on devices, each world's as one group, and answers marks behind them if wanted.
fn start_on_devices(calls: &Calls, ticket: &Ticket, want_marks: bool) -> Vec<(Arc<World>, Mark)> {
    let mut groups: Vec<(&Arc<World>, Vec<Call>)> = Vec::new();
    for (at, world) in calls.worlds.iter().enumerate() {
        if world.device.get().is_some() {
            groups.push((world, calls.posts.of(at).copied().collect()));
        }
    }
    // Launches wait for each other on a stream: the same order on all ranks, whichever calls each of them has.
    groups.sort_by_key(|(w, _)| (w.id.0, w.epoch));
    let mut all = Vec::new();
    for (world, calls) in groups {
        let Some(device) = world.device.get() else { continue };
        let started = world
            .enqueue(&**device, &calls, Instant::now() + world.timeout())
            .and_then(|()| if want_marks { world.marks(&**device, &calls) } else { Ok(Vec::new()) });
        match started {
            Ok(marks) => {
                ticket.add(marks.len());
                all.extend(marks.into_iter().map(|m| (world.clone(), m)));
            }
            Err(e) => {
                ticket.add(1);
                ticket.complete(Err(e));
            }
        }
    }
    all
}

/// Everything one group posted.
pub struct Request {
    ticket: Arc<Ticket>,
    worlds: Vec<Arc<World>>,
    /// What is under way on devices: whose it is, and the mark behind it. Each counts as one operation of the ticket.
    marks: Mutex<Vec<(Arc<World>, Mark)>>,
}

impl Request {
    /// Starts the calls of a group: per world, collectives in call order first, then all point-to-point operations
    /// together, as in NCCL. Never blocks. With `background`, a thread of the library drives them while nobody waits.
    /// Leaves `calls` empty.
    pub fn submit(calls: &mut Calls, background: bool) -> Arc<Request> {
        // One more, so that it is not done before all of it has been started.
        let ticket = Arc::new(Ticket::new(1));
        let marks = start_on_devices(calls, &ticket, background);
        let now = Instant::now();
        let mut messages = std::mem::take(&mut calls.posts.messages);
        for (at, (world, messages)) in calls.worlds.iter().zip(&mut messages).enumerate() {
            if world.device.get().is_none() {
                world.start(calls.posts.of(at), messages, &ticket, now + world.timeout());
            }
        }
        calls.posts.messages = messages;
        let worlds: Vec<Arc<World>> = calls.worlds.drain(..).filter(|w| w.device.get().is_none()).collect();
        calls.clear();
        // What can go out at once goes out at once.
        for w in &worlds {
            w.drive();
        }
        ticket.complete(Ok(()));
        let request = Arc::new(Request { ticket, worlds, marks: Mutex::new(marks) });
        if background && !request.ticket.is_done() {
            background::drive(&request);
        }
        request
    }

    pub(super) fn is_done(&self) -> bool {
        self.ticket.is_done() || {
            self.look_at_marks();
            self.ticket.is_done()
        }
    }

    /// Settles what devices have done, and what worlds that have ended will not do any more.
    fn look_at_marks(&self) {
        self.marks.lock().retain(|(world, mark)| {
            let reached = mark.is_reached();
            // Asked afterwards: a world ends before its work is driven from the device, which reaches the mark, too.
            let result = match (reached, world.state()) {
                (Ok(true), State::Active | State::Finalized) => Ok(()),
                (Ok(false), State::Active) => return true,
                (Ok(_), _) => Err(world.error().unwrap_or_else(|| Error::usage("the world was finalized"))),
                (Err(e), _) => Err(e),
            };
            self.ticket.complete(result);
            false
        });
    }

    /// When to look at the marks again, if there are any: nobody rings when a device is done.
    fn next_look(&self) -> Option<Instant> {
        (!self.marks.lock().is_empty()).then(|| Instant::now() + LOOK)
    }

    pub(super) fn worlds(&self) -> &[Arc<World>] {
        &self.worlds
    }

    /// `None` while not done; else the first error of any of its operations, or success. Drives progress.
    pub fn test(&self) -> Option<Result<()>> {
        if !self.is_done() {
            if let Err(e) = refuse_forked() {
                return Some(Err(e));
            }
            let now = Instant::now();
            for w in &self.worlds {
                w.drive();
                w.tick(now);
            }
        }
        self.is_done().then(|| self.ticket.result())
    }

    /// Waits until done or `until`; `None` when the time is up. Without `until`, the operations' own deadlines bound
    /// it.
    pub fn wait(&self, until: Option<Instant>) -> Option<Result<()>> {
        if let Err(e) = refuse_forked() {
            return Some(Err(e));
        }
        let mut drivers: Vec<&dyn Driver> = self.worlds.iter().map(|w| &**w as &dyn Driver).collect();
        let marks = Marks { requests: &[self], bell: AtomicU32::new(0) };
        if self.next_look().is_some() || drivers.is_empty() {
            drivers.push(&marks);
        }
        wait::until(&drivers, &|| self.is_done(), until).then(|| self.ticket.result())
    }

    /// Waits until one of them is done; answers its index.
    pub fn wait_any(requests: &[Arc<Request>], limit: Option<Duration>) -> Option<usize> {
        let until = limit.and_then(|l| Instant::now().checked_add(l));
        let mut worlds: Vec<&Arc<World>> = Vec::new();
        for w in requests.iter().flat_map(|r| &r.worlds) {
            if !worlds.iter().any(|x| Arc::ptr_eq(x, w)) {
                worlds.push(w);
            }
        }
        let mut drivers: Vec<&dyn Driver> = worlds.iter().map(|w| &***w as &dyn Driver).collect();
        let all: Vec<&Request> = requests.iter().map(|r| &**r).collect();
        let marks = Marks { requests: &all, bell: AtomicU32::new(0) };
        if all.iter().any(|r| r.next_look().is_some()) {
            drivers.push(&marks);
        }
        if refuse_forked().is_err() {
            // Each has its error already.
            return (!requests.is_empty()).then_some(0);
        }
        let first = || requests.iter().position(|r| r.is_done());
        wait::until(&drivers, &|| first().is_some(), until);
        first()
    }
}

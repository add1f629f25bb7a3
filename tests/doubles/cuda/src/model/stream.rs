//! A stream: a queue, and a thread that works it off in order. The thread starts with the first work and
//! sleeps when there is none.

use crate::model::capture::Slot;
use crate::model::device::Device;
use crate::model::error::{Error, Result};
use crate::model::handle::{self, Table};
use crate::model::work::Op;
use crate::model::{lock, thread};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

/// What the program created. The default streams are not in it.
pub static STREAMS: Table<Stream> = Table::new();

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The default stream that all threads share.
    Legacy,
    /// A default stream of one thread.
    PerThread,
    Blocking,
    NonBlocking,
    /// One branch of a graph.
    Branch,
}

pub struct Stream {
    pub handle: usize,
    pub device: &'static Device,
    pub kind: Kind,
    pub priority: i32,
    pub capture: Slot,
    queue: Mutex<Queue>,
    /// For the stream's thread.
    wake: Condvar,
    /// For threads of the program.
    progress: Condvar,
    /// Entries that ever were in the queue. Both only grow, under the queue's lock.
    submitted: AtomicU64,
    /// Entries that are done. Release pairs with the acquire of `reached`: who sees one sees what it did.
    completed: AtomicU64,
    /// Changes when the stream's thread has something to look at.
    signals: AtomicU64,
}

#[derive(Default)]
struct Queue {
    ops: VecDeque<Op>,
    started: bool,
    asleep: bool,
    parked: bool,
    closing: bool,
    /// Threads of the program that sleep until there is progress.
    watchers: usize,
}

/// What the head of the queue asks for.
enum Next {
    Run(Op),
    Sleep,
    Exit,
}

impl Stream {
    pub fn new(device: &'static Device, kind: Kind, priority: i32) -> Arc<Stream> {
        let stream = Arc::new(Stream {
            handle: handle::fresh(),
            device,
            kind,
            priority,
            capture: Slot::default(),
            queue: Mutex::default(),
            wake: Condvar::new(),
            progress: Condvar::new(),
            submitted: AtomicU64::new(0),
            completed: AtomicU64::new(0),
            signals: AtomicU64::new(0),
        });
        device.adopt(&stream);
        stream
    }

    /// As it was created with.
    pub fn flags(&self) -> u32 {
        if self.kind == Kind::NonBlocking { NON_BLOCKING } else { 0 }
    }

    /// Whether it and the legacy stream wait for each other.
    pub fn is_blocking(&self) -> bool {
        matches!(self.kind, Kind::Blocking | Kind::PerThread)
    }

    /// The number of the last entry so far; what waits for it waits for all work submitted until now.
    pub fn latest(&self) -> u64 {
        self.submitted.load(Ordering::Acquire)
    }

    fn reached(&self, entry: u64) -> bool {
        self.completed.load(Ordering::Acquire) >= entry
    }

    pub fn is_idle(&self) -> bool {
        self.reached(self.latest())
    }

    /// Appends to the queue, as it is; see [`crate::model::order`] for the rules of default streams. All of
    /// it becomes part of the queue or nothing.
    pub fn push(self: &Arc<Self>, ops: impl IntoIterator<Item = Op>) -> Result<()> {
        let mut queue = lock(&self.queue);
        // Under the lock: what is pushed before the device breaks is found by `discard`.
        self.device.sticky().map_or(Ok(()), Err)?;
        if queue.closing {
            return Err(Error::INVALID_HANDLE);
        }
        if !queue.started {
            self.start()?;
            queue.started = true;
        }
        let before = queue.ops.len();
        queue.ops.extend(ops);
        let added = (queue.ops.len() - before) as u64;
        self.submitted.fetch_add(added, Ordering::Release);
        self.signal(queue);
        Ok(())
    }

    fn start(self: &Arc<Self>) -> Result<()> {
        let stream = self.clone();
        let name = format!("mwcuda{}.{:x}", self.device.ordinal, self.handle & 0xfffff);
        let spawned = std::thread::Builder::new().name(name).spawn(move || stream.work());
        spawned.map(drop).map_err(|_| Error::OPERATING_SYSTEM)
    }

    fn signal(&self, mut queue: MutexGuard<'_, Queue>) {
        self.signals.fetch_add(1, Ordering::Release);
        // Who signals next, before the thread is up, need not wake it again.
        let asleep = std::mem::take(&mut queue.asleep);
        drop(queue);
        if asleep {
            self.wake.notify_one();
        }
    }

    /// Something outside that the thread waits for has changed.
    pub fn poke(&self) {
        self.signal(lock(&self.queue));
    }

    pub fn park(&self, parked: bool) {
        let mut queue = lock(&self.queue);
        queue.parked = parked;
        self.signal(queue);
    }

    /// No more work comes; the thread ends after what there is. A closed stream cannot be parked.
    pub fn close(self: &Arc<Self>) {
        let mut queue = lock(&self.queue);
        queue.closing = true;
        queue.parked = false;
        if queue.started {
            self.signal(queue);
        } else {
            drop(queue);
            self.device.disown(self);
        }
    }

    /// The device broke: whatever has not begun never will.
    pub fn discard(&self, error: Error) {
        let mut queue = lock(&self.queue);
        let ops = std::mem::take(&mut queue.ops);
        self.complete(&mut queue, ops.len() as u64);
        // Also those that wait for the entry under way.
        self.progress.notify_all();
        self.signal(queue);
        for op in ops {
            op.discard(error);
        }
    }

    fn complete(&self, queue: &mut Queue, entries: u64) {
        self.completed.fetch_add(entries, Ordering::Release);
        if queue.watchers > 0 {
            self.progress.notify_all();
        }
    }

    /// Blocks the calling thread until all that was submitted before is done.
    pub fn synchronize(&self) -> Result<()> {
        self.wait(self.latest(), self.device.breakdowns())
    }

    /// As `synchronize`, for an entry and a count of the device's breakdowns that were read before.
    pub fn wait(&self, entry: u64, breakdowns: u64) -> Result<()> {
        for _ in 0..spins() {
            if self.reached(entry) {
                break;
            }
            std::hint::spin_loop();
        }
        let mut queue = lock(&self.queue);
        loop {
            // A breakdown counts as completion of what it dropped, so it is asked for first.
            self.device.unbroken_since(breakdowns)?;
            if self.reached(entry) {
                return Ok(());
            }
            queue.watchers += 1;
            queue = self.progress.wait(queue).unwrap_or_else(PoisonError::into_inner);
            queue.watchers -= 1;
        }
    }

    /// The life of the stream's thread.
    fn work(self: Arc<Self>) {
        thread::only_callbacks();
        let mut queue = lock(&self.queue);
        loop {
            match self.next(&mut queue) {
                Next::Run(op) => {
                    drop(queue);
                    match self.device.sticky() {
                        None => op.run(),
                        Some(error) => op.discard(error),
                    }
                    queue = lock(&self.queue);
                    self.complete(&mut queue, 1);
                }
                Next::Sleep => queue = self.sleep(queue),
                Next::Exit => break,
            }
        }
        drop(queue);
        self.device.disown(&self);
    }

    fn next(self: &Arc<Self>, queue: &mut Queue) -> Next {
        if queue.parked {
            return Next::Sleep;
        }
        match queue.ops.front() {
            Some(Op::Wait(record)) if !record.done_or_poke(self) => Next::Sleep,
            Some(_) => queue.ops.pop_front().map_or(Next::Sleep, Next::Run),
            None if queue.closing => Next::Exit,
            None => Next::Sleep,
        }
    }

    /// Until a signal, for which it looks out a moment before it sleeps: waking a thread costs its waker more
    /// than a submission does.
    fn sleep<'a>(&'a self, queue: MutexGuard<'a, Queue>) -> MutexGuard<'a, Queue> {
        // Signals change under the lock, so none that came after `next` looked is missed.
        let seen = self.signals.load(Ordering::Acquire);
        drop(queue);
        for _ in 0..spins() {
            if self.signals.load(Ordering::Acquire) != seen {
                break;
            }
            std::hint::spin_loop();
        }
        let mut queue = lock(&self.queue);
        while self.signals.load(Ordering::Acquire) == seen {
            queue.asleep = true;
            queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
            queue.asleep = false;
        }
        queue
    }
}

/// Their range; that they have one is all that priorities do here.
pub const LEAST_PRIORITY: i32 = 0;
pub const GREATEST_PRIORITY: i32 = -5;

/// `cudaStreamNonBlocking` and `CU_STREAM_NON_BLOCKING`
const NON_BLOCKING: u32 = 1;

/// A stream for the program.
pub fn create(device: &'static Device, flags: u32, priority: i32) -> Result<usize> {
    let kind = match flags {
        0 => Kind::Blocking,
        NON_BLOCKING => Kind::NonBlocking,
        _ => return Err(Error::INVALID_VALUE),
    };
    let stream = Stream::new(device, kind, priority.clamp(GREATEST_PRIORITY, LEAST_PRIORITY));
    STREAMS.insert(stream.handle, stream.clone());
    Ok(stream.handle)
}

/// Takes the handle away. Work that the stream has is done all the same; a capture that it is part of is
/// lost.
pub fn destroy(handle: usize) -> Result<()> {
    let stream = STREAMS.remove(handle)?;
    if let Some(member) = stream.capture.membership() {
        member.capture.invalidate();
    }
    stream.close();
    stream.device.touch()
}

/// A few microseconds; none on a machine where the other thread cannot run meanwhile.
fn spins() -> u32 {
    static SPINS: OnceLock<u32> = OnceLock::new();
    *SPINS.get_or_init(|| match std::thread::available_parallelism() {
        Ok(cores) if cores.get() > 1 => 100,
        _ => 0,
    })
}

//! Communicators on host memory: a world, the streams of the program if it has any, and what NCCL wants
//! besides.
//!
//! | module | does |
//! |---|---|
//! | `join` | making communicators: at once, in the background, or when a group ends |
//! | `run` | operations: checked, then run, queued on a stream, or kept for the end of a group |
//! | `stream` | the order of CUDA streams |

pub mod join;
pub mod run;
pub mod stream;

use crate::boundary::within;
use crate::config::CommConfig;
use crate::cuda::{self, Event, Runtime};
use crate::redop::Redops;
use core::ffi::c_int;
use multiworld::error::{Code, Error, Result};
use multiworld::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use multiworld::sync::{Arc, Condvar, Mutex, OnceLock};
use multiworld::world::{State, World};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// One rank of one communicator.
pub struct Host {
    /// What the caller configured.
    pub config: CommConfig,
    /// The device that was current when it was made; no operation depends on it.
    pub device: c_int,
    /// The program's CUDA runtime, if it had one when this was made.
    pub runtime: Option<&'static Runtime>,
    /// Reductions that were made for it.
    pub redops: Redops,
    /// Tokens of the buffers that are registered with it.
    pub registered: Mutex<BTreeSet<usize>>,
    /// Joining has begun: a group that is still open has not begun with its own.
    begun: AtomicBool,
    /// What joining came to; empty while it goes on.
    joined: OnceLock<Result<Arc<World>>>,
    /// The handle that C has.
    token: AtomicUsize,
    /// Aborted, maybe before it had joined.
    abandoned: AtomicBool,
    /// Revoked by this rank.
    revoked: AtomicBool,
    suspended: AtomicBool,
    /// The first error of an operation on a stream that left the world intact.
    failure: Mutex<Option<Error>>,
    /// Operations on streams that have not been done.
    under_way: Mutex<usize>,
    changed: Condvar,
    /// The stream of the last operation, and the place on it.
    last: Mutex<Option<(usize, Event)>>,
}

impl Host {
    /// A communicator that is about to join. `device` as the caller chose it, else the current one.
    pub fn new(config: CommConfig, device: Option<c_int>) -> Arc<Host> {
        let runtime = cuda::runtime();
        let current = || runtime.and_then(|r| r.device().ok()).unwrap_or(0);
        Arc::new(Host {
            config,
            device: device.unwrap_or_else(current),
            runtime,
            redops: Redops::new(),
            registered: Mutex::new(BTreeSet::new()),
            begun: AtomicBool::new(false),
            joined: OnceLock::new(),
            token: AtomicUsize::new(0),
            abandoned: AtomicBool::new(false),
            revoked: AtomicBool::new(false),
            suspended: AtomicBool::new(false),
            failure: Mutex::new(None),
            under_way: Mutex::new(0),
            changed: Condvar::new(),
            last: Mutex::new(None),
        })
    }

    /// What C calls it; known before it joins.
    fn named(&self, token: usize) {
        self.token.store(token, Ordering::Relaxed);
    }

    /// Joining begins.
    fn begin(&self) {
        self.begun.store(true, Ordering::SeqCst);
    }

    /// Joining has ended.
    fn settle(&self, result: Result<Arc<World>>) {
        if let Ok(world) = &result {
            world.set_token(self.token.load(Ordering::Relaxed));
        }
        // Set once, by whoever joined.
        let _ = self.joined.set(result);
        drop(self.under_way.lock());
        self.changed.notify_all();
        // SeqCst, as in `abort`: one of the two sees what the other one did first.
        if self.abandoned.load(Ordering::SeqCst)
            && let Some(Ok(world)) = self.joined.get()
        {
            world.abort();
        }
    }

    /// The world behind it.
    #[inline]
    pub fn world(&self) -> Result<&Arc<World>> {
        match self.joined.get() {
            Some(Ok(world)) => Ok(world),
            Some(Err(e)) => Err(e.clone()),
            None => Err(not_yet()),
        }
    }

    /// The world, for an operation.
    #[inline]
    pub fn ready(&self) -> Result<&Arc<World>> {
        if self.suspended.load(Ordering::Relaxed) {
            return Err(Error::usage("comm: it is suspended; ncclCommResume comes first"));
        }
        self.world()
    }

    /// What the application is told that its own calls did not tell.
    pub fn async_error(&self) -> Result<()> {
        let world = match self.joined.get() {
            None => return Err(Error::new(Code::InProgress, multiworld::error::Extent::Operation, JOINING)),
            Some(Err(e)) => return Err(e.clone()),
            Some(Ok(world)) => world,
        };
        match world.state() {
            State::Active | State::Finalized => self.failure.lock().clone().map_or(Ok(()), Err),
            // NCCL's answer to who has revoked it.
            State::Revoked if self.revoked.load(Ordering::Relaxed) => Ok(()),
            _ => world.error().map_or(Ok(()), Err),
        }
    }

    /// An error of an operation on a stream, for `async_error`.
    fn failed(&self, error: &Error) {
        self.failure.lock().get_or_insert_with(|| error.clone());
    }

    /// The error as this rank gets it: who has revoked a communicator should not be using it.
    #[cold]
    fn translate(&self, error: Error) -> Error {
        match error.code {
            Code::Revoked if self.revoked.load(Ordering::Relaxed) => {
                Error { code: Code::InvalidUsage, ..error }
            }
            _ => error,
        }
    }

    /// Waits until joining has ended, however it did.
    fn settled(&self) {
        let mut guard = self.under_way.lock();
        while self.joined.get().is_none() {
            // Joining has a deadline of its own. The slice is for what nobody announces: a joining thread
            // that died.
            self.changed.wait_for(&mut guard, Duration::from_millis(100));
        }
    }

    /// Waits until everything on streams has been done.
    pub fn drain(&self) -> Result<()> {
        let world = self.world()?;
        let until = Instant::now() + world.timeout();
        let mut under_way = self.under_way.lock();
        while *under_way > 0 {
            if Instant::now() >= until {
                return Err(Error::timeout("comm: its operations are still waiting on their streams"));
            }
            self.changed.wait_until(&mut under_way, until);
        }
        Ok(())
    }

    /// Ends everything here at once.
    pub fn abort(&self) {
        self.abandoned.store(true, Ordering::SeqCst);
        if let Some(Ok(world)) = self.joined.get() {
            world.abort();
        }
    }

    /// Finishes what was accepted, and leaves.
    pub fn finalize(&self) -> Result<()> {
        let world = self.world()?;
        if world.state() == State::Revoked {
            return Err(Error::usage("comm: it was revoked; only destroy, split and shrink are left"));
        }
        self.drain()?;
        within(world, World::finalize)
    }

    /// Finalizes unless that has been done, and frees. Gone whatever this answers.
    pub fn destroy(&self) -> Result<()> {
        if !self.begun.load(Ordering::SeqCst) && self.joined.get().is_none() {
            // Its group may be this thread's own. What it makes will be gone at once.
            self.abort();
            return Ok(());
        }
        self.settled();
        // One that failed to join has nothing to free.
        let Ok(world) = self.world() else { return Ok(()) };
        let drained = self.drain();
        if drained.is_err() {
            self.abort();
            return drained;
        }
        within(world, World::destroy)
    }

    /// Ends it for all ranks.
    pub fn revoke(&self) -> Result<()> {
        let world = self.world()?;
        if self.revoked.swap(true, Ordering::Relaxed) {
            return Err(Error::argument("comm: it has been revoked already"));
        }
        within(world, World::revoke)
    }

    /// Takes it out of use, or back into it. Host memory has nothing to give back meanwhile.
    pub fn suspend(&self, suspended: bool) -> Result<()> {
        self.world()?;
        if suspended {
            self.drain()?;
        }
        self.suspended.store(suspended, Ordering::Relaxed);
        Ok(())
    }

    /// Whether it is suspended.
    pub fn is_suspended(&self) -> bool {
        self.suspended.load(Ordering::Relaxed)
    }
}

const JOINING: &str = "comm: it is still joining; ncclCommGetAsyncError says when it has";

#[cold]
fn not_yet() -> Error {
    Error::argument(JOINING)
}

impl Host {
    /// Takes a world that has joined already.
    pub fn join_at_once(&self, token: usize, world: Arc<World>) {
        self.named(token);
        self.begin();
        self.settle(Ok(world));
    }
}

//! Communicators of the genuine NCCL: each one behind a [`Comm`], which never blocks inside, and watched by a world
//! with the same members, which notices what NCCL does not.
//!
//! | module | does |
//! |---|---|
//! | `join` | making communicators: from ids, from others, at once, in the background, when a group ends |
//! | `run` | operations, alone and in groups |
//! | `ward` | what the end of the world means for the communicator |
//! | `config` | the caller's configuration, made non-blocking |
//! | `forward` | the library's functions by name |

pub mod config;
pub mod forward;
pub mod join;
pub mod run;
pub mod ward;

use multiworld::error::{Code, Error, Extent, Result};
use multiworld::nccl::types::*;
use multiworld::nccl::{Comm, Library, Outcome};
use multiworld::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use multiworld::sync::{Arc, Condvar, Mutex, OnceLock};
use multiworld::world::World;
use std::time::{Duration, Instant};

/// One rank of one communicator.
pub struct Communicator {
    /// Functions wait until they are done, as far as NCCL's own do.
    pub blocking: bool,
    /// The same on all ranks of it, and different from other communicators': the order of launches in a group.
    pub clique: u64,
    /// -1 where only NCCL knows.
    rank: i32,
    /// What making it came to; empty while it goes on.
    made: OnceLock<Result<Arc<Comm>>>,
    /// The world that watches it; empty while nobody does.
    world: OnceLock<Arc<World>>,
    /// Joining the world has ended, however it did.
    watched: Mutex<bool>,
    changed: Condvar,
    /// Aborted, maybe before it was made.
    abandoned: AtomicBool,
    /// Revoked by this rank: refused here, because NCCL's own refusal would count as a failure.
    revoked: AtomicBool,
    /// Communicators made from it.
    children: AtomicU32,
}

/// How long calls on it may take that NCCL carries out in the background.
pub fn patience() -> Result<Duration> {
    Ok(crate::config::world_config()?.timeout)
}

impl Communicator {
    fn new(blocking: bool, clique: u64, rank: i32) -> Arc<Communicator> {
        Arc::new(Communicator {
            blocking,
            clique,
            rank,
            made: OnceLock::new(),
            world: OnceLock::new(),
            watched: Mutex::new(false),
            changed: Condvar::new(),
            abandoned: AtomicBool::new(false),
            revoked: AtomicBool::new(false),
            children: AtomicU32::new(0),
        })
    }

    /// The communicator behind it.
    #[inline]
    pub fn comm(&self) -> Result<&Arc<Comm>> {
        match self.made.get() {
            Some(Ok(comm)) => Ok(comm),
            Some(Err(e)) => Err(e.clone()),
            None => Err(Error::argument("comm: it is still joining; ncclCommGetAsyncError says when it has")),
        }
    }

    /// The same, for operations.
    #[inline]
    pub fn ready(&self) -> Result<&Arc<Comm>> {
        if self.revoked.load(Ordering::Relaxed) {
            return Err(Error::usage("comm: it was revoked; only destroy, split, shrink and abort are left"));
        }
        self.comm()
    }

    /// Calls the library on it, one thread at a time. What NCCL carries out in the background is waited for if the
    /// communicator is blocking, until it breaks or the time is up.
    pub fn call(
        &self,
        what: &str,
        body: impl FnOnce(&Library, ncclComm_t) -> Result<ncclResult_t>,
    ) -> Result<ncclResult_t> {
        let comm = self.ready()?;
        let mut missing = None;
        let outcome = comm.call(what, |_, real| match body(comm.library(), real) {
            Ok(result) => Some(result),
            Err(e) => {
                missing = Some(e);
                None
            }
        });
        if let Some(e) = missing {
            return Err(e);
        }
        self.finish(comm, outcome?)
    }

    /// Waits for what goes on in the background, or says that it does.
    #[inline]
    pub fn finish(&self, comm: &Comm, outcome: Outcome) -> Result<ncclResult_t> {
        match outcome {
            Outcome::Done => Ok(ncclSuccess),
            Outcome::Pending if !self.blocking => Ok(ncclInProgress),
            Outcome::Pending => {
                comm.settle(outcome, Instant::now() + patience()?)?;
                Ok(ncclSuccess)
            }
        }
    }

    /// Asks the library something that cannot fail.
    pub fn with<T>(&self, body: impl FnOnce(&Library, ncclComm_t) -> Result<T>) -> Result<T> {
        let comm = self.comm()?;
        comm.with(|real| body(comm.library(), real))?
    }

    /// What the application is told that its own calls did not tell.
    pub fn async_error(&self) -> Result<()> {
        let in_progress =
            || Err(Error::new(Code::InProgress, Extent::Operation, "comm: NCCL is at work on it"));
        let comm = match self.made.get() {
            None => return in_progress(),
            Some(Err(e)) => return Err(e.clone()),
            Some(Ok(comm)) => comm,
        };
        if let Some(e) = comm.error() {
            return Err(e);
        }
        match comm.poll()? {
            Outcome::Done => Ok(()),
            Outcome::Pending => in_progress(),
        }
    }

    /// The world that watches it, once it does.
    pub fn world(&self) -> Option<&Arc<World>> {
        self.world.get()
    }

    /// Making it has ended.
    fn settle(&self, made: Result<Arc<Comm>>) {
        // Set once, by whoever made it.
        let _ = self.made.set(made);
        drop(self.watched.lock());
        self.changed.notify_all();
        // SeqCst, as in `abort`: one of the two sees what the other one did first.
        if self.abandoned.load(Ordering::SeqCst) {
            self.end();
        }
    }

    /// Joining the world has ended.
    fn settle_world(&self) {
        *self.watched.lock() = true;
        self.changed.notify_all();
    }

    /// Waits until both making it and joining its world have ended, or until `until`.
    fn wait_settled(&self, until: Instant) {
        let mut watched = self.watched.lock();
        while self.made.get().is_none() || !*watched {
            if self.changed.wait_until(&mut watched, until).timed_out() {
                return;
            }
        }
    }

    fn end(&self) {
        if let Some(Ok(comm)) = self.made.get() {
            let text = format!("communicator '{}' was aborted by this rank", comm.name());
            comm.end(&Error::new(Code::Aborted, Extent::World, text));
        }
    }

    /// Ends everything here at once; what cannot be freed in time is leaked and reported. The peers learn of it.
    pub fn abort(&self) {
        self.abandoned.store(true, Ordering::SeqCst);
        self.end();
        if let Some(world) = self.world.get() {
            world.abort();
        }
        if let Some(Ok(comm)) = self.made.get()
            && let Err(e) = comm.wait_over()
        {
            // Counted and reported already. The application gets no error: it could do nothing about it but die.
            tracing::debug!("{e}");
        }
    }

    /// Begins to end it in good order, together with the other ranks.
    pub fn finalize(&self) -> Result<ncclResult_t> {
        let comm = self.ready()?;
        let outcome = comm.finalize()?;
        self.finish(comm, outcome)
    }

    /// Finalizes unless that has been done, and frees. Gone whatever this answers.
    pub fn destroy(&self) -> Result<ncclResult_t> {
        // A world that is still being joined would outlive its communicator.
        self.wait_settled(Instant::now() + patience()?);
        let Some(Ok(comm)) = self.made.get() else { return Ok(ncclSuccess) };
        let destroyed = comm.destroy(Instant::now() + patience()?);
        if let Some(world) = self.world.get() {
            // The communicator is gone; the world has nothing under way.
            if let Err(e) = world.destroy() {
                tracing::debug!("{e}");
            }
        }
        match destroyed {
            Ok(()) => Ok(ncclSuccess),
            // What is leaked has been reported, and who destroys a broken communicator knows that it is.
            Err(e) if e.code == Code::System => Ok(ncclSuccess),
            Err(e) => Err(e),
        }
    }

    /// Ends what is under way here; the communicator can still be split and shrunk.
    pub fn revoke(&self, flags: i32) -> Result<ncclResult_t> {
        if self.revoked.load(Ordering::Relaxed) {
            return Err(Error::argument("comm: it has been revoked already"));
        }
        let answer = self.call("ncclCommRevoke", |library, real| {
            // SAFETY: a live handle, entered.
            unsafe { forward::ncclCommRevoke(library, real, flags) }
        })?;
        self.revoked.store(true, Ordering::Relaxed);
        Ok(answer)
    }
}

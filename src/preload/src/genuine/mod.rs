//! Communicators of the genuine NCCL: each one behind a [`Comm`], which never blocks inside, and watched by a world
//! with the same members, which notices what NCCL does not.
//!
//! | module | does |
//! |---|---|
//! | `join` | making communicators: from ids, from others, at once, in the background, when a group ends |
//! | `run` | operations, alone and in groups |
//! | `ward` | what the end of the world means for the communicator |
//! | `config` | the caller's configuration, made non-blocking |
//! | `express` | the short way for operations that nothing stands in the way of |
//! | `forward` | the library's functions by name |

pub mod config;
pub mod express;
pub mod forward;
pub mod join;
pub mod run;
pub mod ward;

use crate::arg::Out;
use multiworld::error::{Code, Error, Extent, Result};
use multiworld::nccl::types::*;
use multiworld::nccl::{Comm, Library, Outcome};
use multiworld::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use multiworld::sync::{Arc, Condvar, Mutex, OnceLock, RwLock};
use multiworld::world::World;
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::time::{Duration, Instant};

/// One rank of one communicator.
pub struct Communicator {
    /// Functions wait until they are done, as far as NCCL's own do.
    pub blocking: bool,
    /// The same on all ranks of it, and different from other communicators': the order of launches in a group.
    pub clique: u64,
    /// Rank and ranks, once it is made: argument errors must be found before NCCL finds them, because it takes one for
    /// the end of a non-blocking communicator.
    place: OnceLock<(i32, i32)>,
    /// What NCCL has begun to make.
    begun: OnceLock<Arc<Comm>>,
    /// What making it came to; empty while it goes on.
    made: OnceLock<Result<Arc<Comm>>>,
    /// The world that watches it; empty while nobody does.
    world: OnceLock<Arc<World>>,
    /// Joining the world has ended, however it did.
    watched: Mutex<bool>,
    changed: Condvar,
    /// Somebody is making it: not before the end of the group that it is part of.
    started: AtomicBool,
    /// Aborted, maybe before it was made.
    abandoned: AtomicBool,
    /// Revoked or suspended by this rank: refused here, because NCCL's own refusal would count as a failure.
    closed: AtomicU8,
    /// Types of the reductions that were made for it.
    operators: RwLock<BTreeMap<ncclRedOp_t, ncclDataType_t>>,
    /// Communicators made from it.
    children: AtomicU32,
}

/// How long a communicator that is ready waits for its world, which meets the same ranks.
const GRACE: Duration = Duration::from_secs(10);

/// Values of `Communicator::closed`.
const OPEN: u8 = 0;
const REVOKED: u8 = 1;
const SUSPENDED: u8 = 2;

/// How long calls on it may take that NCCL carries out in the background.
pub fn patience() -> Result<Duration> {
    // Asked on the way of every call that NCCL does not finish at once: the environment is read by the first.
    static PATIENCE: OnceLock<Result<Duration>> = OnceLock::new();
    PATIENCE.get_or_init(|| Ok(crate::config::world_config()?.timeout)).clone()
}

/// Calls the library on a communicator, one thread at a time. The body's own error, that the library has no such
/// function, harms nobody.
fn enter(
    comm: &Comm,
    what: &str,
    body: impl FnOnce(&Library, ncclComm_t) -> Result<ncclResult_t>,
) -> Result<Outcome> {
    let mut missing = None;
    let outcome = comm.call(what, |_, real| body(comm.library(), real).map_err(|e| missing = Some(e)).ok());
    missing.map_or(outcome, Err)
}

impl Communicator {
    fn new(blocking: bool, clique: u64) -> Arc<Communicator> {
        Arc::new(Communicator {
            blocking,
            clique,
            place: OnceLock::new(),
            begun: OnceLock::new(),
            made: OnceLock::new(),
            world: OnceLock::new(),
            watched: Mutex::new(false),
            changed: Condvar::new(),
            started: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
            closed: AtomicU8::new(OPEN),
            operators: RwLock::default(),
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
        match self.closed.load(Ordering::Relaxed) {
            OPEN => self.comm(),
            REVOKED => {
                Err(Error::usage("comm: it was revoked; only destroy, split, shrink and abort are left"))
            }
            _ => Err(Error::usage("comm: it is suspended; ncclCommResume comes first")),
        }
    }

    /// Calls the library on it, one thread at a time. What NCCL carries out in the background is waited for if the
    /// communicator is blocking, until it breaks or the time is up.
    pub fn call(
        &self,
        what: &str,
        body: impl FnOnce(&Library, ncclComm_t) -> Result<ncclResult_t>,
    ) -> Result<ncclResult_t> {
        let comm = self.comm()?;
        self.finish(comm, enter(comm, what, body)?)
    }

    /// What a call comes to that NCCL has answered already.
    pub fn conclude(&self, what: &str, result: ncclResult_t) -> Result<ncclResult_t> {
        let comm = self.comm()?;
        self.finish(comm, comm.outcome(what, result)?)
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
        // NCCL's answer to who has revoked it.
        if self.closed.load(Ordering::Relaxed) == REVOKED {
            return Ok(());
        }
        if let Some(e) = comm.error() {
            return Err(e);
        }
        match comm.poll()? {
            Outcome::Done => Ok(()),
            Outcome::Pending => in_progress(),
        }
    }

    /// Rank and ranks.
    #[inline]
    pub fn place(&self) -> Result<(i32, i32)> {
        match self.place.get() {
            Some(place) => Ok(*place),
            // One that is still joining, or never did, says so.
            None => self.comm().and(Err(Error::usage("comm: NCCL does not say which rank it is"))),
        }
    }

    /// Makes a reduction.
    ///
    /// # Safety
    /// As NCCL's function.
    pub unsafe fn create_operator(
        &self,
        op: *mut ncclRedOp_t,
        scalar: *mut c_void,
        datatype: ncclDataType_t,
        residence: ncclScalarResidence_t,
    ) -> Result<ncclResult_t> {
        // SAFETY: writable by NCCL's contract.
        let out = unsafe { Out::new(op, "op") }?;
        if datatype >= ncclNumTypes {
            return Err(Error::argument(format!("datatype: {datatype} is no ncclDataType_t")));
        }
        if scalar.is_null() {
            return Err(Error::argument("scalar: NULL"));
        }
        if !matches!(residence, ncclScalarDevice | ncclScalarHostImmediate) {
            return Err(Error::argument(format!("residence: {residence} is no ncclScalarResidence_t")));
        }
        let mut made = ncclSum;
        let answer = self.call("ncclRedOpCreatePreMulSum", |l, real| {
            // SAFETY: a live handle, entered, and a scalar by NCCL's contract.
            unsafe { forward::ncclRedOpCreatePreMulSum(l, &mut made, scalar, datatype, residence, real) }
        })?;
        self.operators.write().insert(made, datatype);
        out.set(made);
        Ok(answer)
    }

    /// Destroys a reduction.
    pub fn destroy_operator(&self, op: ncclRedOp_t) -> Result<ncclResult_t> {
        if op < ncclNumOps {
            return Err(Error::argument(format!("op: {op} is built in and cannot be destroyed")));
        }
        if self.operators.write().remove(&op).is_none() {
            return Err(unknown(op));
        }
        self.call("ncclRedOpDestroy", |l, real| {
            // SAFETY: a live handle, entered.
            unsafe { forward::ncclRedOpDestroy(l, op, real) }
        })
    }

    /// Whether a reduction is one of this communicator and of this type.
    #[inline]
    pub fn check_operator(&self, op: ncclRedOp_t, datatype: ncclDataType_t) -> Result<()> {
        if op < ncclNumOps {
            return Ok(());
        }
        match self.operators.read().get(&op) {
            Some(made) if *made == datatype => Ok(()),
            Some(made) => Err(Error::argument(format!("op: {op} was made for type {made}, not {datatype}"))),
            None => Err(unknown(op)),
        }
    }

    /// The world that watches it, once it does.
    pub fn world(&self) -> Option<&Arc<World>> {
        self.world.get()
    }

    /// Making it has ended.
    fn settle(&self, made: Result<Arc<Comm>>) {
        if let Ok(comm) = &made
            && let Ok(place) = place(comm)
        {
            let _ = self.place.set(place);
        }
        // Set once, by whoever made it.
        let _ = self.made.set(made);
        drop(self.watched.lock());
        self.changed.notify_all();
    }

    /// Joining the world has ended.
    fn settle_world(&self) {
        *self.watched.lock() = true;
        self.changed.notify_all();
    }

    /// Waits until joining its world has ended, or until `until`.
    fn wait_watched(&self, until: Instant) {
        let mut watched = self.watched.lock();
        while !*watched && !self.changed.wait_until(&mut watched, until).timed_out() {}
    }

    /// Waits until making it has ended.
    fn wait_made(&self) {
        let mut watched = self.watched.lock();
        while self.made.get().is_none() {
            // Making it has deadlines of its own. The slice is for what nobody announces: a thread that died.
            self.changed.wait_for(&mut watched, Duration::from_millis(100));
        }
    }

    /// NCCL has begun to make it.
    fn begin(&self, comm: &Arc<Comm>) {
        // Set once, by whoever makes it.
        let _ = self.begun.set(comm.clone());
        // SeqCst, as in `abort`: one of the two sees what the other one did first.
        if self.abandoned.load(Ordering::SeqCst) {
            self.end();
        }
    }

    fn end(&self) {
        if let Some(comm) = self.begun.get() {
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
        if let Some(comm) = self.begun.get()
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
        if !self.started.load(Ordering::SeqCst) {
            self.abandoned.store(true, Ordering::SeqCst);
            return Ok(ncclSuccess);
        }
        self.wait_made();
        // A world that is joined later ends at once.
        self.abandoned.store(true, Ordering::SeqCst);
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

    /// Ends what is under way, here and on all other ranks; the communicator can still be split and shrunk.
    pub fn revoke(&self, flags: i32) -> Result<ncclResult_t> {
        if self.closed.load(Ordering::Relaxed) == REVOKED {
            return Err(Error::argument("comm: it has been revoked already"));
        }
        if flags.cast_unsigned() != NCCL_REVOKE_DEFAULT {
            return Err(Error::argument(format!("revokeFlags: {flags} is no flag of it")));
        }
        let answer = self.call("ncclCommRevoke", |library, real| {
            // SAFETY: a live handle, entered.
            unsafe { forward::ncclCommRevoke(library, real, flags) }
        })?;
        self.closed.store(REVOKED, Ordering::Relaxed);
        if let Some(world) = self.world.get() {
            world.revoke()?;
        }
        Ok(answer)
    }

    /// Gives device memory back for a while.
    pub fn suspend(&self, flags: i32) -> Result<ncclResult_t> {
        let answer = self.call("ncclCommSuspend", |library, real| {
            // SAFETY: a live handle, entered.
            unsafe { forward::ncclCommSuspend(library, real, flags) }
        })?;
        self.closed.store(SUSPENDED, Ordering::Relaxed);
        Ok(answer)
    }

    /// Takes it back into use.
    pub fn resume(&self) -> Result<ncclResult_t> {
        if self.closed.load(Ordering::Relaxed) != SUSPENDED {
            return self.ready().map(|_| ncclSuccess);
        }
        let answer = self.call("ncclCommResume", |library, real| {
            // SAFETY: a live handle, entered.
            unsafe { forward::ncclCommResume(library, real) }
        })?;
        self.closed.store(OPEN, Ordering::Relaxed);
        Ok(answer)
    }
}

#[cold]
fn unknown(op: ncclRedOp_t) -> Error {
    Error::argument(format!("op: {op} is neither built in nor an operator made for this communicator"))
}

/// Asks NCCL for rank and ranks.
fn place(comm: &Comm) -> Result<(i32, i32)> {
    let (mut rank, mut nranks) = (0, 0);
    let library = comm.library();
    comm.with(|real| {
        // SAFETY: a live handle, entered; both are writable.
        unsafe {
            forward::ncclCommUserRank(library, real, &mut rank)?;
            forward::ncclCommCount(library, real, &mut nranks)
        }
    })??;
    Ok((rank, nranks))
}

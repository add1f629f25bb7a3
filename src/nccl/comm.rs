//! One genuine communicator, so that nothing that happens to it can hang or end the process.
//!
//! Inside it is always non-blocking: NCCL allows an abort only then. Whoever wants to block polls, and stops when the
//! communicator breaks or the time is up. NCCL is entered by one thread at a time, ncclCommGetAsyncError included,
//! which completes pending work and is no read-only look. Once it is broken nobody enters NCCL on it but the
//! [`janitor`], which follows the [`super::recipe`].

use super::cuda::{self, Mark, Stream};
use super::gate::{BROKEN, CLOSED, Gate, Inside, OPEN};
use super::janitor;
use super::order::Order;
use super::recipe::{Leak, Limits, Recipe, Stage};
use super::types::*;
use super::{Functions, Library};
use crate::error::{Code, Error, Extent, Result};
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::light::Guard;
use crate::sync::{Arc, Condvar, Mutex, OnceLock};
use core::ffi::CStr;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Longest wait for the communicator's lock before looking whether it is still worth waiting.
const LOOK: Duration = Duration::from_millis(10);
/// How long destroying waits for the other ranks to do the same, before it goes on without the caller.
const FAREWELL: Duration = Duration::from_secs(1);
/// Pauses between polls: short ones first.
const POLL: [Duration; 3] = [Duration::from_micros(20), Duration::from_micros(200), Duration::from_millis(1)];
/// Operations whose deadlines are kept one by one; of more, every further one counts with the last.
const MARKS: usize = 1024;

/// What a call led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is done, or enqueued.
    Done,
    /// NCCL goes on with it in the background.
    Pending,
}

/// How a communicator ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Whatever is under way is dropped.
    Abort,
    /// It has been finalized.
    Destroy,
}

/// What a communicator is told at birth.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// For people.
    pub name: String,
    /// Deadline of each operation; without one an operation may take for ever.
    pub timeout: Option<Duration>,
    /// Patience with NCCL itself.
    pub limits: Limits,
}

struct Pending {
    mark: Mark,
    since: Instant,
    stream: usize,
}

#[derive(Default)]
struct Marks {
    /// Set, in order of their setting.
    set: VecDeque<Pending>,
    free: Vec<Mark>,
}

type Listener = Box<dyn Fn(&Error) + Send + Sync>;

/// See the module's documentation.
pub struct Comm {
    library: Arc<Library>,
    /// None where there is no CUDA driver, which is so only with a library that does not need one.
    device: Option<i32>,
    order: &'static Order,
    options: Options,
    pub(super) gate: &'static Gate,
    error: Mutex<Option<Error>>,
    pub(super) recipe: Mutex<Recipe>,
    pub(super) over: Condvar,
    marks: Mutex<Marks>,
    captured: AtomicBool,
    listener: OnceLock<Listener>,
    pub(super) ending: OnceLock<Ending>,
    finalized: AtomicBool,
    /// Asking NCCL about it hangs.
    pub(super) mute: AtomicBool,
}

impl Comm {
    /// Takes a handle that NCCL has just made, or is making, into care. It must be non-blocking.
    pub fn adopt(library: Arc<Library>, real: ncclComm_t, options: Options) -> Result<Arc<Comm>> {
        let device = if cuda::is_usable() { Some(cuda::current_device()?) } else { None };
        let comm = Arc::new(Comm {
            library,
            device,
            order: Order::of(device),
            recipe: Mutex::new(Recipe::new(Instant::now(), options.limits)),
            options,
            gate: Gate::open(real),
            error: Mutex::new(None),
            over: Condvar::new(),
            marks: Mutex::default(),
            captured: AtomicBool::new(false),
            listener: OnceLock::new(),
            ending: OnceLock::new(),
            finalized: AtomicBool::new(false),
            mute: AtomicBool::new(false),
        });
        if device.is_some() {
            comm.order.enter();
        }
        janitor::register(&comm)?;
        Ok(comm)
    }

    /// A member of a new communicator; joining goes on in the background, see [`Comm::settle`].
    pub fn init(
        library: Arc<Library>,
        nranks: i32,
        id: ncclUniqueId,
        rank: i32,
        config: &mut ncclConfig_t,
        options: Options,
    ) -> Result<Arc<Comm>> {
        let init = library
            .functions
            .ncclCommInitRankConfig
            .ok_or_else(|| library.missing("ncclCommInitRankConfig"))?;
        config.blocking = 0;
        if cuda::is_usable() {
            // The thread need not have chosen a device yet, which the runtime takes for the first one.
            cuda::bind(cuda::current_device()?)?;
        }
        let mut real: ncclComm_t = core::ptr::null_mut();
        // SAFETY: `real` is writable, `config` a valid configuration; both are read or written during the call only,
        // since a non-blocking communicator's handle is there when the call returns.
        let result = unsafe { init(&mut real, nranks, id, rank, config) };
        if (result != ncclSuccess && result != ncclInProgress) || real.is_null() {
            return Err(library.failure("ncclCommInitRankConfig", result));
        }
        Comm::adopt(library, real, options)
    }

    /// The library that it belongs to.
    pub fn library(&self) -> &Arc<Library> {
        &self.library
    }

    /// Its device, where there is CUDA.
    pub fn device(&self) -> Option<i32> {
        self.device
    }

    /// For people.
    pub fn name(&self) -> &str {
        &self.options.name
    }

    /// Launches: operations, and groups of them.
    pub fn operations(&self) -> u64 {
        self.gate.operations()
    }

    /// Whom to tell of the first thing that goes wrong. Without anybody the communicator is aborted. Set once.
    pub fn listen(&self, listener: impl Fn(&Error) + Send + Sync + 'static) {
        if self.listener.set(Box::new(listener)).is_err() {
            tracing::debug!("{}: somebody listens already", self.options.name);
        }
    }

    /// Whether calls on it can still succeed.
    #[inline]
    pub fn is_open(&self) -> bool {
        // Acquire: pairs with the store in `close`, so that whoever sees it closed finds the error.
        self.gate.phase.load(Ordering::Acquire) == OPEN
    }

    /// Why it is not open, or what went wrong on it while it still is.
    pub fn error(&self) -> Option<Error> {
        self.error.lock().clone()
    }

    fn closed(&self) -> Error {
        self.error().unwrap_or_else(|| {
            Error::usage(format!("communicator '{}' has been destroyed or aborted", self.options.name))
        })
    }

    /// Something is wrong with it. The first such error counts and is told to the listener.
    pub fn fail(&self, error: Error) {
        {
            let mut first = self.error.lock();
            if first.is_some() || !self.is_open() {
                return;
            }
            *first = Some(error.clone());
        }
        tracing::warn!("communicator '{}': {error}", self.options.name);
        match self.listener.get() {
            Some(tell) => tell(&error),
            None => self.end(&error),
        }
    }

    /// Nobody may call it any more: what is under way on the device is dropped and everything freed, by another thread.
    /// Returns at once; see [`Comm::wait_over`].
    pub fn end(&self, error: &Error) {
        self.close(BROKEN, Some(error));
        if self.gate.phase.load(Ordering::Acquire) == BROKEN && self.ending.set(Ending::Abort).is_ok() {
            self.bury();
        }
    }

    /// Nobody may call it any more, but it is left as it is until somebody calls [`Comm::end`].
    pub fn refuse(&self, error: &Error) {
        self.close(BROKEN, Some(error));
    }

    /// Leaves phase OPEN; answers whether this call did it.
    fn close(&self, phase: u8, error: Option<&Error>) -> bool {
        let mut first = self.error.lock();
        if let (None, Some(error)) = (&*first, error) {
            *first = Some(error.clone());
        }
        // Release: pairs with `is_open`.
        self.gate.phase.compare_exchange(OPEN, phase, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    fn bury(&self) {
        self.recipe.lock().enter(Stage::Waiting, Instant::now());
        janitor::bury(self);
    }

    /// Waits until a communicator that has ended is gone or given up. The error says why it was given up. One that is
    /// destroyed in good order is waited for a moment only: NCCL may wait there for the other ranks, whose programs
    /// may destroy it much later, or others first.
    pub fn wait_over(&self) -> Result<()> {
        let mut recipe = self.recipe.lock();
        while !recipe.is_over() {
            if recipe.stage() == Stage::Destroying && recipe.lasts(Instant::now()) >= FAREWELL {
                tracing::debug!("communicator '{}' is being destroyed in the background", self.options.name);
                return Ok(());
            }
            // The janitor keeps the limits; the time here only guards against its death.
            self.over.wait_for(&mut recipe, FAREWELL);
            let captured = self.captured.load(Ordering::Relaxed);
            if let Some(leak) = recipe.check(Instant::now(), captured) {
                janitor::report(self, leak);
            }
        }
        match recipe.leak() {
            None => Ok(()),
            Some(leak) => Err(self.leaked(leak)),
        }
    }

    pub(super) fn leaked(&self, leak: Leak) -> Error {
        let text = format!("communicator '{}' was leaked: {}", self.options.name, leak.reason());
        Error::new(Code::System, Extent::World, text)
    }

    /// Begins to end it in good order, together with the other ranks. Once.
    pub fn finalize(&self) -> Result<Outcome> {
        let Some(finalize) = self.library.functions.ncclCommFinalize else { return Ok(Outcome::Done) };
        if self.finalized.swap(true, Ordering::AcqRel) {
            return self.poll();
        }
        // SAFETY: a live handle; the lock is held.
        self.call("ncclCommFinalize", |_, real| Some(unsafe { finalize(real) }))
    }

    /// Finalizes and frees it, as long as `deadline` allows; a broken one is waited for until it is gone. See
    /// [`Comm::wait_over`].
    pub fn destroy(&self, deadline: Instant) -> Result<()> {
        if self.is_open() {
            match self.finalize().and_then(|outcome| self.settle(outcome, deadline)) {
                Ok(()) => {
                    if self.close(CLOSED, None) && self.ending.set(Ending::Destroy).is_ok() {
                        self.bury();
                    }
                }
                Err(e) => self.end(&e),
            }
        }
        if self.ending.get().is_none() {
            // It was only refused so far.
            self.end(&self.closed());
        }
        self.wait_over()
    }

    /// The lock of a communicator that is open, however long another thread has it.
    fn enter(&self) -> Result<Guard<'_, Inside>> {
        loop {
            if !self.is_open() {
                return Err(self.closed());
            }
            let guard = self.gate.inside.try_lock().or_else(|| self.gate.inside.try_lock_for(LOOK));
            if let Some(guard) = guard {
                // It may have been closed while this thread waited.
                return if self.is_open() { Ok(guard) } else { Err(self.closed()) };
            }
        }
    }

    /// The lock of a communicator that is open and has nothing under way in the background: NCCL takes a call meanwhile
    /// for a mistake that spoils the communicator.
    #[inline]
    fn enter_idle(&self) -> Result<Guard<'_, Inside>> {
        let inside = self.enter()?;
        if !inside.pending { Ok(inside) } else { self.wait_idle(inside) }
    }

    #[cold]
    fn wait_idle<'a>(&'a self, mut inside: Guard<'a, Inside>) -> Result<Guard<'a, Inside>> {
        loop {
            if self.poll_entered(&mut inside)? == Outcome::Done {
                return Ok(inside);
            }
            drop(inside);
            std::thread::sleep(POLL[1]);
            // Ends when the communicator does; what NCCL does in the background ends or is ended.
            inside = self.enter()?;
        }
    }

    /// Calls NCCL on it. `body` answers `None` when this NCCL does not have the function. Every error but a wrong
    /// argument is fatal to the communicator, as NCCL says.
    #[inline]
    pub fn call(
        &self,
        what: &str,
        body: impl FnOnce(&Functions, ncclComm_t) -> Option<ncclResult_t>,
    ) -> Result<Outcome> {
        let mut inside = self.enter_idle()?;
        let result = body(&self.library.functions, inside.real.0);
        if result == Some(ncclInProgress) {
            inside.pending = true;
        }
        drop(inside);
        result.map_or_else(|| Err(self.library.missing(what)), |result| self.outcome(what, result))
    }

    /// What a result of NCCL means; every error but a wrong argument is its end.
    #[inline]
    pub fn outcome(&self, what: &str, result: ncclResult_t) -> Result<Outcome> {
        match result {
            ncclSuccess => Ok(Outcome::Done),
            ncclInProgress => Ok(Outcome::Pending),
            error => Err(self.judge(what, error)),
        }
    }

    /// Makes an error of a result, and the end of the communicator of a fatal one.
    #[cold]
    fn judge(&self, what: &str, result: ncclResult_t) -> Error {
        let error = self.library.failure(what, result);
        if error.code == Code::InvalidArgument {
            return error;
        }
        let error = self.sticky().unwrap_or(error.extent(Extent::World));
        self.fail(error.clone());
        // What ended it first says more than what followed from it.
        if self.is_open() { error } else { self.closed() }
    }

    /// The error of a context that nothing can repair.
    fn sticky(&self) -> Option<Error> {
        let device = self.device?;
        cuda::health(device).err().filter(|e| e.extent == Extent::Process)
    }

    /// Launches something: as [`Comm::call`], in turn with the device's other communicators.
    #[inline]
    pub fn launch(
        &self,
        what: &str,
        body: impl FnOnce(&Functions, ncclComm_t) -> Option<ncclResult_t>,
    ) -> Result<Outcome> {
        self.call(what, |functions, real| {
            let _turn = self.order.turn();
            self.gate.count();
            body(functions, real)
        })
    }

    /// Lets operations be launched through the gate by those who name this number, until it is
    /// [withdrawn](Gate::withdraw). Without an effect while a thread is inside. `None` where each launch takes more
    /// than calling NCCL: with a deadline to keep.
    pub fn offer(&self, key: usize, place: (i32, i32)) -> Option<&'static Gate> {
        if self.options.timeout.is_some() && self.device.is_some() {
            return None;
        }
        self.gate.offer(key, &self.library, self.order, place);
        Some(self.gate)
    }

    /// Several communicators of one world in one NCCL group: all are entered, in an order that no other thread
    /// reverses; `body` gets their handles in the order of `comms`, issues the calls, and answers the first result that
    /// is neither success nor in progress.
    pub fn group(comms: &[Arc<Comm>], body: impl FnOnce(&[ncclComm_t]) -> ncclResult_t) -> Result<Outcome> {
        let Some(first) = comms.first() else { return Ok(Outcome::Done) };
        let functions = &first.library.functions;
        let (Some(start), Some(end)) = (functions.ncclGroupStart, functions.ncclGroupEnd) else {
            return Err(first.library.missing("ncclGroupStart"));
        };
        let mut sorted: Vec<usize> = (0..comms.len()).collect();
        sorted.sort_by_key(|i| Arc::as_ptr(&comms[*i]));
        let mut handles = vec![core::ptr::null_mut(); comms.len()];
        let mut guards = Vec::new();
        for i in sorted {
            let inside = comms[i].enter_idle()?;
            handles[i] = inside.real.0;
            guards.push(inside);
        }
        let mut devices: Vec<&Comm> = comms.iter().map(|c| &**c).collect();
        comms.iter().for_each(|c| c.gate.count());
        devices.sort_by_key(|c| c.device);
        devices.dedup_by_key(|c| c.device);
        let turns: Vec<_> = devices.iter().map(|c| c.order.turn()).collect();
        // SAFETY: no arguments. The group is this thread's own.
        let mut result = unsafe { start() };
        if result == ncclSuccess {
            result = body(&handles);
            // SAFETY: as above. Also after an error: the group must not stay open.
            let ended = unsafe { end() };
            if matches!(result, ncclSuccess | ncclInProgress) {
                result = ended;
            }
        }
        if result == ncclInProgress {
            guards.iter_mut().for_each(|inside| inside.pending = true);
        }
        drop(turns);
        drop(guards);
        match result {
            ncclSuccess => Ok(Outcome::Done),
            ncclInProgress => Ok(Outcome::Pending),
            result => {
                // An error of a group condemns every communicator in it.
                let errors: Vec<Error> = comms.iter().map(|c| c.judge("ncclGroupEnd", result)).collect();
                Err(errors.into_iter().next().unwrap_or_else(|| first.closed()))
            }
        }
    }

    /// One look at what NCCL does in the background.
    pub fn poll(&self) -> Result<Outcome> {
        let mut inside = self.enter()?;
        self.poll_entered(&mut inside)
    }

    fn poll_entered(&self, inside: &mut Inside) -> Result<Outcome> {
        let get = self.library.functions.ncclCommGetAsyncError;
        let get = get.ok_or_else(|| self.library.missing("ncclCommGetAsyncError"))?;
        let mut state = ncclSuccess;
        // SAFETY: a live handle, the lock is held; `state` is writable.
        let result = unsafe { get(inside.real.0, &mut state) };
        match (result, state) {
            (ncclSuccess, ncclSuccess) => {
                inside.pending = false;
                Ok(Outcome::Done)
            }
            (ncclSuccess, ncclInProgress) => Ok(Outcome::Pending),
            (ncclSuccess, error) => Err(self.judge("asynchronous error of NCCL", error)),
            (error, _) => Err(self.judge("ncclCommGetAsyncError", error)),
        }
    }

    /// Waits for what NCCL does in the background, until the communicator breaks or the time is up.
    pub fn settle(&self, outcome: Outcome, deadline: Instant) -> Result<()> {
        if outcome == Outcome::Done {
            return Ok(());
        }
        let mut turns = 0usize;
        while self.poll()? == Outcome::Pending {
            if Instant::now() >= deadline {
                let text = format!("communicator '{}': NCCL did not finish in time", self.options.name);
                return Err(Error::timeout(text));
            }
            if turns < 64 {
                crate::sys::process::yield_now();
            } else {
                std::thread::sleep(POLL[(turns / 256).min(POLL.len() - 1)]);
            }
            turns += 1;
        }
        Ok(())
    }

    /// Notes that an operation was enqueued on a stream: its deadline runs from now on.
    #[inline]
    pub fn enqueued(&self, stream: Stream) -> Result<()> {
        match (self.options.timeout, self.device) {
            // The calling thread may have another device current, or none.
            (Some(_), Some(device)) => cuda::on(device, || self.mark(stream)),
            _ => Ok(()),
        }
    }

    fn mark(&self, stream: Stream) -> Result<()> {
        if cuda::is_capturing(stream)? {
            self.captured.store(true, Ordering::Relaxed);
            return Ok(());
        }
        let mut marks = self.marks.lock();
        let again = match marks.set.back() {
            Some(last) => marks.set.len() >= MARKS && last.stream == stream as usize,
            None => false,
        };
        if again {
            // The last one moves on, and keeps its time.
            if let Some(last) = marks.set.back() {
                last.mark.set(stream)?;
            }
            return Ok(());
        }
        let mark = match marks.free.pop() {
            Some(mark) => mark,
            None => Mark::new()?,
        };
        mark.set(stream)?;
        marks.set.push_back(Pending { mark, since: Instant::now(), stream: stream as usize });
        drop(marks);
        janitor::wake();
        Ok(())
    }

    /// The janitor's look at a communicator in use; answers whether to look again soon.
    pub(super) fn look(&self, now: Instant) -> bool {
        if !self.is_open() {
            let leak = self.recipe.lock().check(now, self.captured.load(Ordering::Relaxed));
            if let Some(leak) = leak {
                janitor::report(self, leak);
                self.over.notify_all();
            }
            return !self.recipe.lock().is_over();
        }
        self.look_at_marks(now)
    }

    /// Whether something went wrong that no call has told; answers whether to ask again soon.
    pub(super) fn ask(&self) -> bool {
        if self.mute.load(Ordering::Relaxed) {
            return false;
        }
        // Who is inside a call sees the error itself.
        let Some(mut inside) = self.gate.inside.try_lock() else { return false };
        if !self.is_open() {
            return false;
        }
        let answer = self.poll_entered(&mut inside);
        drop(inside);
        // It did come back, if this is who was given up.
        self.mute.store(false, Ordering::Relaxed);
        match answer {
            Ok(_) => !self.marks.lock().set.is_empty(),
            Err(e) => {
                tracing::debug!("communicator '{}': {e}", self.options.name);
                true
            }
        }
    }

    fn look_at_marks(&self, now: Instant) -> bool {
        let Some(timeout) = self.options.timeout else { return false };
        let mut marks = self.marks.lock();
        let mut overdue = false;
        let mut broken = None;
        let mut still = VecDeque::with_capacity(marks.set.len());
        while let Some(pending) = marks.set.pop_front() {
            match pending.mark.is_reached() {
                Ok(true) => marks.free.push(pending.mark),
                Ok(false) => {
                    overdue |= now.saturating_duration_since(pending.since) >= timeout;
                    still.push_back(pending);
                }
                Err(e) => broken = Some(e),
            }
        }
        marks.set = still;
        let busy = !marks.set.is_empty();
        drop(marks);
        if let Some(e) = broken {
            self.fail(e.extent(Extent::Process));
        } else if overdue {
            let ms = timeout.as_millis();
            let text =
                format!("an operation on communicator '{}' took longer than {ms} ms", self.options.name);
            self.fail(Error::timeout(text).extent(Extent::World));
        }
        busy
    }

    /// Bytes of device memory that NCCL holds for it; `None` where this NCCL does not say.
    pub fn memory(&self) -> Option<u64> {
        let stats = self.library.functions.ncclCommMemStats?;
        let mut bytes = 0;
        let inside = self.enter().ok()?;
        // SAFETY: a live handle, the lock is held; `bytes` is writable.
        let result = unsafe { stats(inside.real.0, ncclStatGpuMemTotal, &mut bytes) };
        (result == ncclSuccess).then_some(bytes)
    }

    /// The genuine handle, for calls that [`Comm::call`] does not fit. Not while the caller is in [`Comm::call`].
    pub fn with<R>(&self, body: impl FnOnce(ncclComm_t) -> R) -> Result<R> {
        let inside = self.enter()?;
        Ok(body(inside.real.0))
    }
}

impl Drop for Comm {
    fn drop(&mut self) {
        if self.device.is_some() {
            self.order.leave();
        }
        self.gate.recycle();
    }
}

impl Library {
    /// The error of a call that answered `result`, with NCCL's own sentence if it has one.
    pub fn failure(&self, what: &str, result: ncclResult_t) -> Error {
        let text = |f: Option<*const core::ffi::c_char>| match f {
            // SAFETY: NCCL answers C strings that stay valid until its next call on this thread.
            Some(p) if !p.is_null() => unsafe { CStr::from_ptr(p) }.to_string_lossy().into_owned(),
            _ => String::new(),
        };
        // SAFETY: any number is allowed.
        let name = text(self.functions.ncclGetErrorString.map(|f| unsafe { f(result) }));
        // SAFETY: null asks for the last error of this thread.
        let last = text(self.functions.ncclGetLastError.map(|f| unsafe { f(core::ptr::null_mut()) }));
        let (code, extent) = match result {
            ncclUnhandledCudaError => (Code::UnhandledCuda, Extent::Operation),
            ncclSystemError => (Code::System, Extent::Operation),
            ncclInvalidArgument => (Code::InvalidArgument, Extent::Argument),
            ncclInvalidUsage => (Code::InvalidUsage, Extent::Operation),
            ncclRemoteError => (Code::Remote, Extent::Operation),
            ncclTimeout => (Code::Timeout, Extent::Operation),
            _ => (Code::Internal, Extent::Operation),
        };
        let mut sentence = format!("{what}: NCCL says {result}");
        for part in [name, last] {
            if !part.is_empty() {
                sentence.push_str(&format!(" ({part})"));
            }
        }
        Error::new(code, extent, sentence)
    }
}

#[cfg(test)]
#[path = "comm_tests.rs"]
mod tests;

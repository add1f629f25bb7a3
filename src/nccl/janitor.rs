//! The threads that look after all communicators of the process: asynchronous errors, deadlines, and the ends of those
//! that broke.
//!
//! Asking NCCL for asynchronous errors can hang as well. That is left to a thread of its own, so that deadlines are kept
//! and ends carried out meanwhile; one that hangs is replaced, and its communicator not asked any more.
//!
//! Aborts are carried out by a thread per device, because any step of one can hang inside NCCL or CUDA. Those that broke
//! together are aborted in one NCCL group, as NCCL wants it. When such a thread hangs, what breaks later on its device
//! gets another one. Destroying waits for the other processes, so each has a thread of its own: other ranks may destroy
//! in another order.

use super::comm::{Comm, Ending};
use super::cuda;
use super::recipe::{Leak, Stage};
use super::types::*;
use crate::error::Result;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Arc, Condvar, Mutex, OnceLock, Weak};
use crate::sys::process;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Between looks while operations or ends are under way.
const SOON: Duration = Duration::from_millis(2);
/// Between looks otherwise.
const LATER: Duration = Duration::from_millis(20);
/// Wait for a communicator that a thread is in, before turning to the next one.
const TURN: Duration = Duration::from_millis(5);
/// Work on one batch that takes longer must not keep others of the device waiting: their kernels are still on it.
const HANGS: Duration = Duration::from_millis(100);
/// Pause before trying again communicators that have been given up.
const REST: Duration = Duration::from_millis(500);
/// Groups of aborts work from 2.22.3 on.
const GROUP_ABORT: u32 = 22203;

/// Ends of one device.
#[derive(Default)]
struct Device {
    waiting: Vec<Arc<Comm>>,
    /// The thread at work, and when it began its present step.
    at_work: Option<(u64, Instant)>,
    /// What is waiting has been given up, and is not tried again before; something new is not kept waiting by it.
    rests_until: Option<Instant>,
}

/// The thread that asks NCCL for asynchronous errors.
#[derive(Default)]
struct Poller {
    number: u64,
    /// What it asks about just now, and since when.
    at_work: Option<(Weak<Comm>, Instant)>,
}

#[derive(Default)]
struct Office {
    comms: Mutex<Vec<Weak<Comm>>>,
    devices: Mutex<HashMap<Option<i32>, Device>>,
    poller: Mutex<Poller>,
    asleep: Mutex<bool>,
    bell: Condvar,
    leaked: AtomicU64,
    threads: AtomicU64,
}

fn office() -> &'static Office {
    static ONE: OnceLock<Office> = OnceLock::new();
    ONE.get_or_init(Office::default)
}

/// Communicators given up and not come back, in this process.
pub fn leaked() -> u64 {
    office().leaked.load(Ordering::Relaxed)
}

/// Takes a communicator into care.
pub(super) fn register(comm: &Arc<Comm>) -> Result<()> {
    static STARTED: OnceLock<Result<()>> = OnceLock::new();
    let o = office();
    o.comms.lock().push(Arc::downgrade(comm));
    STARTED.get_or_init(|| process::spawn("mw-nccl", move || watch(o)).map(drop)).clone()
}

/// Something has been started: look soon.
pub(super) fn wake() {
    let mut asleep = office().asleep.lock();
    if *asleep {
        *asleep = false;
        office().bell.notify_all();
    }
}

/// Waits for the next look.
fn rest(o: &Office, busy: bool) {
    let mut asleep = o.asleep.lock();
    *asleep = !busy;
    o.bell.wait_for(&mut asleep, if busy { SOON } else { LATER });
}

/// All communicators that are still there.
fn everybody(o: &Office) -> Vec<Arc<Comm>> {
    let mut comms = o.comms.lock();
    comms.retain(|c| c.strong_count() > 0);
    comms.iter().filter_map(Weak::upgrade).collect()
}

/// Asks NCCL about all communicators, until another thread has taken over.
fn poll(o: &'static Office, number: u64) {
    loop {
        let mut busy = false;
        for comm in everybody(o) {
            {
                let mut poller = o.poller.lock();
                if poller.number != number {
                    return;
                }
                poller.at_work = Some((Arc::downgrade(&comm), Instant::now()));
            }
            busy |= comm.ask();
        }
        {
            let mut poller = o.poller.lock();
            if poller.number != number {
                return;
            }
            poller.at_work = None;
        }
        rest(o, busy);
    }
}

/// Sees to it that somebody polls.
fn keep_polling(o: &'static Office, now: Instant) {
    let mut poller = o.poller.lock();
    if poller.number > 0 {
        match &poller.at_work {
            Some((on, since)) if now.saturating_duration_since(*since) > HANGS => {
                if let Some(comm) = on.upgrade() {
                    tracing::warn!("communicator '{}': NCCL hangs in ncclCommGetAsyncError", comm.name());
                    comm.mute.store(true, Ordering::Relaxed);
                }
            }
            _ => return,
        }
    }
    let number = poller.number + 1;
    match process::spawn("mw-nccl-poll", move || poll(o, number)) {
        Ok(_) => *poller = Poller { number, at_work: None },
        // Tried again at the next look.
        Err(e) => tracing::warn!("{e}"),
    }
}

/// Ends a communicator that nobody enters any more.
pub(super) fn bury(comm: &Comm) {
    let o = office();
    let found = o.comms.lock().iter().filter_map(Weak::upgrade).find(|c| std::ptr::eq(&**c, comm));
    let Some(comm) = found else { return };
    let device = comm.device();
    if comm.ending.get() == Some(&Ending::Destroy) {
        let alone = comm.clone();
        match process::spawn("mw-nccl-end", move || destroy(o, alone)) {
            Ok(_) => return,
            Err(e) => tracing::warn!("{e}"),
        }
    }
    let mut devices = o.devices.lock();
    let d = devices.entry(device).or_default();
    d.waiting.push(comm);
    // One that is at work takes this one along; one that hangs is replaced by `watch`.
    if d.at_work.is_none() {
        hire(o, device, d);
    }
}

fn hire(o: &'static Office, device: Option<i32>, d: &mut Device) {
    let number = o.threads.fetch_add(1, Ordering::Relaxed);
    match process::spawn("mw-nccl-end", move || work(o, device, number)) {
        Ok(_) => d.at_work = Some((number, Instant::now())),
        // `watch` tries again.
        Err(e) => tracing::warn!("{e}"),
    }
}

fn watch(o: &'static Office) {
    loop {
        let now = Instant::now();
        keep_polling(o, now);
        let mut busy = false;
        for c in everybody(o) {
            busy |= c.look(now);
        }
        for (device, d) in o.devices.lock().iter_mut() {
            let hangs = d.at_work.is_none_or(|(_, since)| now.saturating_duration_since(since) > HANGS);
            let rests = d.rests_until.is_some_and(|until| now < until);
            if !d.waiting.is_empty() && hangs && !rests {
                hire(o, *device, d);
            }
        }
        rest(o, busy);
    }
}

/// A thread that destroys one communicator.
fn destroy(o: &'static Office, comm: Arc<Comm>) {
    bind(comm.device());
    let mut left = vec![comm];
    while !left.is_empty() {
        left = end_all(o, left);
    }
}

fn bind(device: Option<i32>) {
    if let Some(device) = device
        && let Err(e) = cuda::bind(device)
    {
        // The abort will say more; a poisoned context must not keep it from being tried.
        tracing::debug!("{e}");
    }
}

/// A thread that ends what has broken on a device, until nothing is left.
fn work(o: &'static Office, device: Option<i32>, number: u64) {
    bind(device);
    loop {
        let batch = {
            let mut devices = o.devices.lock();
            let d = devices.entry(device).or_default();
            let mine = d.at_work.is_some_and(|(n, _)| n == number);
            if d.waiting.is_empty() || !mine {
                if mine {
                    d.at_work = None;
                }
                return;
            }
            d.at_work = Some((number, Instant::now()));
            std::mem::take(&mut d.waiting)
        };
        let left = end_all(o, batch);
        if left.is_empty() {
            continue;
        }
        let hopeless = left.iter().all(|c| c.recipe.lock().leak().is_some());
        let mut devices = o.devices.lock();
        let d = devices.entry(device).or_default();
        let more = !d.waiting.is_empty();
        d.waiting.extend(left);
        if hopeless && !more {
            d.rests_until = Some(Instant::now() + REST);
            if d.at_work.is_some_and(|(n, _)| n == number) {
                d.at_work = None;
            }
            return;
        }
    }
}

/// Ends those of a batch that no thread is in; answers the others.
fn end_all(o: &'static Office, batch: Vec<Arc<Comm>>) -> Vec<Arc<Comm>> {
    let (mut left, mut entered) = (Vec::new(), Vec::new());
    for comm in &batch {
        let patience = if comm.recipe.lock().leak().is_some() { Duration::ZERO } else { TURN };
        match comm.gate.inside.try_lock_for(patience) {
            Some(guard) => entered.push((comm, guard)),
            None => left.push(comm.clone()),
        }
    }
    for (comm, inside) in &entered {
        let functions = &comm.library().functions;
        if comm.ending.get() == Some(&Ending::Abort)
            && let Some(revoke) = functions.ncclCommRevoke
        {
            comm.recipe.lock().enter(Stage::Revoking, Instant::now());
            // SAFETY: a live handle whose lock is held. It may say no, when it is half-built for instance: the abort
            // that follows does not depend on it.
            let result = unsafe { revoke(inside.real.0, NCCL_REVOKE_DEFAULT as i32) };
            if !matches!(result, ncclSuccess | ncclInProgress) {
                tracing::debug!("{}", comm.library().failure("ncclCommRevoke", result));
            }
        }
        let stage = match comm.ending.get() {
            Some(Ending::Destroy) => Stage::Destroying,
            _ => Stage::Aborting,
        };
        comm.recipe.lock().enter(stage, Instant::now());
    }
    let aborts = entered.iter().filter(|(c, _)| c.ending.get() == Some(&Ending::Abort)).count();
    let group = entered.first().and_then(|(c, _)| {
        let f = &c.library().functions;
        let known = c.library().version >= GROUP_ABORT && aborts > 1;
        f.ncclGroupStart.zip(f.ncclGroupEnd).filter(|_| known)
    });
    // SAFETY: no arguments; the group is this thread's own.
    let started = group.is_some_and(|(start, _)| unsafe { start() } == ncclSuccess);
    for (comm, inside) in &entered {
        if comm.ending.get() == Some(&Ending::Abort) {
            release(comm, inside.real.0, "ncclCommAbort", comm.library().functions.ncclCommAbort);
        }
    }
    if let (true, Some((_, end))) = (started, group) {
        // SAFETY: closes the group above.
        let result = unsafe { end() };
        if result != ncclSuccess {
            tracing::warn!("aborting {aborts} communicators together: NCCL says {result}");
        }
    }
    for (comm, inside) in &entered {
        if comm.ending.get() != Some(&Ending::Abort) {
            release(comm, inside.real.0, "ncclCommDestroy", comm.library().functions.ncclCommDestroy);
        }
    }
    for (comm, mut inside) in entered {
        inside.real.0 = core::ptr::null_mut();
        drop(inside);
        if let Some(leak) = comm.recipe.lock().finish(Instant::now()) {
            o.leaked.fetch_sub(1, Ordering::Relaxed);
            tracing::info!(
                "communicator '{}' is free after all; it was given up because {}",
                comm.name(),
                leak.reason()
            );
        }
        comm.over.notify_all();
    }
    left
}

type Release = Option<unsafe extern "C" fn(ncclComm_t) -> ncclResult_t>;

fn release(comm: &Comm, real: ncclComm_t, what: &str, release: Release) {
    let Some(release) = release else {
        tracing::warn!("{}", comm.library().missing(what));
        return;
    };
    // SAFETY: a live handle whose lock is held, released once: the handle is cleared afterwards.
    let result = unsafe { release(real) };
    if !matches!(result, ncclSuccess | ncclInProgress) {
        tracing::warn!("communicator '{}': {}", comm.name(), comm.library().failure(what, result));
    }
}

/// A communicator has been given up.
pub(super) fn report(comm: &Comm, leak: Leak) {
    office().leaked.fetch_add(1, Ordering::Relaxed);
    tracing::error!("{}", comm.leaked(leak));
}

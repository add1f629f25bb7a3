//! The order of CUDA streams. An operation is a host function on its stream; what the program enqueues after
//! it waits.
//!
//! A communicator's operations are started in the order of the calls, whatever streams they are on: each
//! waits for the event that was recorded behind the one before it, unless that was on the same stream.
//!
//! In a group, the first stream that a communicator is used with is its primary one, and all of its
//! operations run there. The others are made to wait before and after:
//! 1. an event on every other stream, and the primary one waits for it,
//! 2. one host function per primary stream, which drives all communicators that have it for theirs,
//! 3. an event behind it, and the other streams wait for that.

use super::Host;
use super::run::{self, Queued};
use crate::boundary::caught;
use crate::cuda::{Runtime, Stream};
use core::ffi::c_void;
use multiworld::error::Result;
use multiworld::sync::Arc;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What one host function does.
struct Job(Vec<Queued>);

/// A communicator in a launch.
struct Used {
    host: Arc<Host>,
    primary: Stream,
    others: Vec<Stream>,
}

/// Puts operations that belong together on their streams.
pub fn launch(runtime: &'static Runtime, calls: Vec<Queued>) -> Result<()> {
    let used = used(&calls);
    for u in &used {
        on(runtime, u, |stream| {
            if let Some((last, event)) = &*u.host.last.lock()
                && *last != stream.addr()
            {
                event.hold(stream)?;
            }
            u.others.iter().try_for_each(|other| runtime.mark(*other)?.hold(stream))
        })?;
    }
    let mut jobs: Vec<(&Used, Vec<Queued>)> = Vec::new();
    for call in calls {
        let Some(owner) = used.iter().find(|u| Arc::ptr_eq(&u.host, &call.host)) else { continue };
        // NULL is another stream on each device.
        let same = |u: &Used| {
            u.primary == owner.primary && (!owner.primary.is_null() || u.host.device == owner.host.device)
        };
        match jobs.iter_mut().find(|(u, _)| same(u)) {
            Some((_, job)) => job.push(call),
            None => jobs.push((owner, vec![call])),
        }
    }
    for (u, job) in jobs {
        on(runtime, u, |stream| enqueue(runtime, stream, Job(job)))?;
    }
    for u in &used {
        on(runtime, u, |stream| {
            let mut last = u.host.last.lock();
            let event = match last.take() {
                Some((_, event)) => {
                    event.record(stream)?;
                    event
                }
                None => runtime.mark(stream)?,
            };
            u.others.iter().try_for_each(|other| event.hold(*other))?;
            *last = Some((stream.addr(), event));
            Ok(())
        })?;
    }
    Ok(())
}

fn on(runtime: &Runtime, used: &Used, body: impl FnOnce(Stream) -> Result<()>) -> Result<()> {
    runtime.on_device(used.host.device, || body(used.primary))
}

fn used(calls: &[Queued]) -> Vec<Used> {
    let mut used: Vec<Used> = Vec::new();
    for c in calls {
        match used.iter_mut().find(|u| Arc::ptr_eq(&u.host, &c.host)) {
            None => used.push(Used { host: c.host.clone(), primary: c.stream, others: Vec::new() }),
            Some(u) if u.primary != c.stream && !u.others.contains(&c.stream) => u.others.push(c.stream),
            Some(_) => {}
        }
    }
    used
}

fn enqueue(runtime: &Runtime, stream: Stream, job: Job) -> Result<()> {
    let hosts: Vec<Arc<Host>> = job.hosts().cloned().collect();
    hosts.iter().for_each(|h| *h.under_way.lock() += 1);
    let job = Box::into_raw(Box::new(job));
    // SAFETY: the stream is the caller's, who says that it is one of the runtime; `run` takes the box back,
    // once.
    let launched = unsafe { runtime.launch(stream, run, job.cast()) };
    if launched.is_err() {
        // SAFETY: it was not launched, so the box is still ours.
        drop(unsafe { Box::from_raw(job) });
        hosts.iter().for_each(|h| h.done());
    }
    launched
}

impl Job {
    /// Each communicator once.
    fn hosts(&self) -> impl Iterator<Item = &Arc<Host>> {
        let is_first =
            |(at, c): (usize, &Queued)| !self.0[..at].iter().any(|before| Arc::ptr_eq(&before.host, &c.host));
        self.0.iter().enumerate().filter(move |&at| is_first(at)).map(|(_, c)| &c.host)
    }
}

impl Host {
    fn done(&self) {
        *self.under_way.lock() -= 1;
        self.changed.notify_all();
    }
}

/// The host function. There is nobody to return an error to, so the communicators keep it.
unsafe extern "C" fn run(data: *mut c_void) {
    // SAFETY: `data` is the box that `enqueue` made, and this is called once.
    let job = unsafe { Box::from_raw(data.cast::<Job>()) };
    let result = catch_unwind(AssertUnwindSafe(|| run::run_now(&job.0)));
    if let Err(e) = result.unwrap_or_else(|payload| Err(caught(payload))) {
        // A world that has ended has its own error, and the others of the group are not affected by it.
        let ended = |h: &&Arc<Host>| h.world().is_ok_and(|w| w.error().is_some());
        if job.hosts().filter(ended).count() == 0 {
            job.hosts().for_each(|h| h.failed(&e));
        }
    }
    job.hosts().for_each(|h| h.done());
}

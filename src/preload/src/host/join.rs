//! Making communicators. The work is the same in all cases: a task that joins and then tells its
//! communicator.
//!
//! | | a blocking communicator | a non-blocking one |
//! |---|---|---|
//! | outside a group | on the caller's thread | on a thread of its own |
//! | in a group | when the group ends, all together; those of one parent one after the other | started when it ends |

use super::Host;
use crate::arg::Out;
use crate::boundary::caught;
use crate::comm::Comm;
use crate::{group, handle, lanes};
use multiworld::error::{Error, Result};
use multiworld::nccl::types::{ncclComm_t, ncclInProgress, ncclResult_t, ncclSuccess};
use multiworld::sync::Arc;
use multiworld::sys::process;
use multiworld::world::World;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

/// Joins; `None` where this rank gets no communicator.
type Join = Box<dyn FnOnce() -> Result<Option<Arc<World>>> + Send>;

/// A communicator in the making.
pub struct Task {
    /// Identifies the parent: its ranks do what they do with it in the same order.
    parent: Option<usize>,
    blocking: bool,
    host: Option<Arc<Host>>,
    token: usize,
    out: Option<Out<ncclComm_t>>,
    join: Join,
}

impl Task {
    /// `host` is the communicator that it will be, `None` if this rank gets none; `out` is where its handle
    /// goes.
    pub fn new(
        parent: Option<&Arc<Host>>,
        blocking: bool,
        host: Option<Arc<Host>>,
        out: Out<ncclComm_t>,
        join: impl FnOnce() -> Result<Option<Arc<World>>> + Send + 'static,
    ) -> Task {
        let parent = parent.map(|p| Arc::as_ptr(p).addr());
        Task { parent, blocking, host, token: 0, out: Some(out), join: Box::new(join) }
    }

    /// Runs it now, in the background or at the end of this thread's group.
    pub fn start(mut self) -> Result<ncclResult_t> {
        if let Some(out) = &self.out {
            out.set(ptr::null_mut());
        }
        if let Some(host) = &self.host {
            let handle = handle::issue_comm(Comm::Host(host.clone()))?;
            self.token = handle.addr();
            host.named(self.token);
        }
        if group::is_open() {
            self.hand_out();
            group::add_task(self);
            return Ok(ncclSuccess);
        }
        if !self.blocking {
            self.hand_out();
            let (token, out) = (self.token, self.out);
            return match self.in_background() {
                Ok(()) => Ok(ncclInProgress),
                Err(e) => {
                    withdraw(token, out.as_ref());
                    Err(e)
                }
            };
        }
        let (out, handle) = (self.out, ptr::without_provenance_mut(self.token));
        self.run()?;
        if let Some(out) = out {
            out.set(handle);
        }
        Ok(ncclSuccess)
    }

    /// Gives C the handle before there is a world behind it.
    fn hand_out(&self) {
        if let Some(out) = &self.out {
            out.set(ptr::without_provenance_mut(self.token));
        }
    }

    fn in_background(mut self) -> Result<()> {
        // The caller's place for the handle need not be there any more when this fails.
        self.out = None;
        let host = self.host.clone();
        host.iter().for_each(|host| host.begin());
        let started = process::spawn("mw-join", move || {
            // Its communicator knows how it ended.
            let _ = self.run();
        });
        match started {
            Ok(_) => Ok(()),
            Err(e) => {
                host.iter().for_each(|host| host.settle(Err(e.clone())));
                Err(e)
            }
        }
    }

    /// Joins. If that fails, a blocking communicator is gone, as in NCCL; a non-blocking one waits to be
    /// asked.
    fn run(self) -> Result<()> {
        let Task { blocking, host, token, out, join, .. } = self;
        host.iter().for_each(|host| host.begin());
        let joined = catch_unwind(AssertUnwindSafe(join)).unwrap_or_else(|payload| Err(caught(payload)));
        let Some(host) = host else { return joined.map(drop) };
        let world = joined.and_then(|world| {
            world.ok_or_else(|| Error::internal("joining came to no world although there is a communicator"))
        });
        let error = world.as_ref().err().cloned();
        host.settle(world);
        let Some(error) = error else { return Ok(()) };
        if blocking {
            withdraw(token, out.as_ref());
        }
        Err(error)
    }

    /// Takes back what was handed out: the group that it is part of failed.
    pub fn cancel(self) {
        if let Some(host) = &self.host {
            host.settle(Err(Error::usage("comm: the group that was to make it failed")));
            withdraw(self.token, self.out.as_ref());
        }
    }
}

fn withdraw(token: usize, out: Option<&Out<ncclComm_t>>) {
    // Somebody may have aborted it meanwhile.
    let _ = handle::remove_comm(ptr::without_provenance_mut(token));
    if let Some(out) = out {
        out.set(ptr::null_mut());
    }
}

/// Runs the tasks of a group: together, because their ranks may wait for each other.
pub fn run_all(tasks: Vec<Task>) -> Result<ncclResult_t> {
    let (waiting, background): (Vec<Task>, Vec<Task>) = tasks.into_iter().partition(|t| t.blocking);
    let mut result = Ok(if background.is_empty() { ncclSuccess } else { ncclInProgress });
    for task in background {
        if let Err(e) = task.in_background() {
            result = result.and(Err(e));
        }
    }
    lanes::run_all(waiting, |t| t.parent, Task::run).and(result)
}

//! The background job of a group on non-blocking communicators.

use crate::record::lock;
use crate::stop::Stop;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// A job that runs on a thread of its own, shared by the communicators that it works for.
pub struct Job {
    done: Mutex<bool>,
    changed: Condvar,
    /// The abort flags of all of its communicators: an abort of one hits them all, as in NCCL.
    stops: Vec<Arc<Stop>>,
}

impl Job {
    /// A job that is about to run.
    pub fn new(stops: Vec<Arc<Stop>>) -> Arc<Job> {
        Arc::new(Job { done: Mutex::new(false), changed: Condvar::new(), stops })
    }

    /// Tells everything in the job to leave.
    pub fn abort(&self) {
        self.stops.iter().for_each(|stop| stop.raise());
    }

    /// Marks the job as over.
    pub fn finish(&self) {
        *lock(&self.done) = true;
        self.changed.notify_all();
    }

    /// Waits until the job is over.
    pub fn join(&self) {
        let mut done = lock(&self.done);
        while !*done {
            done = self.changed.wait(done).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

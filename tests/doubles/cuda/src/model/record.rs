//! One point in a stream's queue that others can wait for. An event refers to the record that is its newest;
//! who waits holds the record itself, so that recording the event again does not move the goal.

use crate::model::error::{Error, Result};
use crate::model::lock;
use crate::model::stream::Stream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

#[derive(Default)]
pub struct Record {
    /// Set once, after `outcome`. Release pairs with the acquire of `is_done`: who sees it sees what the
    /// stream did.
    done: AtomicBool,
    inner: Mutex<Inner>,
    reached: Condvar,
}

#[derive(Default)]
struct Inner {
    outcome: Option<Outcome>,
    /// Streams that sleep until this is reached.
    streams: Vec<Arc<Stream>>,
}

#[derive(Clone, Copy)]
enum Outcome {
    Reached(Instant),
    /// The stream's device broke first.
    Dropped(Error),
}

impl Record {
    pub fn new() -> Arc<Record> {
        Arc::default()
    }

    pub fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }

    pub fn reach(&self) {
        self.finish(Outcome::Reached(Instant::now()));
    }

    pub fn drop_with(&self, error: Error) {
        self.finish(Outcome::Dropped(error));
    }

    fn finish(&self, outcome: Outcome) {
        let streams = {
            let mut inner = lock(&self.inner);
            if inner.outcome.is_some() {
                return;
            }
            inner.outcome = Some(outcome);
            self.done.store(true, Ordering::Release);
            std::mem::take(&mut inner.streams)
        };
        self.reached.notify_all();
        for stream in streams {
            stream.poke();
        }
    }

    /// Blocks the calling thread.
    pub fn wait(&self) -> Result<()> {
        let mut inner = lock(&self.inner);
        loop {
            match inner.outcome {
                Some(Outcome::Reached(_)) => return Ok(()),
                Some(Outcome::Dropped(error)) => return Err(error),
                None => {
                    inner = self.reached.wait(inner).unwrap_or_else(std::sync::PoisonError::into_inner);
                }
            }
        }
    }

    /// False: the stream is poked once this is done.
    pub fn done_or_poke(&self, stream: &Arc<Stream>) -> bool {
        if self.is_done() {
            return true;
        }
        let mut inner = lock(&self.inner);
        if inner.outcome.is_some() {
            return true;
        }
        // Pokes of others bring the stream here again.
        if !inner.streams.iter().any(|waiting| Arc::ptr_eq(waiting, stream)) {
            inner.streams.push(stream.clone());
        }
        false
    }

    /// When it was reached.
    pub fn time(&self) -> Result<Instant> {
        match lock(&self.inner).outcome {
            Some(Outcome::Reached(time)) => Ok(time),
            Some(Outcome::Dropped(error)) => Err(error),
            None => Err(Error::NOT_READY),
        }
    }
}

/// A record's place in a queue. However the queue loses it, those who wait are released.
pub struct Mark(pub Arc<Record>);

impl Drop for Mark {
    fn drop(&mut self) {
        if !self.0.is_done() {
            self.0.drop_with(Error::UNKNOWN);
        }
    }
}

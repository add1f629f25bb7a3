//! The result of everything that one group posted.

use crate::error::{Error, Result};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicUsize, Ordering};

/// Counts operations down to done and keeps the first error.
#[derive(Debug, Default)]
pub struct Ticket {
    pending: AtomicUsize,
    error: Mutex<Option<Error>>,
}

impl Ticket {
    /// A ticket for `operations` operations.
    pub fn new(operations: usize) -> Ticket {
        Ticket { pending: AtomicUsize::new(operations), error: Mutex::new(None) }
    }

    /// More operations belong to it. Only before it can be done.
    pub fn add(&self, operations: usize) {
        self.pending.fetch_add(operations, Ordering::Relaxed);
    }

    /// One operation is over.
    pub fn complete(&self, result: Result<()>) {
        if let Err(e) = result {
            self.error.lock().get_or_insert(e);
        }
        // Release: the operation's bytes and the error are visible to whoever sees the count.
        self.pending.fetch_sub(1, Ordering::Release);
    }

    /// Whether all are over.
    pub fn is_done(&self) -> bool {
        // Acquire: pairs with `complete`.
        self.pending.load(Ordering::Acquire) == 0
    }

    /// The first error, or success. Meaningful once done.
    pub fn result(&self) -> Result<()> {
        match &*self.error.lock() {
            Some(e) => Err(e.clone()),
            None => Ok(()),
        }
    }
}

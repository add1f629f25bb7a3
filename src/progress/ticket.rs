//! The result of everything that one group posted.

use crate::error::{Error, Result};
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{Arc, Mutex};
use std::cell::Cell;

thread_local! {
    static SPARE: Cell<Option<Arc<Ticket>>> = const { Cell::new(None) };
}

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

    /// A ticket for one operation, which the calling thread gives back by [`Ticket::settle`]: most have one at a time.
    pub fn spare() -> Arc<Ticket> {
        SPARE.try_with(Cell::take).ok().flatten().unwrap_or_else(|| Arc::new(Ticket::new(1)))
    }

    /// The result of a ticket that is done, and the ticket for this thread's next operation.
    pub fn settle(mut ticket: Arc<Ticket>) -> Result<()> {
        let result = ticket.result();
        // Whoever completed it has let go of it by now, or will: then this one is not used again.
        if let Some(mine) = Arc::get_mut(&mut ticket) {
            *mine = Ticket::new(1);
            // A thread that is ending needs none.
            let _ending = SPARE.try_with(|spare| spare.set(Some(ticket)));
        }
        result
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
        self.error.lock().clone().map_or(Ok(()), Err)
    }
}

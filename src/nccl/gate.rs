//! The way into one communicator: its lock, and whatever a call has to know once it holds the lock.
//!
//! Gates are never freed, only used again, so that a caller who has nothing but a number, which may be stale, can
//! take the lock first and look afterwards whether this is still the gate that it means: one atomic exchange is all
//! that such a call costs, with no reference to count and nothing to look up. See [`Comm::offer`](super::Comm::offer).

use super::Library;
use super::order::{Order, Turn};
use super::types::*;
use crate::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use crate::sync::light::{Guard, Lock};
use crate::sync::{Arc, Mutex};

pub(super) const OPEN: u8 = 0;
pub(super) const BROKEN: u8 = 1;
pub(super) const CLOSED: u8 = 2;

/// Between the communicators that are there and those to come.
static FREE: Mutex<Vec<&'static Gate>> = Mutex::new(Vec::new());

/// See the module's documentation.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Gate {
    pub(super) inside: Lock<Inside>,
    /// Who may enter by number; 0 is nobody.
    key: AtomicUsize,
    pub(super) phase: AtomicU8,
    /// Launches. Changed with the lock held.
    operations: AtomicU64,
}

/// What is reached only with the lock.
#[derive(Debug, Default)]
pub(super) struct Inside {
    /// The genuine handle.
    pub real: Handle,
    /// NCCL is at work on it in the background.
    pub pending: bool,
    /// For those who enter by number.
    offer: Option<Offer>,
}

/// NCCL's handle; null once it is gone.
#[derive(Debug)]
pub(super) struct Handle(pub ncclComm_t);

impl Default for Handle {
    fn default() -> Handle {
        Handle(core::ptr::null_mut())
    }
}

// SAFETY: NCCL's handles may be used from any thread, by one at a time, which the lock around it sees to.
unsafe impl Send for Handle {}

/// What those who enter by number have to know.
#[derive(Debug)]
struct Offer {
    library: Arc<Library>,
    order: &'static Order,
    rank: i32,
    nranks: i32,
}

impl Gate {
    /// A gate for a communicator that NCCL has just begun to make.
    pub(super) fn open(real: ncclComm_t) -> &'static Gate {
        let free = FREE.lock().pop();
        let gate = free.unwrap_or_else(|| Box::leak(Box::default()));
        // Free ones are locked by stale callers at most, and for a moment.
        let mut inside = loop {
            match gate.inside.try_lock() {
                Some(inside) => break inside,
                None => std::hint::spin_loop(),
            }
        };
        *inside = Inside { real: Handle(real), pending: true, offer: None };
        gate.operations.store(0, Ordering::Relaxed);
        gate.phase.store(OPEN, Ordering::Release);
        drop(inside);
        gate
    }

    /// The communicator is gone. A gate that a thread never came out of stays as it is.
    pub(super) fn recycle(&'static self) {
        self.key.store(0, Ordering::Relaxed);
        self.phase.store(CLOSED, Ordering::Relaxed);
        if let Some(mut inside) = self.inside.try_lock() {
            *inside = Inside::default();
            drop(inside);
            FREE.lock().push(self);
        }
    }

    /// Launches so far.
    pub(super) fn operations(&self) -> u64 {
        self.operations.load(Ordering::Relaxed)
    }

    /// Counts a launch, with the lock held: nobody else does at the same time.
    #[inline]
    pub(super) fn count(&self) {
        self.operations.store(self.operations.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// Lets callers in who name this number.
    pub(super) fn offer(&self, key: usize, library: &Arc<Library>, order: &'static Order, place: (i32, i32)) {
        if self.key.load(Ordering::Relaxed) == key {
            return;
        }
        if let Some(mut inside) = self.inside.try_lock() {
            let (rank, nranks) = place;
            inside.offer = Some(Offer { library: library.clone(), order, rank, nranks });
            self.key.store(key, Ordering::Release);
        }
    }

    /// Lets nobody in by this number any more.
    pub fn withdraw(&self, key: usize) {
        // A gate that is another one's by now keeps its key.
        let _ = self.key.compare_exchange(key, 0, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// The right to launch an operation on the communicator of this number, if nothing has to be waited for.
    #[inline]
    pub fn enter(&'static self, key: usize) -> Option<Pass> {
        let inside = self.inside.try_lock()?;
        let is_idle = !inside.pending && self.phase.load(Ordering::Acquire) == OPEN;
        // Looked at only now: before, the gate could have become another communicator's.
        let is_mine = self.key.load(Ordering::Acquire) == key;
        if !is_mine || !is_idle {
            return None;
        }
        let turn = inside.offer.as_ref()?.order.turn_now()?;
        Some(Pass { gate: self, _turn: turn, inside })
    }
}

/// The right to launch one operation.
#[derive(Debug)]
pub struct Pass {
    gate: &'static Gate,
    /// Given back before the lock is.
    _turn: Turn<'static>,
    inside: Guard<'static, Inside>,
}

impl Pass {
    /// The genuine handle.
    #[inline]
    pub fn real(&self) -> ncclComm_t {
        self.inside.real.0
    }

    /// This rank and how many there are.
    #[inline]
    pub fn place(&self) -> (i32, i32) {
        self.inside.offer.as_ref().map_or((0, 0), |offer| (offer.rank, offer.nranks))
    }

    /// The library whose functions it is for; a pass has one.
    #[inline]
    pub fn library(&self) -> Option<&Library> {
        self.inside.offer.as_ref().map(|offer| &*offer.library)
    }

    /// The operation was launched, and this is what NCCL said.
    #[inline]
    pub fn leave(&mut self, result: ncclResult_t) {
        self.gate.count();
        if result == ncclInProgress {
            self.inside.pending = true;
        }
    }
}

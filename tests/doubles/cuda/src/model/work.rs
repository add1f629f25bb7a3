//! What a stream's thread does.

use crate::model::error::Error;
use crate::model::graph::Executable;
use crate::model::memory;
use crate::model::record::{Mark, Record};
use std::ffi::c_void;
use std::sync::Arc;

/// `cudaHostFn_t` and `CUhostFn`.
pub type HostFunction = unsafe extern "C" fn(*mut c_void);

/// `cudaStreamCallback_t`: stream, status, user data.
pub type StreamCallback = unsafe extern "C" fn(usize, i32, *mut c_void);

/// A pointer that the program handed over for a callback or a copy. The program says what may be done with
/// it, and when it is used is its choice, too.
#[derive(Clone, Copy)]
pub struct Address(pub *mut c_void);

// SAFETY: it is only passed on to the program's own function or used for a copy that the program ordered;
// CUDA's contract lets both happen on any thread.
unsafe impl Send for Address {}
// SAFETY: as above; a shared one gives no more than a copy of it.
unsafe impl Sync for Address {}

/// Work without any reference to a queue, so that a graph can hold it and repeat it.
#[derive(Clone)]
pub enum Task {
    Host { function: HostFunction, data: Address },
    Copy { to: Address, from: Source, bytes: usize },
    Fill { at: Address, value: u8, bytes: usize },
}

/// Where a copy reads.
#[derive(Clone)]
pub enum Source {
    At(Address),
    /// Pageable memory, which was read when the copy was ordered.
    Staged(Arc<[u8]>),
}

impl Task {
    pub fn run(&self) {
        match self {
            // SAFETY: the program asked for this call, and vouches for the function and its data.
            Task::Host { function, data } => unsafe { function(data.0) },
            Task::Copy { to, from, bytes } => {
                let from = match from {
                    Source::At(from) => from.0.cast_const(),
                    Source::Staged(staged) => staged.as_ptr().cast(),
                };
                // SAFETY: the program vouches for both ranges; those in memory of the double were checked to
                // be inside it, and a staged source has this many bytes.
                unsafe { std::ptr::copy(from.cast::<u8>(), to.0.cast(), *bytes) }
            }
            // SAFETY: the program vouches for the range; in memory of the double it was checked to be inside.
            Task::Fill { at, value, bytes } => unsafe {
                std::ptr::write_bytes(at.0.cast::<u8>(), *value, *bytes)
            },
        }
    }
}

/// One entry of a queue.
pub enum Op {
    Task(Task),
    Callback {
        function: StreamCallback,
        stream: usize,
        data: Address,
    },
    Mark(Mark),
    Wait(Arc<Record>),
    /// Memory that was freed in stream order.
    Free(usize),
    /// Keeps a graph until its launch is over.
    Release(Arc<Executable>),
}

impl Op {
    pub fn mark(record: &Arc<Record>) -> Op {
        Op::Mark(Mark(record.clone()))
    }

    pub fn run(self) {
        match self {
            Op::Task(task) => task.run(),
            // SAFETY: the program asked for this call, and vouches for the function and its data.
            Op::Callback { function, stream, data } => unsafe { function(stream, 0, data.0) },
            Op::Mark(mark) => mark.0.reach(),
            // The queue hands a wait out when it is over.
            Op::Wait(_) => {}
            Op::Free(base) => memory::forget(base),
            Op::Release(executable) => drop(executable),
        }
    }

    /// In place of `run`, when the device broke. The memory of a broken device is lost.
    pub fn discard(self, error: Error) {
        if let Op::Mark(mark) = self {
            mark.0.drop_with(error);
        }
    }
}

//! Memory that an endpoint needs only while it reads or writes.
//!
//! A process may hold thousands of endpoints and most are idle at any time, so none owns a buffer: each takes
//! one from its thread when it needs it, and keeps it only as long as bytes are in it that have to wait.

use std::cell::Cell;
use std::thread::LocalKey;

/// One buffer that a thread keeps for whoever needs it next.
pub type Spare<T> = LocalKey<Cell<Option<T>>>;

/// The thread's spare buffer, or a new one.
pub fn take<T>(spare: &'static Spare<T>, new: impl FnOnce() -> T) -> T {
    // A thread that is ending has no spare any more.
    spare.try_with(Cell::take).ok().flatten().unwrap_or_else(new)
}

/// Makes `buf` the thread's spare one.
pub fn give<T>(spare: &'static Spare<T>, buf: T) {
    // On a thread that is ending the buffer is freed here, with the closure that did not run.
    let _freed = spare.try_with(move |cell| cell.set(Some(buf)));
}

/// A buffer of `size` bytes.
pub fn bytes(size: usize) -> Box<[u8]> {
    vec![0; size].into_boxed_slice()
}

//! Memory that a receiving endpoint needs only while it reads.
//!
//! A process may hold thousands of endpoints and most are idle at any time, so none owns a buffer: each takes one
//! from its thread when it reads, and keeps it only as long as bytes of a later message are in it.

use std::cell::Cell;

/// Bytes read ahead at most: several small messages per system call, little to copy when a large one follows.
pub const CAPACITY: usize = 16 << 10;
/// Bytes that a reducing receive takes from the kernel at once; stays in the core's own cache.
const SCRATCH: usize = 256 << 10;

thread_local! {
    static SPARE_INBOX: Cell<Option<Box<[u8]>>> = const { Cell::new(None) };
    static SPARE_SCRATCH: Cell<Option<Box<[u8]>>> = const { Cell::new(None) };
}

type Spare = std::thread::LocalKey<Cell<Option<Box<[u8]>>>>;

fn take(spare: &'static Spare, size: usize) -> Box<[u8]> {
    // A thread that is ending has no spare any more.
    spare.try_with(Cell::take).ok().flatten().unwrap_or_else(|| vec![0; size].into_boxed_slice())
}

fn give(spare: &'static Spare, buf: Box<[u8]>) {
    // On a thread that is ending the buffer is freed here, with the closure that did not run.
    let _freed = spare.try_with(move |cell| cell.set(Some(buf)));
}

/// Runs `body` with a temporary buffer.
pub fn with_scratch<R>(body: impl FnOnce(&mut [u8]) -> R) -> R {
    let mut buf = take(&SPARE_SCRATCH, SCRATCH);
    let result = body(&mut buf);
    give(&SPARE_SCRATCH, buf);
    result
}

/// Bytes that were read before their message asked for them.
#[derive(Debug, Default)]
pub struct Inbox {
    buf: Option<Box<[u8]>>,
    head: usize,
    tail: usize,
}

impl Inbox {
    /// What has been read and not consumed.
    pub fn filled(&self) -> &[u8] {
        self.buf.as_deref().and_then(|buf| buf.get(self.head..self.tail)).unwrap_or_default()
    }

    /// Drops the first `n` bytes of [`Inbox::filled`].
    pub fn consume(&mut self, n: usize) {
        self.head = self.tail.min(self.head + n);
        self.release();
    }

    /// Room for more; all of [`CAPACITY`] that is not filled.
    pub fn space(&mut self) -> &mut [u8] {
        let buf = self.buf.get_or_insert_with(|| take(&SPARE_INBOX, CAPACITY));
        if self.head > 0 {
            buf.copy_within(self.head..self.tail, 0);
            self.tail -= self.head;
            self.head = 0;
        }
        buf.get_mut(self.tail..).unwrap_or_default()
    }

    /// Records that the first `n` bytes of [`Inbox::space`] have been filled.
    pub fn commit(&mut self, n: usize) {
        self.tail = CAPACITY.min(self.tail + n);
        self.release();
    }

    /// Gives the memory back unless bytes are in it.
    pub fn release(&mut self) {
        if self.head == self.tail {
            (self.head, self.tail) = (0, 0);
            if let Some(buf) = self.buf.take() {
                give(&SPARE_INBOX, buf);
            }
        }
    }

    /// Whether memory is held.
    #[cfg(test)]
    pub fn holds_memory(&self) -> bool {
        self.buf.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_in_order_and_memory_goes_back() {
        let mut inbox = Inbox::default();
        assert!(inbox.filled().is_empty() && !inbox.holds_memory());
        inbox.space()[..4].copy_from_slice(b"abcd");
        inbox.commit(4);
        inbox.consume(3);
        assert_eq!(inbox.filled(), b"d");
        assert_eq!(inbox.space().len(), CAPACITY - 1);
        inbox.space()[..2].copy_from_slice(b"ef");
        inbox.commit(2);
        assert_eq!(inbox.filled(), b"def");
        inbox.consume(3);
        assert!(!inbox.holds_memory());
        inbox.space();
        inbox.release();
        assert!(!inbox.holds_memory());
    }
}

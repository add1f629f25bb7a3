//! Bytes that were read before their message asked for them, and memory for those that are reduced on
//! arrival.

use super::spare;
use std::cell::Cell;

/// Bytes read ahead at most: many small messages per system call.
pub const CAPACITY: usize = 64 << 10;
/// Bytes that a reducing receive takes from the kernel at once; stays in the core's own cache.
const SCRATCH: usize = 128 << 10;

thread_local! {
    static SPARE_INBOX: Cell<Option<Box<[u8]>>> = const { Cell::new(None) };
    static SPARE_SCRATCH: Cell<Option<Box<[u8]>>> = const { Cell::new(None) };
}

/// Runs `body` with a temporary buffer.
pub fn with_scratch<R>(body: impl FnOnce(&mut [u8]) -> R) -> R {
    let mut buf = spare::take(&SPARE_SCRATCH, || spare::bytes(SCRATCH));
    let result = body(&mut buf);
    spare::give(&SPARE_SCRATCH, buf);
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
        let buf = self.buf.get_or_insert_with(|| spare::take(&SPARE_INBOX, || spare::bytes(CAPACITY)));
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
                spare::give(&SPARE_INBOX, buf);
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

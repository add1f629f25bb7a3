//! Small messages on their way into the kernel.
//!
//! A system call costs as much as copying ten kilobytes, so small messages that are sent one behind the other
//! are put next to each other and go out together. They are still the caller's until then: a message is over
//! when the kernel has it.

use super::spare;
use crate::transport::protocol::Header;
use std::cell::Cell;
use std::collections::VecDeque;

/// Bytes that go out together at most.
pub const CAPACITY: usize = 64 << 10;
/// Payloads up to this size are copied here.
pub const SMALL: usize = 8 << 10;

thread_local! {
    static SPARE: Cell<Option<Batch>> = const { Cell::new(None) };
}

#[derive(Debug)]
struct Batch {
    bytes: Box<[u8]>,
    /// Where the messages that are not out end, oldest first.
    ends: VecDeque<usize>,
}

/// Messages that the kernel has not taken.
#[derive(Debug, Default)]
pub struct Outbox {
    batch: Option<Batch>,
    head: usize,
    tail: usize,
    /// Messages that are out and of which nobody has been told.
    done: usize,
}

impl Outbox {
    /// What is to go out.
    pub fn filled(&self) -> &[u8] {
        self.batch.as_ref().and_then(|b| b.bytes.get(self.head..self.tail)).unwrap_or_default()
    }

    /// Whether nothing is to go out.
    pub fn is_empty(&self) -> bool {
        self.head == self.tail
    }

    /// Puts a message behind the others. Whether there was room for it.
    pub fn push(&mut self, header: &[u8; Header::SIZE], payload: &[u8]) -> bool {
        let batch = self.batch.get_or_insert_with(|| {
            spare::take(&SPARE, || Batch { bytes: spare::bytes(CAPACITY), ends: VecDeque::new() })
        });
        let end = self.tail + Header::SIZE + payload.len();
        let Some(room) = batch.bytes.get_mut(self.tail..end) else { return false };
        let (front, back) = room.split_at_mut(Header::SIZE);
        front.copy_from_slice(header);
        back.copy_from_slice(payload);
        batch.ends.push_back(end);
        self.tail = end;
        true
    }

    /// The kernel has taken the first `n` bytes of [`Outbox::filled`].
    pub fn consume(&mut self, n: usize) {
        self.head = self.tail.min(self.head + n);
        let Some(batch) = &mut self.batch else { return };
        while batch.ends.front().is_some_and(|end| *end <= self.head) {
            batch.ends.pop_front();
            self.done += 1;
        }
        if self.head == self.tail {
            self.clear();
        }
    }

    /// How many messages have gone out since the last call.
    pub fn take_done(&mut self) -> usize {
        std::mem::take(&mut self.done)
    }

    /// Forgets what has not gone out, and gives the memory back.
    pub fn clear(&mut self) {
        (self.head, self.tail) = (0, 0);
        if let Some(mut batch) = self.batch.take() {
            batch.ends.clear();
            spare::give(&SPARE, batch);
        }
    }

    /// Whether memory is held.
    #[cfg(test)]
    pub fn holds_memory(&self) -> bool {
        self.batch.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_over_when_their_last_byte_is_out() {
        let mut outbox = Outbox::default();
        assert!(outbox.is_empty() && outbox.filled().is_empty() && !outbox.holds_memory());
        assert!(outbox.push(&[1; Header::SIZE], b"abc"));
        assert!(outbox.push(&[2; Header::SIZE], b""));
        assert!(outbox.push(&[3; Header::SIZE], b"d"));
        assert_eq!(outbox.filled().len(), 3 * Header::SIZE + 4);
        outbox.consume(Header::SIZE + 2);
        assert_eq!(outbox.take_done(), 0);
        assert_eq!(outbox.filled().first(), Some(&b'c'));
        outbox.consume(1 + Header::SIZE);
        assert_eq!((outbox.take_done(), outbox.take_done()), (2, 0));
        assert!(outbox.holds_memory());
        outbox.consume(Header::SIZE + 1);
        assert_eq!(outbox.take_done(), 1);
        assert!(outbox.is_empty() && !outbox.holds_memory());
    }

    #[test]
    fn what_does_not_fit_waits() {
        let mut outbox = Outbox::default();
        let payload = [7; SMALL];
        let mut n = 0;
        while outbox.push(&[n; Header::SIZE], &payload) {
            n += 1;
        }
        assert_eq!(usize::from(n), CAPACITY / (Header::SIZE + SMALL));
        outbox.consume(1);
        assert!(!outbox.push(&[n; Header::SIZE], &payload));
        outbox.clear();
        assert!(outbox.is_empty() && outbox.take_done() == 0);
        assert!(outbox.push(&[n; Header::SIZE], &payload));
    }
}

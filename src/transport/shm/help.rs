//! Both sides copy: a message that goes from one region into another is cut into pieces, which the receiver takes from
//! the front and the sender, while it waits, from the back. Two processors copy nearly twice as fast as one.
//!
//! 1. Who has a piece is said by one word, `work`. Only the receiver begins a message and only it ends one.
//! 2. The sender has one piece at a time, and marks the word as busy meanwhile. The receiver calls the message done,
//!    or lets its caller have the buffer back after it has voided the word, when the word is not busy. If a sender
//!    that was stopped in the middle of a piece never comes back to it, these pages of the buffer are taken out of the
//!    region before: what it writes when it goes on goes elsewhere.
//! 3. Pieces are whole pages of the receiver's region. What lies before and behind is the receiver's.
//! 4. `id` and `at` are written before the word says the number of their message, and not again before its end.

use crate::sync::atomic::{AtomicU64, Ordering};
use crate::transport::protocol::Fault;

const PAGE: usize = 4096;
/// Bytes of a piece: an eighth of the message, within these limits. The smaller they are, the sooner both sides are
/// done; the larger, the less they are in each other's way.
const SMALLEST: usize = 32 << 10;
const LARGEST: usize = 256 << 10;

const VOID: u64 = 1 << 31;
const BUSY: u64 = 1 << 30;
/// Pieces taken from the front, and above them those from the back.
const COUNT: u64 = (1 << 15) - 1;
const ONE_BEHIND: u64 = 1 << 15;
/// Attempts to take a piece before something else is done; each fails only when the peer took one.
const ATTEMPTS: u32 = 64;

/// Where one message is shared out, in the memory of both.
#[repr(C, align(128))]
pub struct HelpLine {
    work: AtomicU64,
    /// The place in the receiver's region.
    id: AtomicU64,
    at: AtomicU64,
}

/// How a message is cut.
#[derive(Clone, Copy, Debug)]
pub struct Split {
    begin: usize,
    end: usize,
    piece: usize,
}

/// What is left for the receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// This piece.
    Piece(usize),
    /// Nothing, but the sender is not done.
    Wait,
    /// Nothing.
    Done,
}

impl Split {
    /// A message of `len` bytes that goes to `at` in a region. `None` when it is too short for that.
    pub fn new(at: usize, len: usize) -> Option<Split> {
        let begin = at.checked_next_multiple_of(PAGE)? - at;
        let end = (at.checked_add(len)? & !(PAGE - 1)).checked_sub(at)?;
        let whole = end.checked_sub(begin).filter(|whole| *whole > SMALLEST)?;
        let least = whole.div_ceil(COUNT as usize);
        let piece = (whole / 8).clamp(SMALLEST, LARGEST).max(least).next_multiple_of(PAGE);
        Some(Split { begin, end, piece })
    }

    fn pieces(&self) -> usize {
        (self.end - self.begin).div_ceil(self.piece)
    }

    /// Where a piece begins in the message, and its bytes.
    pub fn piece(&self, index: usize) -> (usize, usize) {
        let begin = self.begin.saturating_add(index.saturating_mul(self.piece)).min(self.end);
        (begin, self.piece.min(self.end - begin))
    }

    /// What all pieces are together.
    pub fn whole(&self) -> (usize, usize) {
        (self.begin, self.end - self.begin)
    }
}

fn taken(word: u64) -> (usize, usize) {
    ((word & COUNT) as usize, ((word / ONE_BEHIND) & COUNT) as usize)
}

/// Messages are counted from 1, so that a new line is that of none.
fn number(message: u64) -> u64 {
    (message.wrapping_add(1) & u64::from(u32::MAX)) << 32
}

impl HelpLine {
    /// The receiver shares a message out.
    pub fn open(&self, message: u64, id: u64, at: u64) {
        self.id.store(id, Ordering::Relaxed);
        self.at.store(at, Ordering::Relaxed);
        // Release: invariant 4.
        self.work.store(number(message), Ordering::Release);
    }

    /// The receiver's next piece.
    pub fn next(&self, message: u64, split: &Split) -> Result<Next, Fault> {
        for _ in 0..ATTEMPTS {
            // Acquire: pairs with `finish`; what the sender has copied is there.
            let word = self.work.load(Ordering::Acquire);
            if word & !u64::from(u32::MAX) != number(message) {
                return Err(Fault::Corrupt("shared-memory ring: work of another message"));
            }
            let (front, back) = taken(word);
            if front + back >= split.pieces() {
                return Ok(if word & BUSY == 0 { Next::Done } else { Next::Wait });
            }
            if self.work.compare_exchange(word, word + 1, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                return Ok(Next::Piece(front));
            }
        }
        Ok(Next::Wait)
    }

    /// The receiver takes the work back. Answers whether the sender is in the middle of a piece.
    pub fn void(&self) -> bool {
        // AcqRel: either the sender sees it and takes nothing, or this sees that it has.
        self.work.fetch_or(VOID, Ordering::AcqRel) & BUSY != 0
    }

    /// Whether the sender is in the middle of a piece.
    pub fn is_busy(&self) -> bool {
        self.work.load(Ordering::Acquire) & BUSY != 0
    }

    /// For the sender: where in the receiver's region a message goes, if there is work.
    #[inline]
    pub fn look(&self, message: u64) -> Option<(u64, u64)> {
        // Acquire: pairs with `open`.
        let word = self.work.load(Ordering::Acquire);
        if word & !u64::from(u32::MAX) != number(message) || word & (VOID | BUSY) != 0 {
            return None;
        }
        Some((self.id.load(Ordering::Relaxed), self.at.load(Ordering::Relaxed)))
    }

    /// The sender's next piece. [`HelpLine::finish`] has to follow.
    pub fn take(&self, message: u64, split: &Split) -> Option<usize> {
        for _ in 0..ATTEMPTS {
            let word = self.work.load(Ordering::Relaxed);
            if word & !u64::from(u32::MAX) != number(message) || word & (VOID | BUSY) != 0 {
                return None;
            }
            let ((front, back), pieces) = (taken(word), split.pieces());
            if front + back >= pieces {
                return None;
            }
            let next = (word + ONE_BEHIND) | BUSY;
            // Acquire: writes to the buffer come after it has been taken.
            if self.work.compare_exchange(word, next, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                return Some(pieces - 1 - back);
            }
        }
        None
    }

    /// The sender has copied it.
    pub fn finish(&self) {
        // Release: pairs with `next` and `is_busy`.
        self.work.fetch_and(!BUSY, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> HelpLine {
        HelpLine { work: AtomicU64::new(0), id: AtomicU64::new(0), at: AtomicU64::new(0) }
    }

    #[test]
    fn pieces_are_whole_pages_and_cover_what_is_between_the_edges() {
        for at in [0, 1, 4095, 4096, 5000] {
            for len in [1, 32 << 10, 40_000, 100_000, 1 << 20, (64 << 20) + 3, 1 << 45] {
                let Some(split) = Split::new(at, len) else {
                    assert!(len <= 40_000);
                    continue;
                };
                let (begin, whole) = split.whole();
                assert!(begin < PAGE && len - begin - whole < PAGE);
                assert!((at + begin).is_multiple_of(PAGE) && whole.is_multiple_of(PAGE));
                assert!(split.pieces() >= 2 && split.pieces() <= COUNT as usize);
                let mut next = begin;
                for i in 0..split.pieces().min(1000) {
                    let (at, bytes) = split.piece(i);
                    assert!(at == next && bytes > 0);
                    next += bytes;
                }
                let (at, bytes) = split.piece(split.pieces() - 1);
                assert_eq!(at + bytes, begin + whole);
                assert_eq!(split.piece(split.pieces()).1, 0);
            }
        }
        assert!(Split::new(usize::MAX, 5).is_none() && Split::new(8, usize::MAX).is_none());
    }

    #[test]
    fn every_piece_is_taken_once() {
        let (line, split) = (line(), Split::new(0, 1 << 20).unwrap());
        assert!(line.look(0).is_none() && line.take(0, &split).is_none());
        line.open(0, 5, 7);
        assert!(line.look(1).is_none() && line.take(1, &split).is_none());
        assert_eq!(line.look(0), Some((5, 7)));
        assert_eq!(line.next(0, &split), Ok(Next::Piece(0)));
        assert_eq!(line.take(0, &split), Some(7));
        assert!(line.take(0, &split).is_none(), "one at a time");
        for i in 1..7 {
            assert_eq!(line.next(0, &split), Ok(Next::Piece(i)));
        }
        assert_eq!(line.next(0, &split), Ok(Next::Wait));
        line.finish();
        assert_eq!(line.next(0, &split), Ok(Next::Done));
        assert!(line.take(0, &split).is_none());
        assert!(line.next(1, &split).is_err());
    }

    #[test]
    fn what_is_void_is_not_taken() {
        let (line, split) = (line(), Split::new(0, 1 << 20).unwrap());
        line.open(3, 0, 0);
        assert!(line.take(3, &split).is_some());
        assert!(line.void() && line.is_busy());
        line.finish();
        assert!(!line.is_busy() && line.look(3).is_none() && line.take(3, &split).is_none());
    }
}

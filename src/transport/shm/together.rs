//! An endpoint's part in messages that both sides copy; see `help`.

use super::endpoint::{Announced, STREAM, ShmEndpoint, Source};
use super::help::{Next, Split};
use super::region;
use super::shared::Window;
use crate::sys::{copy, process};
use crate::transport::protocol::Fault;
use crate::transport::{Progress, RecvMsg, Sink};
use std::time::{Duration, Instant};

/// How long a sender that is in the middle of a piece is waited for before its pages are taken from it. It needs the
/// processor for some microseconds, and may have lost it.
const PATIENCE: Duration = Duration::from_millis(20);
/// The same for one in this process, from which nothing can be taken.
const LONG_PATIENCE: Duration = Duration::from_secs(1);
/// After this time nothing of a process that was killed runs any more, on any processor.
const GRACE: Duration = Duration::from_millis(1);

/// A message on its way here that the sender copies a part of.
pub struct Shares {
    window: Window,
    split: Split,
    /// Number of the message among those announced.
    number: u64,
    to: *mut u8,
    /// Whether what lies behind the pieces has been copied.
    ends: bool,
}

// SAFETY: the pointer is the message's buffer, used by whoever may call `recv` for it.
unsafe impl Send for Shares {}

/// # Safety
/// As for [`std::ptr::copy_nonoverlapping`].
unsafe fn copy(from: *const u8, to: *mut u8, len: usize, past_caches: bool) {
    // SAFETY: by this function's contract.
    unsafe {
        if past_caches {
            copy::copy_streaming(to, from, len);
        } else {
            std::ptr::copy_nonoverlapping(from, to, len);
        }
    }
}

impl ShmEndpoint {
    /// Lets the sender take part in a message, if it can.
    pub(super) fn share_out(&mut self, msg: &RecvMsg, window: &Window) -> Option<Shares> {
        let Sink::Copy(to) = msg.sink else { return None };
        if self.is_crowded {
            return None;
        }
        let place = self.shared.place(to, msg.len)?;
        let split = Split::new(place.at, msg.len)?;
        let number = self.pulled;
        self.rx.control().help.open(number, place.id, place.at as u64);
        Some(Shares { window: window.clone(), split, number, to, ends: false })
    }

    /// Copies the next piece. What `msg` says has come is what this end has copied from the front on.
    ///
    /// # Safety
    /// The message's buffer is valid.
    pub(super) unsafe fn take_share(
        &mut self,
        msg: &mut RecvMsg,
        mut shares: Shares,
    ) -> Result<Progress, Fault> {
        let past_caches = msg.len >= STREAM;
        let piece = |at: usize, len: usize| {
            let (from, len) = shares.window.bytes(at, len);
            // SAFETY: the window holds these bytes and so does the buffer, which is valid by this function's contract
            // and as long. Both sides leave this piece to this end.
            unsafe { copy(from, shares.to.add(at), len, past_caches) };
            len
        };
        let next = match self.rx.control().help.next(shares.number, &shares.split) {
            Ok(next) => next,
            Err(fault) => {
                // Kept, so that it is taken back when this end gives up.
                self.pull = Some(Source::Split(shares));
                return Err(fault);
            }
        };
        let (begin, whole) = shares.split.whole();
        let mut offset = msg.offset;
        let progress = match next {
            Next::Piece(index) => {
                if index == 0 {
                    offset += piece(0, begin);
                }
                let (at, len) = shares.split.piece(index);
                offset += piece(at, len);
                Progress::Some
            }
            Next::Wait if shares.ends => Progress::None,
            Next::Wait => {
                piece(begin + whole, msg.len - begin - whole);
                shares.ends = true;
                Progress::Some
            }
            Next::Done => {
                if !shares.ends {
                    piece(begin + whole, msg.len - begin - whole);
                }
                if offset == 0 {
                    // The sender was faster with all of it.
                    piece(0, begin);
                }
                offset = msg.len;
                Progress::Done
            }
        };
        if let Err(fault) = self.still_valid() {
            self.pull = Some(Source::Split(shares));
            return Err(fault);
        }
        msg.offset = offset;
        if progress == Progress::Done {
            self.taken(msg.len);
        } else {
            self.pull = Some(Source::Split(shares));
        }
        Ok(progress)
    }

    /// Copies a piece of the oldest message that was announced, if its receiver would have that.
    #[inline]
    pub(super) fn help(&mut self) {
        if let Some((id, at)) = self.tx.control().help.look(self.reaped) {
            self.help_with(id, at);
        }
    }

    fn help_with(&mut self, id: u64, at: u64) {
        let Some(&Announced { from, len }) = self.announced.front() else { return };
        // What a peer says that cannot be true is not worth more than no help.
        let Ok(Some(window)) = self.shared.window(id, at, len) else { return };
        let Some(split) = usize::try_from(at).ok().and_then(|at| Split::new(at, len)) else { return };
        let line = &self.tx.control().help;
        let Some(index) = line.take(self.reaped, &split) else { return };
        let (at, bytes) = split.piece(index);
        let (to, bytes) = window.bytes(at, bytes);
        // SAFETY: a piece of a message that is announced and not reaped, so its buffer is valid and holds `len` bytes, as
        // does the window, whose owner leaves this piece to this end.
        unsafe { copy(from.add(at), to, bytes, len >= STREAM) };
        line.finish();
        // The receiver may wait for it.
        self.unrung = true;
    }

    /// Takes a piece and leaves it at that; answers where the message goes.
    #[cfg(test)]
    pub(super) fn stop_in_a_piece(&mut self) -> region::Place {
        let line = &self.tx.control().help;
        let (id, at) = line.look(self.reaped).expect("work");
        let at = usize::try_from(at).expect("a place");
        let split = Split::new(at, self.announced.front().expect("a message").len).expect("a long message");
        line.take(self.reaped, &split).expect("a piece");
        region::Place { id, at }
    }

    /// No message is received any more: if one was, its buffer goes back to its owner.
    pub(super) fn keep_out(&mut self) {
        if let Some(Source::Split(shares)) = self.pull.take() {
            self.take_back(&shares);
        }
    }

    fn take_back(&self, shares: &Shares) {
        let line = &self.rx.control().help;
        if !line.void() {
            return;
        }
        let neighbour = &self.wiring.neighbour;
        let patience = if neighbour.is_own() { LONG_PATIENCE } else { PATIENCE };
        let begin = Instant::now();
        while line.is_busy() {
            if neighbour.is_dead() {
                std::thread::sleep(GRACE);
                return;
            }
            if begin.elapsed() < patience {
                process::yield_now();
                continue;
            }
            let (at, len) = shares.split.whole();
            tracing::warn!(
                "a peer was stopped while it wrote to memory from mwMemAlloc, which is shared no more"
            );
            if let Err(e) = region::detach(shares.to.wrapping_add(at), len) {
                tracing::error!("taking memory from a peer that was stopped: {e}");
            }
            return;
        }
    }
}

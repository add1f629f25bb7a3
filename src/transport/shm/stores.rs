//! How bytes get into the ring: with ordinary stores, or past the caches.
//!
//! An ordinary store has to take the cache line from the reader's processor first, which read it a lap ago; one past
//! the caches has not, but the reader finds the bytes in memory. So the former is for bytes that the reader waits for.
//! While it is still busy with those before, the sender is what holds the two up, and the latter cost it half as much
//! where the two processors share a cache, and a fifth where they do not: it measures both.

use super::contest::Contest;
use crate::sys::copy;
use std::time::Instant;

/// Fewer bytes are always stored in the ordinary way.
const LEAST: usize = 2 << 10;
/// So many and more, too: they go on around the ring, where no line is in the reader's cache any more.
const MOST: usize = 8 << 10;
/// One copy in so many is measured while nothing is being tried.
const SAMPLE: u32 = 8;
/// Bytes of a trial: twice around the ring, because ordinary stores are at their best only where others have been
/// before them.
const TRIAL: usize = 4 << 20;

/// See the module's documentation.
#[derive(Debug)]
pub struct Stores {
    /// The second contestant is the way past the caches.
    contest: Contest,
    copies: u32,
}

impl Default for Stores {
    fn default() -> Stores {
        Stores { contest: Contest::new(false), copies: 0 }
    }
}

impl Stores {
    /// `dst = src`, seen by whoever is told afterwards. `busy` says that the reader is still busy with earlier bytes.
    ///
    /// # Safety
    /// `len` readable bytes at `src` and writable ones at `dst`, which do not overlap.
    #[inline]
    pub unsafe fn copy(&mut self, dst: *mut u8, src: *const u8, len: usize, busy: bool) {
        if !(LEAST..MOST).contains(&len) || !busy {
            // SAFETY: by this function's contract.
            return unsafe { std::ptr::copy_nonoverlapping(src, dst, len) };
        }
        // SAFETY: by this function's contract.
        unsafe { self.compete(dst, src, len) }
    }

    /// # Safety
    /// As for [`Stores::copy`].
    unsafe fn compete(&mut self, dst: *mut u8, src: *const u8, len: usize) {
        let past = self.contest.next();
        self.copies = self.copies.wrapping_add(1);
        // Reading the clock twice is a tenth of what a short copy costs.
        let since = (self.contest.is_on_trial() || self.copies.is_multiple_of(SAMPLE)).then(Instant::now);
        // SAFETY: by this function's contract.
        unsafe {
            if past {
                copy::copy_streaming(dst, src, len);
            } else {
                std::ptr::copy_nonoverlapping(src, dst, len);
            }
        }
        if let Some(since) = since {
            let cost = since.elapsed().as_nanos() as f32 / len as f32;
            self.contest.record(past, cost, u32::try_from(TRIAL / len).unwrap_or(u32::MAX));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_bytes_arrive_whatever_is_being_tried() {
        let mut stores = Stores::default();
        let src: Vec<u8> = (0..40_000u32).map(|i| ((i * 31) >> 3) as u8).collect();
        for i in 0..2000 {
            let (len, at) = ([1, LEAST - 1, LEAST, 5000, 8192, 33_000][i % 6], i % 7);
            let mut dst = vec![0u8; len + 8];
            // SAFETY: both are long enough.
            unsafe { stores.copy(dst.as_mut_ptr().add(at), src.as_ptr(), len, i % 3 == 0) };
            assert!(
                dst[at..at + len] == src[..len] && dst[..at].iter().chain(&dst[at + len..]).all(|b| *b == 0)
            );
        }
    }
}

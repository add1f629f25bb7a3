//! Bells: how a thread that waits for messages is woken, by a thread of any process.
//!
//! A bell is one word of memory that may be shared. Its two low bits say that somebody sleeps and how; the rest
//! counts rings. The protocol is an eventcount:
//!
//! 1. A sleeper arms the bell, then looks once more for what it waits for, then sleeps only if the word is still
//!    what arming returned.
//! 2. A ringer first publishes what the sleeper waits for, then looks at the bits. With a sequentially
//!    consistent fence on both sides (arming is one), either the sleeper sees what was published or the ringer
//!    sees the bit: a wake-up is never lost.
//! 3. Ringing clears the bits, so a busy sender pays for one wake-up per sleep, and for a load otherwise.
//!
//! A sleeper that also waits for sockets sleeps in epoll, and is woken through its process's doorbell (an eventfd
//! that the peers on the machine were given).

use super::futex;
use crate::sync::atomic::{AtomicU32, Ordering, fence};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

/// How a sleeper sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Mode {
    /// In a futex wait on the bell itself.
    Futex = 1,
    /// In epoll, with the process's doorbell among the descriptors.
    Poll = 2,
}

const BITS: u32 = 3;

/// Announces a sleeper; returns what to pass to [`sleep`].
pub fn arm(word: &AtomicU32, mode: Mode) -> u32 {
    // SeqCst: the sleeper's side of the fence pair in `ring` (invariant 2).
    let seen = word.fetch_or(mode as u32, Ordering::SeqCst) | mode as u32;
    fence(Ordering::SeqCst);
    seen
}

/// Sleeps until the bell rings, at most for `timeout`; returns at once if it has rung since `armed`.
pub fn sleep(word: &AtomicU32, armed: u32, timeout: Duration) {
    futex::wait(word, armed, timeout);
}

/// Whether the bell has not rung since `armed` (another sleeper may have joined).
pub fn is_silent(word: &AtomicU32, armed: u32) -> bool {
    // SeqCst: ordered after `arm`.
    word.load(Ordering::SeqCst) & !BITS == armed & !BITS
}

/// Wakes whoever sleeps. Everything the caller wrote before is seen by those it wakes, and by those who are about
/// to fall asleep.
#[inline]
pub fn ring(word: &AtomicU32, doorbell: Option<BorrowedFd<'_>>) {
    // The ringer's side of the pair with `arm` (invariant 2).
    fence(Ordering::SeqCst);
    if word.load(Ordering::Relaxed) & BITS != 0 {
        ring_slowly(word, doorbell);
    }
}

#[cold]
fn ring_slowly(word: &AtomicU32, doorbell: Option<BorrowedFd<'_>>) {
    let mut seen = word.load(Ordering::Relaxed);
    while seen & BITS != 0 {
        let rung = (seen & !BITS).wrapping_add(BITS + 1);
        // Release: pairs with the sleeper's next look at the word.
        match word.compare_exchange(seen, rung, Ordering::AcqRel, Ordering::Relaxed) {
            Ok(_) => {
                if seen & Mode::Futex as u32 != 0 {
                    futex::wake_all(word);
                }
                if seen & Mode::Poll as u32 != 0
                    && let Some(fd) = doorbell
                {
                    push(fd);
                }
                return;
            }
            Err(now) => seen = now,
        }
    }
}

/// Pushes a doorbell. The counter is never read back: sleepers watch it edge-triggered, each through an epoll
/// instance of its own, so that one sleeper cannot swallow another's wake-up.
pub fn push(doorbell: BorrowedFd<'_>) {
    let one = 1u64.to_ne_bytes();
    // SAFETY: eight readable bytes. It can only fail when the counter is about to overflow, and then the
    // descriptor is readable anyway.
    unsafe { libc::write(doorbell.as_raw_fd(), one.as_ptr().cast(), one.len()) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::Arc;
    use crate::sync::atomic::AtomicBool;

    #[test]
    fn no_wake_up_is_lost() {
        let word = Arc::new(AtomicU32::new(0));
        let flag = Arc::new(AtomicBool::new(false));
        let (w, f) = (word.clone(), flag.clone());
        let rounds = 2000;
        let sleeper = std::thread::spawn(move || {
            for _ in 0..rounds {
                loop {
                    let armed = arm(&w, Mode::Futex);
                    if f.swap(false, Ordering::AcqRel) {
                        break;
                    }
                    sleep(&w, armed, Duration::from_secs(60));
                }
            }
        });
        for _ in 0..rounds {
            while flag.load(Ordering::Acquire) {
                std::thread::yield_now();
            }
            flag.store(true, Ordering::Release);
            ring(&word, None);
        }
        sleeper.join().unwrap();
    }
}

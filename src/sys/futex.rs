//! Futexes on shared memory.

use crate::sync::atomic::AtomicU32;
use std::io;
use std::time::Duration;

/// Most words that one [`wait_many`] takes.
pub const WAIT_MANY_MAX: usize = 128;

/// Bit of a robust word whose owner has died.
pub const OWNER_DIED: u32 = libc::FUTEX_OWNER_DIED;
/// Bit of a robust word that has somebody waiting.
pub const WAITERS: u32 = libc::FUTEX_WAITERS;

fn timespec(t: Duration) -> libc::timespec {
    libc::timespec {
        tv_sec: libc::time_t::try_from(t.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: t.subsec_nanos() as _,
    }
}

/// Sleeps while `word` holds `expected`, at most for `timeout`. Wakes spuriously.
pub fn wait(word: &AtomicU32, expected: u32, timeout: Duration) {
    let ts = timespec(timeout);
    // SAFETY: the word is valid for the whole call and `ts` is a valid timespec. Every outcome (woken, changed
    // already, timed out, interrupted) means the same to the caller: look again.
    unsafe {
        libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, expected, &ts, 0usize, 0u32);
    }
}

/// Wakes everybody who sleeps on `word`.
pub fn wake_all(word: &AtomicU32) {
    // SAFETY: the word is valid for the whole call.
    unsafe {
        libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, i32::MAX, 0usize, 0usize, 0u32);
    }
}

#[repr(C)]
struct Waiter {
    val: u64,
    uaddr: u64,
    flags: u32,
    reserved: u32,
}

/// Sleeps while every word holds its expected value, at most for `timeout`. `Err` when the kernel has no
/// `futex_waitv` (older than 5.16) or a sandbox forbids it.
pub fn wait_many(words: &[(&AtomicU32, u32)], timeout: Duration) -> io::Result<()> {
    const FUTEX2_SIZE_U32: u32 = 2;
    let waiters: Vec<Waiter> = words
        .iter()
        .take(WAIT_MANY_MAX)
        .map(|(word, expected)| Waiter {
            val: u64::from(*expected),
            uaddr: word.as_ptr() as u64,
            flags: FUTEX2_SIZE_U32,
            reserved: 0,
        })
        .collect();
    // The timeout of this call is a point in time, unlike FUTEX_WAIT's.
    let until =
        super::clock::monotonic_ns().saturating_add(timeout.as_nanos().min(u128::from(u64::MAX / 2)) as u64);
    let ts = timespec(Duration::from_nanos(until));
    // SAFETY: the waiters point to words that are borrowed for the whole call; `ts` is a valid timespec.
    let rc = unsafe {
        libc::syscall(
            libc::SYS_futex_waitv,
            waiters.as_ptr(),
            waiters.len() as libc::c_uint,
            0u32,
            &ts,
            libc::CLOCK_MONOTONIC,
        )
    };
    if rc >= 0 {
        return Ok(());
    }
    let err = io::Error::last_os_error();
    match err.raw_os_error() {
        Some(libc::EAGAIN | libc::EINTR | libc::ETIMEDOUT) => Ok(()),
        _ => Err(err),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::Arc;
    use crate::sync::atomic::Ordering;

    #[test]
    fn wait_returns_on_change_wake_and_timeout() {
        let word = Arc::new(AtomicU32::new(1));
        wait(&word, 0, Duration::from_secs(60));
        wait(&word, 1, Duration::from_millis(1));
        let w = word.clone();
        let t = std::thread::spawn(move || {
            while w.load(Ordering::Acquire) == 1 {
                wait(&w, 1, Duration::from_secs(60));
            }
        });
        word.store(2, Ordering::Release);
        wake_all(&word);
        t.join().unwrap();
    }

    #[test]
    fn wait_many_sees_any_of_them() {
        let words = [AtomicU32::new(0), AtomicU32::new(0), AtomicU32::new(7)];
        let expect: Vec<_> = words.iter().map(|w| (w, 0)).collect();
        if let Err(e) = wait_many(&expect, Duration::from_secs(60)) {
            eprintln!("skipped: futex_waitv: {e}");
        }
    }
}

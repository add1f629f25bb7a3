//! A lock for calls into foreign code that somebody makes millions of times a second and hardly anybody else at the
//! same time: one atomic exchange to take it, a plain store to give it back. Whoever must wait polls, because a lock
//! that knows who waits for it costs its holder another exchange.

use std::cell::UnsafeCell;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Turns of spinning before sleeping.
const SPINS: u32 = 100;
/// Between looks.
const NAP: Duration = Duration::from_micros(50);

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Lock<T> {
    held: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: the value is reached only through a guard, and there is one guard at a time.
unsafe impl<T: Send> Sync for Lock<T> {}

/// The right to use the value.
#[derive(Debug)]
pub struct Guard<'a, T>(&'a Lock<T>);

impl<T> Lock<T> {
    /// A lock that nobody has.
    pub const fn new(value: T) -> Lock<T> {
        Lock { held: AtomicBool::new(false), value: UnsafeCell::new(value) }
    }

    /// The lock, if nobody has it.
    #[inline]
    pub fn try_lock(&self) -> Option<Guard<'_, T>> {
        // Acquire: pairs with the store in `drop`, so that the next holder sees what the last one did.
        let taken = self.held.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed);
        // Not `then_some`: a guard that is made and dropped gives the lock back, whoever has it.
        taken.is_ok().then(|| Guard(self))
    }

    /// Waits for the lock for a while.
    pub fn try_lock_for(&self, limit: Duration) -> Option<Guard<'_, T>> {
        let until = Instant::now() + limit;
        let mut turns = 0;
        loop {
            if !self.is_locked()
                && let Some(guard) = self.try_lock()
            {
                return Some(guard);
            }
            turns += 1;
            if turns < SPINS {
                std::hint::spin_loop();
                continue;
            }
            if Instant::now() >= until {
                return None;
            }
            std::thread::sleep(NAP);
        }
    }

    /// Whether somebody has it just now.
    pub fn is_locked(&self) -> bool {
        self.held.load(Ordering::Relaxed)
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: this is the only guard.
        unsafe { &*self.0.value.get() }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: this is the only guard, and it is borrowed exclusively.
        unsafe { &mut *self.0.value.get() }
    }
}

impl<T> Drop for Guard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        // Release: pairs with `try_lock`.
        self.0.held.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time() {
        let lock = Lock::new(0u64);
        std::thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| {
                    for _ in 0..10_000 {
                        let mut value = lock.try_lock_for(Duration::from_secs(60)).unwrap();
                        let seen = *value;
                        *value = seen + 1;
                    }
                });
            }
        });
        assert_eq!(*lock.try_lock().unwrap(), 40_000);
        let held = lock.try_lock().unwrap();
        assert!(lock.is_locked() && lock.try_lock().is_none());
        assert!(lock.try_lock_for(Duration::from_millis(5)).is_none());
        drop(held);
        assert!(lock.try_lock_for(Duration::ZERO).is_some());
    }
}

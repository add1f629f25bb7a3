//! One launch at a time on a device.
//!
//! NCCL calls it unsafe to issue from several threads to communicators of one device, and wants the same launch order
//! on all ranks. Taking turns keeps one launch from being mixed into another. Whoever hangs in NCCL while it has its
//! turn loses it: the other worlds of the device must not wait for a broken one.

use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::sync::light::{Guard, Lock};
use crate::sync::{Mutex, OnceLock};
use std::collections::HashMap;
use std::time::Duration;

/// A launch that takes longer hangs; none takes a hundredth of it.
const PATIENCE: Duration = Duration::from_millis(100);

/// The turns of one device.
#[derive(Debug, Default)]
pub struct Order {
    turn: Lock<()>,
    /// Communicators on the device: one alone keeps its own order.
    members: AtomicUsize,
    /// Somebody waited in vain for the present turn to end. No clock is read on the way of those who need not wait.
    hangs: AtomicBool,
}

/// A turn; `None` inside when it was not waited for.
#[derive(Debug)]
pub struct Turn<'a>(Option<(&'a Order, Guard<'a, ()>)>);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Some((order, _)) = &self.0
            && order.hangs.load(Ordering::Relaxed)
        {
            order.hangs.store(false, Ordering::Relaxed);
        }
    }
}

impl Order {
    /// The turns of a device of this process. Where there is none, nothing is launched that could be mixed up: those
    /// turns are shared by all and waited for by nobody.
    pub fn of(device: Option<i32>) -> &'static Order {
        static ALL: OnceLock<Mutex<HashMap<Option<i32>, &'static Order>>> = OnceLock::new();
        ALL.get_or_init(Mutex::default).lock().entry(device).or_insert_with(|| Box::leak(Box::default()))
    }

    /// A communicator comes to the device.
    pub fn enter(&self) {
        self.members.fetch_add(1, Ordering::Relaxed);
    }

    /// A communicator leaves the device.
    pub fn leave(&self) {
        self.members.fetch_sub(1, Ordering::Relaxed);
    }

    /// Waits for a turn, but not for somebody who hangs. A communicator that is alone need not wait at all.
    #[inline]
    pub fn turn(&self) -> Turn<'_> {
        self.turn_now().unwrap_or_else(|| self.wait())
    }

    /// A turn, if it has not to be waited for.
    #[inline]
    pub fn turn_now(&self) -> Option<Turn<'_>> {
        if self.members.load(Ordering::Relaxed) < 2 {
            return Some(Turn(None));
        }
        Some(Turn(Some((self, self.turn.try_lock()?))))
    }

    #[cold]
    fn wait(&self) -> Turn<'_> {
        if self.hangs.load(Ordering::Relaxed) {
            return Turn(None);
        }
        let guard = self.turn.try_lock_for(PATIENCE);
        self.hangs.store(guard.is_none(), Ordering::Relaxed);
        Turn(guard.map(|guard| (self, guard)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn turns_exclude_each_other_and_who_hangs_loses_his() {
        let order = Order::default();
        order.enter();
        assert!(order.turn().0.is_none(), "alone");
        order.enter();
        let mine = order.turn();
        assert!(mine.0.is_some());
        let start = Instant::now();
        assert!(order.turn().0.is_none());
        assert!(start.elapsed() >= PATIENCE);
        // From now on it is known to hang.
        let start = Instant::now();
        for _ in 0..100 {
            assert!(order.turn().0.is_none());
        }
        assert!(start.elapsed() < 50 * PATIENCE);
        drop(mine);
        assert!(order.turn().0.is_some());
        assert!(order.turn().0.is_some());
        assert!(std::ptr::eq(Order::of(Some(3)), Order::of(Some(3))));
        assert!(!std::ptr::eq(Order::of(Some(3)), Order::of(None)));
    }
}

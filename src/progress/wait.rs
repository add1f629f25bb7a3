//! Waiting: spin, then yield, then sleep.
//!
//! Whoever waits drives. Spinning wins when the peer answers within microseconds; yielding lets a peer run that
//! shares the processor; sleeping costs a wake-up (tens of microseconds) and no processor.

use crate::sync::atomic::AtomicU32;
use crate::sys::sleeper::{self, Interest};
use crate::sys::{bell, process};
use std::time::{Duration, Instant};

/// Turns of pure spinning.
const SPINS: u32 = 200;
/// How long to go on yielding before sleeping.
const YIELD: Duration = Duration::from_micros(60);
/// Turns of a wait that never gets idle after which deadlines are looked at all the same.
const BUSY: u32 = 256;
/// Longest sleep: a second line of defence, not a mechanism.
const NAP: Duration = Duration::from_secs(1);

/// Something that can be driven towards completion: a world.
pub trait Driver {
    /// Moves what can be moved without blocking; answers whether anything did.
    fn drive(&self) -> bool;
    /// Looks at deadlines. Called before sleeping, not on every turn.
    fn tick(&self, now: Instant);
    /// The bell that is rung when there may be something to drive.
    fn bell(&self) -> &AtomicU32;
    /// Sockets that may make progress possible.
    fn interests(&self, out: &mut Vec<Interest>);
    /// When `tick` wants to be called next.
    fn deadline(&self) -> Option<Instant>;
}

/// Drives until `done` or until the time is up. Answers whether it is done.
pub fn until(drivers: &[&dyn Driver], done: &dyn Fn() -> bool, limit: Option<Instant>) -> bool {
    let (mut idle, mut busy) = (0u32, 0u32);
    let mut idle_since = None;
    loop {
        let mut moved = false;
        for d in drivers {
            moved |= d.drive();
        }
        if done() {
            return true;
        }
        if moved {
            idle = 0;
            idle_since = None;
            busy += 1;
            if busy == BUSY {
                // What moves may be other threads' operations, for ever.
                busy = 0;
                let now = Instant::now();
                if limit.is_some_and(|l| now >= l) {
                    return false;
                }
                for d in drivers {
                    d.tick(now);
                }
            }
            continue;
        }
        idle += 1;
        if idle < SPINS {
            std::hint::spin_loop();
            continue;
        }
        let now = Instant::now();
        if limit.is_some_and(|l| now >= l) {
            return false;
        }
        if now.duration_since(*idle_since.get_or_insert(now)) < YIELD {
            process::yield_now();
            continue;
        }
        for d in drivers {
            d.tick(now);
        }
        sleep(drivers, done, limit, now);
        // After a wake-up there is something to do, or soon will be.
        idle = SPINS / 2;
        idle_since = None;
    }
}

fn sleep(drivers: &[&dyn Driver], done: &dyn Fn() -> bool, limit: Option<Instant>, now: Instant) {
    let mut interests = Vec::new();
    let mut nap = NAP;
    for d in drivers {
        d.interests(&mut interests);
        for t in [d.deadline(), limit].into_iter().flatten() {
            nap = nap.min(t.saturating_duration_since(now));
        }
    }
    // A deadline that has just passed is `tick`'s; never turn it into a busy loop.
    let nap = nap.max(Duration::from_micros(50));
    match drivers {
        [one] if interests.is_empty() => {
            let armed = bell::arm(one.bell(), bell::Mode::Futex);
            if !one.drive() && !done() {
                bell::sleep(one.bell(), armed, nap);
            }
        }
        many => {
            for d in many {
                bell::arm(d.bell(), bell::Mode::Poll);
            }
            let mut moved = false;
            for d in many {
                moved |= d.drive();
            }
            if moved || done() {
                return;
            }
            if let Err(e) = sleeper::sleep(&interests, nap) {
                // Out of descriptors, say: waiting costs more, but goes on.
                tracing::debug!("sleeping without descriptors: {e}");
                std::thread::sleep(nap.min(Duration::from_millis(1)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    /// A world in which other threads' operations always move.
    struct Restless {
        bell: AtomicU32,
        ticks: Cell<u32>,
    }

    impl Driver for Restless {
        fn drive(&self) -> bool {
            true
        }

        fn tick(&self, _now: Instant) {
            self.ticks.set(self.ticks.get() + 1);
        }

        fn bell(&self) -> &AtomicU32 {
            &self.bell
        }

        fn interests(&self, _out: &mut Vec<Interest>) {}

        fn deadline(&self) -> Option<Instant> {
            None
        }
    }

    #[test]
    fn a_wait_that_is_never_idle_keeps_its_limit() {
        let world = Restless { bell: AtomicU32::new(0), ticks: Cell::new(0) };
        let limit = Instant::now() + Duration::from_millis(10);
        assert!(!until(&[&world], &|| Instant::now() > limit + Duration::from_secs(5), Some(limit)));
        assert!(world.ticks.get() > 0);
    }
}

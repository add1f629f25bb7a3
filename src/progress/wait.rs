//! Waiting: spin, then yield, then sleep.
//!
//! Whoever waits drives. Spinning wins when the peer answers within microseconds; yielding lets a peer run that
//! shares the processor; sleeping costs a wake-up (tens of microseconds) and no processor.
//!
//! How long to spin before yielding depends on who gets the processor then, which a thread learns from how long
//! its yields last (`Patience`). Is it the peer, then the sooner the better; is it somebody who keeps it for a
//! whole time slice, then yielding is the last resort.

use crate::sync::atomic::AtomicU32;
use crate::sys::sleeper::{self, Interest};
use crate::sys::{bell, process};
use std::cell::Cell;
use std::time::{Duration, Instant};

/// Turns of pure spinning, unless they last longer than the thread's patience.
const SPINS: u32 = 200;
/// Turns of spinning between looks at the clock.
const LOOK: u32 = 8;
/// How long to look for what those who are at work will answer.
const PROMISING: Duration = Duration::from_micros(3);
/// How long to go on yielding before sleeping.
const YIELD: Duration = Duration::from_micros(60);
/// The same where sockets are waited for: being woken from there costs more, and often the scheduler then puts
/// the sleeper on the waker's processor, where the two get into each other's way for a while.
const YIELD_ON_SOCKETS: Duration = Duration::from_micros(200);
/// Turns of a wait that never gets idle after which deadlines are looked at all the same.
const BUSY: u32 = 256;
/// Longest sleep: a second line of defence, not a mechanism.
const NAP: Duration = Duration::from_secs(1);

thread_local! {
    static PATIENCE: Cell<Duration> = const { Cell::new(Patience::FIRST) };
}

/// How long the calling thread spins before it yields.
struct Patience;

impl Patience {
    const FIRST: Duration = Duration::from_micros(10);
    const LEAST: Duration = Duration::from_micros(1);
    const MOST: Duration = Duration::from_micros(50);
    /// A yield after which there is something to do was to the peer, unless it lasted longer than this.
    const SHORT: Duration = Duration::from_micros(100);
    /// Nobody whose messages are small works for so long.
    const LONG: Duration = Duration::from_micros(500);

    fn get() -> Duration {
        PATIENCE.try_with(Cell::get).unwrap_or(Patience::FIRST)
    }

    fn set(patience: Duration) {
        // A thread that is ending learns nothing any more.
        let _ending = PATIENCE.try_with(|p| p.set(patience));
    }

    /// A yield took `lasted`, and `moved` says whether there was something to do after it.
    fn learn(lasted: Duration, moved: bool) {
        if lasted >= Patience::LONG {
            Patience::set(Patience::MOST);
        } else if moved && lasted >= Patience::LEAST && lasted < Patience::SHORT {
            Patience::set((Patience::get() / 2).max(Patience::LEAST));
        }
    }
}

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
    /// Whether those who are waited for may have to share processors with whoever waits.
    fn is_crowded(&self) -> bool {
        false
    }
    /// Whether all who are waited for are at work themselves, as far as that is known.
    fn is_promising(&self) -> bool {
        false
    }
    /// The calling thread gives its processor away, or has got it back. Not called unless it is crowded.
    fn rest(&self, _resting: bool) {}
    /// When `tick` wants to be called next.
    fn deadline(&self) -> Option<Instant>;
}

/// Drives until `done` or until the time is up. Answers whether it is done.
pub fn until(drivers: &[&dyn Driver], done: &dyn Fn() -> bool, limit: Option<Instant>) -> bool {
    let (mut idle, mut busy) = (0u32, 0u32);
    let mut idle_since = None;
    // Who keeps the processor keeps the one he waits for from running.
    let is_crowded = drivers.iter().any(|d| d.is_crowded());
    let spins = if is_crowded { 0 } else { SPINS };
    let rest = |resting| {
        if is_crowded {
            drivers.iter().for_each(|d| d.rest(resting));
        }
    };
    let mut yielded = None;
    let mut interests = Vec::new();
    loop {
        let mut moved = false;
        for d in drivers {
            moved |= d.drive();
        }
        if let Some(lasted) = yielded.take() {
            Patience::learn(lasted, moved);
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
        if idle < spins && !idle.is_multiple_of(LOOK) {
            std::hint::spin_loop();
            continue;
        }
        let now = Instant::now();
        let waited = now.duration_since(*idle_since.get_or_insert(now));
        if idle < spins && waited < Patience::get() {
            continue;
        }
        // Those who are at work have a processor, and will answer sooner than a yield comes back. It is not certain:
        // they may have lost it, or be busy with something else.
        if is_crowded && waited < PROMISING && drivers.iter().all(|d| d.is_promising()) {
            std::hint::spin_loop();
            continue;
        }
        // Past spinning, until something moves.
        idle = SPINS;
        if limit.is_some_and(|l| now >= l) {
            return false;
        }
        if waited < YIELD || (waited < YIELD_ON_SOCKETS && on_sockets(drivers, &mut interests)) {
            rest(true);
            process::yield_now();
            rest(false);
            yielded = Some(now.elapsed());
            continue;
        }
        for d in drivers {
            d.tick(now);
        }
        rest(true);
        sleep(drivers, done, limit, now, &mut interests);
        rest(false);
        // After a wake-up there is something to do, or soon will be.
        idle = SPINS / 2;
        idle_since = None;
    }
}

/// Whether sockets are waited for; which, says `interests`.
fn on_sockets(drivers: &[&dyn Driver], interests: &mut Vec<Interest>) -> bool {
    interests.clear();
    for d in drivers {
        d.interests(interests);
    }
    !interests.is_empty()
}

fn sleep(
    drivers: &[&dyn Driver],
    done: &dyn Fn() -> bool,
    limit: Option<Instant>,
    now: Instant,
    interests: &mut Vec<Interest>,
) {
    let on_sockets = on_sockets(drivers, interests);
    let mut nap = NAP;
    for d in drivers {
        for t in [d.deadline(), limit].into_iter().flatten() {
            nap = nap.min(t.saturating_duration_since(now));
        }
    }
    // A deadline that has just passed is `tick`'s; never turn it into a busy loop.
    let nap = nap.max(Duration::from_micros(50));
    match drivers {
        [one] if !on_sockets => {
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
            if let Err(e) = sleeper::sleep(interests, nap) {
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

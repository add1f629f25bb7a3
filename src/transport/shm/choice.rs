//! Which way long messages take: through the ring, copied by both sides at the same time, or straight from the sender's
//! memory by the receiver alone.
//!
//! Neither wins everywhere: it depends on the size, on whether the buffers are in a cache, on how far apart the two
//! processors are just now and on what the kernel asks for each page. So the receiver, whose time it costs, measures:
//! there is a [`Contest`] for each class of sizes. All worlds between the same two processes share what they find out.

use super::contest::Contest;
use crate::sync::light::Lock;
use crate::sync::{Arc, Mutex, Weak};

/// A way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Two copies, side by side.
    Ring = 0,
    /// One copy, by the receiver.
    Direct = 1,
}

/// Classes of sizes.
pub const CLASSES: usize = 6;
/// The first class ends here, each further one at four times as much.
const FIRST: usize = 64 << 10;
/// Bits between what is to be done and whether it is a trial.
const TRIAL: usize = 16;
/// Messages of a trial that are announced and unread at a time.
const TRIAL_UNREAD: u64 = 2;
/// From this class on messages are so long that measuring them costs nothing.
pub const LARGE: usize = 2;

/// The class of a message.
#[inline]
pub fn class_of(len: usize) -> usize {
    let quarters = (len / FIRST).checked_ilog2().map_or(0, |n| n as usize / 2 + 1);
    quarters.min(CLASSES - 1)
}

/// Whether the way that these bits say a message is to take is only being tried.
#[inline]
pub fn is_trial(bits: u32, len: usize) -> bool {
    bits >> (class_of(len) + TRIAL) & 1 == 1
}

/// Whether a message is to go [`Way::Direct`] by these bits, when `unread` others have been announced and not been read.
/// Announcing waits for nothing: without a bound a window full of messages would be part of every trial.
#[inline]
pub fn is_direct(bits: u32, len: usize, unread: u64) -> bool {
    bits >> class_of(len) & 1 == 1 && (unread < TRIAL_UNREAD || !is_trial(bits, len))
}

/// See the module's documentation.
#[derive(Clone, Copy, Debug)]
pub struct Choice {
    /// The first contestant is [`Way::Ring`], the second [`Way::Direct`].
    classes: [Contest; CLASSES],
}

impl Default for Choice {
    fn default() -> Choice {
        Choice { classes: [Contest::new(false); CLASSES] }
    }
}

impl Choice {
    /// That of all connections from a process.
    pub fn of(process: u32) -> Arc<Lock<Choice>> {
        static ALL: Mutex<Vec<(u32, Weak<Lock<Choice>>)>> = Mutex::new(Vec::new());
        let mut all = ALL.lock();
        if let Some(found) = all.iter().find(|(p, _)| *p == process).and_then(|(_, choice)| choice.upgrade())
        {
            return found;
        }
        all.retain(|(_, choice)| choice.strong_count() > 0);
        let new = Arc::new(Lock::new(Choice::default()));
        all.push((process, Arc::downgrade(&new)));
        new
    }

    /// What the sender has to know, for [`is_direct`]: a bit for each class that is set for [`Way::Direct`], and
    /// [`TRIAL`] bits further one that says whether this is only being tried.
    pub fn bits(&self) -> u32 {
        let bits = |(at, c): (usize, &Contest)| {
            u32::from(c.next()) << at | u32::from(c.is_on_trial()) << (at + TRIAL)
        };
        self.classes.iter().enumerate().map(bits).sum()
    }

    /// What a message cost, in nanoseconds per byte.
    pub fn record(&mut self, len: usize, way: Way, cost: f32) {
        let at = class_of(len);
        let Some(c) = self.classes.get_mut(at) else { return };
        // Trials of still longer messages are short: each costs.
        let trial = if at > LARGE { 4 } else { 8 };
        c.record(way == Way::Direct, cost, trial);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs messages of a class at these costs; answers how many took each way.
    fn run(choice: &mut Choice, len: usize, messages: u32, cost: [f32; 2]) -> [u32; 2] {
        let mut taken = [0; 2];
        for _ in 0..messages {
            let way = if choice.bits() >> class_of(len) & 1 == 1 { Way::Direct } else { Way::Ring };
            taken[way as usize] += 1;
            choice.record(len, way, cost[way as usize]);
        }
        taken
    }

    #[test]
    fn classes_are_quarters() {
        let classes = [0, FIRST - 1, FIRST, 4 * FIRST - 1, 4 * FIRST, 16 * FIRST, usize::MAX].map(class_of);
        assert_eq!(classes, [0, 0, 1, 1, 2, 3, CLASSES - 1]);
    }

    #[test]
    fn the_cheaper_way_is_found_and_the_other_one_tried_ever_more_rarely() {
        for len in [20 << 10, 1 << 20, 64 << 20] {
            let mut choice = Choice::default();
            let [ring, direct] = run(&mut choice, len, 1000, [1.0, 3.0]);
            assert!(direct < 60 && ring > 940, "{ring} {direct}");
            // Things change.
            let [ring, direct] = run(&mut choice, len, 9000, [4.0, 3.0]);
            assert!(direct > 4000, "{ring} {direct}");
        }
    }

    #[test]
    fn few_messages_at_a_time_are_part_of_a_trial() {
        let (mut choice, len) = (Choice::default(), 1 << 20);
        while !is_trial(choice.bits(), len) {
            assert!(!is_direct(choice.bits(), len, 0));
            choice.record(len, Way::Ring, 3.0);
        }
        let unread = |choice: &Choice| [0, 1, 2, 100].map(|unread| is_direct(choice.bits(), len, unread));
        assert_eq!(unread(&choice), [true, true, false, false]);
        while is_trial(choice.bits(), len) {
            choice.record(len, Way::Direct, 1.0);
        }
        assert_eq!(unread(&choice), [true; 4]);
    }

    #[test]
    fn one_slow_message_changes_nothing() {
        let mut choice = Choice::default();
        let len = 1 << 20;
        run(&mut choice, len, 100, [1.0, 3.0]);
        let before = choice.bits();
        choice.record(len, Way::Ring, 10_000.0);
        assert_eq!(choice.bits(), before);
    }
}

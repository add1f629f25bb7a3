//! Which way long messages take: through the ring, copied by both sides at the same time, or straight from the sender's
//! memory by the receiver alone.
//!
//! Neither wins everywhere: it depends on the size, on whether the buffers are in a cache, on how far apart the two
//! processors are just now and on what the kernel asks for each page. So the receiver, whose time it costs, measures:
//! for each class of sizes it knows what either way has cost lately, prefers the better one, and tries the other one
//! now and then, the more rarely the more often that was in vain.

/// A way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Two copies, side by side.
    Ring = 0,
    /// One copy, by the receiver.
    Direct = 1,
}

impl Way {
    fn other(self) -> Way {
        match self {
            Way::Ring => Way::Direct,
            Way::Direct => Way::Ring,
        }
    }
}

/// Classes of sizes.
pub const CLASSES: usize = 6;
/// The first class ends here, each further one at four times as much.
const FIRST: usize = 64 << 10;
/// From this class on two copies are the better guess.
const LARGE: usize = 2;
/// Messages before the first trial of the other way, and the most between two trials.
const SOON: u32 = 16;
const SELDOM: u32 = 4096;
/// A measurement counts a quarter, and not as more than four times what was expected: threads lose their processors.
const WEIGHT: f32 = 0.25;
const OUTLIER: f32 = 4.0;

/// The class of a message.
#[inline]
pub fn class_of(len: usize) -> usize {
    let quarters = (len / FIRST).checked_ilog2().map_or(0, |n| n as usize / 2 + 1);
    quarters.min(CLASSES - 1)
}

/// What is known of one class.
#[derive(Clone, Copy, Debug)]
struct Class {
    preferred: Way,
    /// Nanoseconds per byte of the preferred way; 0 before it was measured.
    cost: f32,
    /// Messages until the next trial, and how many there are between two.
    left: u32,
    interval: u32,
    /// Messages that the trial under way has seen, and the least that one of them cost. The first half warms up what
    /// was not used for a while, and does not count.
    seen: u32,
    least: f32,
}

impl Class {
    fn new(preferred: Way) -> Class {
        Class { preferred, cost: 0.0, left: SOON, interval: SOON, seen: 0, least: f32::INFINITY }
    }

    fn next(&self) -> Way {
        if self.left == 0 { self.preferred.other() } else { self.preferred }
    }

    fn record(&mut self, way: Way, cost: f32, trial: u32) {
        if way == self.preferred {
            let least = if self.cost == 0.0 { cost } else { cost.min(self.cost * OUTLIER) };
            self.cost += (least - self.cost) * if self.cost == 0.0 { 1.0 } else { WEIGHT };
            self.left = self.left.saturating_sub(1);
            return;
        }
        if self.left > 0 {
            // A late one of the last trial.
            return;
        }
        self.seen += 1;
        if self.seen * 2 > trial {
            self.least = self.least.min(cost);
        }
        if self.seen < trial {
            return;
        }
        if self.least < self.cost {
            *self = Class { cost: self.least, ..Class::new(way) };
        } else {
            self.interval = (self.interval * 2).min(SELDOM);
            (self.left, self.seen, self.least) = (self.interval, 0, f32::INFINITY);
        }
    }
}

/// See the module's documentation.
#[derive(Clone, Copy, Debug)]
pub struct Choice {
    classes: [Class; CLASSES],
}

impl Default for Choice {
    fn default() -> Choice {
        let class = |at| Class::new(if at < LARGE { Way::Direct } else { Way::Ring });
        Choice { classes: std::array::from_fn(class) }
    }
}

impl Choice {
    /// The way that the next message of each class should take, one bit a class, set for [`Way::Direct`].
    pub fn bits(&self) -> u32 {
        let bit = |(at, c): (usize, &Class)| u32::from(c.next() == Way::Direct) << at;
        self.classes.iter().enumerate().map(bit).sum()
    }

    /// What a message cost. Answers whether [`Choice::bits`] has changed.
    pub fn record(&mut self, len: usize, way: Way, nanoseconds: u64) -> bool {
        let at = class_of(len);
        let Some(c) = self.classes.get_mut(at) else { return false };
        let before = c.next();
        // Trials of long messages are short: each costs.
        c.record(way, nanoseconds as f32 / len.max(1) as f32, if at > LARGE { 4 } else { 8 });
        c.next() != before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs messages of a class at these costs; answers how many took each way.
    fn run(choice: &mut Choice, len: usize, messages: u32, cost: [u64; 2]) -> [u32; 2] {
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
            let [ring, direct] = run(&mut choice, len, 1000, [100, 300]);
            assert!(direct < 60 && ring > 940, "{ring} {direct}");
            // Things change.
            let [ring, direct] = run(&mut choice, len, 9000, [400, 300]);
            assert!(direct > 4000, "{ring} {direct}");
        }
    }

    #[test]
    fn one_slow_message_changes_nothing() {
        let mut choice = Choice::default();
        let len = 1 << 20;
        run(&mut choice, len, 100, [100, 300]);
        let before = choice.bits();
        choice.record(len, Way::Ring, 1_000_000);
        assert_eq!(choice.bits(), before);
    }
}

//! Which of two ways to do the same costs less, found out while doing it.
//!
//! A contest knows what either way has cost lately, prefers the better one, and tries the other one now and then, the
//! more rarely the more often that was in vain.

/// Measurements before the first trial of the other way, and the most between two trials.
const SOON: u32 = 16;
const SELDOM: u32 = 4096;
/// A measurement counts a quarter, and not as more than half as much again as was expected: threads lose their processors.
const WEIGHT: f32 = 0.25;
const OUTLIER: f32 = 1.5;
/// A way that costs this many times as much is not going to win.
const HOPELESS: f32 = 2.0;

/// See the module's documentation. The ways are `false` and `true`.
#[derive(Clone, Copy, Debug)]
pub struct Contest {
    preferred: bool,
    /// Nanoseconds per byte of the preferred way; 0 before it was measured.
    cost: f32,
    /// Measurements until the next trial, and how many there are between two.
    left: u32,
    interval: u32,
    /// Measurements that the trial under way has seen, and the least of them. The first half warms up what was not used
    /// for a while, and does not count.
    seen: u32,
    least: f32,
}

impl Contest {
    /// A contest in which this way is the better guess.
    pub fn new(preferred: bool) -> Contest {
        Contest { preferred, cost: 0.0, left: SOON, interval: SOON, seen: 0, least: f32::INFINITY }
    }

    /// The way to take next.
    #[inline]
    pub fn next(&self) -> bool {
        self.preferred ^ self.is_on_trial()
    }

    /// Whether the other way is being tried, which wants every measurement.
    #[inline]
    pub fn is_on_trial(&self) -> bool {
        self.left == 0
    }

    /// What a way has cost, in nanoseconds per byte. A trial takes `trial` measurements.
    pub fn record(&mut self, way: bool, cost: f32, trial: u32) {
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
        let is_over = self.seen >= trial || (self.seen > 1 && cost > self.cost * HOPELESS);
        if is_over || self.seen * 2 > trial {
            self.least = self.least.min(cost);
        }
        if !is_over {
            return;
        }
        if self.least < self.cost {
            *self = Contest { cost: self.least, ..Contest::new(way) };
        } else {
            // What is far behind need not be tried again soon.
            let times = (self.least / self.cost).mul_add(4.0, -2.0).clamp(2.0, 16.0);
            self.interval = (self.interval * times as u32).min(SELDOM);
            (self.left, self.seen, self.least) = (self.interval, 0, f32::INFINITY);
        }
    }
}

//! Times of single iterations, and what they come to. Pure.

use std::time::Duration;

/// Times that are kept of one measurement; of more iterations every second, fourth, ... one is.
const KEPT: usize = 1 << 18;

/// A fixed number of samples, in nanoseconds, written without a branch on the number of iterations.
pub struct Samples {
    times: Vec<u32>,
    /// Which iterations are kept: those with none of these bits.
    skip: usize,
    seen: usize,
    /// Where the next one goes.
    next: usize,
}

impl Samples {
    /// Room for `iterations`, all of it touched, so that recording costs no page fault.
    pub fn new(iterations: u64) -> Samples {
        let wanted = iterations as usize;
        let stride = wanted.div_ceil(KEPT).next_power_of_two();
        // Not zero: zeroed memory would be mapped when it is first written.
        let times = vec![u32::MAX; wanted.div_ceil(stride)];
        Samples { times, skip: stride - 1, seen: 0, next: 0 }
    }

    /// Records the time of the next iteration; those that there is no room for are left out.
    #[inline]
    pub fn push(&mut self, time: Duration) {
        if self.seen & self.skip == 0
            && let Some(slot) = self.times.get_mut(self.next)
        {
            *slot = u32::try_from(time.as_nanos()).unwrap_or(u32::MAX);
            self.next += 1;
        }
        self.seen += 1;
    }

    /// Minimum, median and 99th percentile in microseconds; `None` without samples.
    pub fn spread(mut self) -> Option<Spread> {
        self.times.truncate(self.next);
        self.times.sort_unstable();
        let at = |quantile: f64| {
            let rank = (quantile * self.times.len() as f64).ceil() as usize;
            self.times.get(rank.saturating_sub(1)).map(|ns| f64::from(*ns) / 1e3)
        };
        Some(Spread { min: at(0.0)?, median: at(0.5)?, p99: at(0.99)? })
    }
}

/// How the times of single iterations lie, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub min: f64,
    pub median: f64,
    pub p99: f64,
}

/// What one rank measured, in microseconds per iteration.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    pub average: f64,
    pub spread: Spread,
}

impl Measured {
    /// Half of it: of a round trip that is one way.
    pub fn halved(self) -> Measured {
        let Spread { min, median, p99 } = self.spread;
        let spread = Spread { min: min / 2.0, median: median / 2.0, p99: p99 / 2.0 };
        Measured { average: self.average / 2.0, spread }
    }
}

/// The rank that took longest on average.
pub fn slowest(ranks: &[Measured]) -> Option<Measured> {
    ranks.iter().copied().max_by(|a, b| a.average.total_cmp(&b.average))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_samples() {
        let mut samples = Samples::new(200);
        (1..=200).rev().for_each(|us| samples.push(Duration::from_micros(us)));
        assert_eq!(samples.spread(), Some(Spread { min: 1.0, median: 100.0, p99: 198.0 }));
        let mut one = Samples::new(1);
        one.push(Duration::from_nanos(1500));
        assert_eq!(one.spread(), Some(Spread { min: 1.5, median: 1.5, p99: 1.5 }));
        assert_eq!(Samples::new(0).spread(), None);
    }

    #[test]
    fn many_iterations_are_thinned_out_evenly() {
        let n = 3 * KEPT as u64;
        let mut samples = Samples::new(n);
        assert_eq!(samples.times.len(), 3 * KEPT / 4);
        (0..n + 10).for_each(|ns| samples.push(Duration::from_nanos(ns)));
        let spread = samples.spread().unwrap();
        assert!(spread.min == 0.0 && (spread.median - n as f64 / 2e3).abs() < 0.1, "{spread:?}");
    }

    #[test]
    fn the_slowest_rank_counts() {
        let measured =
            |average| Measured { average, spread: Spread { min: average, median: average, p99: 1.0 } };
        assert_eq!(slowest(&[measured(1.0), measured(3.0), measured(2.0)]), Some(measured(3.0)));
        assert_eq!(slowest(&[]), None);
        assert_eq!(measured(4.0).halved().average, 2.0);
    }
}

//! How often an operation is carried out: as often as the user says, or as fits into a time. Pure.

use super::op::Op;
use std::time::Duration;

/// What bounds a measurement.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limit {
    /// So many iterations.
    Exactly(u64),
    /// A time, told by a short trial run, and no more iterations than `most`.
    Time { budget: Duration, most: Most },
}

/// The upper bound of a measurement by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Most {
    /// A million.
    Many,
    /// By size, divided by this: what comparisons with other libraries have agreed upon.
    Agreed { divisor: u64 },
}

/// Fewest iterations of a measurement by time.
const FEWEST: u64 = 3;

impl Limit {
    /// Iterations of the trial run, which is the warm-up, too.
    pub fn trial(self, op: Op, size: u64) -> u64 {
        (self.most(op, size) / 10).clamp(1, 20)
    }

    /// Iterations of the measurement, after a trial run of `trial` that took `took`.
    pub fn iterations(self, op: Op, size: u64, trial: u64, took: Duration) -> u64 {
        let Limit::Time { budget, most } = self else { return self.most(op, size) };
        let each = took.as_secs_f64() / trial.max(1) as f64;
        // A trial that took no time at all says "as many as are allowed": the cast saturates.
        let fit = (budget.as_secs_f64() / each) as u64;
        let largest = self.most(op, size);
        let least = if most == Most::Many || !op.is_bandwidth() { FEWEST } else { FEWEST.min(largest) };
        fit.clamp(least.min(largest), largest)
    }

    fn most(self, op: Op, size: u64) -> u64 {
        match self {
            Limit::Exactly(n) => n,
            Limit::Time { most: Most::Many, .. } => 1_000_000,
            Limit::Time { most: Most::Agreed { divisor }, .. } => {
                let least = if op.is_bandwidth() { 1 } else { FEWEST };
                (agreed(op, size) / divisor.max(1)).max(least)
            }
        }
    }
}

/// Most iterations up to 8 B, 4096 B, 40 kB, 400 kB, 4 MB, and above.
fn agreed(op: Op, size: u64) -> u64 {
    let table = match op {
        Op::SendRecv => [20_000, 10_000, 4_000, 800, 100, 8],
        Op::Bw => [2_000, 600, 120, 20, 4, 1],
        // Windows above 4 MB are an eighth as long.
        Op::Bwd => [2_000, 600, 120, 20, 4, 3],
        _ => [10_000, 5_000, 2_000, 400, 60, 6],
    };
    let bounds = [8, 4096, 40_000, 400_000, 4_000_000];
    table[bounds.iter().take_while(|bound| size > **bound).count()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agreed_in(seconds: f64) -> Limit {
        Limit::Time { budget: Duration::from_secs_f64(seconds), most: Most::Agreed { divisor: 1 } }
    }

    #[test]
    fn a_number_is_a_number() {
        let limit = Limit::Exactly(5);
        assert_eq!(limit.iterations(Op::AllReduce, 8, 1, Duration::from_secs(9)), 5);
        assert_eq!(limit.trial(Op::AllReduce, 8), 1);
        assert_eq!(Limit::Exactly(1000).trial(Op::AllReduce, 8), 20);
    }

    #[test]
    fn a_time_is_filled_within_bounds() {
        let each = |us: u64| Duration::from_micros(us * 20);
        let limit = agreed_in(0.5);
        assert_eq!(limit.trial(Op::SendRecv, 8), 20);
        assert_eq!(limit.iterations(Op::SendRecv, 8, 20, each(100)), 5000);
        assert_eq!(limit.iterations(Op::SendRecv, 8, 20, each(1)), 20_000);
        assert_eq!(limit.iterations(Op::SendRecv, 8, 20, each(1_000_000)), 3);
        assert_eq!(limit.iterations(Op::SendRecv, 8, 20, Duration::ZERO), 20_000);
        assert_eq!(limit.iterations(Op::Bw, 64_000_000, 1, each(1)), 1);
        assert_eq!(limit.iterations(Op::Bwd, 64_000_000, 1, each(100_000)), 3);
        assert_eq!(limit.iterations(Op::Bw, 4_000_000, 1, Duration::from_secs(1)), 3);
        let free = Limit::Time { budget: Duration::from_secs(1), most: Most::Many };
        assert_eq!(free.iterations(Op::Bw, 64_000_000, 1, Duration::from_millis(100)), 10);
        assert_eq!(free.iterations(Op::Barrier, 0, 20, Duration::ZERO), 1_000_000);
    }

    #[test]
    fn the_agreement_can_be_divided() {
        let limit = Limit::Time { budget: Duration::MAX, most: Most::Agreed { divisor: 8 } };
        assert_eq!(limit.iterations(Op::AllReduce, 40_000, 20, Duration::from_secs(1)), 250);
        assert_eq!(limit.iterations(Op::AllReduce, 64_000_000, 1, Duration::from_secs(1)), 3);
        assert_eq!(limit.iterations(Op::Bw, 64_000_000, 1, Duration::from_secs(1)), 1);
    }
}

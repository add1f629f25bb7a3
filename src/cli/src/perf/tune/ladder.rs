//! Algorithms that follow on each other as messages grow, and from which size on each is to be used. Pure.

use super::agenda::{Case, Finding, Times};
use crate::perf::size::human;
use multiworld::config::tuning::Tuning;

/// An algorithm, and a table that forces it.
#[derive(Clone, Debug)]
pub struct Rung {
    pub name: &'static str,
    pub table: Tuning,
}

/// Where a rung begins: from the size on that, times `times`, is the value of `key` times `per`.
#[derive(Clone, Copy, Debug)]
pub struct Threshold {
    pub key: &'static str,
    pub times: usize,
    pub per: usize,
}

/// Threshold i is that between what is below and rung i + 1.
#[derive(Clone, Debug)]
pub struct Ladder {
    pub cases: Vec<Case>,
    pub rungs: Vec<Rung>,
    pub thresholds: Vec<Threshold>,
}

impl Threshold {
    fn is_reached(&self, size: u64, value: usize) -> bool {
        (size as usize).saturating_mul(self.times) >= value.saturating_mul(self.per)
    }

    /// The value that has the rung begin at a size.
    fn value(&self, size: u64) -> usize {
        (size as usize).saturating_mul(self.times) / self.per
    }
}

impl Ladder {
    /// The rung that the library takes.
    fn choice(&self, values: &[usize], size: u64) -> usize {
        let reached: Vec<bool> =
            self.thresholds.iter().zip(values).map(|(t, value)| t.is_reached(size, *value)).collect();
        match reached.first() {
            Some(true) => reached.iter().rposition(|reached| *reached).unwrap_or(0) + 1,
            _ => 0,
        }
    }

    fn choices(&self, values: &[usize]) -> Vec<usize> {
        self.cases.iter().map(|case| self.choice(values, case.size)).collect()
    }

    /// Everything that a threshold may be: as it is, at each size, nowhere.
    fn options(&self, at: usize, default: usize) -> Vec<usize> {
        let threshold = &self.thresholds[at];
        // What wins from the first size on is taken to win below, too.
        let begins = self.cases.iter().skip(1).map(|case| threshold.value(case.size));
        [default, 0].into_iter().chain(begins).chain([usize::MAX]).collect()
    }

    /// The values that take least time at all sizes together. What is chosen so far has an advantage, so that noise
    /// changes nothing, and of what comes to the same the one with fewest changes is taken.
    fn fit(&self, default: &[usize], times: &[Times]) -> Vec<usize> {
        let usual = self.choices(default);
        let cost = |values: &[usize]| -> f64 {
            let choices = self.choices(values);
            choices.iter().zip(&usual).zip(times).map(|((c, u), times)| times.cost(*c, c != u)).sum()
        };
        let changes = |values: &[usize]| values.iter().zip(default).filter(|(a, b)| a != b).count();
        let mut all = vec![Vec::new()];
        for (at, default) in default.iter().enumerate() {
            let options = self.options(at, *default);
            all = all.iter().flat_map(|v| options.iter().map(|o| [&v[..], &[*o]].concat())).collect();
        }
        let mut best = (cost(default), 0, default.to_vec());
        for values in all {
            let (cost, changes) = (cost(&values), changes(&values));
            let same = (cost - best.0).abs() < 1e-9;
            if (!same && cost < best.0) || (same && changes < best.1) {
                best = (cost, changes, values);
            }
        }
        best.2
    }

    /// Where each rung begins.
    pub fn answer(&self, tuning: &Tuning, times: &[Times]) -> Vec<Finding> {
        let default: Vec<usize> =
            self.thresholds.iter().map(|t| tuning.get(t.key).unwrap_or(usize::MAX)).collect();
        let values = self.fit(&default, times);
        let choices = self.choices(&values);
        let finding = |(at, threshold): (usize, &Threshold)| Finding {
            key: threshold.key,
            value: values[at],
            default: default[at],
            note: self.note(at, &choices, times),
        };
        self.thresholds.iter().enumerate().map(finding).collect()
    }

    /// What was measured beside a threshold.
    fn note(&self, at: usize, choices: &[usize], times: &[Times]) -> String {
        let op = self.cases.first().map_or("", |case| case.op.name());
        let next = choices.iter().position(|choice| *choice > at).unwrap_or(choices.len());
        let shown = [next.checked_sub(1), (next < choices.len()).then_some(next)].into_iter().flatten();
        // Beside the rung that begins here the one that is taken before, or would be.
        let before = next.checked_sub(1).map_or(at, |last| choices[last]);
        let after = choices.get(next).copied().unwrap_or(at + 1);
        let pair = |case: usize| {
            let time = |rung: usize| format!("{} {:.1} us", self.rungs[rung].name, times[case].each[rung]);
            format!("{}: {}, {}", human(self.cases[case].size), time(before), time(after))
        };
        format!("{op}: {}", shown.map(pair).collect::<Vec<_>>().join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::perf::op::Op;

    fn ladder() -> Ladder {
        let rung = |name| Rung { name, table: Tuning::network() };
        let threshold = |key, times, per| Threshold { key, times, per };
        Ladder {
            cases: [1, 2, 4, 8, 16, 32].map(|k| Case::new(Op::AllReduce, k << 10)).to_vec(),
            rungs: ["flat", "doubling", "direct"].map(rung).to_vec(),
            thresholds: vec![threshold("all_reduce_flat", 3, 1), threshold("all_reduce_direct", 1, 4)],
        }
    }

    fn tuning(flat: usize, direct: usize) -> Tuning {
        Tuning { all_reduce_flat: flat, all_reduce_direct: direct, ..Tuning::network() }
    }

    fn timed<const N: usize>(times: [[f64; 3]; N]) -> Vec<Times> {
        times.map(|each| Times { each: each.to_vec(), noise: 0.0 }).to_vec()
    }

    /// The values found, with times per size of flat, doubling and direct.
    fn found(tuning: &Tuning, times: [[f64; 3]; 6]) -> [usize; 2] {
        let findings = ladder().answer(tuning, &timed(times));
        [findings[0].value, findings[1].value]
    }

    #[test]
    fn the_choice_is_that_of_the_library() {
        let choices = |flat, direct| ladder().choices(&[flat, direct]);
        // Flat while three times the size is below it, direct from four times the value on.
        assert_eq!(choices(12 << 10, 4 << 10), [0, 0, 1, 1, 2, 2]);
        assert_eq!(choices(0, 0), [2; 6]);
        assert_eq!(choices(usize::MAX, 0), [0; 6]);
        assert_eq!(choices(0, usize::MAX), [1; 6]);
        assert_eq!(choices((12 << 10) + 1, 4 << 10), [0, 0, 0, 1, 2, 2]);
    }

    #[test]
    fn each_algorithm_begins_where_it_is_faster() {
        let rising = |flat: f64, doubling: f64, direct: f64| [flat, doubling, direct];
        let times = [
            rising(1.0, 2.0, 3.0),
            rising(2.0, 3.0, 4.0),
            rising(5.0, 4.0, 5.0),
            rising(9.0, 7.0, 6.0),
            rising(20.0, 15.0, 8.0),
            rising(40.0, 30.0, 16.0),
        ];
        // At 4 K flat gives way, at 8 K direct begins.
        assert_eq!(found(&tuning(usize::MAX, usize::MAX), times), [12 << 10, 2 << 10]);
        assert_eq!(found(&tuning(0, 0), times), [12 << 10, 2 << 10]);
    }

    #[test]
    fn what_wins_everywhere_has_no_limits() {
        assert_eq!(found(&tuning(6 << 10, 1 << 10), [[1.0, 2.0, 3.0]; 6])[0], usize::MAX);
        assert_eq!(found(&tuning(6 << 10, 2 << 10), [[3.0, 2.0, 1.0]; 6]), [0, 0]);
        assert_eq!(found(&tuning(6 << 10, 2 << 10), [[3.0, 1.0, 2.0]; 6]), [0, usize::MAX]);
        // An algorithm that never wins is left out.
        let times = [[1.0, 9.0, 2.0], [1.0, 9.0, 2.0], [2.0, 9.0, 1.0], [2.0, 9.0, 1.0], [2.0, 9.0, 1.0]];
        let times = [times[0], times[1], times[2], times[3], times[4], times[4]];
        let [flat, direct] = found(&tuning(6 << 10, 2 << 10), times);
        assert_eq!(ladder().choices(&[flat, direct]), [0, 0, 2, 2, 2, 2]);
    }

    #[test]
    fn noise_changes_nothing() {
        let (flat, direct) = (6 << 10, 2 << 10);
        let noisy = [
            [1.0, 0.98, 1.01],
            [1.0, 1.0, 1.0],
            [1.01, 1.0, 0.98],
            [1.0, 0.99, 1.0],
            [0.98, 1.0, 1.0],
            [0.98, 0.98, 1.0],
        ];
        assert_eq!(found(&tuning(flat, direct), noisy), [flat, direct]);
        // As much as was seen.
        let mut wild = timed([[2.0, 3.0, 3.0]; 6]);
        let value = |times: &[Times]| ladder().answer(&tuning(0, usize::MAX), times)[0].value;
        assert_eq!(value(&wild), usize::MAX);
        wild.iter_mut().for_each(|times| times.noise = 0.6);
        assert_eq!(value(&wild), 0);
        // Values between the sizes or beyond them stay, too, where the choice does.
        assert_eq!(found(&tuning(flat + 100, usize::MAX - 1), [[2.0, 1.0, 3.0]; 6])[1], usize::MAX - 1);
    }

    #[test]
    fn notes_tell_what_was_measured_beside_a_threshold() {
        let times = timed([1.0, 2.0, 3.0, 4.0, 5.0, 6.0].map(|flat| [flat, 3.5, 100.0]));
        let findings = ladder().answer(&tuning(0, usize::MAX), &times);
        assert_eq!(findings[0].value, 24 << 10);
        let expected = "all_reduce: 4 KiB: flat 3.0 us, doubling 3.5 us; 8 KiB: flat 4.0 us, doubling 3.5 us";
        assert_eq!(findings[0].note, expected);
        assert_eq!(findings[1].note, "all_reduce: 32 KiB: doubling 3.5 us, direct 100.0 us");
        let findings = ladder().answer(&tuning(0, usize::MAX), &timed([[3.0, 2.0, 9.0]; 6]));
        assert_eq!(findings[0].note, "all_reduce: 1 KiB: flat 3.0 us, doubling 2.0 us");
    }
}

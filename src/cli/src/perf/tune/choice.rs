//! A value that is chosen among several, by what operations take with each. Pure.

use super::agenda::{Case, Finding, Times};
use crate::perf::size::human;
use multiworld::config::tuning::Tuning;

/// A value, and a table that has it and forces the algorithms that care about it.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub name: String,
    pub value: usize,
    pub table: Tuning,
}

#[derive(Clone, Debug)]
pub struct Choice {
    pub key: &'static str,
    pub cases: Vec<Case>,
    /// The first one is what is chosen so far.
    pub candidates: Vec<Candidate>,
}

impl Choice {
    /// The value that takes least time in all cases together, unless the first takes hardly more.
    pub fn answer(&self, tuning: &Tuning, times: &[Times]) -> Vec<Finding> {
        let cost = |at: usize| times.iter().map(|case| case.cost(at, at > 0)).sum::<f64>();
        let all = self.candidates.iter().enumerate();
        let Some((_, best)) = all.min_by(|(a, _), (b, _)| cost(*a).total_cmp(&cost(*b))) else {
            return Vec::new();
        };
        let default = tuning.get(self.key).unwrap_or(usize::MAX);
        vec![Finding { key: self.key, value: best.value, default, note: self.note(times) }]
    }

    fn note(&self, times: &[Times]) -> String {
        let of_case = |(case, times): (&Case, &Times)| {
            let shown =
                self.candidates.iter().zip(&times.each).map(|(c, time)| format!("{} {time:.1} us", c.name));
            let size = if case.size == 0 { String::new() } else { format!(" {}", human(case.size)) };
            format!("{}{size}: {}", case.op.name(), shown.collect::<Vec<_>>().join(", "))
        };
        self.cases.iter().zip(times).map(of_case).collect::<Vec<_>>().join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::perf::op::Op;

    #[test]
    fn the_fastest_is_chosen_unless_the_first_is_as_good() {
        let candidate =
            |value: usize| Candidate { name: format!("{value}"), value, table: Tuning::network() };
        let choice = Choice {
            key: "chunk",
            cases: vec![Case::new(Op::Barrier, 0), Case::new(Op::Broadcast, 1 << 20)],
            candidates: [256 << 10, 1, 2].map(candidate).to_vec(),
        };
        let answer = |times: [[f64; 3]; 2]| {
            let timed = times.map(|each| Times { each: each.to_vec(), noise: 0.0 });
            let findings = choice.answer(&Tuning::network(), &timed);
            assert_eq!((findings.len(), findings[0].key, findings[0].default), (1, "chunk", 256 << 10));
            findings[0].clone()
        };
        assert_eq!(answer([[1.0, 0.98, 0.99], [5.0, 4.9, 5.0]]).value, 256 << 10);
        let found = answer([[1.0, 1.0, 0.9], [5.0, 4.0, 3.0]]);
        assert_eq!(found.value, 2);
        let expected =
            "barrier: 262144 1.0 us, 1 1.0 us, 2 0.9 us; broadcast 1 MiB: 262144 5.0 us, 1 4.0 us, 2 3.0 us";
        assert_eq!(found.note, expected);
    }
}

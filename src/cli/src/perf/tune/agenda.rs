//! What has to be found out about the library's choice of algorithms, and in which order: first what one algorithm
//! does by itself, then which of them to take. Pure.

use super::choice::{Candidate, Choice};
use super::ladder::{Ladder, Rung, Threshold};
use crate::perf::op::Op;
use crate::perf::size;
use multiworld::config::table::written;
use multiworld::config::tuning::Tuning;

/// Never, or always.
const MAX: usize = usize::MAX;
/// What is built in stays where something else is not better by more than this.
const NOISE: f64 = 0.03;

/// Microseconds by table, for one case.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Times {
    pub each: Vec<f64>,
    /// By how much, relatively, two of them may differ by chance.
    pub noise: f64,
}

impl Times {
    /// What the time with a table counts, as a logarithm; what would be a change has to be better by more than noise.
    pub fn cost(&self, table: usize, is_change: bool) -> f64 {
        let time = self.each.get(table).copied().unwrap_or(f64::INFINITY);
        time.ln() + if is_change { self.noise.max(NOISE).ln_1p() } else { 0.0 }
    }
}

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    pub nranks: usize,
    /// Fewer sizes.
    pub quick: bool,
}

/// One operation at one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    pub op: Op,
    pub size: u64,
    pub in_place: bool,
}

impl Case {
    pub fn new(op: Op, size: u64) -> Case {
        // Of AllToAll only what is in place has a choice.
        Case { op, size, in_place: op == Op::AllToAll }
    }
}

/// A value, and why it is that.
#[derive(Clone, Debug)]
pub struct Finding {
    pub key: &'static str,
    pub value: usize,
    pub default: usize,
    pub note: String,
}

/// Something that measuring answers.
#[derive(Clone, Debug)]
pub enum Question {
    Ladder(Ladder),
    Choice(Choice),
}

impl Question {
    /// What has to be compared in each case.
    pub fn tables(&self) -> Vec<Tuning> {
        match self {
            Question::Ladder(ladder) => ladder.rungs.iter().map(|rung| rung.table).collect(),
            Question::Choice(choice) => choice.candidates.iter().map(|candidate| candidate.table).collect(),
        }
    }

    pub fn cases(&self) -> &[Case] {
        match self {
            Question::Ladder(ladder) => &ladder.cases,
            Question::Choice(choice) => &choice.cases,
        }
    }

    /// The answer, where `tuning` is what is known so far.
    pub fn answer(&self, tuning: &Tuning, times: &[Times]) -> Vec<Finding> {
        match self {
            Question::Ladder(ladder) => ladder.answer(tuning, times),
            Question::Choice(choice) => choice.answer(tuning, times),
        }
    }
}

/// `None` where there is nothing to choose.
pub type Ask = fn(&Setup, &Tuning) -> Option<Question>;

/// All that is asked, in order.
pub fn questions() -> Vec<Ask> {
    vec![
        flat,
        segment,
        shared_piece,
        scatter_piece,
        chunk,
        all_reduce,
        broadcast,
        reduce,
        all_gather,
        reduce_scatter,
        all_to_all,
    ]
}

impl Setup {
    /// Sizes of a ladder.
    fn cases(&self, op: Op) -> Vec<Case> {
        let sizes = if self.quick { size::range(1 << 10, 1 << 20, 4) } else { size::range(256, 8 << 20, 2) };
        sizes.into_iter().map(|size| Case::new(op, size)).collect()
    }

    /// Sizes at which pieces matter.
    fn large(&self, ops: &[Op]) -> Vec<Case> {
        let sizes: &[u64] = if self.quick { &[2 << 20] } else { &[2 << 20, 8 << 20] };
        ops.iter().flat_map(|op| sizes.iter().map(|size| Case::new(*op, *size))).collect()
    }

    /// Values of a piece to compare, the one so far first.
    fn pieces(&self, key: &'static str, base: Tuning, others: &[usize]) -> Vec<Candidate> {
        let now = base.get(key).unwrap_or(MAX);
        let candidate = |value: usize| {
            let mut table = base;
            if let Some(place) = table.get_mut(key) {
                *place = value;
            }
            Candidate { name: written(value), value, table }
        };
        let others = others.iter().copied().filter(|value| *value != now);
        [now].into_iter().chain(others).map(candidate).collect()
    }
}

/// Whether there are few ranks.
fn flat(setup: &Setup, tuning: &Tuning) -> Option<Question> {
    let n = setup.nranks;
    if n < 3 {
        return None;
    }
    let now = tuning.flat_ranks;
    let at_once = Tuning { flat_ranks: MAX, broadcast_flat: MAX, all_reduce_flat: MAX, ..*tuning };
    let others = Tuning {
        flat_ranks: 0,
        broadcast_chain: MAX,
        all_reduce_direct: MAX,
        all_reduce_ring: MAX,
        ..*tuning
    };
    let at_once = Candidate { name: "everybody at once".into(), value: now.max(n), table: at_once };
    let others = Candidate { name: "through others".into(), value: now.min(n - 1), table: others };
    let candidates = if now >= n { vec![at_once, others] } else { vec![others, at_once] };
    let cases = [(Op::Barrier, 0), (Op::Broadcast, 8), (Op::AllReduce, 8)];
    let cases = cases.map(|(op, size)| Case::new(op, size)).to_vec();
    Some(Question::Choice(Choice { key: "flat_ranks", cases, candidates }))
}

fn direct(tuning: &Tuning) -> Tuning {
    Tuning { all_reduce_flat: 0, all_reduce_pair: 0, all_reduce_direct: 0, all_reduce_ring: MAX, ..*tuning }
}

fn segment(setup: &Setup, tuning: &Tuning) -> Option<Question> {
    let candidates = setup.pieces("all_reduce_segment", direct(tuning), &[256 << 10, 1 << 20, 4 << 20, MAX]);
    Some(Question::Choice(Choice {
        key: "all_reduce_segment",
        cases: setup.large(&[Op::AllReduce]),
        candidates,
    }))
}

/// With two ranks there is one reader, and nothing is cut.
fn shared_piece(setup: &Setup, tuning: &Tuning) -> Option<Question> {
    let base = Tuning { flat_ranks: MAX, broadcast_flat: MAX, all_gather_flat: MAX, ..*tuning };
    let candidates = setup.pieces("shared_piece", base, &[512 << 10, 1 << 20, 4 << 20, MAX]);
    let cases = setup.large(&[Op::Broadcast, Op::AllGather]);
    (setup.nranks > 2).then_some(Question::Choice(Choice { key: "shared_piece", cases, candidates }))
}

fn scatter_piece(setup: &Setup, tuning: &Tuning) -> Option<Question> {
    let base = Tuning { flat_ranks: MAX, reduce_scatter_flat: MAX, ..*tuning };
    let candidates = setup.pieces("reduce_scatter_piece", base, &[64 << 10, 256 << 10, 1 << 20]);
    let cases = setup.large(&[Op::ReduceScatter]);
    (setup.nranks > 2).then_some(Question::Choice(Choice { key: "reduce_scatter_piece", cases, candidates }))
}

fn chunk(setup: &Setup, tuning: &Tuning) -> Option<Question> {
    let base = Tuning { broadcast_flat: 0, broadcast_chain: 0, reduce_chain: 0, ..*tuning };
    let candidates = setup.pieces("chunk", base, &[64 << 10, 256 << 10, 1 << 20]);
    let cases = setup.large(&[Op::Broadcast, Op::Reduce]);
    (setup.nranks > 2).then_some(Question::Choice(Choice { key: "chunk", cases, candidates }))
}

fn ladder(
    cases: Vec<Case>,
    rungs: &[(&'static str, Tuning)],
    thresholds: &[(&'static str, usize, usize)],
) -> Question {
    let rungs = rungs.iter().map(|(name, table)| Rung { name, table: *table }).collect();
    let thresholds =
        thresholds.iter().map(|(key, times, per)| Threshold { key, times: *times, per: *per }).collect();
    Question::Ladder(Ladder { cases, rungs, thresholds })
}

fn all_reduce(setup: &Setup, tuning: &Tuning) -> Option<Question> {
    let n = setup.nranks;
    let flat = Tuning { flat_ranks: MAX, all_reduce_flat: MAX, all_reduce_pair: MAX, ..*tuning };
    let direct = direct(tuning);
    let doubling = Tuning { all_reduce_direct: MAX, ..direct };
    let ring = Tuning { all_reduce_ring: 0, ..direct };
    let mut rungs = vec![("doubling", doubling), ("direct", direct), ("ring", ring)];
    let mut thresholds = vec![("all_reduce_direct", 1, n), ("all_reduce_ring", 1, n)];
    if n == 2 || n <= tuning.flat_ranks {
        rungs.insert(0, ("flat", flat));
        thresholds.insert(0, if n == 2 { ("all_reduce_pair", 1, 1) } else { ("all_reduce_flat", n - 1, 1) });
    }
    Some(ladder(setup.cases(Op::AllReduce), &rungs, &thresholds))
}

/// Of two ranks all algorithms do the same, here and where there is a condition below.
fn broadcast(setup: &Setup, tuning: &Tuning) -> Option<Question> {
    let n = setup.nranks;
    let flat = Tuning { broadcast_flat: MAX, ..*tuning };
    let tree = Tuning { broadcast_flat: 0, broadcast_chain: MAX, ..*tuning };
    let chain = Tuning { broadcast_chain: 0, ..tree };
    let mut rungs = vec![("tree", tree), ("chain", chain)];
    let mut thresholds = vec![("broadcast_chain", 1, 1)];
    if n <= tuning.flat_ranks {
        rungs.insert(0, ("flat", flat));
        thresholds.insert(0, ("broadcast_flat", 1, 1));
    }
    (n > 2).then(|| ladder(setup.cases(Op::Broadcast), &rungs, &thresholds))
}

fn reduce(setup: &Setup, tuning: &Tuning) -> Option<Question> {
    let rungs =
        [("tree", Tuning { reduce_chain: MAX, ..*tuning }), ("chain", Tuning { reduce_chain: 0, ..*tuning })];
    (setup.nranks > 2).then(|| ladder(setup.cases(Op::Reduce), &rungs, &[("reduce_chain", 1, 1)]))
}

fn all_gather(setup: &Setup, tuning: &Tuning) -> Option<Question> {
    let n = setup.nranks;
    let flat = Tuning { all_gather_flat: MAX, ..*tuning };
    let direct = Tuning { all_gather_flat: 0, all_gather_direct: 0, all_gather_ring: MAX, ..*tuning };
    let ring = Tuning { all_gather_ring: 0, ..direct };
    // The sizes of `mw perf` are those of all contributions together.
    let mut rungs = vec![("direct", direct), ("ring", ring)];
    let mut thresholds = vec![("all_gather_ring", 1, n)];
    if n > 3 {
        rungs.insert(0, ("bruck", Tuning { all_gather_direct: MAX, ..direct }));
        thresholds.insert(0, ("all_gather_direct", 1, n));
    }
    // Of three ranks it is the same as what comes next.
    if n > 3 && n <= tuning.flat_ranks {
        rungs.insert(0, ("flat", flat));
        thresholds.insert(0, ("all_gather_flat", 1, n));
    }
    (n > 2).then(|| ladder(setup.cases(Op::AllGather), &rungs, &thresholds))
}

fn reduce_scatter(setup: &Setup, tuning: &Tuning) -> Option<Question> {
    let n = setup.nranks;
    let flat = Tuning { reduce_scatter_flat: MAX, ..*tuning };
    let direct =
        Tuning { reduce_scatter_flat: 0, reduce_scatter_direct: 0, reduce_scatter_pairwise: MAX, ..*tuning };
    let pairwise = Tuning { reduce_scatter_pairwise: 0, ..direct };
    let mut rungs = vec![("direct", direct), ("pairwise", pairwise)];
    let mut thresholds = vec![("reduce_scatter_pairwise", 1, 1)];
    if n > 3 {
        rungs.insert(0, ("halving", Tuning { reduce_scatter_direct: MAX, ..direct }));
        thresholds.insert(0, ("reduce_scatter_direct", 1, n));
    }
    if n > 3 && n <= tuning.flat_ranks {
        rungs.insert(0, ("flat", flat));
        thresholds.insert(0, ("reduce_scatter_flat", 1, n));
    }
    (n > 2).then(|| ladder(setup.cases(Op::ReduceScatter), &rungs, &thresholds))
}

fn all_to_all(setup: &Setup, tuning: &Tuning) -> Option<Question> {
    let rungs = [
        ("direct", Tuning { all_to_all_pairwise: MAX, ..*tuning }),
        ("pairwise", Tuning { all_to_all_pairwise: 0, ..*tuning }),
    ];
    Some(ladder(setup.cases(Op::AllToAll), &rungs, &[("all_to_all_pairwise", 1, 1)]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_value_is_asked_for_once() {
        let keys = |nranks| -> Vec<&str> {
            let setup = Setup { nranks, quick: false };
            let asked = questions().into_iter().filter_map(|ask| ask(&setup, &Tuning::shared_memory()));
            let found = asked.flat_map(|question| {
                let times = vec![
                    Times { each: vec![1.0; question.tables().len()], noise: 0.0 };
                    question.cases().len()
                ];
                question.answer(&Tuning::shared_memory(), &times)
            });
            // All the same: nothing changes.
            found.inspect(|f| assert_eq!(f.value, f.default, "{}", f.key)).map(|f| f.key).collect()
        };
        let (two, four, nine) = (keys(2), keys(4), keys(9));
        let all: BTreeSet<&str> = two.iter().chain(&four).copied().collect();
        assert_eq!(all, Tuning::KEYS.iter().copied().collect());
        assert_eq!(four.len(), Tuning::KEYS.len() - 1, "{four:?}");
        assert!(two.contains(&"all_reduce_pair") && !two.contains(&"flat_ranks"));
        // More than are few have no use for what is for few.
        assert!(!nine.contains(&"broadcast_flat") && nine.contains(&"broadcast_chain"));
    }

    #[test]
    fn candidates_differ_and_begin_with_what_is_so() {
        let setup = Setup { nranks: 4, quick: true };
        for tuning in [Tuning::shared_memory(), Tuning::network()] {
            for question in questions().into_iter().filter_map(|ask| ask(&setup, &tuning)) {
                let tables = question.tables();
                assert!(tables.len() >= 2 && !question.cases().is_empty());
                for (at, table) in tables.iter().enumerate() {
                    assert!(!tables[..at].contains(table), "{question:?}");
                }
                if let Question::Choice(choice) = &question {
                    assert_eq!(Some(choice.candidates[0].value), tuning.get(choice.key));
                }
            }
        }
    }
}

//! What is going to be measured: the arguments with everything that follows from them. No I/O; the environment is
//! an argument.

use super::args::{Args, Backend, BufferKind, OpChoice, seconds};
use super::iterations::{Limit, Most};
use super::op::Op;
use super::size;
use std::time::Duration;

/// The sizes of RESULT lines.
const COMPARED: [u64; 6] = [8, 4096, 40_000, 400_000, 4_000_000, 64_000_000];
/// The smallest of bwd among them.
const BWD_FROM: u64 = 400_000;
/// The range that is measured unless the user says otherwise.
const SMALLEST: u64 = 8;
const LARGEST: u64 = 16 << 20;
const FACTOR: u64 = 8;
const DEFAULT_TIME: Duration = Duration::from_millis(500);
/// Iterations whose contents are compared at most, for small sizes and for large ones.
const CHECKED: (u64, u64) = (20, 3);
const LARGE: u64 = 1 << 20;

/// The measurements in their order, and how they are made.
#[derive(Clone, Debug)]
pub struct Plan {
    pub steps: Vec<Step>,
    pub limit: Limit,
    /// Whether single iterations are timed.
    pub sampled: bool,
}

/// One line of the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    pub op: Op,
    pub size: u64,
    pub in_place: bool,
}

/// A variable of the environment.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

impl Plan {
    /// `Err` names the argument that is wrong.
    pub fn new(args: &Args, env: Env) -> Result<Plan, String> {
        if args.active > args.worlds {
            return Err(format!("--active: {} of {} worlds cannot have traffic", args.active, args.worlds));
        }
        if args.buffers == BufferKind::Registered && args.backend == Backend::Nccl {
            return Err("--buffers registered: on the nccl backend all are on the device".to_owned());
        }
        if args.ranks.len() > 1 {
            return Err("--ranks: several numbers are for --tune".to_owned());
        }
        let ranks = args.ranks.first().copied();
        if let Some(ranks) = ranks
            && args.root >= ranks
        {
            return Err(format!("--root: {} is not one of {ranks} ranks", args.root));
        }
        let steps = steps(args)?;
        let least = steps.iter().map(|step| step.op.least_ranks()).max().unwrap_or(1);
        if ranks.is_some_and(|ranks| (ranks as usize) < least) {
            return Err(format!("--ranks: sendrecv, bw and bwd need {least}"));
        }
        Ok(Plan { steps, limit: limit(args, env)?, sampled: !args.output.results })
    }

    /// Ranks that it takes.
    pub fn least_ranks(&self) -> usize {
        self.steps.iter().map(|step| step.op.least_ranks()).max().unwrap_or(1)
    }

    /// Iterations whose contents are compared.
    pub fn checked(iterations: u64, size: u64) -> u64 {
        iterations.min(if size > LARGE { CHECKED.1 } else { CHECKED.0 })
    }
}

fn limit(args: &Args, env: Env) -> Result<Limit, String> {
    if let Some(n) = args.iterations {
        return Ok(Limit::Exactly(u64::from(n)));
    }
    let set = |name: &str| env(name).filter(|value| !value.is_empty());
    let budget = match (args.seconds, set("BUDGET")) {
        (Some(time), _) => time,
        (None, Some(text)) if args.output.results => seconds(&text).map_err(|e| format!("BUDGET: {e}"))?,
        _ => DEFAULT_TIME,
    };
    let most = if args.output.results {
        let divisor = set("ITDIV").map_or(Ok(1), |text| text.parse());
        Most::Agreed { divisor: divisor.map_err(|_| "ITDIV: a whole number is wanted".to_owned())? }
    } else {
        Most::Many
    };
    Ok(Limit::Time { budget, most })
}

fn steps(args: &Args) -> Result<Vec<Step>, String> {
    let sizes = if !args.sizes.is_empty() {
        args.sizes.clone()
    } else if args.output.results && !has_range(args) {
        COMPARED.to_vec()
    } else {
        let (min, max) = (args.min.unwrap_or(SMALLEST), args.max.unwrap_or(LARGEST));
        if max < min {
            return Err(format!("--max: {max} is less than --min, {min}"));
        }
        size::range(min, max, args.factor.unwrap_or(FACTOR))
    };
    let mut steps = Vec::new();
    for choice in &args.ops {
        let ops = match choice {
            OpChoice::All => Op::ALL.to_vec(),
            OpChoice::One(op) => vec![*op],
        };
        for op in ops {
            let places = places(args, op);
            if places.is_empty() && *choice == OpChoice::One(op) {
                return Err(format!("--in-place: {} has no such form", op.name()));
            }
            for in_place in places {
                let fits = |size: &u64| {
                    let chosen = !args.output.results || !args.sizes.is_empty() || has_range(args);
                    op != Op::Bwd || chosen || *size >= BWD_FROM
                };
                let sizes = if op == Op::Barrier { &[0][..] } else { &sizes };
                let step = |size: &u64| Step { op, size: *size, in_place };
                steps.extend(sizes.iter().filter(|size| fits(size)).map(step));
            }
        }
    }
    if steps.is_empty() {
        return Err("OP: nothing is left to be measured".to_owned());
    }
    Ok(steps)
}

fn has_range(args: &Args) -> bool {
    args.min.is_some() || args.max.is_some() || args.factor.is_some()
}

/// Whether to measure out of place, in place, or both.
fn places(args: &Args, op: Op) -> Vec<bool> {
    let out = (args.out_of_place || !args.in_place).then_some(false);
    let within = (args.in_place && op.has_in_place()).then_some(true);
    out.into_iter().chain(within).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::perf::args::tests::read;

    fn plan(words: &str, env: &[(&str, &str)]) -> Result<Plan, String> {
        let args = read(words).unwrap();
        let find = |name: &str| env.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        Plan::new(&args, &find)
    }

    #[test]
    fn every_operation_has_its_sizes_and_places() {
        let all = plan("all -n 2 --sizes 8,4096", &[]).unwrap();
        assert_eq!(all.steps.len(), 11 * 2 + 1);
        let both = plan("all_reduce all_to_all barrier -b 8 -e 64 --in-place --out-of-place", &[]).unwrap();
        let shown: Vec<_> = both.steps.iter().map(|s| (s.op.name(), s.size, s.in_place)).collect();
        let expected = [
            ("all_reduce", 8, false),
            ("all_reduce", 64, false),
            ("all_reduce", 8, true),
            ("all_reduce", 64, true),
            ("all_to_all", 8, false),
            ("all_to_all", 64, false),
            ("barrier", 0, false),
        ];
        assert_eq!(shown, expected);
        assert_eq!(plan("all --in-place --sizes 8", &[]).unwrap().steps.len(), 7);
    }

    #[test]
    fn results_are_what_comparisons_have_agreed_upon() {
        let plan = plan("lat bwd --results", &[("BUDGET", "0.3"), ("ITDIV", "4")]).unwrap();
        assert_eq!(plan.steps.len(), 6 + 3);
        let budget = Duration::from_secs_f64(0.3);
        assert_eq!(plan.limit, Limit::Time { budget, most: Most::Agreed { divisor: 4 } });
        assert!(!plan.sampled);
        let given = super::tests::plan("bwd --results --sizes 8", &[]).unwrap();
        assert_eq!(given.steps.len(), 1);
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        for (words, env, expected) in [
            ("bw --active 2", &[][..], "--active"),
            ("bw --buffers registered --backend nccl", &[], "--buffers registered"),
            ("bw -n 1", &[], "--ranks"),
            ("bw -n 2,4", &[], "several numbers are for --tune"),
            ("broadcast -n 2 -r 2", &[], "--root"),
            ("bw -b 16 -e 8", &[], "--max"),
            ("bw --in-place", &[], "--in-place"),
            ("bw --results", &[("BUDGET", "x")], "BUDGET"),
            ("bw --results", &[("ITDIV", "x")], "ITDIV"),
        ] {
            let text = plan(words, env).expect_err(words);
            assert!(text.contains(expected), "{words}: {text}");
        }
        assert!(plan("broadcast -n 1 --worlds 3 --active 3", &[]).is_ok());
    }
}

//! One line of the result, and what stands above all lines. Pure.

use super::plan::Step;
use super::stats::Measured;
use multiworld::types::{DataType, RedOp};
use serde::Serialize;

/// What was measured and where.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Header {
    pub version: &'static str,
    pub ranks: usize,
    pub worlds: usize,
    pub active_worlds: usize,
    /// What carries data between the first rank and the others.
    pub transport: String,
    pub backend: &'static str,
    /// Joining all worlds, one after the other.
    pub join_ms: f64,
    pub machine: super::machine::Machine,
}

/// One line. Times are microseconds, bandwidths 1e9 bytes per second.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    pub op: &'static str,
    #[serde(skip)]
    pub step: Step,
    /// The size that was asked for.
    pub requested: u64,
    pub size: u64,
    pub count: usize,
    #[serde(rename = "type")]
    pub datatype: &'static str,
    /// `none` where nothing is reduced.
    pub redop: &'static str,
    /// -1 where there is none.
    pub root: i64,
    pub in_place: bool,
    pub iterations: u64,
    #[serde(rename = "timeUs")]
    pub time: f64,
    #[serde(rename = "minUs")]
    pub min: f64,
    #[serde(rename = "medianUs")]
    pub median: f64,
    #[serde(rename = "p99Us")]
    pub p99: f64,
    pub algbw: f64,
    pub busbw: f64,
    /// Elements; null when nothing was checked.
    pub wrong: Option<u64>,
}

/// What a line needs to be known.
pub struct Outcome {
    pub step: Step,
    pub count: usize,
    pub nranks: usize,
    pub datatype: DataType,
    pub redop: RedOp,
    pub root: usize,
    pub iterations: u64,
    pub measured: Measured,
    pub wrong: Option<u64>,
}

impl Row {
    pub fn new(outcome: &Outcome) -> Row {
        let Outcome { step, nranks, measured, .. } = *outcome;
        let op = step.op;
        let size = op.size(outcome.count, outcome.datatype.size(), nranks);
        let bytes = size as f64 * op.window(size) as f64;
        // Bytes per microsecond are megabytes per second.
        let algbw = if measured.average > 0.0 { bytes / measured.average / 1e3 } else { 0.0 };
        Row {
            op: op.name(),
            step,
            requested: step.size,
            size,
            count: outcome.count,
            datatype: outcome.datatype.name(),
            redop: if op.reduces() { outcome.redop.name() } else { "none" },
            root: if op.has_root() { outcome.root as i64 } else { -1 },
            in_place: step.in_place,
            iterations: outcome.iterations,
            time: measured.average,
            min: measured.spread.min,
            median: measured.spread.median,
            p99: measured.spread.p99,
            algbw,
            busbw: algbw * op.bus_factor(nranks),
            wrong: outcome.wrong,
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::super::op::Op;
    use super::super::stats::Spread;
    use super::*;

    pub fn row(op: Op, size: u64, average: f64) -> Row {
        let step = Step { op, size, in_place: false };
        let spread = Spread { min: average / 2.0, median: average, p99: average * 2.0 };
        Row::new(&Outcome {
            step,
            count: op.count(size, 4, 4),
            nranks: 4,
            datatype: DataType::Float32,
            redop: RedOp::Sum,
            root: 1,
            iterations: 10,
            measured: Measured { average, spread },
            wrong: Some(0),
        })
    }

    #[test]
    fn bandwidths_follow_from_sizes_and_times() {
        let all_reduce = row(Op::AllReduce, 4_000_000, 1000.0);
        assert_eq!((all_reduce.algbw, all_reduce.busbw), (4.0, 6.0));
        assert_eq!((all_reduce.redop, all_reduce.root), ("sum", -1));
        let bw = row(Op::Bw, 4000, 64.0);
        assert_eq!((bw.algbw, bw.busbw, bw.redop), (4.0, 4.0, "none"));
        let gather = row(Op::Gather, 4001, 10.0);
        assert_eq!((gather.size, gather.requested, gather.count, gather.root), (4000, 4001, 250, 1));
        let barrier = row(Op::Barrier, 0, 1.0);
        assert_eq!((barrier.size, barrier.algbw), (0, 0.0));
    }
}

//! One pair of processes with more and more worlds.

use crate::Options;
use crate::calls::Result;
use crate::pairs::times;
use crate::ranks::Ranks;
use crate::table::{Table, bytes};

const SMALL: usize = 8;
const LARGE: usize = 400_000;
/// Time of a measurement in nanoseconds.
const BUDGET: f64 = 100e6;
/// Joins of a single world of which the median counts.
const JOINS: usize = 9;

fn latency(ranks: &mut Ranks, size: usize, active: usize, budget: f64) -> Result<f64> {
    // So that each has its memory, and knows the best way. Small messages go fifty at a time.
    let warm_up = if size > SMALL { 20 * active } else { 3.max(active) };
    let first = ranks.all(&format!("latency {size} {active} {warm_up}"))?;
    let one = first.first().and_then(|answer| answer.first()).copied().unwrap_or(0.0);
    let number = times(size, one, budget);
    Ok(ranks.all(&format!("latency {size} {active} {number}"))?[0][0] / 1e3)
}

/// KiB and threads of both together.
fn usage(ranks: &mut Ranks) -> Result<(f64, f64)> {
    let both = ranks.all("usage")?;
    Ok(both.iter().fold((0.0, 0.0), |sum, one| (sum.0 + one[0], sum.1 + one[1])))
}

pub fn run(options: &Options) -> Result<Vec<Table>> {
    let counts: &[usize] = if options.quick { &[1, 10, 50] } else { &[1, 10, 100, 1000] };
    let (budget, idle) = if options.quick { (BUDGET / 20.0, 100) } else { (BUDGET, 2000) };
    let columns = |size| ["one", "two", "all"].map(|active| format!("{}, {active}", bytes(size)));
    let mut traffic = Table::new(
        "Latency with many worlds",
        "Two processes, messages back and forth in one world, in two, and in all of them in turn; µs one way.",
        &["worlds"],
    );
    traffic.head.extend(columns(SMALL).into_iter().chain(columns(LARGE)));
    let mut cost = Table::new(
        "What worlds cost that are idle",
        "Memory is that of both processes together with page tables, by the last worlds that were joined; threads \
         likewise. The library's threads' time is that of the process that took more. Joins: one world by one \
         thread, the median, and many by four threads, each.",
        &[
            "worlds",
            "KiB for a world",
            "threads for a world",
            "library's threads, µs/s",
            "a join, ms",
            "many joins, ms each",
        ],
    );
    let mut ranks = Ranks::start(2)?;
    ranks.all("join 1")?;
    ranks.all("bind")?;
    // What the first traffic needs is no further world's.
    latency(&mut ranks, SMALL, 1, budget)?;
    let mut standing = 1;
    for &count in counts {
        let (mut memory, mut threads, mut each) = (0.0, 0.0, 0.0);
        if count > standing {
            let added = (count - standing) as f64;
            let before = usage(&mut ranks)?;
            each = ranks.most(&format!("join {}", count - standing))? / added;
            let after = usage(&mut ranks)?;
            (memory, threads) = ((after.0 - before.0) / added, (after.1 - before.1) / added);
            standing = count;
        }
        let idle = ranks.most(&format!("idle {idle}"))?;
        let mut joins = Vec::new();
        for _ in 0..JOINS {
            joins.push(ranks.most("join 1")?);
            ranks.all(&format!("keep {standing}"))?;
        }
        joins.sort_by(f64::total_cmp);
        cost.row(count.to_string(), vec![memory, threads, idle, joins[JOINS / 2], each]);
        let mut row = Vec::new();
        for size in [SMALL, LARGE] {
            for active in [1, 2, count] {
                row.push(latency(&mut ranks, size, active.min(count), budget)?);
            }
        }
        traffic.row(count.to_string(), row);
    }
    Ok(vec![traffic, cost])
}

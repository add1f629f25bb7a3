//! What further worlds cost: the same measurement without them and with them, in turns, in the same two processes.
//!
//! Whatever the machine does meanwhile happens to both, and so does everything that differs from one start of a program
//! to the next.

use crate::Options;
use crate::calls::Result;
use crate::ranks::Ranks;
use crate::table::{Table, bytes};

const SIZES: [usize; 6] = [8, 4096, 40_000, 400_000, 4_000_000, 64_000_000];
/// Time of a measurement in nanoseconds.
const BUDGET: f64 = 10e6;
/// Bytes under way, and messages, between two answers.
const WINDOW: usize = 4_000_000;
const MESSAGES: usize = 50;

/// How often to measure something that takes so long in an order of `latency`.
pub fn times(size: usize, nanoseconds: f64, budget: f64) -> usize {
    let trip = nanoseconds.max(100.0) * if size < 16 << 10 { 100.0 } else { 2.0 };
    ((budget / trip) as usize).clamp(3, 2000)
}

/// A measurement that can be repeated: an order for so many worlds.
struct Cell {
    size: usize,
    is_stream: bool,
    times: usize,
}

impl Cell {
    fn order(&self, active: usize, times: usize) -> String {
        let Cell { size, is_stream, .. } = self;
        let window = (WINDOW / size).clamp(1, MESSAGES);
        if *is_stream {
            format!("stream {size} {active} {window} {times}")
        } else {
            format!("latency {size} {active} {times}")
        }
    }

    fn measure(&self, ranks: &mut Ranks, active: usize) -> Result<f64> {
        // What was done in between has emptied caches.
        ranks.all(&self.order(active, 1 + self.times / 10))?;
        Ok(ranks.all(&self.order(active, self.times))?[0][0])
    }
}

/// Further worlds of whom some have traffic.
struct Case {
    title: &'static str,
    worlds: usize,
    /// Worlds with traffic, and what that is called.
    active: Vec<(usize, &'static str)>,
}

fn quartiles(mut all: Vec<f64>) -> [f64; 3] {
    all.sort_by(f64::total_cmp);
    [1, 2, 3].map(|q| all.get((all.len() - 1) * q / 4).copied().unwrap_or(0.0))
}

fn cells(ranks: &mut Ranks, budget: f64) -> Result<Vec<Cell>> {
    let mut cells = Vec::new();
    for is_stream in [false, true] {
        for size in SIZES {
            let mut cell = Cell { size, is_stream, times: 3 };
            ranks.all(&cell.order(1, 3))?;
            let one = ranks.all(&cell.order(1, 5))?[0][0];
            let messages = (WINDOW / size).clamp(1, MESSAGES) as f64;
            cell.times = match is_stream {
                true => ((budget / (one.max(20.0) * messages)) as usize).clamp(3, 2000),
                false => times(size, one, budget),
            };
            cells.push(cell);
        }
    }
    Ok(cells)
}

fn compare(case: &Case, options: &Options, budget: f64) -> Result<Vec<Table>> {
    let mut ranks = Ranks::start(2)?;
    ranks.all("join 1")?;
    ranks.all("bind")?;
    let cells = cells(&mut ranks, budget)?;
    // Per cell: without, and with, for each number of active worlds.
    let mut found = vec![(Vec::new(), vec![Vec::new(); case.active.len()]); cells.len()];
    let mut standing = 1;
    for round in 0..options.rounds {
        for with in [round % 2 == 1, round % 2 == 0] {
            let wanted = if with { case.worlds } else { 1 };
            if wanted > standing {
                ranks.all(&format!("join {}", wanted - standing))?;
            } else {
                ranks.all(&format!("keep {wanted}"))?;
            }
            standing = wanted;
            for (cell, found) in cells.iter().zip(&mut found) {
                if with {
                    for ((active, _), found) in case.active.iter().zip(&mut found.1) {
                        found.push(cell.measure(&mut ranks, *active)?);
                    }
                } else {
                    found.0.push(cell.measure(&mut ranks, 1)?);
                }
            }
        }
    }
    let note = "The time of a message more than without them, in percent: the median of pairs, and between which \
                two values half of them are. Of a bandwidth, the time is that of one message in a stream.";
    let mut tables = Vec::new();
    for (at, (_, traffic)) in case.active.iter().enumerate() {
        let head = ["", "without, µs", "with, µs", "more, %", "from", "to"];
        let mut table = Table::new(&format!("{}, {traffic}", case.title), note, &head);
        for (cell, (without, with)) in cells.iter().zip(&found) {
            let pairs = without.iter().zip(&with[at]);
            let [low, median, high] = quartiles(pairs.map(|(a, b)| (b / a - 1.0) * 100.0).collect());
            let name =
                format!("{}, {}", if cell.is_stream { "bandwidth" } else { "latency" }, bytes(cell.size));
            let [a, b] = [without, &with[at]].map(|all| quartiles(all.clone())[1] / 1e3);
            table.row(name, vec![a, b, median, low, high]);
        }
        tables.push(table);
    }
    Ok(tables)
}

pub fn run(options: &Options) -> Result<Vec<Table>> {
    let (few, many) = if options.quick { (4, 20) } else { (10, 1000) };
    let cases = [
        Case {
            title: "10 worlds against 1",
            worlds: few,
            active: vec![(1, "traffic on one of them"), (few, "traffic on all in turn")],
        },
        Case {
            title: "1000 idle worlds against none",
            worlds: many + 1,
            active: vec![(1, "traffic on another one")],
        },
    ];
    let budget = if options.quick { BUDGET / 50.0 } else { BUDGET };
    let mut tables = Vec::new();
    for case in &cases {
        tables.extend(compare(case, options, budget)?);
    }
    Ok(tables)
}

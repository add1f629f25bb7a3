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
        ranks.all(&self.order(active, 1 + self.times / 4))?;
        Ok(ranks.all(&self.order(active, self.times))?[0][0])
    }
}

/// When worlds are joined and left again.
#[derive(Clone, Copy, PartialEq)]
enum Turn {
    /// For every measurement.
    Cell,
    /// For a round of all of them.
    Round,
    /// They stand all the time: what changes is which of them have traffic.
    Never,
}

/// So many worlds with traffic on one or all of them, against one world, or one of them.
struct Case {
    title: String,
    worlds: usize,
    active: usize,
    turn: Turn,
}

pub fn quartiles(mut all: Vec<f64>) -> [f64; 3] {
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

/// Has a world's memory touched, and the ways of its messages tried, at every size.
fn warm_up(ranks: &mut Ranks, active: usize) -> Result<()> {
    for size in SIZES {
        let trips = if size > WINDOW { 8 } else { 40 };
        ranks.all(&format!("latency {size} {active} {}", trips * active))?;
    }
    Ok(())
}

fn compare(case: &Case, options: &Options, budget: f64) -> Result<Table> {
    let mut ranks = Ranks::start(2)?;
    ranks.all("join 1")?;
    ranks.all("bind")?;
    let mut standing = 1;
    if case.turn == Turn::Never {
        ranks.all(&format!("join {}", case.worlds - 1))?;
        standing = case.worlds;
        warm_up(&mut ranks, case.worlds)?;
    } else {
        warm_up(&mut ranks, 1)?;
    }
    let cells = cells(&mut ranks, budget)?;
    // Of each cell, without and with.
    let mut found = vec![[Vec::new(), Vec::new()]; cells.len()];
    let at_a_time = if case.turn == Turn::Round { cells.len() } else { 1 };
    for round in 0..options.rounds {
        for (cells, found) in cells.chunks(at_a_time).zip(found.chunks_mut(at_a_time)) {
            // Who comes first changes: a machine that gets slower would favour it.
            for with in [round % 2, (round + 1) % 2] {
                let wanted = if with == 1 { case.worlds } else { 1 };
                if case.turn != Turn::Never && wanted > standing {
                    ranks.all(&format!("join {}", wanted - standing))?;
                    standing = wanted;
                } else if case.turn != Turn::Never && wanted < standing {
                    ranks.all(&format!("keep {wanted}"))?;
                    standing = wanted;
                }
                for (cell, found) in cells.iter().zip(found.iter_mut()) {
                    found[with].push(cell.measure(&mut ranks, if with == 1 { case.active } else { 1 })?);
                }
            }
        }
    }
    let note = "The time of a message, and how much more it is, in percent: the median of pairs, and between which \
                two values half of them are. Of a bandwidth, the time is that of one message in a stream.";
    let mut table = Table::new(&case.title, note, &["", "without, µs", "with, µs", "more, %", "from", "to"]);
    for (cell, [without, with]) in cells.iter().zip(&found) {
        let pairs = without.iter().zip(with);
        let [low, median, high] = quartiles(pairs.map(|(a, b)| (b / a - 1.0) * 100.0).collect());
        let name = format!("{}, {}", if cell.is_stream { "bandwidth" } else { "latency" }, bytes(cell.size));
        let [a, b] = [without, with].map(|all| quartiles(all.clone())[1] / 1e3);
        table.row(name, vec![a, b, median, low, high]);
    }
    Ok(table)
}

pub fn run(options: &Options) -> Result<Vec<Table>> {
    let (few, many) = if options.quick { (4, 20) } else { (10, 1000) };
    let cases = [
        Case {
            title: format!("{few} worlds against 1, traffic on one"),
            worlds: few,
            active: 1,
            turn: Turn::Cell,
        },
        Case {
            title: format!("{few} worlds, traffic on all in turn against one"),
            worlds: few,
            active: few,
            turn: Turn::Never,
        },
        Case {
            title: format!("{many} idle worlds against none"),
            worlds: many + 1,
            active: 1,
            turn: Turn::Round,
        },
    ];
    let budget = if options.quick { BUDGET / 50.0 } else { BUDGET };
    cases.iter().map(|case| compare(case, options, budget)).collect()
}

//! What it costs the traffic of other worlds when a new one is joined.

use crate::Options;
use crate::calls::Result;
use crate::pairs::quartiles;
use crate::ranks::Ranks;
use crate::table::{Table, bytes};

const WORLDS: usize = 8;
/// Milliseconds of traffic in a measurement.
const WINDOW: usize = 1000;
const SIZES: [usize; 3] = [8, 4096, 400_000];

pub fn run(options: &Options) -> Result<Vec<Table>> {
    let window = if options.quick { WINDOW / 20 } else { WINDOW };
    let title = format!("Joining while {WORLDS} worlds have traffic");
    let note = format!(
        "Two processes with messages through {WORLDS} worlds in turn, thousands per second, for {window} ms; meanwhile, or \
         not, the first one joins a new world with a third process, and both leave it again. How much less the traffic \
         is, in percent: the median of pairs, and between which two values half of them are."
    );
    let head = ["", "without", "with", "less, %", "from", "to", "a join, ms"];
    let mut table = Table::new(&title, &note, &head);
    let mut ranks = Ranks::start(3)?;
    ranks.all(&format!("pair {WORLDS}"))?;
    for joins in [1, 10] {
        for size in SIZES {
            ranks.all(&format!("traffic {size} {window} 1"))?;
            let (mut found, mut times) = ([Vec::new(), Vec::new()], Vec::new());
            for round in 0..options.rounds {
                // Who comes first changes.
                for with in [round % 2, (round + 1) % 2] {
                    let answer = ranks.all(&format!("traffic {size} {window} {}", joins * with))?;
                    found[with].push(answer[0][0] / 1e3);
                    if with == 1 {
                        times.push(answer[0][1]);
                    }
                }
            }
            let less = found[0].iter().zip(&found[1]).map(|(without, with)| (1.0 - with / without) * 100.0);
            let [low, median, high] = quartiles(less.collect());
            let [without, with] = found.clone().map(|all| quartiles(all)[1]);
            let name = format!("{joins} x {}", bytes(size));
            table.row(name, vec![without, with, median, low, high, quartiles(times)[1]]);
        }
    }
    Ok(vec![table])
}

//! Worlds of more and more processes, up to many more than there are processors.

use crate::Options;
use crate::calls::Result;
use crate::ranks::Ranks;
use crate::table::Table;

/// Title, order, bytes.
const OPERATIONS: [(&str, &str, usize); 4] = [
    ("Barrier", "barrier", 0),
    ("AllReduce 8 B", "allreduce", 8),
    ("AllReduce 4 KiB", "allreduce", 4096),
    ("AllReduce 400 KB", "allreduce", 400_000),
];
/// Time of a measurement in nanoseconds.
const BUDGET: f64 = 300e6;

pub fn run(options: &Options) -> Result<Vec<Table>> {
    let sizes: &[usize] = if options.quick { &[2, 4] } else { &[2, 4, 8, 16, 32, 64] };
    let budget = if options.quick { BUDGET / 50.0 } else { BUDGET };
    let mut times = Table::new(
        "Worlds of many processes",
        "Average time of an operation at the slowest rank, µs, and of joining, ms.",
        &["processes", "join, ms"],
    );
    times.head.extend(OPERATIONS.map(|(title, _, _)| title.to_owned()));
    let mut shares = Table::new(
        "The same for each process",
        "The time above by the number of processes, µs.",
        &["processes"],
    );
    shares.head.extend(OPERATIONS.map(|(title, _, _)| title.to_owned()));
    for &number in sizes {
        let mut ranks = Ranks::start(number)?;
        // The first world comes with the library's own threads and with meeting the others.
        let mut row = vec![ranks.most("join 1")?];
        for (_, order, size) in OPERATIONS {
            let one = ranks.most(&format!("{order} {size} 5"))?;
            let often = ((budget / one.max(100.0)) as usize).clamp(5, 20_000);
            row.push(ranks.most(&format!("{order} {size} {often}"))? / 1e3);
        }
        shares.row(number.to_string(), row[1..].iter().map(|time| time / number as f64).collect());
        times.row(number.to_string(), row);
    }
    Ok(vec![times, shares])
}

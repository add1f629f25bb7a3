//! How worlds and processes scale: `make bench-scale`, or `cargo bench --bench scale -- --help`.

mod calls;
mod crowd;
mod joins;
#[path = "../../src/cli/src/perf/machine.rs"]
#[allow(unused_imports, reason = "its tests are run where it is at home")]
mod machine;
mod member;
mod pairs;
mod ranks;
mod standing;
mod table;
mod usage;

use calls::Result;
use machine::Machine;
use serde::Serialize;
use std::process::ExitCode;
use table::Table;

const HELP: &str = "\
make bench-scale BENCH_FLAGS='OPTIONS', or cargo bench --bench scale -- OPTIONS

Starts processes of this machine that join worlds over the loopback interface and shared memory, and measures:
  standing  one pair of processes with 1, 10, 100, 1000 worlds: latency with traffic on one, on two and on all of them,
            the watchdog's time, memory and threads of an idle world, joining
  pairs     what further worlds cost the traffic: with 10 worlds against 1, and with 1000 idle ones against none, in
            turns in the same pair of processes
  joins     what it costs the traffic of 8 worlds when one of their processes joins a new one with a newcomer
  crowd     worlds of 2 to 64 processes: collectives, joining

Options:
  --only PART,...  these parts
  --quick          few worlds and processes, short: to try it, the numbers mean nothing
  --rounds N       pairs of measurements (default: 21)
  --json           one JSON object in place of tables
  --out FILE       write the tables as markdown, too

On a quiet machine; as root under `chrt -f 10` where others use it, too.
";

/// What is measured, and how long.
#[derive(Clone, Debug)]
pub struct Options {
    parts: Vec<String>,
    quick: bool,
    rounds: usize,
    json: bool,
    out: Option<String>,
}

/// Measures a part.
type Run = fn(&Options) -> Result<Vec<Table>>;

/// The parts, in the order in which they run.
const PARTS: [(&str, Run); 4] =
    [("standing", standing::run), ("pairs", pairs::run), ("joins", joins::run), ("crowd", crowd::run)];

#[derive(Serialize)]
struct Report {
    machine: Machine,
    tables: Vec<Table>,
}

fn options(arguments: impl Iterator<Item = String>) -> std::result::Result<Option<Options>, String> {
    let parts = PARTS.map(|(name, _)| name.to_owned()).to_vec();
    let mut options = Options { parts, quick: false, rounds: 21, json: false, out: None };
    // Cargo says that this is a benchmark.
    let mut arguments = arguments.filter(|argument| argument != "--bench");
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument} wants a value; see --help"));
        match argument.as_str() {
            "-h" | "--help" => return Ok(None),
            "--quick" => (options.quick, options.rounds) = (true, 2),
            "--json" => options.json = true,
            "--out" => options.out = Some(value()?),
            "--rounds" => {
                let rounds = value()?;
                options.rounds = rounds
                    .parse()
                    .ok()
                    .filter(|rounds| *rounds > 0)
                    .ok_or_else(|| format!("--rounds: {rounds} is not a positive number"))?;
            }
            "--only" => {
                options.parts = value()?.split(',').map(str::to_owned).collect();
                let unknown = |part: &&String| !PARTS.iter().any(|(name, _)| name == part);
                if let Some(part) = options.parts.iter().find(unknown) {
                    return Err(format!("--only: {part} is no part; see --help"));
                }
            }
            other => return Err(format!("{other}: no such option; see --help")),
        }
    }
    Ok(Some(options))
}

fn measure(options: &Options) -> Result<()> {
    let mut report = Report { machine: Machine::here(), tables: Vec::new() };
    for (name, run) in PARTS {
        if options.parts.iter().any(|part| part == name) {
            let tables = run(options).map_err(|e| format!("{name}: {e}"))?;
            if !options.json {
                tables.iter().for_each(|table| println!("{}", table.plain()));
            }
            report.tables.extend(tables);
        }
    }
    if options.json {
        println!("{}", serde_json::to_string_pretty(&report).map_err(|e| e.to_string())?);
    }
    if let Some(path) = &options.out {
        let mut text = format!("# How worlds and processes scale\n\n{}\n", report.machine);
        report.tables.iter().for_each(|table| text.push_str(&format!("\n{}", table.markdown())));
        std::fs::write(path, text).map_err(|e| format!("--out: {path}: {e}"))?;
    }
    Ok(())
}

fn main() -> ExitCode {
    let is_rank = std::env::var_os(ranks::ROLE).is_some();
    let outcome = match options(std::env::args().skip(1)) {
        _ if is_rank => member::run(),
        Ok(Some(options)) => measure(&options),
        Ok(None) => {
            print!("{HELP}");
            Ok(())
        }
        Err(e) => {
            eprintln!("scale: {e}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("scale: {e}");
            ExitCode::FAILURE
        }
    }
}

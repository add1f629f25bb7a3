//! `mw perf --tune`: finds out where one algorithm takes over from another, and writes that to a file for `MW_TUNING`.
//!
//! For every number of ranks that many processes are started, one after the other. They hold worlds with different
//! tables at the same time, one per algorithm, and measure them in turn. All of them see the same times and come to
//! the same answers; rank 0 writes them down.
//!
//! | file | does | I/O |
//! |---|---|---|
//! | `agenda` | what is asked, in which order | none |
//! | `ladder` | which algorithm follows on which, and from where on | none |
//! | `choice` | one value of several | none |
//! | `text` | the file that is written | none |
//! | `lab` | times of the same operation with several tables | through the library |
//! | `file` | files that are there when they are whole | files |

mod agenda;
mod choice;
mod file;
mod lab;
mod ladder;
mod text;

use super::args::{Args, Transport};
use super::launch::{self, Ending};
use super::machine::Machine;
use super::report;
use crate::api::{Failure, Result};
use agenda::Setup;
use lab::Lab;
use multiworld::config::table::Table;
use multiworld::config::tuning::{Topology, Tuning};
use std::io::{Read, Seek};
use std::path::Path;
use std::process::Stdio;
use std::time::{Instant, SystemTime};
use text::Section;

/// Where ranks find the table of the world that they join next: what they were given for a standard input.
const BOARD: &str = "/proc/self/fd/0";

/// What kind of world the arguments are about.
fn topology(args: &Args) -> Topology {
    match args.transport {
        Some(Transport::Tcp) => Topology::Network,
        // On one machine `auto` is shared memory.
        _ => Topology::SharedMemory,
    }
}

/// The numbers of ranks, ascending.
fn numbers(args: &Args) -> Vec<u32> {
    let mut numbers = args.ranks.clone();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

/// Starts the ranks and writes what they have found out.
pub fn run(args: &Args, path: &Path) -> Result<()> {
    file::check(path)?;
    let begin = Instant::now();
    let mut sections = Vec::new();
    for ranks in numbers(args) {
        let board = file::without_name()?;
        let mut answer = file::without_name()?;
        let shared = |file: &std::fs::File| {
            file.try_clone().map(Stdio::from).map_err(|e| Failure::new(format!("sharing a file: {e}")))
        };
        let ending = launch::start(ranks, &|rank, command| {
            command.stdin(shared(&board)?).env("MW_TUNING", BOARD);
            if rank == 0 {
                command.stdout(shared(&answer)?);
            }
            Ok(())
        })?;
        if ending == Ending::WrongData {
            return Err(Failure::new("a rank ended with a status that has no meaning here"));
        }
        let mut section = String::new();
        let read = answer.rewind().and_then(|()| answer.read_to_string(&mut section));
        read.map_err(|e| Failure::new(format!("reading what {ranks} ranks have found out: {e}")))?;
        sections.push(section);
    }
    let took = begin.elapsed();
    let text = text::document(&Machine::here().to_string(), SystemTime::now(), took, args.quick, &sections);
    // What the library would refuse must not get into a file.
    Table::parse(&text).map_err(|(line, mistake)| Failure::new(format!("line {line}: {mistake}")))?;
    file::replace(path, &text)?;
    let name = path.display();
    report::write(&format!(
        "{name}: written in {:.0} s; MW_TUNING={name} makes worlds use it\n",
        took.as_secs_f64()
    ))
}

/// One of the ranks.
pub fn rank(args: &Args) -> Result<()> {
    let mut lab = Lab::join(topology(args), args.quick)?;
    match measured(args, &mut lab) {
        Ok(()) => lab.leave(),
        Err(failure) => {
            lab.abort();
            Err(failure)
        }
    }
}

fn measured(args: &Args, lab: &mut Lab) -> Result<()> {
    let topology = topology(args);
    let setup = Setup { nranks: lab.nranks(), quick: args.quick };
    let mut tuning = Tuning::of(topology);
    let mut section =
        Section::new(topology, setup.nranks, numbers(args).first() == Some(&(setup.nranks as u32)));
    let asked = agenda::questions();
    for (at, ask) in asked.iter().enumerate() {
        let Some(question) = ask(&setup, &tuning) else { continue };
        let times = lab.measure(&question, (at + 1, asked.len()))?;
        section.hear(&times);
        for finding in question.answer(&tuning, &times) {
            if let Some(value) = tuning.get_mut(finding.key) {
                *value = finding.value;
            }
            section.add(finding);
        }
    }
    if lab.is_first() {
        report::write(&section.text())?;
    }
    Ok(())
}

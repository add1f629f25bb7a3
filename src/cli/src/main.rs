//! `mw`, the command of multiworld. Each subcommand is a module with its arguments and a function that runs it;
//! what it answers becomes the exit status: 0, 1 for a run that failed, 2 for wrong arguments.

mod api;
mod perf;
mod store;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(
    name = "mw",
    version,
    about = "Many NCCL-like communicators per process, each its own fault domain"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measures worlds: latency, bandwidth, every collective
    Perf(Box<perf::Args>),
    /// Runs the store where worlds that are joined by name meet
    Store(store::Args),
}

fn main() -> ExitCode {
    let (name, outcome) = match Cli::parse().command {
        Command::Perf(args) => ("mw perf", perf::run(&args)),
        Command::Store(args) => ("mw store", store::run(&args)),
    };
    outcome.unwrap_or_else(|failure| {
        eprintln!("{name}: {failure}");
        ExitCode::FAILURE
    })
}

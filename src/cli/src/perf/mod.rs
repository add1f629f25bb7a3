//! `mw perf`: measures worlds as a C program sees them.
//!
//! | file | does | I/O |
//! |---|---|---|
//! | `args` | the arguments and the manual | none |
//! | `plan` | which operations at which sizes, and for how long | none |
//! | `op`, `size`, `iterations` | what is particular about operations; sizes; how often | none |
//! | `contents`, `pattern`, `element` | what buffers hold before and after | none |
//! | `stats`, `row`, `format` | from times to lines | none |
//! | `launch` | ranks as processes of this machine | processes |
//! | `pin` | a rank on a processor of its own | processes |
//! | `session` | one rank, from joining to leaving | through the library |
//! | `exercise`, `control`, `memory` | an operation, agreement between ranks, buffers | through the library |
//! | `tune` | `--tune`, which has parts of its own | as above, and files |
//! | `report`, `machine` | what is printed, and about which machine | standard output, /proc |

mod args;
mod contents;
mod control;
mod element;
mod exercise;
mod format;
mod iterations;
mod launch;
mod machine;
mod memory;
mod op;
mod pattern;
mod pin;
mod plan;
mod report;
mod row;
mod session;
mod size;
mod stats;
mod tune;

pub use args::Args;

use crate::api::{Failure, Result};
use args::Backend;
use clap::error::ErrorKind;
use launch::Ending;
use multiworld::nccl::cuda;
use plan::Plan;
use std::path::Path;
use std::process::ExitCode;

/// Whoever is no rank and starts none has probably forgotten to say which.
fn hint(failure: Failure) -> Failure {
    match multiworld::config::ranks_from_env() {
        Ok(_) => failure,
        Err(_) => Failure::new(format!("{failure} (-n starts ranks on this machine)")),
    }
}

/// Ends the process because of a wrong argument.
fn refuse(text: String) -> ! {
    clap::Error::raw(ErrorKind::ValueValidation, text + "\n").exit()
}

/// Does a rank's part; an error says whose it is.
fn as_rank<T>(args: &Args, body: impl FnOnce() -> Result<T>) -> Result<T> {
    let rank = std::env::var("MW_RANK").unwrap_or_default();
    let pinned = if args.pin { pin::to_own_processor() } else { Ok(()) };
    pinned.and_then(|()| body()).map_err(|failure| Failure::new(format!("rank {rank}: {failure}")))
}

/// `--tune`, in whichever part this process has.
fn tune(args: &Args, path: &Path) -> Result<()> {
    if args.ranks.contains(&1) {
        refuse("--ranks: one rank has nothing to tune".to_owned());
    }
    if launch::is_rank()? { as_rank(args, || tune::rank(args)) } else { tune::run(args, path) }
}

/// Runs the command in whichever part this process has: the parent of ranks or one of them.
pub fn run(args: &Args) -> Result<ExitCode> {
    if let Some(path) = &args.tune {
        return tune(args, path).map(|()| ExitCode::SUCCESS);
    }
    let plan = Plan::new(args, &|name| std::env::var(name).ok());
    let plan = plan.unwrap_or_else(|text| refuse(text));
    if args.backend == Backend::Nccl && !cuda::is_usable() {
        let missing = "there is no CUDA driver with a device on this machine";
        return Err(Failure::new(format!("--backend nccl: {missing}")));
    }
    if launch::is_rank()? {
        let wrong = as_rank(args, || session::run(args, &plan, "mw-perf"))?;
        return Ok(ExitCode::from(if wrong > 0 { launch::WRONG } else { 0 }));
    }
    let is_wrong = match args.ranks.first() {
        Some(ranks) => launch::start(*ranks, &|_, _| Ok(()))? == Ending::WrongData,
        None => session::run(args, &plan, &args.name).map_err(hint)? > 0,
    };
    if is_wrong {
        return Err(Failure::new("what arrived was not what was sent; see #wrong"));
    }
    Ok(ExitCode::SUCCESS)
}

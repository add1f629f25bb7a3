//! Worlds on a real GPU. Ranks are processes that share one device. Where there is no GPU, or no genuine
//! NCCL, every test prints why it is skipped. `MW_GPU_TEST_DOUBLES=1` runs all of them over the doubles, so
//! that they cannot rot; instead of 1 it may name a folder with the doubles in it, as `make doubles` makes
//! it.
//!
//! Figures are printed, and appended to the file that `MW_GPU_REPORT` names.

#[path = "../common/mod.rs"]
mod common;
#[allow(dead_code)] // Ways to run a script that need no second process.
#[path = "../collectives/scenarios.rs"]
mod scenarios;
#[allow(dead_code)] // As above.
#[path = "../collectives/script.rs"]
mod script;
#[path = "../collectives/values.rs"]
mod values;

mod abort;
mod conformance;
mod cycles;
mod figures;
mod kill;
mod overhead;
mod place;
mod raw;
mod seat;

/// What a process is that a test has started.
#[test]
fn rank() {
    let Some((role, args)) = common::role() else { return };
    // A rank that fails says so by its end, whichever thread it was.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        hook(info);
        std::process::exit(101);
    }));
    match &*role {
        "probe" => place::probe(&args),
        "script" => conformance::rank(&args),
        "survivor" => kill::survivor(&args),
        "victim" => kill::victim(&args),
        "second" => kill::second(&args),
        "aborter" => abort::aborter(),
        "friend" => abort::friend(),
        "cycles" => cycles::rank(&args),
        "overhead" => overhead::rank(&args),
        other => panic!("no role {other}"),
    }
}

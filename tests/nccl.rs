//! Worlds on device memory, over the doubles of CUDA and NCCL: the same operations and references as on host memory.

mod common;
#[path = "collectives/scenarios.rs"]
mod scenarios;
#[path = "collectives/script.rs"]
mod script;
#[path = "collectives/values.rs"]
mod values;

use common::{Rank, doubles, now_ns, role, say, store_address};
use multiworld::config::{BackendChoice, Config};
use multiworld::nccl::loader;
use multiworld::world::World;
use proptest::test_runner::{TestCaseError, TestError};
use scenarios::{digest, play_all, runner, scenario, script_of_everything};
use script::{Item, Step, play};
use std::time::Duration;

fn number(args: &[String], at: usize) -> i32 {
    args[at].parse().expect("a number")
}

#[test]
fn rank() {
    let Some((role, args)) = role() else { return };
    match &*role {
        "script" => script_rank(&args),
        "random" => random_ranks(),
        other => panic!("no role {other}"),
    }
}

/// Starts this binary again with the doubles in place of CUDA and NCCL.
fn start(role: &str, args: &[String], env: &[(&str, &str)]) -> Rank {
    let d = doubles::get();
    let (folder, nccl) = (d.folder.to_string_lossy(), d.nccl.to_string_lossy());
    let ours = [("LD_LIBRARY_PATH", &*folder), ("MW_NCCL_LIB", &*nccl), ("MW_BACKEND", "nccl")];
    Rank::start("rank", role, args, &[&ours[..], env].concat())
}

/// Arguments: ranks of the first world, of the second, own rank.
fn script_rank(args: &[String]) {
    let (n, m, me) = (number(args, 0), number(args, 1), number(args, 2));
    let config = Config { timeout: Duration::from_secs(30), ..Config::from_env().expect("settings") };
    assert_eq!(config.backend, BackendChoice::Nccl);
    let mut worlds = vec![World::init_named("all", n, me, &config).expect("joining")];
    if me < m {
        worlds.push(World::init_named("some", m, me, &config).expect("joining"));
    }
    let mut steps = tame(script_of_everything());
    if loader::get().expect("the double").version < 22400 {
        steps.retain(|s| !format!("{s:?}").contains("Float8"));
    }
    let same = play(&worlds, &steps).unwrap_or_else(|e| panic!("{e}"));
    let digest = digest(&same);
    worlds.iter().for_each(|w| w.destroy().expect("destroying"));
    say(&format!("{} operations, {} bytes with digest {digest:x}", steps.len(), same.concat().len()));
}

/// Every operation with `sizes` of worlds, with settings besides.
fn between_processes(sizes: std::ops::RangeInclusive<usize>, extra: &[(&str, &str)]) {
    let seed = std::env::var("MW_TEST_SEED").unwrap_or_else(|_| now_ns().to_string());
    println!("MW_TEST_SEED={seed}");
    for n in sizes {
        let store = store_address();
        let env = [&[("MW_STORE", &*store), ("MW_TEST_SEED", &seed)], extra].concat();
        let args = |me: usize| vec![n.to_string(), (1 + (n - 1) / 2).to_string(), me.to_string()];
        let mut ranks: Vec<Rank> = (0..n).map(|me| start("script", &args(me), &env)).collect();
        let said: Vec<_> = ranks.iter_mut().map(|r| r.hear().expect("a rank comes through")).collect();
        println!("{n} processes: {}", said[0]);
        assert!(said.iter().all(|s| *s == said[0]), "ranks have different bits: {said:?}");
        ranks.into_iter().for_each(Rank::finish);
    }
}

#[test]
fn every_operation_between_processes() {
    if role().is_none() {
        between_processes(2..=4, &[]);
    }
}

/// It lacks all-to-all, gather and scatter, which are made of sends and receives then.
#[test]
fn every_operation_with_an_older_nccl() {
    if role().is_none() {
        let old = doubles::get().old_nccl.to_string_lossy();
        between_processes(2..=3, &[("MW_NCCL_LIB", &old)]);
    }
}

/// What becomes of infinities and NaN is NCCL's affair.
fn tame(mut steps: Vec<Step>) -> Vec<Step> {
    for step in &mut steps {
        let items: Vec<&mut Item> = match step {
            Step::One(_, item) => vec![item],
            Step::Group { items, .. } => items.iter_mut().map(|(_, item)| item).collect(),
        };
        for item in items {
            if let Item::Op(op) = item {
                op.wild = false;
            }
        }
    }
    steps
}

fn random_ranks() {
    let env = Config::from_env().expect("settings");
    let config = Config { timeout: Duration::from_secs(30), ..env };
    let mut runner = runner(40);
    let result = runner
        .run(&scenario(), |(n, m, steps)| play_all(&config, n, m, &tame(steps)).map_err(TestCaseError::fail));
    match result {
        Ok(()) => say("done"),
        Err(TestError::Fail(why, case)) => panic!("{why}\nfor {case:#?}"),
        Err(e) => panic!("{e}"),
    }
}

#[test]
fn random_operations_between_threads() {
    if role().is_some() {
        return;
    }
    let mut process = start("random", &[], &[("MW_DOUBLE_CUDA", "devices=9")]);
    process.expect("done");
    process.finish();
}

//! What the operations are tested with, whoever carries them out: random scripts, and one with everything in it.

use super::common::now_ns;
use super::script::{Item, Message, Op, Step, play};
use multiworld::config::Config;
use multiworld::sync::Arc;
use multiworld::types::{DataType, OpKind};
use multiworld::world::World;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use std::panic::{AssertUnwindSafe, catch_unwind};

const KINDS: [OpKind; 9] = [
    OpKind::Broadcast,
    OpKind::Reduce,
    OpKind::AllReduce,
    OpKind::AllGather,
    OpKind::ReduceScatter,
    OpKind::AllToAll,
    OpKind::Gather,
    OpKind::Scatter,
    OpKind::Barrier,
];

/// Most are small, some fill several ring cells, few take the ways of large messages.
fn count() -> impl Strategy<Value = usize> {
    prop_oneof![3 => 0..20usize, 6 => 0..5000usize, 1 => 5000..(2usize << 20)]
}

fn op() -> impl Strategy<Value = Op> {
    let what = (0..KINDS.len(), 0..DataType::ALL.len(), 0..6u8, any::<u32>(), count());
    let how = (any::<u16>(), prop_oneof![Just(0), 0..64usize], prop::bool::weighted(0.2), any::<u64>());
    (what, how).prop_map(|((kind, dtype, red, root, count), (in_place, offset, wild, seed))| Op {
        kind: KINDS[kind],
        dtype: DataType::ALL[dtype],
        red,
        root,
        count,
        in_place,
        offset,
        wild,
        seed,
    })
}

fn message() -> impl Strategy<Value = Message> {
    (any::<u32>(), any::<u32>(), 0..DataType::ALL.len(), count(), any::<u64>()).prop_map(
        |(from, to, dtype, count, seed)| Message { from, to, dtype: DataType::ALL[dtype], count, seed },
    )
}

fn item() -> impl Strategy<Value = Item> {
    prop_oneof![2 => op().prop_map(Item::Op), 1 => message().prop_map(Item::Message)]
}

fn step() -> impl Strategy<Value = Step> {
    let on = || (0..2u8, item());
    prop_oneof![
        2 => on().prop_map(|(w, i)| Step::One(w, i)),
        1 => (prop::collection::vec(on(), 0..6), any::<bool>())
            .prop_map(|(items, background)| Step::Group { items, background }),
    ]
}

/// Two world sizes, the second at most the first, and what happens on them.
pub fn scenario() -> impl Strategy<Value = (usize, usize, Vec<Step>)> {
    (1..10usize, any::<prop::sample::Index>(), prop::collection::vec(step(), 1..8))
        .prop_map(|(n, m, steps)| (n, m.index(n) + 1, steps))
}

/// A runner whose seed is printed.
pub fn runner(default_cases: u32) -> TestRunner {
    let seed = std::env::var("MW_TEST_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(now_ns);
    println!("MW_TEST_SEED={seed}");
    let mut config =
        ProptestConfig { failure_persistence: None, max_shrink_iters: 60, ..ProptestConfig::default() };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = default_cases;
    }
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&u64::to_le_bytes(seed));
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
}

/// Plays a script on two new worlds with threads as ranks.
pub fn play_all(config: &Config, n: usize, m: usize, steps: &[Step]) -> Result<(), String> {
    let world = |n: usize| World::init_all(n as i32, config).map_err(|e| e.to_string());
    let (a, b) = (world(n)?, world(m)?);
    let results: Vec<Result<Vec<Vec<u8>>, String>> = std::thread::scope(|s| {
        let play = |me: usize| {
            let worlds: Vec<Arc<World>> = [Some(&a[me]), b.get(me)].into_iter().flatten().cloned().collect();
            s.spawn(move || {
                if worlds[0].is_on_device() {
                    multiworld::nccl::cuda::bind(worlds[0].device()).map_err(|e| e.to_string())?;
                }
                // Should it panic or fail, the others must not wait for it.
                let played = catch_unwind(AssertUnwindSafe(|| play(&worlds, steps)));
                let result = played.unwrap_or_else(|_| Err("a rank panicked".into()));
                if result.is_err() {
                    worlds.iter().for_each(|w| w.abort());
                }
                worlds.iter().try_for_each(|w| w.destroy()).map_err(|e| e.to_string())?;
                result
            })
        };
        let threads: Vec<_> = (0..n).map(play).collect();
        threads.into_iter().map(|t| t.join().unwrap_or_else(|_| Err("a rank panicked".into()))).collect()
    });
    // The first to fail knows why; the others only that it aborted.
    let errors: Vec<&String> = results.iter().filter_map(|r| r.as_ref().err()).collect();
    if let Some(e) = errors.iter().find(|e| !e.contains("aborted")).or(errors.first()) {
        return Err((**e).clone());
    }
    let outputs: Vec<_> = results.iter().flatten().collect();
    // World 1 has as many ranks as world 0 only if it has all of them.
    match outputs.iter().position(|o| *o != outputs[0]) {
        Some(r) => Err(format!("AllReduce: ranks 0 and {r} have different bits")),
        None => Ok(()),
    }
}

/// Every operation with every type and reduction, in place on every other rank.
fn everything() -> Vec<Step> {
    let mut steps = Vec::new();
    let mut seed = 0;
    let mut push = |kind: OpKind, dtype, red, count| {
        seed += 1;
        let in_place = if seed % 2 == 0 { 0x5555 } else { 0xaaaa };
        let offset = if seed % 3 == 0 { seed as usize } else { 0 };
        let op =
            Op { kind, dtype, red, root: seed as u32, count, in_place, offset, wild: seed % 5 == 0, seed };
        steps.push(Step::One(0, Item::Op(op)));
    };
    for kind in KINDS {
        for dtype in DataType::ALL {
            for red in 0..if kind.reduces() { 6 } else { 1 } {
                [0, 1, 333].into_iter().for_each(|count| push(kind, dtype, red, count));
            }
        }
        for (dtype, count) in
            [(DataType::Float32, 40_000), (DataType::Bfloat16, 70_001), (DataType::Uint8, 200_000)]
        {
            push(kind, dtype, 0, count);
        }
    }
    for i in 0..40 {
        let count = [0, 1, 100, 5000, 100_000][i as usize % 5];
        let m = Message { from: i, to: i / 3 + 1, dtype: DataType::Uint8, count, seed: u64::from(i) };
        steps.push(Step::One(0, Item::Message(m)));
    }
    steps
}

/// Everything, and some random groups; the same for the same `MW_TEST_SEED`.
pub fn script_of_everything() -> Vec<Step> {
    let mut steps = everything();
    let groups = prop::collection::vec(step(), 20);
    steps.extend(groups.new_tree(&mut runner(1)).expect("a tree").current());
    steps
}

/// FNV-1a of all outputs.
pub fn digest(outputs: &[Vec<u8>]) -> u64 {
    let bytes = outputs.iter().flatten();
    bytes.fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3))
}

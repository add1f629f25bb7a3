//! Every operation on real worlds against a naive reference: random operations, types, reductions, roots, counts and
//! worlds, alone, in sequences and in groups over two worlds; and once each with everything else fixed, between
//! processes. `MW_TEST_SEED` repeats a run, `PROPTEST_CASES` sets how many.

mod common;
#[path = "collectives/script.rs"]
mod script;
#[path = "collectives/values.rs"]
mod values;

use common::{Rank, now_ns, role, say, store_address};
use multiworld::config::{Config, TransportChoice};
use multiworld::sync::Arc;
use multiworld::types::{DataType, OpKind};
use multiworld::world::World;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use script::{Item, Message, Op, Step, play};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

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

fn config(transport: TransportChoice) -> Config {
    let env = Config::from_env().expect("settings");
    Config { transport, ifname: Some("lo".into()), timeout: Duration::from_secs(30), ..env }
}

// What is drawn.

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
fn scenario() -> impl Strategy<Value = (usize, usize, Vec<Step>)> {
    (1..10usize, any::<prop::sample::Index>(), prop::collection::vec(step(), 1..8))
        .prop_map(|(n, m, steps)| (n, m.index(n) + 1, steps))
}

/// A runner whose seed is printed.
fn runner(default_cases: u32) -> TestRunner {
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

// Ranks as threads.

/// Plays a script on two new worlds with threads as ranks.
fn play_all(transport: TransportChoice, n: usize, m: usize, steps: &[Step]) -> Result<(), String> {
    let world = |n: usize| World::init_all(n as i32, &config(transport)).map_err(|e| e.to_string());
    let (a, b) = (world(n)?, world(m)?);
    let results: Vec<Result<Vec<Vec<u8>>, String>> = std::thread::scope(|s| {
        let play = |me: usize| {
            let worlds: Vec<Arc<World>> = [Some(&a[me]), b.get(me)].into_iter().flatten().cloned().collect();
            s.spawn(move || {
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

fn random_scenarios(transport: TransportChoice) {
    if role().is_some() {
        return;
    }
    let mut runner = runner(100);
    let result = runner
        .run(&scenario(), |(n, m, steps)| play_all(transport, n, m, &steps).map_err(TestCaseError::fail));
    match result {
        Ok(()) => {}
        Err(TestError::Fail(why, case)) => panic!("{transport:?}: {why}\nfor {case:#?}"),
        Err(e) => panic!("{e}"),
    }
}

#[test]
fn random_operations_over_shared_memory() {
    random_scenarios(TransportChoice::Shm);
}

#[test]
fn random_operations_over_tcp() {
    random_scenarios(TransportChoice::Tcp);
}

// Ranks as processes.

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

#[test]
fn rank() {
    let Some((_, args)) = role() else { return };
    let number = |i: usize| -> i32 { args[i].parse().expect("a number") };
    let (n, m, me) = (number(0), number(1), number(2));
    let config = Config { timeout: Duration::from_secs(30), ..Config::from_env().expect("settings") };
    let mut worlds = vec![World::init_named("all", n, me, &config).expect("joining")];
    if me < m {
        worlds.push(World::init_named("some", m, me, &config).expect("joining"));
    }
    let mut steps = everything();
    // The same in all processes: the seed comes with the environment.
    let groups = prop::collection::vec(step(), 20);
    steps.extend(groups.new_tree(&mut runner(1)).expect("a tree").current());
    let same = play(&worlds, &steps).unwrap_or_else(|e| panic!("{e}"));
    let digest = same.concat().iter().fold(0xcbf2_9ce4_8422_2325u64, |h, b| {
        // FNV-1a.
        (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3)
    });
    worlds.iter().for_each(|w| w.destroy().expect("destroying"));
    say(&format!("{} operations, {} bytes with digest {digest:x}", steps.len(), same.concat().len()));
}

fn between_processes(transport: &str) {
    if role().is_some() {
        return;
    }
    let seed = std::env::var("MW_TEST_SEED").unwrap_or_else(|_| now_ns().to_string());
    println!("MW_TEST_SEED={seed}");
    for n in 2..=6 {
        let store = store_address();
        let env = [("MW_STORE", &*store), ("MW_TRANSPORT", transport), ("MW_TEST_SEED", &seed)];
        let args = |me: usize| vec![n.to_string(), (1 + (n - 1) / 2).to_string(), me.to_string()];
        let mut ranks: Vec<Rank> = (0..n).map(|me| Rank::start("rank", "script", &args(me), &env)).collect();
        let said: Vec<_> = ranks.iter_mut().map(|r| r.hear().expect("a rank comes through")).collect();
        println!("{transport}, {n} processes: {}", said[0]);
        assert!(said.iter().all(|s| *s == said[0]), "ranks have different bits: {said:?}");
        ranks.into_iter().for_each(Rank::finish);
    }
}

#[test]
fn every_operation_between_processes_over_shared_memory() {
    between_processes("shm");
}

#[test]
fn every_operation_between_processes_over_tcp() {
    between_processes("tcp");
}

// More than 4 GiB.

/// Memory that takes pages only where it is written.
struct Zeros {
    base: *mut u8,
    len: usize,
}

// SAFETY: the mapping belongs to this value and has no ties to a thread.
unsafe impl Send for Zeros {}

impl Zeros {
    fn new(len: usize) -> Zeros {
        let (protection, flags) = (
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
        );
        // SAFETY: a fresh mapping chosen by the kernel.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0) };
        assert_ne!(base, libc::MAP_FAILED);
        Zeros { base: base.cast(), len }
    }

    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: exactly the mapping, and `&mut self` makes the borrow exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.base, self.len) }
    }
}

impl Drop for Zeros {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping made in `new`.
        unsafe { libc::munmap(self.base.cast(), self.len) };
    }
}

fn available_bytes() -> u64 {
    let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = info.lines().find(|l| l.starts_with("MemAvailable:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kb| kb.parse::<u64>().ok()).unwrap_or(0) << 10
}

/// A count that fits neither 32 bits nor a multiple of anything.
const HUGE: usize = (1 << 32) + 12_347;
const BLOCK: usize = 1 << 20;

/// Where there is something else than zero, and what: every 37 MiB, and around the powers of two.
fn marks() -> impl Iterator<Item = (usize, u8)> {
    let edges = [1usize << 31, 1 << 32].into_iter().flat_map(|e| e - 2..e + 2);
    let last = HUGE - 1..HUGE;
    (0..HUGE).step_by(37 << 20).chain(edges).chain(last).map(|i| (i, (i >> 20) as u8 % 100 + 1))
}

/// All marks times `factor`, and zeros everywhere else.
fn check_marks(got: &[u8], factor: u8) {
    let mut expected = marks().collect::<Vec<_>>();
    expected.sort_unstable();
    let zeros = vec![0; BLOCK];
    let mut marks = expected.into_iter().peekable();
    for (b, block) in got.chunks(BLOCK).enumerate() {
        let mut wanted = zeros[..block.len()].to_vec();
        while let Some((i, mark)) = marks.next_if(|(i, _)| i / BLOCK == b) {
            wanted[i % BLOCK] = mark * factor;
        }
        assert!(block == wanted, "wrong in MiB {b}");
    }
}

#[test]
fn more_than_four_gibibytes() {
    if role().is_some() {
        return;
    }
    // Two outputs, what of the inputs is touched, and temporary memory.
    let needed = 3 * HUGE as u64;
    if std::env::var_os("MW_TEST_HUGE").is_none() || available_bytes() < needed {
        println!("skipped: needs MW_TEST_HUGE=1 and {} GiB of free memory", needed >> 30);
        return;
    }
    for transport in [TransportChoice::Shm, TransportChoice::Tcp] {
        let since = std::time::Instant::now();
        let config = Config { timeout: Duration::from_secs(300), ..config(transport) };
        let worlds = World::init_all(2, &config).expect("joining");
        std::thread::scope(|s| {
            for w in &worlds {
                s.spawn(move || huge(w));
            }
        });
        worlds.iter().for_each(|w| w.destroy().expect("destroying"));
        println!("{transport:?}: Send, Recv and AllReduce of {HUGE} bytes in {:?}", since.elapsed());
    }
}

fn huge(w: &World) {
    let (mut input, mut output) = (Zeros::new(HUGE), Zeros::new(HUGE));
    marks().for_each(|(i, mark)| input.bytes()[i] = mark);
    if w.rank() == 0 {
        w.run(&common::send(input.bytes(), 1)).expect("Send");
    } else {
        w.run(&common::recv(output.bytes(), 0)).expect("Recv");
        check_marks(output.bytes(), 1);
    }
    let out = output.bytes();
    w.run(&common::collective(OpKind::AllReduce, input.bytes(), out, HUGE, 0)).expect("AllReduce");
    check_marks(out, 2);
}

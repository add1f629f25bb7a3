//! Every operation on real worlds against a naive reference: random operations, types, reductions, roots, counts and
//! worlds, alone, in sequences and in groups over two worlds; and once each with everything else fixed, between
//! processes. `MW_TEST_SEED` repeats a run, `PROPTEST_CASES` sets how many.

mod common;
#[path = "collectives/scenarios.rs"]
mod scenarios;
#[path = "collectives/script.rs"]
mod script;
#[path = "collectives/values.rs"]
mod values;

use common::{Rank, now_ns, role, say, store_address};
use multiworld::config::tuning::Tuning;
use multiworld::config::{Config, TransportChoice};
use multiworld::types::OpKind;
use multiworld::world::World;
use proptest::test_runner::{TestCaseError, TestError};
use scenarios::{digest, play_all, runner, scenario, script_of_everything};
use script::play;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

fn config(transport: TransportChoice) -> Config {
    let env = Config::from_env().expect("settings");
    Config { transport, ifname: Some("lo".into()), timeout: Duration::from_secs(30), ..env }
}

// Ranks as threads.

fn random_scenarios(transport: TransportChoice) {
    if role().is_some() {
        return;
    }
    let mut runner = runner(100);
    let result = runner.run(&scenario(), |(n, m, steps)| {
        play_all(&config(transport), n, m, &steps).map_err(TestCaseError::fail)
    });
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
    // The same in all processes: the seed comes with the environment.
    let steps = script_of_everything();
    let same = play(&worlds, &steps).unwrap_or_else(|e| panic!("{e}"));
    let digest = digest(&same);
    worlds.iter().for_each(|w| w.destroy().expect("destroying"));
    say(&format!("{} operations, {} bytes with digest {digest:x}", steps.len(), same.concat().len()));
}

fn between_processes(transport: &str) {
    with_tables(transport, &[2, 3, 4, 5, 6], &|_| None);
}

/// The same script, where `table` is the text of the table that a rank has.
fn with_tables(transport: &str, sizes: &[usize], table: &dyn Fn(usize) -> Option<String>) {
    if role().is_some() {
        return;
    }
    let seed = std::env::var("MW_TEST_SEED").unwrap_or_else(|_| now_ns().to_string());
    println!("MW_TEST_SEED={seed}");
    for n in sizes.iter().copied() {
        let store = store_address();
        let args = |me: usize| vec![n.to_string(), (1 + (n - 1) / 2).to_string(), me.to_string()];
        let files: Vec<_> = (0..n).map(|me| table(me).map(TableFile::new)).collect();
        let start = |me: usize| {
            let table = files[me].as_ref().map_or("", |file| file.0.to_str().expect("a path"));
            let env = [
                ("MW_STORE", &*store),
                ("MW_TRANSPORT", transport),
                ("MW_TEST_SEED", &seed),
                ("MW_TUNING", table),
            ];
            Rank::start("rank", "script", &args(me), &env)
        };
        let mut ranks: Vec<Rank> = (0..n).map(start).collect();
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

/// A table in a file that goes with it.
struct TableFile(PathBuf);

impl TableFile {
    fn new(text: String) -> TableFile {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("mw-table-{}-{number}", std::process::id()));
        std::fs::write(&path, text).expect("writing a table");
        TableFile(path)
    }
}

impl Drop for TableFile {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).expect("removing a table");
    }
}

/// A table that says the same of everything.
fn everything_is(value: &str) -> String {
    let values: String = Tuning::KEYS.iter().map(|key| format!("{key} = {value}\n")).collect();
    format!("[shared-memory]\n{values}[network]\n{values}")
}

#[test]
fn tables_that_force_every_algorithm_give_the_same_results() {
    for transport in ["shm", "tcp"] {
        for value in ["0", "max"] {
            with_tables(transport, &[2, 5], &|_| Some(everything_is(value)));
        }
    }
}

#[test]
fn ranks_with_different_tables_follow_rank_0() {
    for transport in ["shm", "tcp"] {
        with_tables(transport, &[2, 5], &|me| match me % 3 {
            0 => Some(everything_is("0")),
            1 => Some(everything_is("max")),
            _ => None,
        });
        // Rank 0 has none.
        with_tables(transport, &[4], &|me| {
            (me > 0).then(|| everything_is(if me == 1 { "0" } else { "max" }))
        });
    }
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

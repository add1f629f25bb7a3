//! How long until every survivor knows: SIGKILL of a peer to the error on a pending receive, beside a world of
//! bystanders. The figures are printed; the assertions only catch hangs and wrong answers.

mod common;

use common::{Rank, barrier, listen, now_ns, percentile, recv, role, say, send, store_address};
use multiworld::config::Config;
use multiworld::error::Code;
use multiworld::world::World;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const VICTIM_RANK: &str = "rank";

#[test]
fn rank() {
    let Some((role, args)) = role() else { return };
    match &*role {
        "survivor" => survivor(&args),
        "victim" => victim(&args),
        "bystander" => bystander(&args),
        other => panic!("no role {other}"),
    }
}

fn number(args: &[String], at: usize) -> i32 {
    args[at].parse().expect("a number")
}

/// Arguments: ranks, own rank. Reads world names; joins, waits for the victim's end, reports when it knew. Leaves the
/// world when told to: on two processors, what the first survivors do next would delay the last ones' news.
fn survivor(args: &[String]) {
    let (n, me) = (number(args, 0), number(args, 1));
    let config = Config::from_env().expect("settings");
    loop {
        let name = listen();
        if name.is_empty() {
            return;
        }
        let w = World::init_named(&name, n, me, &config).expect("joining");
        let mut byte = [0];
        say("ready");
        let e = w.run(&recv(&mut byte, n as u32 - 1)).expect_err("the victim never sends");
        let at = now_ns();
        assert_eq!((e.code, w.failed_ranks()), (Code::Remote, vec![n as u32 - 1]), "{e}");
        say(&at.to_string());
        assert_eq!(listen(), "leave");
        w.destroy().expect("destroying");
    }
}

/// Arguments: ranks, world, megabytes to touch.
fn victim(args: &[String]) {
    let n = number(args, 0);
    let bytes = number(args, 2) as usize * (1 << 20);
    let mut memory = vec![0u8; bytes];
    memory.iter_mut().step_by(4096).for_each(|b| *b = 1);
    let config = Config::from_env().expect("settings");
    let w = World::init_named(&args[1], n, n - 1, &config).expect("joining");
    say("ready");
    let mut byte = [0];
    let _ = w.run(&recv(&mut byte, 0));
    drop(memory);
}

/// Arguments: own rank. Plays ping-pong until told to stop; reports round trips in each 10 ms.
fn bystander(args: &[String]) {
    let me = number(args, 0) as u32;
    let config = Config::from_env().expect("settings");
    let w = World::init_named("bystanders", 2, me as i32, &config).expect("joining");
    let mut byte = [0];
    if me == 1 {
        loop {
            w.run(&recv(&mut byte, 0)).expect("the other bystander lives");
            w.run(&send(&byte, 0)).expect("the other bystander lives");
            if byte[0] == 1 {
                return w.destroy().expect("destroying");
            }
        }
    }
    static STOP: AtomicBool = AtomicBool::new(false);
    static ROUNDS: AtomicU64 = AtomicU64::new(0);
    std::thread::spawn(|| {
        loop {
            match &*listen() {
                "stop" | "" => return STOP.store(true, Ordering::Relaxed),
                _ => say(&ROUNDS.load(Ordering::Relaxed).to_string()),
            }
        }
    });
    say("ready");
    while byte[0] == 0 {
        let last = [u8::from(STOP.load(Ordering::Relaxed))];
        w.run(&send(&last, 1)).expect("the other bystander lives");
        w.run(&recv(&mut byte, 1)).expect("the other bystander lives");
        ROUNDS.fetch_add(1, Ordering::Relaxed);
    }
    w.destroy().expect("destroying");
}

/// Kills `kills` victims of worlds of `n`; answers the milliseconds until each survivor knew.
fn massacre(store: &str, transport: &str, n: usize, kills: usize, megabytes: usize) -> Vec<f64> {
    let env = [("MW_STORE", store), ("MW_TRANSPORT", transport)];
    let args = |me: usize| vec![n.to_string(), me.to_string()];
    let mut survivors: Vec<Rank> =
        (0..n - 1).map(|me| Rank::start(VICTIM_RANK, "survivor", &args(me), &env)).collect();
    let mut times = Vec::new();
    for i in 0..kills {
        let name = format!("k-{transport}-{n}-{megabytes}-{i}");
        survivors.iter_mut().for_each(|s| s.tell(&name));
        let args = vec![n.to_string(), name, megabytes.to_string()];
        let mut victim = Rank::start(VICTIM_RANK, "victim", &args, &env);
        victim.expect("ready");
        survivors.iter_mut().for_each(|s| s.expect("ready"));
        // Some are killed at once, some when everybody has gone to sleep.
        std::thread::sleep(Duration::from_millis(i as u64 % 4 * 5));
        let at = victim.kill();
        for s in &mut survivors {
            let known: u64 = s.hear().expect("a survivor reports").parse().expect("a time");
            times.push(known.saturating_sub(at) as f64 / 1e6);
        }
        survivors.iter_mut().for_each(|s| s.tell("leave"));
    }
    for mut s in survivors {
        s.tell("");
        s.finish();
    }
    times
}

#[test]
fn every_survivor_knows_within_milliseconds() {
    if role().is_some() {
        return;
    }
    let store = store_address();
    let mut all = Vec::new();
    println!(
        "{:>9} {:>5} {:>10} {:>6} {:>8} {:>8} {:>8}  ms",
        "transport", "ranks", "victim MiB", "kills", "p50", "p99", "max"
    );
    let mut row = |transport: &str, n, kills, megabytes| {
        let mut t = massacre(&store, transport, n, kills, megabytes);
        t.sort_by(f64::total_cmp);
        let (p50, p99) = (percentile(&t, 50.0), percentile(&t, 99.0));
        println!(
            "{transport:>9} {n:>5} {megabytes:>10} {kills:>6} {p50:>8.3} {p99:>8.3} {:>8.3}",
            t[t.len() - 1]
        );
        all.extend(t);
    };
    // The first world's rank 0 hosts the store; it has to outlive all the others.
    let env = [("MW_STORE", &*store)];
    let mut by: Vec<Rank> =
        (0..2).map(|me| Rank::start(VICTIM_RANK, "bystander", &[me.to_string()], &env)).collect();
    by[0].expect("ready");
    let mut rate = |ms: u64| -> f64 {
        let mut ask = || {
            by[0].tell("?");
            by[0].hear().expect("rounds").parse::<u64>().expect("a number")
        };
        let (from, since) = (ask(), Instant::now());
        std::thread::sleep(Duration::from_millis(ms));
        (ask() - from) as f64 / since.elapsed().as_secs_f64()
    };
    let quiet = rate(1000);
    for transport in ["shm", "tcp"] {
        for n in [2, 4, 8] {
            row(transport, n, 35, 0);
        }
        if free_megabytes() > 7000 {
            row(transport, 2, 12, 4096);
        } else {
            println!("skipped: a victim with 4 GiB needs 7 GiB of free memory");
        }
    }
    all.sort_by(f64::total_cmp);
    println!(
        "all: {} observations, p50 {:.3} ms, p99 {:.3} ms; bystanders {quiet:.0} round trips/s alone, {:.0} after",
        all.len(),
        percentile(&all, 50.0),
        percentile(&all, 99.0),
        rate(1000)
    );
    by[0].tell("stop");
    by.into_iter().for_each(Rank::finish);
    assert!(percentile(&all, 99.0) < 1000.0, "detection takes longer than a second");
}

fn free_megabytes() -> u64 {
    let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = info.lines().find(|l| l.starts_with("MemAvailable:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kb| kb.parse::<u64>().ok()).unwrap_or(0) / 1024
}

/// A stopped process is as good as dead after the heartbeat timeout, and not before.
#[test]
fn a_stopped_peer_is_noticed_by_its_silence() {
    if role().is_some() {
        return;
    }
    let store = store_address();
    for transport in ["shm", "tcp"] {
        let env = [("MW_STORE", &*store), ("MW_TRANSPORT", transport), ("MW_HEARTBEAT_TIMEOUT_MS", "1000")];
        let mut survivor = Rank::start(VICTIM_RANK, "survivor", &["2".into(), "0".into()], &env);
        survivor.tell("stop");
        let mut victim = Rank::start(VICTIM_RANK, "victim", &["2".into(), "stop".into(), "0".into()], &env);
        victim.expect("ready");
        survivor.expect("ready");
        std::thread::sleep(Duration::from_millis(300));
        let at = now_ns();
        victim.signal(libc::SIGSTOP);
        let known: u64 = survivor.hear().expect("the survivor reports").parse().expect("a time");
        let ms = known.saturating_sub(at) as f64 / 1e6;
        println!("{transport}: SIGSTOP noticed after {ms:.0} ms (heartbeat timeout 1000 ms)");
        assert!((500.0..10_000.0).contains(&ms));
        survivor.tell("leave");
        survivor.tell("");
        survivor.finish();
    }
    let _ = barrier;
}

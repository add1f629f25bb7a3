//! Hundreds of worlds in one process: nothing grows, nothing is slow, and nobody notices the others.

mod common;

use common::{Rank, barrier, collective, listen, now_ns, percentile, recv, role, say, send, store_address};
use multiworld::config::Config;
use multiworld::sync::Arc;
use multiworld::types::OpKind;
use multiworld::world::World;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const ENTRY: &str = "rank";
/// Worlds of the scale test.
const WORLDS: usize = 500;
/// Threads that join at the same time, in each process.
const JOINERS: usize = 4;

#[test]
fn rank() {
    let Some((role, args)) = role() else { return };
    match &*role {
        "many" => many(&args),
        "churn" => churn(&args),
        other => panic!("no role {other}"),
    }
}

fn number(args: &[String], at: usize) -> usize {
    args[at].parse().expect("a number")
}

// What a process uses.

fn status(field: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").expect("procfs");
    let line = text.lines().find(|l| l.starts_with(field)).expect("a field of status");
    line.split_whitespace().nth(1).expect("a value").parse().expect("a number")
}

fn descriptors() -> usize {
    // One of them is the directory being read.
    std::fs::read_dir("/proc/self/fd").expect("procfs").count() - 1
}

/// User and system time of the library's threads so far, by name, in seconds.
fn library_time() -> BTreeMap<String, f64> {
    // SAFETY: no preconditions.
    let hz = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64;
    let mut times = BTreeMap::new();
    for task in std::fs::read_dir("/proc/self/task").expect("procfs").flatten() {
        // A thread may end while it is looked at.
        let Ok(stat) = std::fs::read_to_string(task.path().join("stat")) else { continue };
        let (head, tail) = stat.rsplit_once(')').expect("a name in parentheses");
        let name = head.split_once('(').expect("a name in parentheses").1;
        let fields: Vec<&str> = tail.split_whitespace().collect();
        let ticks: f64 = [11, 12].iter().map(|i| fields[*i].parse::<f64>().expect("ticks")).sum();
        // The scheduler's own account is exact where it exists; ticks are 10 ms each.
        let exact = std::fs::read_to_string(task.path().join("schedstat")).ok();
        let exact =
            exact.and_then(|s| s.split_whitespace().next()?.parse::<f64>().ok()).filter(|ns| *ns > 0.0);
        if name.starts_with("mw-") {
            *times.entry(name.to_string()).or_default() += exact.map_or(ticks / hz, |ns| ns / 1e9);
        }
    }
    times
}

fn raise_descriptor_limit() -> u64 {
    // SAFETY: `limit` is a valid place for the answer, and a valid argument.
    unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit), 0);
        limit.rlim_cur = limit.rlim_max;
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &limit), 0);
        limit.rlim_max
    }
}

// Many worlds of two.

/// A little of everything on one world; `me` is 0 or 1.
fn use_world(w: &World, me: u8) {
    let peer = u32::from(1 - me);
    let mut sum = [0];
    w.run(&collective(OpKind::AllReduce, &[me + 1], &mut sum, 1, 0)).expect("AllReduce");
    assert_eq!(sum, [3]);
    let (out, mut got) = ([me; 20_000], [9; 20_000]);
    if me == 0 {
        w.run(&send(&out, peer)).expect("Send");
        w.run(&recv(&mut got, peer)).expect("Recv");
    } else {
        w.run(&recv(&mut got, peer)).expect("Recv");
        w.run(&send(&out, peer)).expect("Send");
    }
    assert!(got.iter().all(|b| *b == 1 - me));
    w.run(&barrier()).expect("Barrier");
}

/// Runs `body` for every index below `count` on several threads.
fn spread<T: Send>(count: usize, body: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let results = Mutex::new(Vec::new());
    std::thread::scope(|s| {
        for t in 0..JOINERS {
            let (results, body) = (&results, &body);
            s.spawn(move || {
                for i in (t..count).step_by(JOINERS) {
                    let x = body(i);
                    results.lock().expect("no panic").push(x);
                }
            });
        }
    });
    results.into_inner().expect("no panic")
}

fn join(name: &str, n: i32, me: i32, config: &Config) -> Arc<World> {
    World::init_named(name, n, me, config).unwrap_or_else(|e| panic!("joining {name} as {me}: {e}"))
}

/// Arguments: own rank. Joins, uses, idles in and destroys worlds as it is told.
fn many(args: &[String]) {
    let me = number(args, 0);
    raise_descriptor_limit();
    let config = Config::from_env().expect("settings");
    let mut standing: Vec<Arc<World>> = Vec::new();
    // Hosts the store, and keeps the watchdog from beginning anew.
    let anchor = join("anchor", 2, me as i32, &config);
    loop {
        let line = listen();
        let words: Vec<&str> = line.split_whitespace().collect();
        let since = Instant::now();
        match words[..] {
            ["join", prefix, count] => {
                let count = count.parse().expect("a number");
                standing = spread(count, |i| join(&format!("{prefix}-{i}"), 2, me as i32, &config));
            }
            ["use"] => drop(spread(standing.len(), |i| use_world(&standing[i], me as u8))),
            ["idle", ms] => {
                let before = library_time();
                std::thread::sleep(Duration::from_millis(ms.parse().expect("a number")));
                let after = library_time();
                let wall = since.elapsed().as_secs_f64();
                let share = |name: &str| (after[name] - before.get(name).unwrap_or(&0.0)) / wall * 100.0;
                let each: Vec<String> = after.keys().map(|n| format!("{n}={:.4}", share(n))).collect();
                say(&each.join(" "));
                continue;
            }
            ["destroy"] => {
                spread(standing.len(), |i| standing[i].destroy().expect("destroying"));
                standing.clear();
            }
            ["one-by-one", prefix, count] => {
                let count: usize = count.parse().expect("a number");
                let mut times = Vec::new();
                for i in 0..count {
                    anchor.run(&barrier()).expect("Barrier");
                    let since = now_ns();
                    let w = join(&format!("{prefix}-{i}"), 2, me as i32, &config);
                    times.push((now_ns() - since) as f64 / 1e6);
                    w.destroy().expect("destroying");
                }
                times.sort_by(f64::total_cmp);
                let at = |p| percentile(&times, p);
                say(&format!("{:.3} {:.3} {:.3}", at(50.0), at(90.0), at(100.0)));
                continue;
            }
            _ => {
                anchor.destroy().expect("destroying");
                return;
            }
        }
        // In the same order in both processes.
        standing.sort_by_key(|w| w.name().to_string());
        let ms = since.elapsed().as_millis();
        // What a join leaves behind for an instant: the store's answers, threads that are just ending.
        std::thread::sleep(Duration::from_millis(20));
        say(&format!("{ms} {} {} {}", descriptors(), status("Threads:"), status("VmRSS:")));
    }
}

#[derive(Clone, Copy, Debug)]
struct Usage {
    ms: u64,
    descriptors: u64,
    threads: u64,
    rss_kib: u64,
}

/// Tells both processes, and hears how it went.
fn order(ranks: &mut [Rank], line: &str) -> Vec<Usage> {
    ranks.iter_mut().for_each(|r| r.tell(line));
    let hear = |r: &mut Rank| {
        let line = r.hear().unwrap_or_else(|| panic!("a rank died in '{line}'"));
        let n: Vec<u64> = line.split_whitespace().map(|x| x.parse().expect("a number")).collect();
        Usage { ms: n[0], descriptors: n[1], threads: n[2], rss_kib: n[3] }
    };
    ranks.iter_mut().map(hear).collect()
}

fn pair(transport: &str) -> Vec<Rank> {
    let store = store_address();
    let env = [("MW_STORE", &*store), ("MW_TRANSPORT", transport)];
    (0..2).map(|me| Rank::start(ENTRY, "many", &[me.to_string()], &env)).collect()
}

fn end(ranks: Vec<Rank>) {
    for mut r in ranks {
        r.tell("end");
        r.finish();
    }
}

fn ten_rounds(transport: &str) {
    let mut ranks = pair(transport);
    let mut second = Vec::new();
    println!("{transport}: {WORLDS} worlds, {JOINERS} threads; of both processes the larger figure");
    println!(
        "{:>5} {:>8} {:>7} {:>11} | {:>5} {:>7} {:>9}",
        "round", "join ms", "use ms", "destroy ms", "fds", "threads", "RSS KiB"
    );
    for round in 1..=10 {
        let joined = order(&mut ranks, &format!("join {transport}-{round} {WORLDS}"));
        let used = order(&mut ranks, "use");
        if round == 1 {
            println!("      standing: {used:?}");
            if transport == "shm" {
                assert!(
                    used.iter().all(|u| u.descriptors < WORLDS as u64),
                    "shared memory needs no descriptors"
                );
            }
        }
        let left = order(&mut ranks, "destroy");
        let max = |u: &[Usage], f: fn(&Usage) -> u64| u.iter().map(f).max().expect("two ranks");
        println!(
            "{round:>5} {:>8} {:>7} {:>11} | {:>5} {:>7} {:>9}",
            max(&joined, |u| u.ms),
            max(&used, |u| u.ms),
            max(&left, |u| u.ms),
            max(&left, |u| u.descriptors),
            max(&left, |u| u.threads),
            max(&left, |u| u.rss_kib)
        );
        if round == 2 {
            second = left;
        } else if round == 10 {
            // What may still grow is bounded: events that nobody fetches, and at rank 0 the store's memory of
            // deleted keys.
            for ((then, now), allowed) in second.iter().zip(&left).zip([6 << 10, 2 << 10]) {
                assert_eq!(now.descriptors, then.descriptors, "descriptors leak");
                assert_eq!(now.threads, then.threads, "threads leak");
                assert!(now.rss_kib < then.rss_kib + allowed, "memory leaks: {then:?}, {now:?}");
            }
        }
    }
    end(ranks);
}

/// Held by a test while it measures: the others of this file would disturb it.
fn alone() -> std::sync::MutexGuard<'static, ()> {
    static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// 500 worlds in one process are joined, used and destroyed 10 times over without growth of descriptors, threads
/// or memory.
#[test]
fn nothing_grows_over_shared_memory() {
    if role().is_none() {
        let _alone = alone();
        ten_rounds("shm");
    }
}

#[test]
fn nothing_grows_over_tcp() {
    if role().is_some() {
        return;
    }
    if raise_descriptor_limit() < 2 * WORLDS as u64 {
        println!("skipped: {WORLDS} TCP connections need a higher limit of descriptors");
        return;
    }
    let _alone = alone();
    ten_rounds("tcp");
}

/// The watchdog's cost does not depend on the number of worlds, and is next to nothing.
#[test]
fn idle_worlds_cost_nothing() {
    if role().is_some() {
        return;
    }
    let _alone = alone();
    let mut ranks = pair("shm");
    order(&mut ranks, &format!("join idle {WORLDS}"));
    // Whatever else the machine does disturbs a measurement, and always in the same direction: the best one counts.
    let mut best = f64::MAX;
    for _ in 0..3 {
        ranks.iter_mut().for_each(|r| r.tell("idle 3000"));
        let mut worst = 0.0f64;
        for (i, r) in ranks.iter_mut().enumerate() {
            let line = r.hear().expect("shares of a core");
            println!("rank {i} with {WORLDS} idle worlds, % of a core: {line}");
            let shares = line.split_whitespace().filter_map(|w| w.split_once('=')?.1.parse::<f64>().ok());
            worst = worst.max(shares.sum());
        }
        best = best.min(worst);
        if best < 1.0 {
            break;
        }
    }
    assert!(best < 1.0, "idle worlds cost {best} % of a core");
    order(&mut ranks, "destroy");
    end(ranks);
}

/// The time of a single join of two processes that know each other.
#[test]
fn a_join_takes_milliseconds() {
    if role().is_some() {
        return;
    }
    let _alone = alone();
    for transport in ["shm", "tcp"] {
        let mut ranks = pair(transport);
        ranks.iter_mut().for_each(|r| r.tell("one-by-one single 100"));
        for (i, r) in ranks.iter_mut().enumerate() {
            let line = r.hear().expect("times");
            println!("{transport}: rank {i}: joining a world of two takes p50 p90 max: {line} ms");
            let p50: f64 = line.split(' ').next().and_then(|x| x.parse().ok()).expect("a number");
            // Far above the target of 5 ms: it only catches waiting by polling, on a loaded machine, too.
            assert!(p50 < 20.0, "a join takes {p50} ms");
        }
        end(ranks);
    }
}

// Coming and going.

/// Processes of the churn test.
const PROCESSES: usize = 4;
/// Threads of each that come and go.
const LANES: usize = 3;
/// Worlds in each lane.
const VISITS: usize = 40;
/// Worlds that a lane keeps standing.
const KEPT: usize = 5;

/// A small generator, so that all processes draw the same.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        // Vigna's splitmix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }
}

/// What the members of one world do, the same on all of them. `salt` makes the contents its own.
fn checked_traffic(w: &World, salt: u8) {
    let (n, me) = (w.nranks() as usize, w.rank() as usize);
    let len = 1 + usize::from(salt) * 40;
    let mine = vec![salt.wrapping_add(me as u8); len];
    let mut all = vec![0; len * n];
    w.run(&collective(OpKind::AllGather, &mine, &mut all, len, 0)).expect("AllGather");
    for (r, part) in all.chunks(len).enumerate() {
        assert!(part.iter().all(|b| *b == salt.wrapping_add(r as u8)), "world {}, rank {r}", w.name());
    }
    let mut sum = vec![0; len];
    w.run(&collective(OpKind::AllReduce, &mine, &mut sum, len, 0)).expect("AllReduce");
    let expected = (0..n).fold(0u8, |s, r| s.wrapping_add(salt).wrapping_add(r as u8));
    assert!(sum.iter().all(|b| *b == expected), "world {}", w.name());
}

/// Arguments: own number, seed. In `LANES` threads worlds of random members are joined, used and left, in the same
/// order in all processes, while all processes exchange checked traffic in one world that stays.
fn churn(args: &[String]) {
    let (me, seed) = (number(args, 0), number(args, 1) as u64);
    raise_descriptor_limit();
    let config = Config::from_env().expect("settings");
    let main = join("main", PROCESSES as i32, me as i32, &config);
    let (done, rounds) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|s| {
        for lane in 0..LANES {
            let (config, done) = (&config, &done);
            s.spawn(move || {
                walk(me, lane, seed, config);
                done.fetch_add(1, Ordering::Release);
            });
        }
        // Until all processes have said that their lanes are done.
        loop {
            let finished = [u8::from(done.load(Ordering::Acquire) == LANES as u64)];
            let mut all = [0];
            main.run(&collective(OpKind::AllReduce, &finished, &mut all, 1, 0))
                .expect("the main world lives");
            checked_traffic(&main, (rounds.fetch_add(1, Ordering::Relaxed) % 251) as u8);
            if usize::from(all[0]) == PROCESSES {
                break;
            }
        }
    });
    main.destroy().expect("destroying");
    say(&format!("{} rounds in the main world", rounds.load(Ordering::Relaxed)));
}

fn walk(me: usize, lane: usize, seed: u64, config: &Config) {
    let mut random = Random(seed.wrapping_mul(1000).wrapping_add(lane as u64));
    // Every process keeps the same list, with what it is not a member of left empty.
    let mut kept: Vec<(Option<Arc<World>>, u8)> = Vec::new();
    for visit in 0..VISITS {
        let mut members: Vec<usize> = (0..PROCESSES).collect();
        for i in (1..PROCESSES).rev() {
            members.swap(i, random.below(i + 1));
        }
        members.truncate(1 + random.below(PROCESSES));
        let salt = random.below(256) as u8;
        let (pause, leave_how) = (random.below(3), random.below(8));
        if pause == 0 {
            std::thread::sleep(Duration::from_micros((me * 700) as u64));
        }
        let rank = members.iter().position(|p| *p == me);
        let world = rank.map(|rank| {
            let w = join(&format!("lane{lane}-{visit}"), members.len() as i32, rank as i32, config);
            checked_traffic(&w, salt);
            w
        });
        kept.push((world, salt));
        let again = random.below(kept.len());
        if let (Some(w), salt) = &kept[again] {
            checked_traffic(w, salt.wrapping_add(1));
        }
        if kept.len() > KEPT {
            let (world, _) = kept.remove(random.below(KEPT));
            if let Some(w) = world {
                leave(&w, leave_how);
            }
        }
    }
    kept.iter().filter_map(|(w, _)| w.as_ref()).for_each(|w| leave(w, 0));
}

/// Leaves a world; in some, one of the members is rude.
fn leave(w: &Arc<World>, how: usize) {
    match how {
        1 => {
            // Who is through it knows that nobody is busy with anything before; the others may not be through.
            let met = w.run(&barrier());
            if w.rank() == 0 {
                met.expect("nobody else is rude");
                w.abort();
            } else {
                // They may have heard of it before they leave, or not.
                drop(w.destroy());
            }
        }
        2 => {
            w.finalize().expect("finalizing");
            w.destroy().expect("destroying");
        }
        3 => {
            let child = w.split((w.rank() % 2) as i32, 0, None);
            let child = child.expect("splitting").expect("everybody has a color");
            w.destroy().expect("destroying the parent first");
            checked_traffic(&child, 7);
            child.destroy().expect("destroying");
        }
        _ => w.destroy().expect("destroying"),
    }
}

#[test]
fn worlds_come_and_go_beside_checked_traffic() {
    if role().is_some() {
        return;
    }
    let _alone = alone();
    let seed = std::env::var("MW_TEST_SEED").ok().and_then(|s| s.parse::<u32>().ok());
    let seed = seed.unwrap_or_else(|| (now_ns() % 1_000_000) as u32);
    for transport in ["shm", "tcp"] {
        println!("{transport}: MW_TEST_SEED={seed}");
        let store = store_address();
        let env = [("MW_STORE", &*store), ("MW_TRANSPORT", transport)];
        let start = |me: usize| Rank::start(ENTRY, "churn", &[me.to_string(), seed.to_string()], &env);
        let since = Instant::now();
        let mut ranks: Vec<Rank> = (0..PROCESSES).map(start).collect();
        let said = ranks[0].hear().expect("the processes come through");
        println!("{transport}: {} worlds in {:?}, {said}", LANES * VISITS, since.elapsed());
        ranks[1..].iter_mut().for_each(|r| assert!(r.hear().is_some(), "a process did not come through"));
        ranks.into_iter().for_each(Rank::finish);
    }
}

//! The store in a process of its own, which is killed and started again: what that does to worlds that exist (nothing),
//! to joins that are under way (they wait), and to what it knows (nothing is lost that was answered).

mod common;

use common::{Rank, listen, now_ns, recv, role, say, send, store_address};
use multiworld::auth::{self, KeyId};
use multiworld::config::Config;
use multiworld::store::{Client, Fsync, Server, Store};
use multiworld::sys::socket;
use multiworld::world::World;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const ENTRY: &str = "rank";

#[test]
fn rank() {
    let Some((role, args)) = role() else { return };
    match &*role {
        "store" => store(&args),
        "traffic" => traffic(&args),
        "joiner" => joiner(&args),
        other => panic!("no role {other}"),
    }
}

/// Arguments: address, folder or nothing. Serves until it is killed.
fn store(args: &[String]) {
    let addr: SocketAddr = args[0].trim_start_matches("tcp://").parse().expect("an address");
    let listener = socket::listen_tcp(addr, 512).expect("listening");
    let secret = auth::no_secret();
    let key = KeyId::of(&secret);
    let keys: multiworld::store::Keys = Arc::new(move |id| (id == key).then(|| secret.clone()));
    let server = match &*args[1] {
        "" => Server::start(listener, keys),
        dir => Server::start_kept(listener, keys, dir.as_ref(), Fsync::Always),
    };
    let _server = server.expect("serving");
    say("ready");
    listen();
}

/// Arguments: own rank. Plays ping-pong until told to stop; reports the longest time in which nothing came. Then joins
/// another world.
fn traffic(args: &[String]) {
    let me: u32 = args[0].parse().expect("a number");
    let config = Config::from_env().expect("settings");
    let w = World::init_named("traffic", 2, me as i32, &config).expect("joining");
    static STOP: AtomicBool = AtomicBool::new(false);
    static ROUNDS: AtomicU64 = AtomicU64::new(0);
    if me == 0 {
        std::thread::spawn(|| {
            loop {
                match &*listen() {
                    "stop" | "" => return STOP.store(true, Ordering::Relaxed),
                    _ => say(&format!("rounds {}", ROUNDS.load(Ordering::Relaxed))),
                }
            }
        });
        say("ready");
    }
    let (mut byte, mut last, mut gap) = ([0], now_ns(), 0);
    while byte[0] == 0 {
        if me == 0 {
            let last = [u8::from(STOP.load(Ordering::Relaxed))];
            w.run(&send(&last, 1)).expect("the other one lives");
            w.run(&recv(&mut byte, 1)).expect("the other one lives");
        } else {
            w.run(&recv(&mut byte, 0)).expect("the other one lives");
            w.run(&send(&byte, 0)).expect("the other one lives");
        }
        let now = now_ns();
        gap = gap.max(now - last);
        last = now;
        ROUNDS.fetch_add(1, Ordering::Relaxed);
    }
    say(&format!("gap {gap}"));
    World::init_named("after", 2, me as i32, &config).expect("joining").destroy().expect("destroying");
    w.destroy().expect("destroying");
    say("after");
}

/// Arguments: own rank. Joins the worlds that it is told, and says when.
fn joiner(args: &[String]) {
    let me: i32 = args[0].parse().expect("a number");
    let config = Config::from_env().expect("settings");
    loop {
        let name = listen();
        if name.is_empty() {
            return;
        }
        say("joining");
        let w = World::init_named(&name, 2, me, &config).expect("joining");
        say("joined");
        assert_eq!(listen(), "leave");
        w.destroy().expect("destroying");
    }
}

/// A store that is killed and started again.
struct Place {
    address: String,
    dir: Option<PathBuf>,
    process: Option<Rank>,
}

impl Place {
    fn new(kept: bool) -> Place {
        let address = store_address();
        let name = format!("mw-store-{}", address.rsplit(':').next().expect("a port"));
        let mut place = Place { address, dir: kept.then(|| std::env::temp_dir().join(name)), process: None };
        place.start();
        place
    }

    fn start(&mut self) {
        let dir = self.dir.as_ref().map_or(String::new(), |dir| dir.to_string_lossy().into_owned());
        let mut process = Rank::start(ENTRY, "store", &[self.address.clone(), dir], &[]);
        process.expect("ready");
        self.process = Some(process);
    }

    /// With SIGKILL, and buried.
    fn kill(&mut self) {
        self.process = None;
    }

    fn env(&self) -> [(&'static str, &str); 1] {
        [("MW_STORE", &self.address)]
    }

    fn connect(&self) -> Client {
        let secret = auth::no_secret();
        let deadline = Instant::now() + common::PATIENCE;
        Client::connect(&self.address, KeyId::of(&secret), &secret, deadline).expect("the store")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.kill();
        if let Some(dir) = &self.dir {
            let _ = std::fs::remove_dir_all(dir);
        }
    }
}

/// A world that exists needs no store, whether that will come back with what it knew or without.
#[test]
fn a_world_does_not_notice_that_its_store_is_killed() {
    if role().is_some() {
        return;
    }
    for kept in [true, false] {
        let mut place = Place::new(kept);
        let mut ranks: Vec<Rank> =
            (0..2).map(|me| Rank::start(ENTRY, "traffic", &[me.to_string()], &place.env())).collect();
        ranks[0].expect("ready");
        let rounds = |ranks: &mut Vec<Rank>| {
            ranks[0].tell("?");
            ranks[0].hear_of("rounds").parse::<u64>().expect("a number")
        };
        std::thread::sleep(Duration::from_millis(300));
        place.kill();
        let from = rounds(&mut ranks);
        std::thread::sleep(Duration::from_secs(1));
        let without = rounds(&mut ranks) - from;
        place.start();
        std::thread::sleep(Duration::from_millis(300));
        ranks[0].tell("stop");
        let gaps: Vec<f64> =
            ranks.iter_mut().map(|r| r.hear_of("gap").parse::<f64>().expect("a number") / 1e6).collect();
        println!(
            "kept {kept}: {without} round trips in 1 s without a store; longest gaps {:.2} and {:.2} ms",
            gaps[0], gaps[1]
        );
        assert!(without > 100);
        // On a machine that is busy with other things a process may not run for long.
        assert!(gaps.iter().all(|gap| *gap < 2000.0), "{gaps:?}");
        for mut r in ranks {
            r.expect("after");
            r.finish();
        }
    }
}

/// Whoever waits in a join while the store is killed and started again has joined in the end: at whatever moment that
/// happens, whoever came first, and whether the store knows it again or has to be told anew.
#[test]
fn a_join_waits_for_a_store_that_is_killed() {
    if role().is_some() {
        return;
    }
    for kept in [true, false] {
        let mut place = Place::new(kept);
        let mut ranks: Vec<Rank> =
            (0..2).map(|me| Rank::start(ENTRY, "joiner", &[me.to_string()], &place.env())).collect();
        let join = |r: &mut Rank, name: &str| {
            r.tell(name);
            r.expect("joining");
        };
        // From now on rank 0 knows whose store it is: it does not host one in the place of one that is kept.
        ranks.iter_mut().for_each(|r| join(r, "warm"));
        for r in &mut ranks {
            r.expect("joined");
            r.tell("leave");
        }
        for round in 0..8 {
            let first = round % 2;
            let name = format!("w-{round}");
            join(&mut ranks[first], &name);
            // Before it has asked anything, or when it waits; of a store that is not kept, when it surely waits.
            std::thread::sleep(Duration::from_millis(round as u64 / 2 * 7 + if kept { 0 } else { 200 }));
            if round == 7 && kept {
                // Both are on their way.
                join(&mut ranks[1 - first], &name);
            }
            place.kill();
            std::thread::sleep(Duration::from_millis(100));
            place.start();
            if round < 7 || !kept {
                join(&mut ranks[1 - first], &name);
            }
            for r in &mut ranks {
                r.expect("joined");
                r.tell("leave");
            }
        }
        for mut r in ranks {
            r.tell("");
            r.finish();
        }
    }
}

/// Nobody starts a store again that was a rank 0's: who waits as rank 0 takes its place, and who waits for that one
/// finds it.
#[test]
fn a_rank_0_takes_the_place_of_a_store_that_does_not_come_back() {
    if role().is_some() {
        return;
    }
    for first in [0, 1] {
        let address = store_address();
        let env = [("MW_STORE", &*address)];
        let start = |me: usize| Rank::start(ENTRY, "joiner", &[me.to_string()], &env);
        let (mut host, mut other) = (start(0), start(1));
        for r in [&mut host, &mut other] {
            r.tell("hosted");
            r.expect("joining");
        }
        for r in [&mut host, &mut other] {
            r.expect("joined");
        }
        // Waits at the host's store for somebody who comes when that is gone.
        let mut ranks = [start(0), start(1)];
        ranks[first].tell("orphaned");
        ranks[first].expect("joining");
        std::thread::sleep(Duration::from_millis(100));
        drop(host);
        std::thread::sleep(Duration::from_millis(100));
        let begin = Instant::now();
        ranks[1 - first].tell("orphaned");
        ranks[1 - first].expect("joining");
        for r in &mut ranks {
            r.expect("joined");
        }
        println!(
            "rank {first} had waited: joined {:.0} ms after the other came",
            begin.elapsed().as_secs_f64() * 1e3
        );
        for mut r in ranks {
            r.tell("leave");
            r.tell("");
            r.finish();
        }
    }
}

/// With a folder, the store of a rank 0 comes back with the process that takes its place.
#[test]
fn a_rank_0_with_a_folder_brings_back_what_the_one_before_it_knew() {
    if role().is_some() {
        return;
    }
    let address = store_address();
    let dir = std::env::temp_dir().join(format!("mw-hosted-{}", address.rsplit(':').next().expect("a port")));
    let env = [("MW_STORE", &*address), ("MW_STORE_DIR", dir.to_str().expect("a path"))];
    let start = |me: usize| Rank::start(ENTRY, "joiner", &[me.to_string()], &env);
    let far = || Instant::now() + common::PATIENCE;
    let join = |ranks: &mut [Rank; 2], name: &str| {
        ranks.iter_mut().for_each(|r| r.tell(name));
        for r in ranks {
            r.expect("joining");
            r.expect("joined");
        }
    };
    let mut ranks = [start(0), start(1)];
    join(&mut ranks, "first");
    let secret = auth::no_secret();
    let client = Client::connect(&address, KeyId::of(&secret), &secret, far()).expect("the store");
    let lease = client.lease(Duration::from_secs(20), far()).expect("a lease");
    client.set(b"k", b"v", Some(lease), far()).expect("setting");
    ranks = [start(0), start(1)];
    join(&mut ranks, "second");
    assert_eq!(client.get(b"k", far()).expect("getting").as_deref(), Some(&b"v"[..]));
    client.set(b"l", b"v", Some(lease), far()).expect("the lease has lived on");
    for mut r in ranks {
        r.tell("leave");
        r.tell("");
        r.finish();
    }
    let _ = std::fs::remove_dir_all(&dir);
}

/// With every change synced, what was answered is there, and what was asked is done once, whenever the store is killed.
#[test]
fn what_was_answered_survives_sigkill() {
    if role().is_some() {
        return;
    }
    const KILLS: u64 = 12;
    let mut place = Place::new(true);
    let stop = AtomicBool::new(false);
    let far = || Instant::now() + common::PATIENCE;
    let total = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for t in 0..3u64 {
            let (client, stop, total) = (place.connect(), &stop, &total);
            scope.spawn(move || {
                let lease = client.lease(Duration::from_secs(20), far()).expect("a lease");
                client.set(format!("alive/{t}").as_bytes(), b"", Some(lease), far()).expect("setting");
                let mut n = 0u64;
                let mut revision = 0;
                while !stop.load(Ordering::Relaxed) {
                    // All threads count with one key.
                    let current = client.get(b"count", far()).expect("getting");
                    let value =
                        current.as_deref().map_or(0, |b| u64::from_le_bytes(b.try_into().expect("8 bytes")));
                    let new = (value + 1).to_le_bytes();
                    let swap = client.compare_and_set(b"count", current.as_deref(), Some(&new), None, far());
                    total.fetch_add(u64::from(swap.expect("swapping").swapped), Ordering::Relaxed);
                    // Each adds keys of its own, and looks for all of them now and then.
                    n += 1;
                    client
                        .set(format!("{t}/{n}").as_bytes(), &n.to_le_bytes(), None, far())
                        .expect("setting");
                    if n.is_multiple_of(64) {
                        let seen = client.list(format!("{t}/").as_bytes(), far()).expect("listing");
                        assert_eq!(seen.entries.len() as u64, n);
                        assert!(seen.revision > revision, "revisions only grow");
                        revision = seen.revision;
                    }
                }
                let seen = client.list(format!("{t}/").as_bytes(), far()).expect("listing");
                assert_eq!(seen.entries.len() as u64, n);
                // The lease has lived through all of it.
                client.set(b"last", b"", Some(lease), far()).expect("setting");
            });
        }
        for n in 0..KILLS {
            // At moments that have nothing to do with what the store does.
            std::thread::sleep(Duration::from_micros(30_000 + now_ns() % 90_000));
            place.kill();
            std::thread::sleep(Duration::from_millis(n % 3 * 20));
            place.start();
        }
        std::thread::sleep(Duration::from_millis(100));
        stop.store(true, Ordering::Relaxed);
    });
    let count = place.connect().get(b"count", far()).expect("getting").expect("a count");
    let count = u64::from_le_bytes(count.try_into().expect("8 bytes"));
    println!("{KILLS} kills, {count} swaps");
    assert_eq!(count, total.load(Ordering::Relaxed));
    assert!(count > KILLS);
}

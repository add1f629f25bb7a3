//! Strangers at every port of a busy process: refused, at a bounded price, and nobody else notices.

mod common;

use common::{Rank, listen, recv, role, say, send, store_address};
use multiworld::config::Config;
use multiworld::error::Code;
use multiworld::world::World;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Arguments: own rank. Plays ping-pong and answers what it is asked.
#[test]
fn rank() {
    let Some((kind, args)) = role() else { return };
    let me: i32 = args[0].parse().expect("a rank");
    let config = Config::from_env().expect("settings");
    if kind == "impostor" {
        let e = World::init_named("busy", 2, me, &config).err().expect("a wrong secret is refused");
        assert_eq!(e.code, Code::Unauthorized, "{e}");
        return say(&e.to_string());
    }
    multiworld::observe::log::init(tracing::Level::WARN);
    let w = World::init_named("busy", 2, me, &config).expect("joining");
    static STOP: AtomicBool = AtomicBool::new(false);
    static ROUNDS: AtomicU64 = AtomicU64::new(0);
    std::thread::spawn(move || {
        loop {
            match &*listen() {
                "stop" | "" => return STOP.store(true, Ordering::Relaxed),
                "join" => {
                    let config = Config::from_env().expect("settings");
                    let w = World::init_named("later", 2, me, &config).expect("joining later");
                    w.destroy().expect("destroying");
                    say("joined");
                }
                _ => say(&format!("{} {}", ROUNDS.load(Ordering::Relaxed), rss())),
            }
        }
    });
    say("ready");
    let mut byte = [0];
    while byte[0] == 0 {
        if me == 0 {
            let last = [u8::from(STOP.load(Ordering::Relaxed))];
            w.run(&send(&last, 1)).expect("the world is unharmed");
            w.run(&recv(&mut byte, 1)).expect("the world is unharmed");
        } else {
            w.run(&recv(&mut byte, 0)).expect("the world is unharmed");
            w.run(&send(&byte, 0)).expect("the world is unharmed");
        }
        ROUNDS.fetch_add(1, Ordering::Relaxed);
    }
    w.destroy().expect("destroying");
}

/// Resident KiB of this process.
fn rss() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// Something to shout at.
#[derive(Clone, Debug)]
enum Door {
    Tcp(u16),
    Unix(Vec<u8>),
}

/// What a process listens on, from its descriptors and the kernel's tables.
fn doors(pid: u32) -> Vec<Door> {
    let sockets: Vec<String> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("its descriptors")
        .flatten()
        .filter_map(|e| {
            std::fs::read_link(e.path())
                .ok()?
                .to_str()?
                .strip_prefix("socket:[")?
                .strip_suffix(']')
                .map(str::to_string)
        })
        .collect();
    let mut out = Vec::new();
    let tcp = std::fs::read_to_string("/proc/net/tcp").expect("/proc/net/tcp");
    for line in tcp.lines().skip(1) {
        let f: Vec<&str> = line.split_whitespace().collect();
        if f[3] == "0A" && sockets.iter().any(|s| s == f[9]) {
            let port = f[1].rsplit(':').next().expect("a port");
            out.push(Door::Tcp(u16::from_str_radix(port, 16).expect("a port")));
        }
    }
    let unix = std::fs::read_to_string("/proc/net/unix").expect("/proc/net/unix");
    for line in unix.lines().skip(1) {
        let f: Vec<&str> = line.split_whitespace().collect();
        // Flag 0x10000: it listens.
        if f[3] == "00010000" && sockets.iter().any(|s| s == f[6]) {
            out.extend(f.get(7).and_then(|n| n.strip_prefix('@')).map(|n| Door::Unix(n.into())));
        }
    }
    out
}

impl std::fmt::Display for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Door::Tcp(port) => write!(f, "port {port}"),
            Door::Unix(name) => write!(f, "@{}", String::from_utf8_lossy(name)),
        }
    }
}

enum Voice {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Voice {
    fn call(door: &Door) -> std::io::Result<Voice> {
        let v = match door {
            Door::Tcp(port) => Voice::Tcp(TcpStream::connect(("127.0.0.1", *port))?),
            Door::Unix(name) => {
                Voice::Unix(UnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?)?)
            }
        };
        match &v {
            Voice::Tcp(s) => s.set_read_timeout(Some(Duration::from_secs(10)))?,
            Voice::Unix(s) => s.set_read_timeout(Some(Duration::from_secs(10)))?,
        }
        Ok(v)
    }

    fn shout(&mut self, bytes: &[u8]) {
        // It may have been shown the door already.
        let _ = match self {
            Voice::Tcp(s) => s.write_all(bytes),
            Voice::Unix(s) => s.write_all(bytes),
        };
    }

    /// Reads until it is shown the door; answers the bytes it was told.
    fn hear(&mut self) -> usize {
        let mut all = Vec::new();
        let _ = match self {
            Voice::Tcp(s) => s.read_to_end(&mut all),
            Voice::Unix(s) => s.read_to_end(&mut all),
        };
        all.len()
    }
}

/// Not random enough for anything but nonsense.
fn nonsense(seed: u64, len: usize) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x as u8
        })
        .collect()
}

#[test]
fn strangers_change_nothing() {
    if role().is_some() {
        return;
    }
    let store = store_address();
    let env = [("MW_STORE", &*store), ("MW_SECRET", "a secret of some length")];
    let mut ranks: Vec<Rank> =
        (0..2).map(|me| Rank::start("rank", "rank", &[me.to_string()], &env)).collect();
    ranks.iter_mut().for_each(|r| r.expect("ready"));
    let ask = |ranks: &mut Vec<Rank>, i: usize| -> (u64, u64) {
        ranks[i].tell("?");
        let said = ranks[i].hear().expect("an answer");
        let (rounds, rss) = said.split_once(' ').expect("two numbers");
        (rounds.parse().expect("rounds"), rss.parse().expect("KiB"))
    };
    let wrong = [("MW_STORE", &*store), ("MW_SECRET", "another secret of some length")];
    let mut impostor = Rank::start("rank", "impostor", &["1".into()], &wrong);
    println!("wrong secret: {}", impostor.hear().expect("what it was told"));
    impostor.finish();

    let doors: Vec<Door> = ranks.iter().flat_map(|r| doors(r.child.id())).collect();
    assert!(doors.len() >= 5, "the store's, and two of each process: {doors:?}");
    for door in &doors {
        let before: Vec<(u64, u64)> = (0..2).map(|i| ask(&mut ranks, i)).collect();
        let started = Instant::now();
        let connections = 10_000 / doors.len() + 1;
        let mut open = Vec::new();
        for n in 0..connections as u64 {
            let Ok(mut v) = Voice::call(door) else { continue };
            match n % 4 {
                // Says nothing.
                0 => {}
                1 => v.shout(&nonsense(n, 1 + n as usize % 5000)),
                // Half a handshake.
                2 => v.shout(&nonsense(n, 7)),
                _ => v.shout(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
            }
            if n % 3 == 0 {
                open.push(v);
            }
            if open.len() > 400 {
                open.clear();
            }
        }
        // One that waits is shown the door.
        let mut patient = Voice::call(door).expect("the door still opens");
        patient.shout(&nonsense(1, 10_000));
        let told = patient.hear();
        assert!(told < 200, "a stranger learns nothing: {told} bytes");
        drop(open);
        let after: Vec<(u64, u64)> = (0..2).map(|i| ask(&mut ranks, i)).collect();
        let grown: Vec<i64> = (0..2).map(|i| after[i].1 as i64 - before[i].1 as i64).collect();
        println!(
            "{door}: {connections} strangers in {:?}, {} round trips meanwhile, memory {grown:+?} KiB",
            started.elapsed(),
            after[0].0 - before[0].0
        );
        assert!(after[0].0 > before[0].0, "traffic stood still");
        assert!(grown.iter().all(|g| *g < 16 << 10), "memory grows with the strangers");
    }
    ranks.iter_mut().for_each(|r| r.tell("join"));
    ranks.iter_mut().for_each(|r| r.expect("joined"));
    ranks[0].tell("stop");
    let logs: Vec<String> = ranks.iter().map(Rank::log).collect();
    ranks.into_iter().for_each(Rank::finish);
    for log in logs {
        let lines = log.lines().filter(|l| l.contains("multiworld")).count();
        assert!(lines < 40, "{lines} lines about strangers: {log}");
    }
}

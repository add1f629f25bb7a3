//! Strangers at every port of a busy process: refused, at a bounded price, and nobody else notices.

mod common;

use common::{Rank, listen, recv, role, say, send, store_address};
use multiworld::auth::handshake::{GREETING, RESPONSE, VERDICT};
use multiworld::auth::{self, ClientHandshake, ClientStep, KeyId, Purpose};
use multiworld::config::Config;
use multiworld::error::Code;
use multiworld::store::{Client, Store};
use multiworld::types::Secret;
use multiworld::world::World;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
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

impl Door {
    /// The process that a Unix socket is named after.
    fn process(&self) -> Option<Vec<u8>> {
        let Door::Unix(name) = self else { return None };
        let hex = std::str::from_utf8(name).ok()?.strip_prefix("multiworld-")?;
        (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).ok()).collect()
    }
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

    fn fall_silent(&self) {
        // As above.
        let _ = match self {
            Voice::Tcp(s) => s.shutdown(Shutdown::Write),
            Voice::Unix(s) => s.shutdown(Shutdown::Write),
        };
    }

    /// The next `N` bytes; `None` when it is shown the door before.
    fn listen<const N: usize>(&mut self) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        let read = match self {
            Voice::Tcp(s) => s.read_exact(&mut bytes),
            Voice::Unix(s) => s.read_exact(&mut bytes),
        };
        read.is_ok().then_some(bytes)
    }

    /// Reads until it is shown the door; answers the bytes it was told.
    fn hear(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        let _ = match self {
            Voice::Tcp(s) => s.read_to_end(&mut all),
            Voice::Unix(s) => s.read_to_end(&mut all),
        };
        all
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

/// What a member knows that would be let in at a door.
#[derive(Clone)]
struct Pass {
    key: KeyId,
    secret: Secret,
    purpose: Purpose,
    claim: Vec<u8>,
}

impl Pass {
    /// The answer that a member gives to a greeting.
    fn answer(&self, greeting: &[u8; GREETING], secret: &Secret) -> Vec<u8> {
        let nonce = auth::nonce().expect("random bytes");
        let mut member = ClientHandshake::new(self.key, secret, self.purpose, &self.claim, nonce)
            .expect("the beginning of a handshake");
        match member.receive(greeting) {
            Ok((GREETING, ClientStep::Send(answer))) => answer,
            other => panic!("no greeting: {other:?}"),
        }
    }
}

/// The passes for the doors of a world's two members and of their store.
fn passes(store: &str, secret: &Secret, doors: &[Vec<Door>]) -> Vec<(Door, Pass)> {
    let (key, soon) = (KeyId::of(secret), Instant::now() + Duration::from_secs(10));
    let client = Client::connect(store, key, secret, soon).expect("the store");
    let record = client.get(b"r/busy/view", soon).expect("the store").expect("the world's record");
    // It begins with the world's identity.
    let world: [u8; 16] = record.first_chunk().copied().expect("the world's record");
    let port: u16 = store.rsplit(':').next().and_then(|p| p.parse().ok()).expect("a port");
    let mut out = Vec::new();
    for doors in doors {
        // Somebody from another machine, to the process whose name its socket has.
        let mut claim = vec![7; 32];
        claim.extend(doors.iter().find_map(Door::process).expect("a Unix socket"));
        let in_world = auth::derive(secret, "world", &world);
        let guest = Pass { key: KeyId(world), secret: in_world, purpose: Purpose::Control, claim };
        let client = Pass { key, secret: secret.clone(), purpose: Purpose::Store, claim: Vec::new() };
        for door in doors {
            let is_store = matches!(door, Door::Tcp(p) if *p == port);
            out.push((door.clone(), if is_store { client.clone() } else { guest.clone() }));
        }
    }
    out
}

/// A number that follows from `n` and looks like none that follows from another.
fn scattered(n: u64) -> usize {
    let x = (n ^ 0x5bd1_e995).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (x >> 33) as usize
}

/// The `n`-th stranger. Answers what it was told after the greeting, if it has waited for that; a voice that is still
/// in the middle of its handshake is kept for the caller.
fn stranger(n: u64, door: &Door, pass: &Pass, recorded: &[u8], held: &mut Vec<Voice>) -> Option<Vec<u8>> {
    let mut v = Voice::call(door).ok()?;
    // When many come at once some are sent away before they are greeted.
    let greeting = v.listen::<GREETING>()?;
    let genuine = |secret| pass.answer(&greeting, secret);
    let at = scattered(n);
    match n % 12 {
        // What a member would say, but for one bit.
        0..=3 => {
            let mut answer = genuine(&pass.secret);
            answer[at % RESPONSE] ^= 1 << (at / RESPONSE % 8);
            // What a member would say next, at once.
            answer.extend(nonsense(n, at % 100));
            v.shout(&answer);
        }
        4 => {
            v.shout(&genuine(&pass.secret)[..at % RESPONSE]);
            v.fall_silent();
        }
        // What a member has said, word for word.
        5 | 6 => v.shout(recorded),
        // The same in another order.
        7 => {
            let mut answer = genuine(&pass.secret);
            answer.rotate_left(1 + at % (RESPONSE - 1));
            v.shout(&answer);
        }
        // The greeting back, and what a member has said to another one.
        8 => v.shout(&[&greeting[..], recorded].concat()),
        // Somebody with another secret.
        9 => v.shout(&genuine(&Secret(nonsense(n, 32)))),
        10 if at.is_multiple_of(2) => v.shout(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        10 => v.shout(&nonsense(n, 8 + at % 5000)),
        // Slowly, or nothing at all.
        _ => {
            v.shout(&genuine(&pass.secret)[..at % RESPONSE]);
            held.push(v);
            if held.len() > 100 {
                held.clear();
            }
            return None;
        }
    }
    Some(v.hear())
}

/// Strangers at one door.
const STRANGERS: u64 = 20_000;

#[test]
fn strangers_change_nothing() {
    if role().is_some() {
        return;
    }
    let store = store_address();
    let secret = "a secret of some length";
    let env = [("MW_STORE", &*store), ("MW_SECRET", secret)];
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

    let doors: Vec<Vec<Door>> = ranks.iter().map(|r| doors(r.child.id())).collect();
    let passes = passes(&store, &Secret(secret.into()), &doors);
    assert!(passes.len() >= 5, "the store's, and two of each process: {doors:?}");
    // What the doors let in, so that what comes next is known to fail for its flaws alone.
    let recorded: Vec<Vec<u8>> = passes
        .iter()
        .map(|(door, pass)| {
            let mut member = Voice::call(door).expect("the door opens");
            let answer = pass.answer(&member.listen().expect("a greeting"), &pass.secret);
            member.shout(&answer);
            let verdict = member.listen::<VERDICT>().expect("a verdict");
            assert_eq!(verdict[0], 1, "{door}: a member is let in");
            answer
        })
        .collect();
    let (before, _) = ask(&mut ranks, 0);
    std::thread::sleep(Duration::from_secs(1));
    let alone = ask(&mut ranks, 0).0 - before;
    println!("{alone} round trips in a second without strangers");
    let first: Vec<u64> = (0..2).map(|i| ask(&mut ranks, i).1).collect();
    for ((door, pass), recorded) in passes.iter().zip(&recorded) {
        let before: Vec<(u64, u64)> = (0..2).map(|i| ask(&mut ranks, i)).collect();
        let started = Instant::now();
        let (next, answered) = (AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|s| {
            for _ in 0..3 {
                s.spawn(|| {
                    let mut held = Vec::new();
                    loop {
                        let n = next.fetch_add(1, Ordering::Relaxed);
                        if n >= STRANGERS {
                            return;
                        }
                        let Some(told) = stranger(n, door, pass, recorded, &mut held) else { continue };
                        // The same whatever is wrong; nothing where the connection was reset first.
                        assert!(told.is_empty() || told == [0; VERDICT], "{door}: {n} was told {told:?}");
                        answered.fetch_add(u64::from(!told.is_empty()), Ordering::Relaxed);
                    }
                });
            }
        });
        let took = started.elapsed();
        let answered = answered.into_inner();
        // One that waits is shown the door.
        let mut patient = Voice::call(door).expect("the door still opens");
        patient.listen::<GREETING>().expect("a greeting");
        patient.shout(&recorded[..RESPONSE / 2]);
        assert!(patient.hear().is_empty(), "nobody is told anything for half a handshake");
        let after: Vec<(u64, u64)> = (0..2).map(|i| ask(&mut ranks, i)).collect();
        let grown: Vec<i64> = (0..2).map(|i| after[i].1 as i64 - before[i].1 as i64).collect();
        println!(
            "{door}: {STRANGERS} strangers in {took:.1?}, {answered} of them told that they are; {:.0} round trips a second, \
             memory {grown:+?} KiB",
            (after[0].0 - before[0].0) as f64 / started.elapsed().as_secs_f64()
        );
        assert!(answered > STRANGERS / 2, "few got as far as a verdict");
        assert!(after[0].0 > before[0].0, "traffic stood still");
        assert!(grown.iter().all(|g| *g < 16 << 10), "memory grows with the strangers");
    }
    let last: Vec<u64> = (0..2).map(|i| ask(&mut ranks, i).1).collect();
    println!("resident KiB before and after all of them: {first:?} {last:?}");
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

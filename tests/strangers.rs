//! Strangers at every door of a running world: garbage, half handshakes, wrong proofs, ten thousand connections, a
//! wrong secret. They are refused at a bounded cost, the world does not notice, and members still get in.

mod common;

use common::Rank;
use common::cast::{Cast, sockets_of};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

const SECRET: &str = "the members' own secret";
const MEMBERS: usize = 2;
const CROWD: usize = 10_000;
/// What the handshake's state, its socket's entry and the allocator's slack may take for all of them together.
const MAX_GROWTH_KB: u64 = 16 << 10;
/// A rate of one line per five or ten seconds, for the store and for the process's own door.
const MAX_LINES: usize = 40;

#[test]
fn rank() {
    common::actor::play();
}

/// Where a process accepts connections.
#[derive(Clone, Debug)]
enum Door {
    Tcp(SocketAddr),
    Unix(String),
}

trait Stream: Read + Write + Send {
    fn patience(&self, limit: Duration);
}

impl Stream for TcpStream {
    fn patience(&self, limit: Duration) {
        self.set_read_timeout(Some(limit)).and(self.set_write_timeout(Some(limit))).expect("a timeout");
    }
}

impl Stream for UnixStream {
    fn patience(&self, limit: Duration) {
        self.set_read_timeout(Some(limit)).and(self.set_write_timeout(Some(limit))).expect("a timeout");
    }
}

impl Door {
    /// `None`: not even connected.
    fn knock(&self) -> Option<Box<dyn Stream>> {
        let stream: Box<dyn Stream> = match self {
            Door::Tcp(addr) => Box::new(TcpStream::connect_timeout(addr, common::PATIENCE).ok()?),
            Door::Unix(name) => {
                let name = name.trim_start_matches('@').as_bytes();
                let addr = std::os::unix::net::SocketAddr::from_abstract_name(name).expect("a name");
                Box::new(UnixStream::connect_addr(&addr).ok()?)
            }
        };
        stream.patience(common::PATIENCE);
        Some(stream)
    }
}

/// All doors of a process.
fn doors(r: &Rank) -> Vec<Door> {
    let pid = r.child.id();
    let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("descriptors").flatten();
    let links: Vec<String> = fds
        .filter_map(|fd| Some(std::fs::read_link(fd.path()).ok()?.to_string_lossy().into_owned()))
        .collect();
    let tcp = std::fs::read_to_string("/proc/net/tcp").expect("sockets");
    let listening = tcp
        .lines()
        .map(|l| l.split_whitespace().collect::<Vec<_>>())
        .filter(|l| l.len() > 9 && l[3] == "0A" && links.iter().any(|x| *x == format!("socket:[{}]", l[9])));
    let port = |l: Vec<&str>| u16::from_str_radix(l[1].split(':').nth(1).expect("a port"), 16).expect("hex");
    let mut doors: Vec<Door> =
        listening.map(|l| Door::Tcp(SocketAddr::from(([127, 0, 0, 1], port(l))))).collect();
    doors.extend(sockets_of(pid).into_iter().map(Door::Unix));
    doors
}

fn kilobytes(r: &Rank, what: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", r.child.id())).expect("status");
    let line = status.lines().find(|l| l.starts_with(what)).expect("a line");
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number")
}

fn descriptors(r: &Rank) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", r.child.id())).expect("descriptors").count()
}

/// Reads until the other side hangs up, which it must; answers how much it said.
fn refused(stream: &mut dyn Stream) -> usize {
    let mut said = 0;
    let mut buffer = [0; 512];
    let until = Instant::now() + common::PATIENCE;
    loop {
        assert!(Instant::now() < until, "a stranger is entertained for ever");
        match stream.read(&mut buffer) {
            Ok(0) => return said,
            Ok(n) => said += n,
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => return said,
            Err(e) => panic!("a stranger is neither answered nor refused: {e}"),
        }
    }
}

/// Bytes of the greeting and of the verdict: all that anybody hears who does not know the secret.
const HEARD: usize = 40 + 33;

fn garbage(door: &Door) {
    for i in 0..100usize {
        let Some(mut s) = door.knock() else { panic!("{door:?} is closed") };
        let junk: Vec<u8> = (0..i * 41).map(|j| (i * 131 + j * j * 29) as u8).collect();
        // It may hang up in the middle.
        let _ = s.write_all(&junk);
        if junk.len() < 347 {
            // Too short to be refused; it goes by itself.
            continue;
        }
        assert!(refused(&mut *s) <= HEARD);
    }
}

/// A response of the right form without the right proof, and the beginnings of one.
fn half_handshakes(door: &Door) {
    let mut greeting = [0; 40];
    let mut open = Vec::new();
    for i in 0..300usize {
        let Some(mut s) = door.knock() else { panic!("{door:?} is closed") };
        if s.read_exact(&mut greeting).is_err() {
            // There are too many at once, or so it seems.
            continue;
        }
        let mut response = greeting[..8].to_vec();
        response.resize(347, i as u8);
        response[56] = (i % 4) as u8;
        let len = if i % 3 == 0 { 347 } else { i % 347 };
        let _ = s.write_all(&response[..len]);
        if len == 347 {
            let said = refused(&mut *s);
            assert!(said <= 33, "{said} bytes for a stranger");
        } else {
            open.push(s);
        }
    }
    // Whoever says no more is sent away, too.
    open.iter_mut().for_each(|s| assert!(refused(&mut **s) <= 33));
}

/// Everybody comes at once and says nothing.
fn crowd(door: &Door) -> usize {
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let door = door.clone();
            std::thread::spawn(move || {
                let mut all: Vec<Box<dyn Stream>> = (0..CROWD / 4).filter_map(|_| door.knock()).collect();
                let came = all.len();
                all.iter_mut().for_each(|s| assert!(refused(&mut **s) <= HEARD));
                came
            })
        })
        .collect();
    threads.into_iter().map(|t| t.join().expect("a stranger's view")).sum()
}

fn more_descriptors() {
    // SAFETY: plain calls with a valid struct.
    unsafe {
        let mut limit = std::mem::zeroed();
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
        limit.rlim_cur = limit.rlim_max;
        libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
    }
}

#[test]
fn strangers_are_refused_and_change_nothing() {
    more_descriptors();
    for transport in ["shm", "tcp"] {
        let env = [("MW_SECRET", SECRET), ("MW_DEBUG", "warn")];
        let mut cast = Cast::new(transport, MEMBERS, &env);
        let before: Vec<_> = cast.survivors.iter().map(|s| (kilobytes(s, "VmRSS"), descriptors(s))).collect();
        for i in 0..MEMBERS {
            let doors = doors(&cast.survivors[i]);
            println!("{transport}: member {i} listens at {doors:?}");
            assert_eq!(doors.len(), if i == 0 { 3 } else { 2 }, "its own two, and the store's");
            for door in &doors {
                garbage(door);
                half_handshakes(door);
                if i == 0 {
                    let since = Instant::now();
                    let came = crowd(door);
                    println!(
                        "{transport}: {came} strangers at {door:?} in {:.1} s",
                        since.elapsed().as_secs_f64()
                    );
                    assert!(came > CROWD / 2, "{came}");
                }
                // Members still get in.
                let w = cast.fresh("new");
                let mut v = cast.world(&w, 1);
                let line = format!("once {w} AllReduce 1000 0");
                cast.each(|_, _| line.clone());
                v.tell(&line);
                assert_eq!(v.hear_of(&w), "done");
                cast.all_say(&w, "done");
                v.tell(&format!("destroy {w}"));
                cast.each(|_, _| format!("destroy {w}"));
                assert_eq!(v.hear_of(&w), "destroyed");
                cast.all_say(&w, "destroyed");
                v.tell("end");
                v.finish();
            }
        }
        for (i, s) in cast.survivors.iter().enumerate() {
            let (rss, fds) = (kilobytes(s, "VmRSS"), descriptors(s));
            let peak = kilobytes(s, "VmHWM");
            let lines = s.log().lines().count();
            println!(
                "{transport}: member {i}: {} kB before, {rss} after, {peak} at most; descriptors {} and {fds}; {lines} log lines",
                before[i].0, before[i].1
            );
            assert!(peak < before[i].0 + MAX_GROWTH_KB, "memory grows with the number of strangers");
            assert!(fds < before[i].1 + 16, "descriptors stay behind");
            assert!(lines <= MAX_LINES, "strangers fill the log");
        }
        cast.end();
    }
}

#[test]
fn a_wrong_secret_is_refused() {
    let mut cast = Cast::new("auto", MEMBERS, &[("MW_SECRET", SECRET)]);
    let w = cast.fresh("guarded");
    cast.each(|_, i| format!("join {w} 3 {i}"));
    for (secret, rank) in [("not the members' secret", 2), ("not the members' secret", 0), ("", 2)] {
        let mut stranger = cast.start_with(&[("MW_SECRET", secret)]);
        stranger.tell(&format!("join {w} 3 {rank}"));
        let said = stranger.hear_of(&w);
        assert!(said.starts_with("refused Unauthorized"), "{said}");
        // Nor does the store let it make a world of its own.
        stranger.tell(&format!("join {w}x 1 0"));
        let said = stranger.hear_of(&format!("{w}x"));
        assert!(said.starts_with("refused Unauthorized"), "{said}");
        stranger.tell("end");
        stranger.finish();
    }
    let mut member = cast.start();
    member.tell(&format!("join {w} 3 2"));
    assert_eq!(member.hear_of(&w), "joined");
    cast.all_say(&w, "joined");
    cast.each(|_, _| format!("destroy {w}"));
    cast.all_say(&w, "destroyed");
    drop(member);
    cast.end();
}

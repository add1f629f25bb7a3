//! A rank on one of the machines, which does what its test tells it, one line per command. Every command runs on a thread
//! of its own, and its answers begin with the name of the world that it is about.

use super::common::{collective, listen, now_ns, role, say, settle_in};
use multiworld::config::Config;
use multiworld::error::Error;
use multiworld::types::OpKind;
use multiworld::world::{Size, State, World};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

#[derive(Default)]
struct Member {
    worlds: Mutex<HashMap<String, Arc<World>>>,
    stopped: Mutex<HashSet<String>>,
}

/// Returns at once in a process that is no rank.
pub fn play() {
    if role().is_none() {
        return;
    }
    settle_in();
    let member: Arc<Member> = Arc::default();
    say("member ready");
    loop {
        let line = listen();
        if line.is_empty() || line == "end" {
            return;
        }
        let m = member.clone();
        std::thread::spawn(move || m.obey(&line));
    }
}

impl Member {
    fn world(&self, name: &str) -> Arc<World> {
        self.worlds.lock().unwrap().get(name).unwrap_or_else(|| panic!("no world {name}")).clone()
    }

    fn obey(&self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        let name = words[1];
        let number = |at: usize| -> i32 { words[at].parse().expect("a number") };
        let config = Config::from_env().expect("settings");
        match words[0] {
            "join" => {
                let joined = World::init_named(name, number(2), number(3), &config);
                self.enter(name, "joined", joined);
            }
            // As a newcomer, if it has no world of this name.
            "reform" => {
                let old = self.worlds.lock().unwrap().get(name).cloned();
                let size = Size::Between(number(2), number(3));
                self.enter(name, "reformed", World::reform(old.as_ref(), name, size, &config));
            }
            "run" => self.run(name, number(2) as usize),
            "stop" => drop(self.stopped.lock().unwrap().insert(name.to_string())),
            "idle" => idle(&self.world(name), name),
            "exchange" => exchange(&self.world(name), name, number(2) as usize),
            "failed" => say(&format!("{name} {:?}", self.world(name).failed_ranks())),
            "abort" => {
                self.worlds.lock().unwrap().remove(name).expect("a world").abort();
                say(&format!("{name} aborted"));
            }
            "address" => {
                let w = multiworld::watchdog::Watchdog::get(None).expect("a watchdog");
                say(&format!("{name} {}", w.address_beyond().expect("an address").tcp.ip()));
            }
            other => panic!("no command {other}"),
        }
    }

    fn enter(&self, name: &str, how: &str, entered: Result<Arc<World>, Error>) {
        match entered {
            Ok(w) => {
                let stats = w.stats();
                let (epoch, rank, n) = (w.epoch(), w.rank(), w.nranks());
                self.worlds.lock().unwrap().insert(name.to_string(), w);
                say(&format!(
                    "{name} {how} epoch {epoch} rank {rank} of {n}, {} by shm, {} by tcp",
                    stats.shm_peers, stats.tcp_peers
                ));
            }
            Err(e) => say(&format!("{name} refused {:?} {e}", e.code)),
        }
    }

    /// Exchanges known bytes with all others until rank 0 is told to stop, or the world breaks.
    fn run(&self, name: &str, len: usize) {
        let w = self.world(name);
        let (n, me) = (w.nranks() as usize, w.rank());
        self.stopped.lock().unwrap().remove(name);
        let (mut gap, mut last) = (Duration::ZERO, Instant::now());
        for round in 0u64.. {
            let stop = me == 0 && self.stopped.lock().unwrap().contains(name);
            // What another epoch or round had under way would be seen here.
            let mut sent = [w.epoch().to_le_bytes(), round.to_le_bytes()].concat();
            sent.resize(17 + len, round as u8);
            sent[16] = u8::from(stop);
            let mut got = vec![0; n * sent.len()];
            let result = w.run(&collective(OpKind::AllGather, &sent, &mut got, sent.len(), 0));
            if let Err(e) = result {
                return over(&w, name, &e);
            }
            let same = |c: &[u8]| c[..16] == sent[..16] && c[17..] == sent[17..];
            assert!(got.chunks(sent.len()).all(same), "{name}: a word from another epoch or round");
            if round == 0 {
                say(&format!("{name} going"));
            } else {
                gap = gap.max(last.elapsed());
            }
            last = Instant::now();
            if got[16] == 1 {
                return say(&format!("{name} stopped {round} {}", gap.as_millis()));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Reports how a world has ended: code, failed ranks, when, the sentence.
fn over(w: &World, name: &str, e: &Error) {
    let now = now_ns();
    let failed: Vec<String> = w.failed_ranks().iter().map(u32::to_string).collect();
    say(&format!("{name} over {:?} [{}] {now} {e}", e.code, failed.join(",")));
}

/// Nothing is under way when the world breaks.
fn idle(w: &World, name: &str) {
    say(&format!("{name} going"));
    while w.state() == State::Active {
        std::thread::sleep(Duration::from_millis(1));
    }
    let e = w.error().expect("a reason");
    over(w, name, &e);
}

/// Every kind of bytes to everybody, checked; says how long that took.
fn exchange(w: &World, name: &str, len: usize) {
    let (n, me) = (w.nranks() as usize, w.rank() as usize);
    let byte = |from: usize, to: usize, at: usize| (from * 31 + to * 7 + at * 13 + at / 251) as u8;
    let input: Vec<u8> = (0..n * len).map(|at| byte(me, at / len, at % len)).collect();
    let mut output = vec![0; n * len];
    let begin = Instant::now();
    let result = w.run(&collective(OpKind::AllToAll, &input, &mut output, len, 0));
    let took = begin.elapsed().as_millis();
    if let Err(e) = result {
        return over(w, name, &e);
    }
    let right = (0..n * len).all(|at| output[at] == byte(at / len, me, at % len));
    assert!(right, "{name}: wrong bytes");
    say(&format!("{name} exchanged {took}"));
}

//! A rank that does what its test tells it, one line per command. Every command runs on a thread of its own and its
//! answers begin with the name of the world that it is about.

use super::{barrier, collective, listen, recv, role, say, send, settle_in};
use multiworld::config::Config;
use multiworld::error::{Code, Error};
use multiworld::observe::events::{self, Event, EventKind};
use multiworld::types::OpKind;
use multiworld::world::{Call, Request, World};
use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

#[derive(Default)]
struct Actor {
    worlds: Mutex<HashMap<String, Arc<World>>>,
    events: Mutex<Vec<Event>>,
    arrived: Condvar,
    stop: Mutex<bool>,
}

/// The collectives by name.
pub const COLLECTIVES: [OpKind; 9] = [
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

/// Stands in for the handle that C would have: without one there are no events.
const TOKEN: usize = 1;

/// Does what it is told until it hears `end`. Returns at once in a process that is no rank.
pub fn play() {
    if role().is_none() {
        return;
    }
    settle_in();
    let actor: Arc<Actor> = Arc::default();
    let a = actor.clone();
    std::thread::spawn(move || {
        while let Some(e) = events::next(None) {
            a.events.lock().unwrap().push(e);
            a.arrived.notify_all();
        }
    });
    say("actor ready");
    loop {
        let line = listen();
        match &*line {
            "end" | "" => return,
            "exit" => std::process::exit(0),
            "exec" => {
                use std::os::unix::process::CommandExt;
                panic!("{}", std::process::Command::new("sleep").arg("1000").exec());
            }
            "stop" => *actor.stop.lock().unwrap() = true,
            _ => {
                let a = actor.clone();
                std::thread::spawn(move || a.obey(&line));
            }
        }
    }
}

impl Actor {
    fn world(&self, name: &str) -> Arc<World> {
        self.worlds.lock().unwrap().get(name).unwrap_or_else(|| panic!("no world {name}")).clone()
    }

    fn obey(&self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        let name = words[1];
        let number = |at: usize| -> usize { words[at].parse().expect("a number") };
        match words[0] {
            "join" => self.join(name, number(2), number(3)),
            "enter" => self.enter(name, number(2), number(3)),
            "op" => collectives(&self.world(name), name, kind(words[2]), number(3), number(4) as u32),
            "once" => once(&self.world(name), name, kind(words[2]), number(3), number(4) as u32),
            "send" => stream(&self.world(name), name, true, number(2) as u32, number(3)),
            "recv" => stream(&self.world(name), name, false, number(2) as u32, number(3)),
            "ring" => ring(&self.world(name), name, number(2)),
            "idle" => self.idle(name),
            "group" => group(&[self.world(name), self.world(words[2])], name),
            "async" => self.asynchronous(name, number(2) as u32),
            "watch" => self.watch(name),
            "finalize" => answer(name, "finalized", self.world(name).finalize()),
            "destroy" => {
                let w = self.worlds.lock().unwrap().remove(name).expect("a world");
                answer(name, "destroyed", w.destroy());
            }
            "events" => self.report(name, number(2)),
            "failed" => say(&format!("{name} {:?}", self.world(name).failed_ranks())),
            "fork" => fork(&self.world(name), name),
            "where" => {
                say(&format!("{name} {:?}", multiworld::watchdog::Watchdog::get(None).unwrap().address().tcp))
            }
            other => panic!("no command {other}"),
        }
    }

    fn join(&self, name: &str, n: usize, me: usize) {
        let config = Config::from_env().expect("settings");
        match World::init_named(name, n as i32, me as i32, &config) {
            Ok(w) => {
                w.set_token(TOKEN);
                self.worlds.lock().unwrap().insert(name.to_string(), w);
                say(&format!("{name} joined"));
            }
            Err(e) => say(&format!("{name} refused {:?} {:?} {e}", e.code, e.culprit)),
        }
    }

    /// Joins again and again until the world holds together once.
    fn enter(&self, name: &str, n: usize, me: usize) {
        let config = Config::from_env().expect("settings");
        let mut errors = Vec::new();
        loop {
            assert!(errors.len() < 1000, "{name}: never together: {:?}", errors.last());
            let e = match World::init_named(name, n as i32, me as i32, &config) {
                Ok(w) => match w.run(&barrier()) {
                    Ok(()) => {
                        w.set_token(TOKEN);
                        self.worlds.lock().unwrap().insert(name.to_string(), w);
                        errors.dedup();
                        return say(&format!("{name} entered {}", errors.join("; ")));
                    }
                    Err(e) => {
                        w.destroy().expect("destroying");
                        e
                    }
                },
                Err(e) => e,
            };
            // Somebody died; of the store's host one sees that its connection is lost.
            let lost = e.code == Code::System && e.text.contains("the connection is lost");
            assert!(e.code == Code::Remote || lost, "{:?}: {e}", e.code);
            errors.push(format!("{:?}: {e}", e.code));
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn wait_for(&self, name: &str, what: impl Fn(&Event) -> bool) -> Event {
        let mut events = self.events.lock().unwrap();
        loop {
            if let Some(e) = events.iter().find(|e| &*e.world_name == name && what(e)) {
                return e.clone();
            }
            events = self.arrived.wait(events).unwrap();
        }
    }

    /// Nothing is under way when the news comes.
    fn idle(&self, name: &str) {
        say(&format!("{name} going"));
        let e = self.wait_for(name, |e| e.kind == EventKind::RankFailed);
        assert_eq!(e.code, Some(Code::Remote));
        let w = self.world(name);
        let e = w.run(&barrier()).expect_err("a broken world");
        over(&w, name, &e);
    }

    /// Receives that nobody waits for, driven by the library; `from` never sends.
    fn asynchronous(&self, name: &str, from: u32) {
        let w = self.world(name);
        for _ in 0..4 {
            // The library writes into it until the request is over, and nobody will tell when that is.
            let buffer = Box::leak(vec![0u8; 1000].into_boxed_slice());
            drop(Request::submit(&mut vec![(w.clone(), recv(buffer, from))].into(), true));
        }
        self.idle(name);
    }

    /// Traffic that must not notice anything: sums and copies of known bytes, until rank 0 is told to stop.
    fn watch(&self, name: &str) {
        let w = self.world(name);
        let (n, me) = (w.nranks() as usize, w.rank() as usize);
        say(&format!("{name} going"));
        for round in 0.. {
            let stop = me == 0 && *self.stop.lock().unwrap();
            let len = if round % 16 == 0 { 100_000 } else { 100 };
            let mut input = pattern(me, round, len);
            input[0] = u8::from(stop);
            let mut output = vec![0; n * len];
            w.run(&collective(OpKind::AllGather, &input, &mut output, len, 0))
                .expect("a world without a victim");
            for (r, part) in output.chunks(len).enumerate() {
                assert_eq!(part[1..], pattern(r, round, len)[1..], "wrong bytes in round {round}");
            }
            if output[0] == 1 {
                return say(&format!("{name} stopped {round}"));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// All events about a world, in order, once there are so many: an event may come later than the error that an
    /// operation returns.
    fn report(&self, name: &str, count: usize) {
        let mut events = self.events.lock().unwrap();
        loop {
            let mine = events.iter().filter(|e| &*e.world_name == name);
            let mine: Vec<String> =
                mine.map(|e| format!("{:?}({})", e.kind, e.rank.map_or(-1, i64::from))).collect();
            if mine.len() >= count {
                return say(&format!("{name} {}", mine.join(" ")));
            }
            events = self.arrived.wait(events).unwrap();
        }
    }
}

fn kind(name: &str) -> OpKind {
    COLLECTIVES.into_iter().find(|k| k.name() == name).unwrap_or_else(|| panic!("no operation {name}"))
}

fn answer(name: &str, what: &str, result: Result<(), Error>) {
    match result {
        Ok(()) => say(&format!("{name} {what}")),
        Err(e) => say(&format!("{name} not {what}: {:?} {e}", e.code)),
    }
}

/// Bytes of a rank in a round: small enough that the sum over four ranks fits into a byte.
fn pattern(rank: usize, round: usize, len: usize) -> Vec<u8> {
    let from = rank * 7 + round * 5;
    (0..len).map(|i| ((from + i) % 61) as u8).collect()
}

/// Reports how an operation of a world failed, and that the next one does, too.
fn over(w: &World, name: &str, e: &Error) {
    let later = w.run(&barrier()).expect_err("a broken world");
    say(&format!("{name} over {:?} {:?} {:?} {e}", e.code, later.code, w.failed_ranks()));
}

/// Bytes of input and output.
fn sizes(kind: OpKind, n: usize, count: usize) -> (usize, usize) {
    match kind {
        OpKind::AllGather | OpKind::Gather => (count, n * count),
        OpKind::ReduceScatter | OpKind::Scatter => (n * count, count),
        OpKind::AllToAll => (n * count, n * count),
        _ => (count, count),
    }
}

/// What an operation must put into the output, where it puts anything.
fn expected(kind: OpKind, n: usize, me: usize, root: usize, round: usize, count: usize) -> Option<Vec<u8>> {
    let (len, _) = sizes(kind, n, count);
    let input = |rank: usize| pattern(rank, round, len);
    let sum = || {
        let mut sum = vec![0; len];
        (0..n).for_each(|r| sum.iter_mut().zip(input(r)).for_each(|(s, x)| *s += x));
        sum
    };
    let mine = me * count..(me + 1) * count;
    match kind {
        OpKind::Broadcast => Some(input(root)),
        OpKind::Reduce => (me == root).then(sum),
        OpKind::AllReduce => Some(sum()),
        OpKind::AllGather => Some((0..n).flat_map(input).collect()),
        OpKind::ReduceScatter => Some(sum()[mine].to_vec()),
        OpKind::AllToAll => Some((0..n).flat_map(|r| input(r)[mine.clone()].to_vec()).collect()),
        OpKind::Gather => (me == root).then(|| (0..n).flat_map(input).collect()),
        OpKind::Scatter => Some(input(root)[mine].to_vec()),
        OpKind::Barrier | OpKind::PointToPoint => None,
    }
}

/// One round of an operation, checked.
fn run(w: &World, kind: OpKind, count: usize, root: u32, round: usize) -> Result<(), Error> {
    let (n, me) = (w.nranks() as usize, w.rank() as usize);
    let (inputs, outputs) = sizes(kind, n, count);
    let input = pattern(me, round, inputs);
    let mut output = vec![0; outputs];
    w.run(&collective(kind, &input, &mut output, count, root))?;
    if let Some(right) = expected(kind, n, me, root as usize, round, count) {
        assert!(output == right, "{} delivered wrong bytes in round {round}", kind.name());
    }
    Ok(())
}

/// The same operation until it fails.
fn collectives(w: &World, name: &str, kind: OpKind, count: usize, root: u32) {
    for round in 0.. {
        if let Err(e) = run(w, kind, count, root, round) {
            return over(w, name, &e);
        }
        if round == 0 {
            say(&format!("{name} going"));
        }
    }
}

/// An operation and two barriers behind it; reports the first error. Who completes both knows that everybody has
/// completed the first one.
fn once(w: &World, name: &str, kind: OpKind, count: usize, root: u32) {
    match run(w, kind, count, root, 0).and_then(|()| w.run(&barrier())).and_then(|()| w.run(&barrier())) {
        Ok(()) => say(&format!("{name} done")),
        Err(e) => over(w, name, &e),
    }
}

/// A message to the next rank and one from the previous rank, at the same time.
fn ring(w: &Arc<World>, name: &str, len: usize) {
    let (n, me) = (w.nranks(), w.rank());
    let (next, previous) = ((me + 1) % n, (me + n - 1) % n);
    let outgoing = pattern(me as usize, len, len);
    let mut incoming = vec![0; len];
    let calls = vec![(w.clone(), send(&outgoing, next)), (w.clone(), recv(&mut incoming, previous))];
    let result = Request::submit(&mut calls.into(), false).wait(None).expect("operations have deadlines");
    assert!(result.is_err() || incoming == pattern(previous as usize, len, len), "wrong bytes");
    answer(name, "rung", result);
}

/// Messages to or from one peer until that fails.
fn stream(w: &World, name: &str, sends: bool, peer: u32, len: usize) {
    let mut data = vec![0u8; len];
    // All of a large message would take longer to check than to send.
    let places = || (0..len).step_by(len / 1000 + 1).chain([len - 1]);
    say(&format!("{name} going"));
    for round in 0.. {
        let byte = |at: usize| ((at + round * 11) % 251) as u8;
        if sends {
            places().for_each(|at| data[at] = byte(at));
        }
        let call = if sends { send(&data, peer) } else { recv(&mut data, peer) };
        if let Err(e) = w.run(&call) {
            return over(w, name, &e);
        }
        if !sends {
            assert!(places().all(|at| data[at] == byte(at)), "wrong bytes in message {round}");
        }
    }
}

/// Groups of messages to and from everybody in two worlds until that fails in the first. The second world stays whole:
/// what was exchanged there arrives although the group fails.
fn group(worlds: &[Arc<World>; 2], name: &str) {
    let [fragile, whole] = worlds;
    let mut error = None;
    for round in 0.. {
        // All of the second world do the same number of rounds.
        let broken = [u8::from(error.is_some())];
        let mut all = vec![0; whole.nranks() as usize];
        whole.run(&collective(OpKind::AllGather, &broken, &mut all, 1, 0)).expect("the other world lives");
        if all.contains(&1) {
            let e = error.unwrap_or_else(|| fragile.run(&barrier()).expect_err("a world without the victim"));
            return over(fragile, name, &e);
        }
        let mut incoming = Vec::new();
        let mut outgoing = Vec::new();
        for w in worlds {
            for peer in (0..w.nranks()).filter(|p| *p != w.rank()) {
                incoming.push((w.clone(), peer, vec![0u8; 30_000]));
                outgoing.push((w.clone(), peer, pattern(w.rank() as usize, round, 30_000)));
            }
        }
        let mut calls: Vec<(Arc<World>, Call)> = Vec::new();
        calls.extend(incoming.iter_mut().map(|(w, p, data)| (w.clone(), recv(data, *p))));
        calls.extend(outgoing.iter().map(|(w, p, data)| (w.clone(), send(data, *p))));
        error =
            Request::submit(&mut calls.into(), false).wait(None).expect("operations have deadlines").err();
        for (w, peer, data) in incoming.iter().filter(|(w, ..)| error.is_none() || Arc::ptr_eq(w, whole)) {
            assert!(*data == pattern(*peer as usize, round, 30_000), "{}: wrong bytes in {round}", w.name());
        }
        if round == 0 {
            say(&format!("{name} going"));
        }
    }
}

/// Forks; the child tries everything and must be refused everything.
fn fork(w: &Arc<World>, name: &str) {
    // SAFETY: the child calls only the library, which says that it can be called there, and `_exit`.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let config = Config::from_env().expect("settings");
        let refused = |r: Result<(), Error>| r.is_err_and(|e| e.code == Code::InvalidUsage);
        let checks = [
            refused(w.run(&barrier())),
            refused(World::init_named("child", 2, 0, &config).map(drop)),
            refused(World::init_named("alone", 1, 0, &config).map(drop)),
            refused(World::init_all(2, &config).map(drop)),
            refused(World::unique_id(&config).map(drop)),
            refused(w.split(0, 0, None).map(drop)),
            refused(w.revoke()),
            refused(w.finalize()),
            refused(w.destroy()),
        ];
        w.abort();
        let request = Request::submit(&mut vec![(w.clone(), barrier())].into(), true);
        let asynchronous = request.test().is_some_and(refused);
        let failed = checks.iter().position(|ok| !ok).map_or(0, |at| at as i32 + 1);
        let code = if asynchronous { failed } else { 100 };
        // SAFETY: ends the process; `exit` runs what the process has registered, as a child's return from main does.
        unsafe { libc::exit(code) };
    }
    assert!(child > 0, "fork");
    let until = Instant::now() + super::PATIENCE;
    let mut status = 0;
    // SAFETY: our own child and a valid place for its status.
    while unsafe { libc::waitpid(child, &mut status, libc::WNOHANG) } == 0 {
        assert!(Instant::now() < until, "the forked child hangs");
        std::thread::sleep(Duration::from_millis(1));
    }
    say(&format!("{name} forked {status}"));
}

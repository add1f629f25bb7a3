//! A rank that does what its test tells it, one line per command. Every command runs on a thread of its own; its answer
//! begins with the second word of the command.

use crate::common::{barrier, listen, now_ns, recv, role, say, send, settle_in};
use crate::gpu::{self, Stream};
use multiworld::config::Config;
use multiworld::error::Result;
use multiworld::nccl::{cuda, janitor};
use multiworld::observe::events::{self, Event};
use multiworld::types::{DataType, OpKind};
use multiworld::world::{Call, Request, World};
use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// Longer than anything may take.
const LONG: Duration = Duration::from_secs(30);

/// A world and the stream that its operations go to.
struct Place {
    world: Arc<World>,
    stream: Stream,
}

#[derive(Default)]
struct Actor {
    places: Mutex<HashMap<String, Arc<Place>>>,
    graphs: Mutex<HashMap<String, usize>>,
    events: Mutex<Vec<Event>>,
    arrived: Condvar,
    stop: Mutex<bool>,
    /// When each round of traffic ended.
    rounds: Mutex<Vec<u64>>,
}

/// Does what it is told until it hears `end`, and says then how often NCCL's rules were broken.
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
            "end" | "" => {
                let (count, text) = gpu::violations();
                return say(&format!("violations {count} {text}"));
            }
            _ => {
                let a = actor.clone();
                std::thread::spawn(move || a.obey(&line));
            }
        }
    }
}

/// `NAME CODE MS TEXT`, where the code of a success is Ok.
fn answer(name: &str, begin: Instant, result: Result<String>) {
    let ms = begin.elapsed().as_millis();
    match result {
        Ok(text) => say(&format!("{name} Ok {ms} {text}")),
        Err(e) => say(&format!("{name} {:?} {ms} {:?} {e}", e.code, e.extent)),
    }
}

/// Memory that operations may use as long as they like.
fn memory(bytes: usize, value: u8) -> &'static mut [u8] {
    Box::leak(vec![value; bytes].into_boxed_slice())
}

impl Actor {
    fn place(&self, name: &str) -> Arc<Place> {
        self.places.lock().unwrap().get(name).unwrap_or_else(|| panic!("no world {name}")).clone()
    }

    fn obey(&self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        let name = words[1];
        let number = |at: usize| -> i32 { words[at].parse().expect("a number") };
        let begin = Instant::now();
        if let Err(e) = cuda::bind(0) {
            // The operations say so, too.
            eprintln!("{e}");
        }
        match words[0] {
            "join" => self.join(name, number(2), number(3)),
            "run" => {
                let p = self.place(name);
                let done = p.run(words[2]);
                answer(name, begin, done.map(|()| String::new()));
            }
            "issue" => {
                let p = self.place(name);
                answer(name, begin, p.issue(words[2]).map(|_| String::new()));
            }
            "submit" => {
                let p = self.place(name);
                let mut calls = p.calls(words[2]).0.into_iter().map(|c| (p.world.clone(), c)).collect();
                let request = Request::submit(&mut calls, true);
                say(&format!("{name} submitted"));
                let done = request.wait(Some(begin + LONG)).expect("a request ends");
                answer(name, begin, done.map(|()| String::new()));
            }
            "idle" => {
                let done = self.place(name).stream.idle(LONG);
                answer(name, begin, Ok(done.map_or("never".into(), |r| format!("cuda {r}"))));
            }
            "event" => self.event(name, begin),
            "abort" => {
                self.place(name).world.abort();
                answer(name, begin, Ok(String::new()));
            }
            "destroy" => {
                let done = self.place(name).world.destroy();
                answer(name, begin, done.map(|()| String::new()));
            }
            "leaked" => {
                let wanted = number(2) as u64;
                while janitor::leaked() != wanted {
                    assert!(begin.elapsed() < LONG, "{} leaked, not {wanted}", janitor::leaked());
                    std::thread::sleep(Duration::from_millis(1));
                }
                answer(name, begin, Ok(String::new()));
            }
            "script" => {
                gpu::script(words.get(2).unwrap_or(&""));
                answer(name, begin, Ok(String::new()));
            }
            "calls" => answer(name, begin, Ok(gpu::calls(words[2]).to_string())),
            "poison" => {
                gpu::poison(number(2));
                answer(name, begin, Ok(String::new()));
            }
            "capture" => {
                let p = self.place(name);
                let graph = p.stream.capture(|| {
                    p.issue(words[2]).expect("capturing");
                });
                self.graphs.lock().unwrap().insert(name.into(), graph);
                answer(name, begin, Ok(String::new()));
            }
            "uncapture" => {
                gpu::destroy_graph(self.graphs.lock().unwrap().remove(name).expect("a graph"));
                answer(name, begin, Ok(String::new()));
            }
            "traffic" => self.traffic(name, number(2) == 1),
            "calm" => *self.stop.lock().unwrap() = true,
            "rounds" => {
                let between: Vec<u64> = words[2..4].iter().map(|w| w.parse().expect("a time")).collect();
                let rounds = self.rounds.lock().unwrap();
                let n = rounds.iter().filter(|t| (between[0]..between[1]).contains(t)).count();
                answer(name, begin, Ok(n.to_string()));
            }
            other => panic!("no command {other}"),
        }
    }

    fn join(&self, name: &str, n: i32, me: i32) {
        let begin = Instant::now();
        let config = Config::from_env().expect("settings");
        let joined = World::init_named(name, n, me, &config).map(|world| {
            // Stands in for the handle that C would have: without one there are no events.
            world.set_token(1);
            let place = Place { world, stream: Stream::new() };
            self.places.lock().unwrap().insert(name.into(), Arc::new(place));
            String::new()
        });
        answer(name, begin, joined);
    }

    /// The first event about a world: `NAME KIND CODE MS TEXT`.
    fn event(&self, name: &str, begin: Instant) {
        let mut events = self.events.lock().unwrap();
        loop {
            if let Some(e) = events.iter().find(|e| &*e.world_name == name) {
                let code = e.code.map_or("Ok".into(), |c| format!("{c:?}"));
                return say(&format!(
                    "{name} {code} {} {:?} {}",
                    begin.elapsed().as_millis(),
                    e.kind,
                    e.reason
                ));
            }
            let (next, time) = self.arrived.wait_timeout(events, LONG).unwrap();
            assert!(!time.timed_out(), "no event about {name}");
            events = next;
        }
    }

    /// Sums that must always be right, until rank 0 is told to stop.
    fn traffic(&self, name: &str, stops: bool) {
        let p = self.place(name);
        loop {
            let stop = stops && *self.stop.lock().unwrap();
            let (calls, _, to) = p.sum(256, if stop { 100 } else { 1 });
            p.start(&calls).expect("a world without trouble");
            assert_eq!(p.stream.idle(LONG), Some(0), "a stream without trouble");
            self.rounds.lock().unwrap().push(now_ns());
            assert!(to.iter().all(|b| *b == to[0]), "a wrong sum");
            if u32::from(to[0]) != p.world.nranks() {
                return say(&format!("{name} calm"));
            }
        }
    }
}

type Prepared = (Vec<Call>, usize, &'static [u8]);

impl Place {
    fn sum(&self, bytes: usize, value: u8) -> Prepared {
        let (from, to) = (memory(bytes, value), memory(bytes, 0));
        let call = Call {
            kind: OpKind::AllReduce,
            sendbuf: from.as_ptr(),
            recvbuf: to.as_mut_ptr(),
            count: bytes,
            dtype: DataType::Uint8,
            stream: self.stream.0,
            ..barrier()
        };
        (vec![call], 0, to)
    }

    /// What a name means: `sum`, `barrier`, `send-1`, `recv-0`, `swap-1` (a group of both).
    fn calls(&self, what: &str) -> (Vec<Call>, Option<&'static [u8]>) {
        let (kind, peer) = what.split_once('-').map_or((what, 0), |(k, p)| (k, p.parse().expect("a rank")));
        let (calls, to) = match kind {
            "sum" => {
                let (calls, _, to) = self.sum(1000, 1);
                (calls, Some(to))
            }
            "barrier" => (vec![barrier()], None),
            "fp8" => {
                let (calls, _, _) = self.sum(8, 0);
                (calls.into_iter().map(|c| Call { dtype: DataType::Float8e4m3, ..c }).collect(), None)
            }
            "send" => (vec![send(memory(1000, 1), peer)], None),
            "recv" => (vec![recv(memory(1000, 0), peer)], None),
            "swap" => (vec![send(memory(1000, 1), peer), recv(memory(1000, 0), peer)], None),
            other => panic!("no operation {other}"),
        };
        let on = |c: Call| Call { stream: self.stream.0, ..c };
        (calls.into_iter().map(on).collect(), to)
    }

    fn start(&self, calls: &[Call]) -> Result<()> {
        if let [call] = calls {
            return self.world.run(call);
        }
        let mut calls = calls.iter().map(|c| (self.world.clone(), *c)).collect();
        Request::submit(&mut calls, false).wait(None).expect("a request without a limit")
    }

    fn issue(&self, what: &str) -> Result<Option<&'static [u8]>> {
        let (calls, to) = self.calls(what);
        self.start(&calls).map(|()| to)
    }

    /// Issues an operation and waits until the stream is free; the error of the world if it broke meanwhile.
    fn run(&self, what: &str) -> Result<()> {
        let issued = self.issue(what);
        let free = self.stream.idle(LONG).expect("the stream becomes free");
        let to = issued?;
        if let Some(e) = self.world.error() {
            return Err(e);
        }
        assert_eq!(free, 0, "the stream works");
        if let Some(to) = to {
            assert!(to.iter().all(|b| u32::from(*b) == self.world.nranks()), "a wrong sum");
        }
        Ok(())
    }
}

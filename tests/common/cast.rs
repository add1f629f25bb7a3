//! Survivors, victims, and what the former must know about the end of the latter.

use super::{Rank, store_address};
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A small random generator, so that a failed run can be repeated.
pub struct Dice(u64);

impl Dice {
    /// Seeded by `MW_TEST_SEED` or the clock; prints the seed.
    pub fn new() -> Dice {
        let given = std::env::var("MW_TEST_SEED").ok().and_then(|s| s.parse().ok());
        let seed = given.unwrap_or_else(super::now_ns);
        println!("MW_TEST_SEED={seed}");
        Dice(seed | 1)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % limit
    }

    /// Up to `ms` milliseconds pass.
    pub fn pause(&mut self, ms: u64) {
        std::thread::sleep(Duration::from_micros(self.below(ms as usize * 1000 + 1) as u64));
    }
}

/// The survivors of everything, and a world of theirs that must never notice anything.
pub struct Cast {
    pub survivors: Vec<Rank>,
    pub dice: Dice,
    env: Vec<(String, String)>,
    token: String,
    sockets: Vec<String>,
    temp: PathBuf,
    worlds: usize,
    /// With the events that there were.
    buried: Vec<(String, String)>,
}

impl Cast {
    /// Starts `survivors` processes and their traffic.
    pub fn new(transport: &str, survivors: usize, extra: &[(&str, &str)]) -> Cast {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let token = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let temp = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(&token);
        fs::create_dir_all(&temp).expect("a directory");
        let mut env = vec![
            ("MW_STORE".to_string(), store_address()),
            ("MW_TRANSPORT".to_string(), transport.to_string()),
            ("MW_TIMEOUT_MS".to_string(), "40000".to_string()),
            ("MW_JOIN_TIMEOUT_MS".to_string(), "40000".to_string()),
            ("MW_TEST_TOKEN".to_string(), token.clone()),
            ("TMPDIR".to_string(), temp.display().to_string()),
        ];
        env.extend(extra.iter().map(|(k, v)| (k.to_string(), v.to_string())));
        let dice = Dice::new();
        let mut c = Cast {
            survivors: Vec::new(),
            dice,
            env,
            token,
            sockets: Vec::new(),
            temp,
            worlds: 0,
            buried: Vec::new(),
        };
        c.survivors = (0..survivors).map(|_| c.start()).collect();
        c.each(|_, me| format!("join bystanders {survivors} {me}"));
        c.all_say("bystanders", "joined");
        c.each(|_, _| "watch bystanders".into());
        c.all_say("bystanders", "going");
        c
    }

    /// A new process, which knows nobody yet.
    pub fn start(&self) -> Rank {
        self.start_with(&[])
    }

    /// The same with other settings.
    pub fn start_with(&self, extra: &[(&str, &str)]) -> Rank {
        let mut env: Vec<(&str, &str)> = self.env.iter().map(|(k, v)| (&**k, &**v)).collect();
        env.extend(extra);
        let mut r = Rank::start("rank", "actor", &[], &env);
        assert_eq!(r.hear_of("actor"), "ready");
        r
    }

    /// A name for a world that has not been used yet.
    pub fn fresh(&mut self, what: &str) -> String {
        self.worlds += 1;
        format!("{what}-{}", self.worlds)
    }

    /// Tells every survivor something; the closure gets its rank in a world where rank `usize::MAX` is the victim's.
    pub fn each(&mut self, line: impl Fn(&Cast, usize) -> String) {
        for i in 0..self.survivors.len() {
            let line = line(self, i);
            self.survivors[i].tell(&line);
        }
    }

    /// Every survivor answers this about a world.
    pub fn all_say(&mut self, world: &str, what: &str) {
        for (i, s) in self.survivors.iter_mut().enumerate() {
            let said = s.hear_of(world);
            assert_eq!(said, what, "{world}: survivor {i}");
        }
    }

    /// A world of the survivors and a new process as `victim`, which is joined when this returns.
    pub fn world(&mut self, name: &str, victim: usize) -> Rank {
        let mut v = self.start();
        self.join(name, victim, &mut v);
        v
    }

    /// Joins one more world of the survivors and a process as rank `victim`.
    pub fn join(&mut self, name: &str, victim: usize, v: &mut Rank) {
        let n = self.survivors.len() + 1;
        self.each(|_, i| format!("join {name} {n} {}", rank(i, victim)));
        v.tell(&format!("join {name} {n} {victim}"));
        assert_eq!(v.hear_of(name), "joined");
        self.all_say(name, "joined");
    }

    /// Every survivor has heard of the death of `victims`, in its pending and in its next operation.
    pub fn all_know(&mut self, world: &str, victims: &[usize]) {
        for (i, s) in self.survivors.iter_mut().enumerate() {
            let said = s.hear_of(world);
            let right = format!("over Remote Remote {victims:?}");
            assert!(said.starts_with(&right), "{world}: survivor {i} says: {said}");
        }
    }

    /// Every survivor destroys a world, and has exactly these events about it, now and when everything is over.
    pub fn bury(&mut self, world: &str, events: &str) {
        self.each(|_, _| format!("destroy {world}"));
        self.all_say(world, "destroyed");
        self.all_had(world, events);
        self.buried.push((world.to_string(), events.to_string()));
    }

    fn all_had(&mut self, world: &str, events: &str) {
        self.each(|_, _| format!("events {world} {}", events.split_whitespace().count()));
        self.all_say(world, events);
    }

    /// Remembers the names under which a process can be reached on this machine.
    pub fn note_sockets(&mut self, r: &Rank) {
        self.sockets.extend(sockets_of(r.child.id()));
    }

    /// Everybody ends in good order; nothing is left of anybody.
    pub fn end(mut self) {
        for (world, events) in std::mem::take(&mut self.buried) {
            self.all_had(&world, &events);
        }
        self.all_had("bystanders", "");
        self.survivors[0].tell("stop");
        for s in &mut self.survivors {
            let said = s.hear_of("bystanders");
            assert!(said.starts_with("stopped"), "{said}");
        }
        self.each(|_, _| "destroy bystanders".into());
        self.all_say("bystanders", "destroyed");
        let pids: Vec<u32> = self.survivors.iter().map(|s| s.child.id()).collect();
        self.sockets.extend(pids.into_iter().flat_map(sockets_of));
        for mut s in std::mem::take(&mut self.survivors) {
            s.tell("end");
            s.finish();
        }
        self.nothing_is_left();
    }

    fn nothing_is_left(&self) {
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            let left = self.left();
            if left.is_empty() {
                let _ = fs::remove_dir(&self.temp);
                return;
            }
            // A killed process that has been reaped may still be giving things back.
            assert!(Instant::now() < until, "left behind: {left:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn left(&self) -> Vec<String> {
        let mut left = Vec::new();
        let names = |dir: &str| -> Vec<String> {
            let entries = fs::read_dir(dir).into_iter().flatten().flatten();
            entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect()
        };
        left.extend(names(&self.temp.to_string_lossy()).iter().map(|n| format!("TMPDIR/{n}")));
        for dir in ["/dev/shm", "/tmp"] {
            let ours = names(dir).into_iter().filter(|n| n.starts_with("multiworld"));
            left.extend(ours.map(|n| format!("{dir}/{n}")));
        }
        let unix = fs::read_to_string("/proc/net/unix").unwrap_or_default();
        left.extend(self.sockets.iter().filter(|s| unix.contains(&***s)).cloned());
        let token = format!("MW_TEST_TOKEN={}", self.token);
        for pid in names("/proc").iter().filter(|n| n.bytes().all(|b| b.is_ascii_digit())) {
            let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            if environ.split(|b| *b == 0).any(|v| v == token.as_bytes()) {
                left.push(format!("process {pid}"));
            }
        }
        left
    }
}

/// The rank of survivor `i` in a world where `victim` is somebody else's.
pub fn rank(i: usize, victim: usize) -> usize {
    i + usize::from(i >= victim)
}

/// The abstract Unix names that a process listens on.
pub fn sockets_of(pid: u32) -> Vec<String> {
    let fds = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let links = fds.filter_map(|fd| fs::read_link(fd.path()).ok());
    let inodes: Vec<String> = links
        .filter_map(|l| Some(l.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_string()))
        .collect();
    let unix = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let lines = unix.lines().map(|l| l.split_whitespace().collect::<Vec<_>>());
    let mut names: Vec<String> = lines
        .filter(|l| l.len() > 7 && inodes.iter().any(|i| i == l[6]) && l[7].starts_with("@multiworld-"))
        .map(|l| l[7].to_string())
        .collect();
    // What a listener has accepted goes by the same name.
    names.sort();
    names.dedup();
    names
}

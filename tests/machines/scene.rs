//! Machines with a rank on each, and a store in the middle.

use super::common::{Rank, now_ns};
use super::net::{Family, Host, Net};
use multiworld::auth::KeyId;
use multiworld::store::Server;
use multiworld::types::Secret;
use std::time::Duration;

/// Silence after which a member counts as failed, unless a test says otherwise: the default.
pub const TIMEOUT_MS: f64 = 1000.0;

pub struct Scene {
    pub ranks: Vec<Rank>,
    pub hosts: Vec<Host>,
    pub net: Net,
    pub env: Vec<(String, String)>,
    _store: Server,
}

/// How a world has ended on a member.
#[derive(Debug)]
pub struct Over {
    pub code: String,
    pub failed: String,
    pub at: u64,
    pub text: String,
}

/// What the machines share: nothing leaves one without.
pub const SECRET: &str = "known on these machines only";

/// A store in the middle, and its address.
pub fn store(net: &Net) -> (Server, String) {
    let listener = net.listen();
    let address = format!("tcp://{}", listener.local_addr().expect("an address"));
    let secret = Secret(SECRET.as_bytes().to_vec());
    let key = KeyId::of(&secret);
    let keys = multiworld::sync::Arc::new(move |id: KeyId| (id == key).then(|| secret.clone()));
    (Server::start(listener, keys).expect("a store"), address)
}

impl Scene {
    /// So many machines, each with a rank; the last one is on a cable that can be made worse. `None`, with the reason
    /// printed, where that cannot be.
    pub fn new(machines: usize, family: Family) -> Option<Scene> {
        Scene::with(machines, family, &[])
    }

    pub fn with(machines: usize, family: Family, env: &[(&str, &str)]) -> Option<Scene> {
        if let Some(why) = super::net::why_not() {
            println!("skipped: {why}");
            return None;
        }
        let mut net = Net::new(family);
        let mut hosts: Vec<Host> = (1..machines).map(|_| net.host()).collect();
        hosts.push(net.cabled_host());
        let (store, address) = store(&net);
        let mut all = vec![
            ("MW_STORE".to_string(), address),
            ("MW_SECRET".into(), SECRET.into()),
            ("MW_JOIN_TIMEOUT_MS".into(), "30000".into()),
        ];
        all.push(("MW_TIMEOUT_MS".into(), "40000".into()));
        all.extend(env.iter().map(|(k, v)| (k.to_string(), v.to_string())));
        let mut scene = Scene { ranks: Vec::new(), hosts, net, env: all, _store: store };
        for host in 0..machines {
            let rank = scene.start(host);
            scene.ranks.push(rank);
        }
        Some(scene)
    }

    /// A process on a machine, which knows nobody yet.
    pub fn start(&self, host: usize) -> Rank {
        let env: Vec<(&str, &str)> = self.env.iter().map(|(k, v)| (&**k, &**v)).collect();
        let mut rank = self.hosts[host].start(&env);
        rank.expect("member ready");
        rank
    }

    /// Makes a world of these ranks, in this order. All have to reach each other by TCP.
    pub fn join(&mut self, world: &str, ranks: &[usize]) {
        let n = ranks.len();
        for (me, r) in ranks.iter().enumerate() {
            self.ranks[*r].tell(&format!("join {world} {n} {me}"));
        }
        for (me, r) in ranks.iter().enumerate() {
            let said = self.ranks[*r].hear_of(world);
            let right = format!("joined epoch 1 rank {me} of {n}, 0 by shm, {} by tcp", n - 1);
            assert_eq!(said, right, "{world}");
        }
    }

    /// Tells these ranks the same.
    pub fn tell(&mut self, ranks: &[usize], line: &str) {
        ranks.iter().for_each(|r| self.ranks[*r].tell(line));
    }

    /// These ranks say the same about a world.
    pub fn all_say(&mut self, ranks: &[usize], world: &str, what: &str) {
        for r in ranks {
            let said = self.ranks[*r].hear_of(world);
            assert_eq!(said, what, "{world}: rank {r}");
        }
    }

    /// Traffic in a world of these ranks that ends with [`Scene::stop`] or with the world.
    pub fn run(&mut self, world: &str, ranks: &[usize], len: usize) {
        self.tell(ranks, &format!("run {world} {len}"));
        self.all_say(ranks, world, "going");
    }

    /// Ends that traffic, which nothing has disturbed. Answers its longest pause in milliseconds.
    pub fn stop(&mut self, world: &str, ranks: &[usize]) -> u64 {
        self.ranks[ranks[0]].tell(&format!("stop {world}"));
        let mut longest = 0;
        for r in ranks {
            let said = self.ranks[*r].hear_of(world);
            let words: Vec<&str> = said.split(' ').collect();
            assert_eq!(words[0], "stopped", "{world}: rank {r}: {said}");
            longest = longest.max(words[2].parse().expect("a number"));
        }
        longest
    }

    pub fn over(&mut self, rank: usize, world: &str) -> Over {
        let said = self.ranks[rank].hear_of(world);
        let words: Vec<&str> = said.splitn(5, ' ').collect();
        let ["over", code, failed, at, text] = words[..] else { panic!("{world}: rank {rank}: {said}") };
        Over { code: code.into(), failed: failed.into(), at: at.parse().expect("a time"), text: text.into() }
    }

    /// Lets all end in good order.
    pub fn end(mut self) {
        for mut rank in std::mem::take(&mut self.ranks) {
            rank.tell("end");
            rank.finish();
        }
    }
}

pub fn pause(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

pub fn ms_since(then: u64) -> f64 {
    now_ns().saturating_sub(then) as f64 / 1e6
}

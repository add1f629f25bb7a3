//! One world, whose members are killed and replaced: nobody ever comes out of a reform with other members than the rest,
//! whoever dies while it is under way.

mod common;
#[path = "common/etcd.rs"]
mod etcd;

use common::{Rank, collective, doubles, listen, now_ns, percentile, role, say, store_address};
use multiworld::auth::KeyId;
use multiworld::config::Config;
use multiworld::error::{Code, Error};
use multiworld::store::Server;
use multiworld::sync::Arc as MwArc;
use multiworld::types::{OpKind, Secret};
use multiworld::world::{Call, Request, Size, World};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const MEMBER: &str = "member";
/// How many there are when all are well.
const FULL: usize = 4;

#[test]
fn member() {
    let Some((_, args)) = role() else { return };
    let name = args[0].as_str();
    let (first, least): (i32, i32) =
        (args[1].parse().expect("a rank or -1"), args[2].parse().expect("a number"));
    let config = Config::from_env().expect("settings");
    if let Ok(Some(level)) = multiworld::config::log_level() {
        multiworld::observe::log::init(level);
    }
    static STOP: AtomicBool = AtomicBool::new(false);
    std::thread::spawn(|| {
        listen();
        STOP.store(true, Ordering::Relaxed);
    });
    let size = Size::Between(least, FULL as i32);
    let come = || World::reform(None, name, size, &config);
    say("here");
    let mut world = match first {
        // A replacement may have to wait until its turn comes.
        -1 => come().expect("being taken in"),
        rank => World::init_named(name, FULL as i32, rank, &config).expect("joining"),
    };
    loop {
        match serve(&world, &STOP) {
            Ok(true) => return world.destroy().expect("destroying"),
            Ok(false) => {}
            Err(e) => assert!(matches!(e.code, Code::Remote | Code::Revoked), "{e}"),
        }
        world = match World::reform(Some(&world), name, size, &config) {
            Ok(world) => world,
            // The others took it for dead.
            Err(e) if e.code == Code::Remote => {
                say("out");
                world.abort();
                come().expect("being taken in again")
            }
            Err(e) => panic!("reforming: {e}"),
        };
    }
}

/// Until it is done, on device memory, too.
fn run(world: &MwArc<World>, call: Call) -> Result<(), Error> {
    if !world.is_on_device() {
        return world.run(&call);
    }
    Request::submit(&mut [(world.clone(), call)].into_iter().collect(), true).wait(None).expect("no limit")
}

/// Says who belongs to this epoch, and works until it breaks or all are told to stop (`true`), or until it is time to see
/// whether somebody waits for a place that is empty.
fn serve(world: &MwArc<World>, stop: &AtomicBool) -> Result<bool, Error> {
    let n = world.nranks() as usize;
    let mine = std::process::id().to_le_bytes();
    let mut pids = vec![0; 4 * n];
    run(world, collective(OpKind::AllGather, &mine, &mut pids, 4, 0))?;
    let pids: Vec<String> =
        pids.as_chunks::<4>().0.iter().map(|p| u32::from_le_bytes(*p).to_string()).collect();
    say(&format!("in {} {} {} {}", world.epoch(), world.rank(), now_ns(), pids.join(",")));
    let mut round = 0u64;
    loop {
        // What an older epoch had under way would be seen here.
        let mut sent = [world.epoch().to_le_bytes(), round.to_le_bytes(), [0; 8]].concat();
        sent[16] = u8::from(stop.load(Ordering::Relaxed));
        let mut got = vec![0; 24 * n];
        run(world, collective(OpKind::AllGather, &sent, &mut got, 24, 0))?;
        assert!(got.chunks(24).all(|c| c[..16] == sent[..16]), "a word from another epoch or round");
        if got.chunks(24).any(|c| c[16] == 1) {
            return Ok(true);
        }
        if n < FULL && round == 30 {
            return Ok(false);
        }
        round += 1;
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The processes, and what they have said of each epoch.
struct Cast {
    env: Vec<(String, String)>,
    name: String,
    least: usize,
    living: Vec<Rank>,
    /// Members by epoch. One list each, or the test has failed.
    epochs: BTreeMap<u64, String>,
    seed: u64,
}

impl Cast {
    fn new(name: &str, store: &str, least: usize, more: &[(&str, &str)]) -> Cast {
        let env = [("MW_STORE", store), ("MW_REFORM_WAIT_MS", "100")];
        let env = env.iter().chain(more).map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let mut cast =
            Cast { env, name: name.into(), least, living: Vec::new(), epochs: BTreeMap::new(), seed: seed() };
        (0..FULL).for_each(|rank| cast.start(rank as i32));
        cast
    }

    fn start(&mut self, rank: i32) {
        let args = [self.name.clone(), rank.to_string(), self.least.to_string()];
        let env: Vec<(&str, &str)> = self.env.iter().map(|(k, v)| (&**k, &**v)).collect();
        self.living.push(Rank::start(MEMBER, "member", &args, &env));
    }

    fn random(&mut self, below: u64) -> u64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        self.seed % below
    }

    /// Kills one of the living; answers when.
    fn kill(&mut self) -> u64 {
        let at = self.random(self.living.len() as u64) as usize;
        self.living.remove(at).kill()
    }

    /// Waits until all living are in one epoch with nobody else; answers when the last one came out.
    fn wait_whole(&mut self) -> u64 {
        let mut pids: Vec<u32> = self.living.iter().map(|r| r.child.id()).collect();
        pids.sort_unstable();
        let mut last = 0;
        let mut epochs = Vec::new();
        for at in 0..self.living.len() {
            loop {
                let line = self.living[at].hear().expect("a member lives");
                let words: Vec<&str> = line.split(' ').collect();
                let ["in", epoch, rank, when, members] = words[..] else { continue };
                let epoch: u64 = epoch.parse().expect("an epoch");
                let agreed = self.epochs.entry(epoch).or_insert_with(|| members.to_string());
                assert_eq!(agreed, members, "two lists of epoch {epoch}");
                let theirs: Vec<u32> = members.split(',').map(|p| p.parse().expect("a process")).collect();
                assert_eq!(theirs[rank.parse::<usize>().expect("a rank")], self.living[at].child.id());
                let mut sorted = theirs;
                sorted.sort_unstable();
                if sorted == pids {
                    last = last.max(when.parse().expect("a time"));
                    epochs.push(epoch);
                    break;
                }
            }
        }
        assert!(epochs.iter().all(|e| *e == epochs[0]), "all have come out of one epoch: {epochs:?}");
        last
    }

    fn stop(mut self) {
        self.living.iter_mut().for_each(|r| r.tell("stop"));
        self.living.into_iter().for_each(Rank::finish);
    }
}

/// A store in this process, which nobody kills.
fn a_store() -> (Server, String) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("tcp://{}", listener.local_addr().expect("an address"));
    let secret = Secret(b"multiworld without a secret".to_vec());
    let key = KeyId::of(&secret);
    let keys = multiworld::sync::Arc::new(move |id: KeyId| (id == key).then(|| secret.clone()));
    (Server::start(listener, keys).expect("a store"), address)
}

/// Of the order of events; `MW_TEST_SEED` chooses another.
fn seed() -> u64 {
    std::env::var("MW_TEST_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(7)
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    percentile(&times, 50.0)
}

#[test]
fn replaced_one_after_the_other() {
    let (_store, address) = a_store();
    for transport in ["shm", "tcp"] {
        let mut cast = Cast::new("one", &address, FULL, &[("MW_TRANSPORT", transport)]);
        cast.wait_whole();
        let (mut warm, mut cold) = (Vec::new(), Vec::new());
        for round in 0..20 {
            let is_warm = round % 2 == 0;
            if is_warm {
                cast.start(-1);
                cast.living.last_mut().expect("the spare").expect("here");
                // It waits at the store by then, most likely.
                std::thread::sleep(Duration::from_millis(30));
                // Not the spare.
                let at = cast.random(FULL as u64) as usize;
                let killed = cast.living.remove(at).kill();
                warm.push(cast.wait_whole().saturating_sub(killed) as f64 / 1e6);
            } else {
                let killed = cast.kill();
                cast.start(-1);
                cold.push(cast.wait_whole().saturating_sub(killed) as f64 / 1e6);
            }
        }
        println!(
            "{transport}: from SIGKILL to the first operation of all {FULL}: {:.1} ms with a spare, {:.1} ms with a \
             cold start (medians of 10)",
            median(warm),
            median(cold)
        );
        assert_eq!(cast.epochs.len(), 21, "an epoch for each, and none more");
        cast.stop();
    }
}

/// Members die, one after the other, and `beside` happens in the middle of each reform.
fn replace_beside(store: &str, rounds: usize, mut beside: impl FnMut(usize)) {
    let mut cast = Cast::new("beside", store, FULL, &[]);
    cast.wait_whole();
    let mut times = Vec::new();
    for round in 0..rounds {
        let killed = cast.kill();
        cast.start(-1);
        beside(round);
        times.push(cast.wait_whole().saturating_sub(killed) as f64 / 1e6);
    }
    println!(
        "{store}: from SIGKILL to the first operation of all {FULL}: {:.1} ms (median of {rounds})",
        median(times)
    );
    assert_eq!(cast.epochs.len(), rounds + 1, "an epoch for each, and none more");
    cast.stop();
}

/// Two die at once or one while the other is being replaced, replacements die on the way, and nobody ever disagrees.
fn chaos(name: &str, store: &str, rounds: usize, more: &[(&str, &str)]) {
    let mut cast = Cast::new(name, store, 2, more);
    cast.wait_whole();
    let begin = Instant::now();
    for _ in 0..rounds {
        cast.kill();
        let pause = cast.random(8);
        match cast.random(4) {
            // A second one, while they look for a replacement of the first.
            0 => {
                std::thread::sleep(Duration::from_millis(pause));
                cast.kill();
                cast.start(-1);
            }
            // The replacement dies on the way.
            1 => {
                cast.start(-1);
                std::thread::sleep(Duration::from_millis(pause * 10));
                let mut newest = cast.living.pop().expect("the replacement");
                newest.kill();
            }
            // Two come for one place.
            2 => {
                cast.start(-1);
                cast.start(-1);
                std::thread::sleep(Duration::from_millis(pause * 10));
                let newest = cast.random(2) as usize + cast.living.len() - 2;
                cast.living.remove(newest).kill();
            }
            // It comes late.
            _ => std::thread::sleep(Duration::from_millis(pause * 20)),
        }
        while cast.living.len() < FULL {
            cast.start(-1);
        }
        cast.wait_whole();
    }
    println!(
        "{name}: {rounds} rounds, {} epochs came about, {:.1} s",
        cast.epochs.len(),
        begin.elapsed().as_secs_f64()
    );
    cast.stop();
}

#[test]
fn whoever_dies_all_agree() {
    let (_store, address) = a_store();
    chaos("chaos", &address, 25, &[]);
}

#[test]
fn the_store_dies_with_the_member_that_has_it() {
    chaos("heirs", &store_address(), 15, &[]);
}

#[test]
fn on_device_memory_as_well() {
    let ((_store, address), d) = (a_store(), doubles::get());
    let (folder, nccl) = (d.folder.to_string_lossy(), d.nccl.to_string_lossy());
    let env = [("LD_LIBRARY_PATH", &*folder), ("MW_NCCL_LIB", &*nccl), ("MW_BACKEND", "nccl")];
    chaos("devices", &address, 10, &env);
}

#[test]
fn through_a_directory() {
    let folder = std::env::temp_dir().join(format!("mw-reform-{}", std::process::id()));
    let address = format!("file://{}", folder.display());
    replace_beside(&address, 5, |_| ());
    chaos("directory", &address, 10, &[]);
    std::fs::remove_dir_all(&folder).expect("removing the directory");
}

/// A third of the cluster is killed while a member is being replaced, and it is the third that leads.
#[test]
fn through_an_etcd_cluster_that_loses_its_leader() {
    let Some(cluster) = etcd::Cluster::start(3, &[]) else { return };
    replace_beside(&cluster.address(), 4, |round| {
        if round == 1 {
            cluster.kill(cluster.leader());
        }
    });
}

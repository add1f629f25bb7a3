//! The contract of [`Store`], run on every implementation.

use super::{Directory, LeaseId, Memory, Prefix, Server, Store, Swap};
use crate::auth::KeyId;
use crate::error::Code;
use crate::sync::Arc;
use crate::sync::atomic::{AtomicU32, Ordering};
use crate::types::Secret;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// A store to be tested.
pub trait Fixture: Sync {
    /// Another client of the same store.
    fn client(&self) -> Arc<dyn Store>;

    /// How another process reaches it, if it can.
    fn address(&self) -> Option<String> {
        None
    }

    /// A lease's time for which the end of a process must show at once; or the shortest there is, where only
    /// time tells.
    fn ttl_of_the_dead(&self) -> Duration {
        Duration::from_secs(600)
    }
}

pub fn soon(ms: u64) -> Instant {
    Instant::now() + Duration::from_millis(ms)
}

fn far() -> Instant {
    soon(20_000)
}

struct InMemory(Memory);

impl Fixture for InMemory {
    fn client(&self) -> Arc<dyn Store> {
        Arc::new(self.0.another())
    }
}

pub struct OverTcp(pub Server);

pub const KEY: KeyId = KeyId([1; 16]);

pub fn secret() -> Secret {
    Secret(vec![42; 32])
}

impl OverTcp {
    pub fn start() -> OverTcp {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        OverTcp(Server::start(listener, Arc::new(|id| (id == KEY).then(secret))).unwrap())
    }

    pub fn connect(&self) -> super::Client {
        super::Client::connect_to(self.0.addr(), KEY, &secret(), far()).unwrap()
    }
}

impl Fixture for OverTcp {
    fn client(&self) -> Arc<dyn Store> {
        Arc::new(self.connect())
    }

    fn address(&self) -> Option<String> {
        Some(format!("tcp://{}", self.0.addr()))
    }
}

/// A directory that vanishes with its test.
pub struct InDirectory(pub PathBuf);

impl InDirectory {
    pub fn new() -> InDirectory {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("mw-store-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        InDirectory(std::env::temp_dir().join(name))
    }
}

impl Drop for InDirectory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Fixture for InDirectory {
    fn client(&self) -> Arc<dyn Store> {
        Arc::new(Directory::open(&self.0).unwrap())
    }

    fn address(&self) -> Option<String> {
        Some(format!("file://{}", self.0.display()))
    }
}

/// A part of an etcd that runs for as long as tests need it.
#[cfg(feature = "etcd")]
pub struct InEtcd {
    pub server: Arc<cluster::Cluster>,
    prefix: String,
}

#[cfg(feature = "etcd")]
#[path = "../../tests/common/etcd.rs"]
pub mod cluster;

#[cfg(feature = "etcd")]
impl InEtcd {
    /// `None` where etcd is not installed, which is said.
    pub fn new() -> Option<InEtcd> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let prefix = format!("test-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        Some(InEtcd { server: cluster::shared()?, prefix })
    }
}

#[cfg(feature = "etcd")]
impl Fixture for InEtcd {
    fn client(&self) -> Arc<dyn Store> {
        super::open(&self.address().unwrap(), KEY, &secret(), far()).unwrap()
    }

    fn address(&self) -> Option<String> {
        Some(format!("{}/{}", self.server.address(), self.prefix))
    }

    fn ttl_of_the_dead(&self) -> Duration {
        Duration::from_secs(2)
    }
}

/// Another process with a client of a store: this test binary again. Killed at the end, at the latest.
pub struct Other {
    pub child: Child,
    said: BufReader<ChildStdout>,
}

impl Other {
    /// `role` is one that [`another_process`] knows.
    pub fn start(address: &str, role: &str) -> Other {
        Other::start_with(address, role, &[])
    }

    /// The same with these variables.
    pub fn start_with(address: &str, role: &str, env: &[(&str, &str)]) -> Other {
        let mut c = Command::new(std::env::current_exe().unwrap());
        c.envs(env.iter().copied());
        c.args(["store::conformance::another_process", "--exact", "--nocapture", "--test-threads=1"]);
        c.env("MW_TEST_STORE", address).env("MW_TEST_ROLE", role);
        c.stdin(Stdio::null()).stdout(Stdio::piped());
        // SAFETY: prctl is async-signal-safe; the process never outlives its test.
        unsafe {
            use std::os::unix::process::CommandExt;
            c.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        let mut child = c.spawn().unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        Other { child, said }
    }

    /// What it says next; `None` when it has ended.
    pub fn hear(&mut self) -> Option<String> {
        loop {
            let mut line = String::new();
            if self.said.read_line(&mut line).unwrap_or(0) == 0 {
                return None;
            }
            // The test harness prints in front of the first.
            if let Some((_, said)) = line.split_once("MW>") {
                return Some(said.trim_end().to_string());
            }
        }
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: our own child, not reaped yet.
        unsafe { libc::kill(self.child.id() as i32, signal) };
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn say(line: impl std::fmt::Display) {
    println!("MW>{line}");
    std::io::stdout().flush().unwrap();
}

#[test]
fn another_process() {
    let (Ok(address), Ok(role)) = (std::env::var("MW_TEST_STORE"), std::env::var("MW_TEST_ROLE")) else {
        return;
    };
    if role == "try" {
        let tried =
            super::open(&address, KEY, &secret(), soon(3000)).and_then(|s| s.set(b"k", b"", None, far()));
        return say(tried.map_or_else(|e| e.text.to_string(), |()| "works".into()));
    }
    let s = super::open(&address, KEY, &secret(), far()).unwrap();
    match role.split_once(' ') {
        // Holds a key under a lease of so many milliseconds.
        Some(("hold", ttl)) => {
            leased(&*s, b"held", ttl.parse().unwrap());
            say("held");
            // As a sign of life.
            let after = s.list(b"", far()).unwrap().revision;
            let _ = s.watch(b"never", after, soon(120_000));
        }
        // Counts, with a value of so many bytes, and says each time that it has.
        Some(("count", size)) => {
            let size = size.parse().unwrap();
            for _ in 0.. {
                count(&*s, b"n", size);
                say("counted");
            }
        }
        other => panic!("no role {other:?}"),
    }
}

/// Adds one to the number that `key` begins with.
pub fn count(s: &dyn Store, key: &[u8], size: usize) {
    let mut current = s.get(key, far()).unwrap();
    loop {
        let mut new = (number(current.as_deref()) + 1).to_le_bytes().to_vec();
        new.resize(size.max(8), 0);
        let swap = s.compare_and_set(key, current.as_deref(), Some(&new), None, far()).unwrap();
        if swap.swapped {
            return;
        }
        current = swap.current;
    }
}

/// The number that a value begins with.
pub fn number(value: Option<&[u8]>) -> u64 {
    value.map_or(0, |b| u64::from_le_bytes(b[..8].try_into().unwrap()))
}

struct Prefixed<F>(F);

impl<F: Fixture> Fixture for Prefixed<F> {
    fn client(&self) -> Arc<dyn Store> {
        Arc::new(Prefix::new(self.0.client(), b"part/of/it/"))
    }
}

macro_rules! conformance {
    ($($test:ident)*) => {
        #[cfg(feature = "etcd")]
        mod etcd {
            $(#[test] fn $test() {
                let Some(f) = super::InEtcd::new() else { return };
                super::$test(&f);
            })*
        }
        mod file {
            $(#[test] fn $test() { super::$test(&super::InDirectory::new()); })*
        }
        mod memory {
            $(#[test] fn $test() { super::$test(&super::InMemory(super::Memory::new())); })*
        }
        mod tcp {
            $(#[test] fn $test() { super::$test(&super::OverTcp::start()); })*
        }
        mod prefix {
            $(#[test] fn $test() { super::$test(&super::Prefixed(super::OverTcp::start())); })*
        }
    };
}

conformance! {
    values_are_set_replaced_and_deleted
    sizes_are_limited
    compare_and_set_swaps_only_what_it_expects
    of_eight_racing_threads_one_wins_each_round
    list_is_sorted_and_stays_under_its_prefix
    a_watch_returns_at_once_what_has_changed_already
    a_watch_wakes_on_a_set_and_on_a_deletion
    a_watch_ends_at_its_deadline
    watches_of_one_client_do_not_serialize
    a_lease_ends_in_silence
    a_lease_lives_while_its_client_calls_or_waits
    a_lease_ends_with_its_client
    a_revoked_lease_takes_its_keys_along
    an_ended_lease_takes_no_keys
    a_killed_process_takes_its_leases_along
    no_change_is_missed_between_list_and_watch
    a_deadline_that_has_passed_is_kept
}

fn values_are_set_replaced_and_deleted(f: &dyn Fixture) {
    let s = f.client();
    assert_eq!(s.get(b"k", far()).unwrap(), None);
    s.set(b"k", b"1", None, far()).unwrap();
    s.set(b"k", b"", None, far()).unwrap();
    assert_eq!(f.client().get(b"k", far()).unwrap(), Some(vec![]));
    s.set(b"kk", b"2", None, far()).unwrap();
    s.set(b"\xff", b"3", None, far()).unwrap();
    assert_eq!(s.delete_prefix(b"k", far()).unwrap(), 2);
    assert_eq!(s.get(b"k", far()).unwrap(), None);
    assert_eq!(s.delete_prefix(b"", far()).unwrap(), 1);
    assert_eq!(s.delete_prefix(b"", far()).unwrap(), 0);
}

fn sizes_are_limited(f: &dyn Fixture) {
    let s = f.client();
    let value = vec![7; super::wire::MAX_VALUE + 1];
    let key = vec![7; super::wire::MAX_KEY + 1];
    s.set(b"k", &value[1..], None, far()).unwrap();
    assert_eq!(s.get(b"k", far()).unwrap().as_deref(), Some(&value[1..]));
    assert_eq!(s.set(b"k", &value, None, far()).unwrap_err().code, Code::InvalidArgument);
    assert_eq!(s.get(&key, far()).unwrap_err().code, Code::InvalidArgument);
    assert_eq!(s.lease(Duration::ZERO, far()).unwrap_err().code, Code::InvalidArgument);
    assert!(s.get(b"k", far()).unwrap().is_some());
}

fn compare_and_set_swaps_only_what_it_expects(f: &dyn Fixture) {
    let s = f.client();
    let cas = |expected: Option<&[u8]>, new: Option<&[u8]>| {
        let Swap { swapped, current } = s.compare_and_set(b"k", expected, new, None, far()).unwrap();
        assert_eq!(s.get(b"k", far()).unwrap(), current);
        (swapped, current)
    };
    assert_eq!(cas(Some(b"1"), Some(b"2")), (false, None));
    assert_eq!(cas(None, Some(b"1")), (true, Some(b"1".to_vec())));
    assert_eq!(cas(None, Some(b"2")), (false, Some(b"1".to_vec())));
    assert_eq!(cas(Some(b"1"), Some(b"2")), (true, Some(b"2".to_vec())));
    assert_eq!(cas(Some(b"1"), None), (false, Some(b"2".to_vec())));
    assert_eq!(cas(Some(b"2"), None), (true, None));
    assert_eq!(cas(None, None), (true, None));
}

fn of_eight_racing_threads_one_wins_each_round(f: &dyn Fixture) {
    const THREADS: u64 = 8;
    const EACH: u64 = 25;
    let shared = f.client();
    thread::scope(|scope| {
        for i in 0..THREADS {
            // Half of them share one client.
            let s = if i % 2 == 0 { shared.clone() } else { f.client() };
            scope.spawn(move || {
                for _ in 0..EACH {
                    count(&*s, b"n", 8);
                }
            });
        }
    });
    assert_eq!(number(shared.get(b"n", far()).unwrap().as_deref()), THREADS * EACH);
}

fn list_is_sorted_and_stays_under_its_prefix(f: &dyn Fixture) {
    let s = f.client();
    for key in ["b/2", "a", "b/10", "b", "c", "b/1"] {
        s.set(key.as_bytes(), key.as_bytes(), None, far()).unwrap();
    }
    let snapshot = s.list(b"b/", far()).unwrap();
    let keys: Vec<_> = snapshot.entries.iter().map(|e| String::from_utf8_lossy(&e.key)).collect();
    assert_eq!(keys, ["b/1", "b/10", "b/2"]);
    assert!(snapshot.entries.iter().all(|e| e.key == e.value));
    assert!(snapshot.revision >= 6);
    assert_eq!(s.list(b"", far()).unwrap().entries.len(), 6);
    assert!(s.list(b"x", far()).unwrap().entries.is_empty());
}

fn a_watch_returns_at_once_what_has_changed_already(f: &dyn Fixture) {
    let s = f.client();
    s.set(b"w/1", b"1", None, far()).unwrap();
    let first = s.watch(b"w/", 0, far()).unwrap();
    assert_eq!(first.entries.len(), 1);
    s.set(b"w/1", b"2", None, far()).unwrap();
    let second = s.watch(b"w/", first.revision, far()).unwrap();
    assert_eq!(second.entries[0].value, b"2");
    assert!(second.revision > first.revision);
    s.delete_prefix(b"w/1", far()).unwrap();
    let third = s.watch(b"w/", second.revision, far()).unwrap();
    assert!(third.entries.is_empty());
    s.set(b"v", b"elsewhere", None, far()).unwrap();
    assert_eq!(s.watch(b"w/", third.revision, soon(30)).unwrap_err().code, Code::Timeout);
}

fn a_watch_wakes_on_a_set_and_on_a_deletion(f: &dyn Fixture) {
    let (a, b) = (f.client(), f.client());
    for change in [0, 1, 2] {
        let after = a.list(b"", far()).unwrap().revision;
        thread::scope(|scope| {
            let watcher = scope.spawn(|| a.watch(b"w/", after, far()).map(|s| (s, Instant::now())));
            thread::sleep(Duration::from_millis(30));
            let begin = Instant::now();
            match change {
                0 => b.set(b"w/k", b"1", None, far()).unwrap(),
                1 => assert!(b.compare_and_set(b"w/k", Some(b"1"), Some(b"2"), None, far()).unwrap().swapped),
                _ => assert_eq!(b.delete_prefix(b"w", far()).unwrap(), 1),
            }
            let (snapshot, at) = watcher.join().unwrap().unwrap();
            assert_eq!(snapshot.entries.len(), usize::from(change < 2));
            assert!(at.saturating_duration_since(begin) < Duration::from_secs(1));
        });
    }
}

fn a_watch_ends_at_its_deadline(f: &dyn Fixture) {
    let s = f.client();
    let begin = Instant::now();
    assert_eq!(s.watch(b"w", 0, soon(60)).unwrap_err().code, Code::Timeout);
    let took = begin.elapsed();
    assert!(took >= Duration::from_millis(60) && took < Duration::from_secs(2), "{took:?}");
    // The watch that gave up disturbs nobody.
    s.set(b"w", b"1", None, far()).unwrap();
    assert_eq!(s.get(b"w", far()).unwrap(), Some(b"1".to_vec()));
}

fn watches_of_one_client_do_not_serialize(f: &dyn Fixture) {
    let s = f.client();
    thread::scope(|scope| {
        let watchers: Vec<_> = (0..6u8)
            .map(|i| {
                let s = &s;
                scope.spawn(move || s.watch(&[b'w', i], 0, far()).unwrap())
            })
            .collect();
        thread::sleep(Duration::from_millis(30));
        // In an order other than that in which they began to wait; and other calls work meanwhile.
        for i in [3, 0, 5, 1, 4, 2u8] {
            s.set(&[b'w', i], b"x", None, far()).unwrap();
            assert!(s.get(&[b'w', i], far()).unwrap().is_some());
        }
        for w in watchers {
            assert_eq!(w.join().unwrap().entries.len(), 1);
        }
    });
}

fn leased(s: &dyn Store, key: &[u8], ttl_ms: u64) -> LeaseId {
    let lease = s.lease(Duration::from_millis(ttl_ms), far()).unwrap();
    s.set(key, b"leased", Some(lease), far()).unwrap();
    lease
}

/// Waits until `key` is gone; answers how long that took.
fn gone(s: &dyn Store, key: &[u8]) -> Duration {
    let begin = Instant::now();
    let mut seen = s.list(key, far()).unwrap();
    while !seen.entries.is_empty() {
        seen = s.watch(key, seen.revision, far()).unwrap();
    }
    begin.elapsed()
}

fn a_lease_ends_in_silence(f: &dyn Fixture) {
    let (a, b) = (f.client(), f.client());
    leased(&*a, b"k", 150);
    let took = gone(&*b, b"k");
    assert!(took > Duration::from_millis(100) && took < Duration::from_secs(5), "{took:?}");
}

fn a_lease_lives_while_its_client_calls_or_waits(f: &dyn Fixture) {
    let (a, b) = (f.client(), f.client());
    leased(&*a, b"k", 300);
    for _ in 0..5 {
        thread::sleep(Duration::from_millis(80));
        a.get(b"x", far()).unwrap();
    }
    assert!(b.get(b"k", far()).unwrap().is_some());
    let after = a.list(b"", far()).unwrap().revision;
    assert_eq!(a.watch(b"x", after, soon(700)).unwrap_err().code, Code::Timeout);
    assert!(b.get(b"k", far()).unwrap().is_some());
    gone(&*b, b"k");
}

fn a_lease_ends_with_its_client(f: &dyn Fixture) {
    let (a, b) = (f.client(), f.client());
    leased(&*a, b"k", 600_000);
    b.set(b"free", b"", None, far()).unwrap();
    drop(a);
    assert!(gone(&*b, b"k") < Duration::from_secs(2));
    assert!(b.get(b"free", far()).unwrap().is_some());
}

fn a_revoked_lease_takes_its_keys_along(f: &dyn Fixture) {
    let s = f.client();
    let lease = leased(&*s, b"k", 600_000);
    s.set(b"k2", b"", Some(lease), far()).unwrap();
    s.set(b"k3", b"", None, far()).unwrap();
    s.revoke(lease, far()).unwrap();
    assert_eq!(s.list(b"k", far()).unwrap().entries.len(), 1);
    s.revoke(lease, far()).unwrap();
}

fn an_ended_lease_takes_no_keys(f: &dyn Fixture) {
    let s = f.client();
    let lease = leased(&*s, b"k", 600_000);
    s.revoke(lease, far()).unwrap();
    assert_eq!(s.set(b"k", b"", Some(lease), far()).unwrap_err().code, Code::InvalidUsage);
    assert!(s.compare_and_set(b"k", None, Some(b""), Some(lease), far()).is_err());
    assert_eq!(s.get(b"k", far()).unwrap(), None);
    // Another client's lease is none of ours.
    let other = f.client();
    let lease = leased(&*other, b"o", 600_000);
    assert!(s.set(b"k", b"", Some(lease), far()).is_err());
}

fn a_killed_process_takes_its_leases_along(f: &dyn Fixture) {
    let Some(address) = f.address() else { return };
    let s = f.client();
    let ttl = f.ttl_of_the_dead();
    let mut owner = Other::start(&address, &format!("hold {}", ttl.as_millis()));
    assert_eq!(owner.hear().as_deref(), Some("held"));
    thread::sleep(Duration::from_millis(100));
    assert!(s.get(b"held", far()).unwrap().is_some());
    owner.signal(libc::SIGKILL);
    let took = gone(&*s, b"held");
    let limit = Duration::from_secs(2) + if ttl.as_secs() < 60 { 3 * ttl } else { Duration::ZERO };
    assert!(took < limit, "{took:?}");
    println!("a killed process's lease ended after {took:?}");
}

fn no_change_is_missed_between_list_and_watch(f: &dyn Fixture) {
    const ROUNDS: u64 = 100;
    let (a, b) = (f.client(), f.client());
    // Each writes only after it has seen the other's last word: one change that is missed, and both wait.
    let play = |s: &dyn Store, mine: &[u8], theirs: &[u8], first: bool| {
        let mut seen = s.list(theirs, far()).unwrap();
        for round in 1..=ROUNDS {
            if first {
                s.set(mine, &round.to_le_bytes(), None, far()).unwrap();
            }
            while number(seen.entries.first().map(|e| &*e.value)) < round {
                let after = seen.revision;
                seen = s.watch(theirs, after, far()).unwrap();
                assert!(seen.revision > after);
            }
            if !first {
                s.set(mine, &round.to_le_bytes(), None, far()).unwrap();
            }
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| play(&*a, b"p/a", b"p/b", true));
        play(&*b, b"p/b", b"p/a", false);
    });
}

fn a_deadline_that_has_passed_is_kept(f: &dyn Fixture) {
    let s = f.client();
    let begin = Instant::now();
    let after = s.list(b"", far()).unwrap().revision;
    assert_eq!(s.watch(b"w", after, Instant::now()).unwrap_err().code, Code::Timeout);
    // Done or not: at once.
    let _ = s.get(b"k", Instant::now());
    let _ = s.set(b"k", b"", None, Instant::now());
    assert!(begin.elapsed() < Duration::from_secs(2));
    s.set(b"k", b"1", None, far()).unwrap();
}

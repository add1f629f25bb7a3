//! A store that goes and comes back, with what it knew and without; and connections that break at the worst moment.

use super::*;
use crate::error::Code;
use crate::store::conformance::{KEY, secret, soon};
use crate::store::{Client, LeaseId, Store};
use crate::sync::atomic::{AtomicBool, Ordering};
use std::path::PathBuf;
use std::thread;

fn far() -> Instant {
    soon(20_000)
}

/// A store at one address, kept in a folder or not.
struct Place {
    addr: SocketAddr,
    dir: Option<PathBuf>,
    server: Option<Server>,
}

impl Place {
    fn new(kept: bool) -> Place {
        let n = crate::auth::nonce().unwrap();
        let name = format!("mw-restart-{}-{:02x}{:02x}{:02x}", std::process::id(), n[0], n[1], n[2]);
        let dir = kept.then(|| std::env::temp_dir().join(name));
        let mut place = Place { addr: ([127, 0, 0, 1], 0).into(), dir, server: None };
        place.start();
        place
    }

    fn start(&mut self) {
        let until = far();
        let listener = loop {
            match TcpListener::bind(self.addr) {
                Ok(listener) => break listener,
                // A process that another test is just starting has the one before.
                Err(e) => assert!(Instant::now() < until, "{e}"),
            }
            thread::sleep(Duration::from_millis(5));
        };
        let keys: Keys = Arc::new(|id| (id == KEY).then(secret));
        let server = match &self.dir {
            Some(dir) => Server::start_kept(listener, keys, dir, Fsync::Always),
            None => Server::start(listener, keys),
        };
        self.addr = self.server.insert(server.unwrap()).addr();
    }

    fn stop(&mut self) {
        self.server = None;
    }

    fn connect(&self) -> Client {
        Client::connect_to(self.addr, KEY, &secret(), far()).unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.stop();
        if let Some(dir) = &self.dir {
            let _ = std::fs::remove_dir_all(dir);
        }
    }
}

fn lease(c: &Client, key: &[u8], ttl_ms: u64) -> LeaseId {
    let lease = c.lease(Duration::from_millis(ttl_ms), far()).unwrap();
    c.set(key, b"leased", Some(lease), far()).unwrap();
    lease
}

#[test]
fn a_store_that_comes_back_goes_on() {
    let mut place = Place::new(true);
    let (a, b) = (place.connect(), place.connect());
    let mine = lease(&a, b"a/leased", 3000);
    a.set(b"kept", b"1", None, far()).unwrap();
    // This one will not come back.
    let gone = place.connect();
    lease(&gone, b"a/gone", 2000);
    let before = b.list(b"", far()).unwrap();
    assert_eq!(before.entries.len(), 3);
    thread::scope(|scope| {
        let waits = scope.spawn(|| b.watch(b"w/", before.revision, far()).unwrap());
        thread::sleep(Duration::from_millis(20));
        place.stop();
        drop(gone);
        thread::sleep(Duration::from_millis(100));
        place.start();
        thread::sleep(Duration::from_millis(100));
        assert!(!waits.is_finished(), "nothing has changed yet");
        let after = a.list(b"", far()).unwrap();
        assert_eq!(after, before);
        a.set(b"w/1", b"", Some(mine), far()).unwrap();
        let seen = waits.join().unwrap();
        assert!(seen.revision > before.revision && seen.entries.len() == 1, "{seen:?}");
        // As long as its client asks, a lease lives; the other one's time has passed meanwhile.
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_millis(4000) {
            a.ping(far()).unwrap();
            thread::sleep(Duration::from_millis(50));
        }
        let keys = b.list(b"", far()).unwrap();
        let keys: Vec<_> =
            keys.entries.iter().map(|e| String::from_utf8_lossy(&e.key).into_owned()).collect();
        assert_eq!(keys, ["a/leased", "kept", "w/1"]);
    });
    drop(a);
    let seen = b.list(b"", far()).unwrap();
    if seen.entries.len() > 1 {
        b.watch(b"a/", seen.revision, far()).unwrap();
    }
    assert_eq!(b.list(b"", far()).unwrap().entries.len(), 1);
}

#[test]
fn another_store_in_its_place_is_noticed() {
    let mut place = Place::new(false);
    let (a, b) = (place.connect(), place.connect());
    let old = lease(&a, b"k", 600_000);
    let seen = b.list(b"", far()).unwrap().revision;
    thread::scope(|scope| {
        let waits = scope.spawn(|| b.watch(b"k", seen, far()).unwrap());
        let (a2, changes) = (&a, &a);
        thread::sleep(Duration::from_millis(20));
        place.stop();
        let leased = scope.spawn(move || a2.set(b"k", b"2", Some(old), far()));
        let free = scope.spawn(move || changes.compare_and_set(b"n", None, Some(b"1"), None, far()));
        thread::sleep(Duration::from_millis(50));
        place.start();
        // Who waited learns that all is gone; who has lost a lease, why; and everybody else goes on.
        assert!(waits.join().unwrap().entries.is_empty());
        let e = leased.join().unwrap().unwrap_err();
        assert!(e.code == Code::InvalidUsage && e.text.contains("another one than before"), "{e}");
        assert!(e.text.contains(&format!("{:#x}", old.0)), "{e}");
        assert!(free.join().unwrap().unwrap().swapped);
    });
    assert_eq!(
        a.compare_and_set(b"k", None, Some(b""), Some(old), far()).unwrap_err().code,
        Code::InvalidUsage
    );
    a.revoke(old, far()).unwrap();
    // A watch from before does not wait for what has long been.
    assert_eq!(b.watch(b"k", seen, far()).unwrap().entries.len(), 0);
    let new = lease(&a, b"k", 600_000);
    assert!(new != old);
}

#[test]
fn another_secret_in_its_place_is_no_reason_to_wait() {
    let mut place = Place::new(false);
    let client = place.connect();
    place.stop();
    let listener = TcpListener::bind(place.addr).unwrap();
    let _other = Server::start(listener, Arc::new(|_| None)).unwrap();
    let begin = Instant::now();
    assert_eq!(client.get(b"k", far()).unwrap_err().code, Code::Unauthorized);
    assert!(begin.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_connection_that_was_made_anew_counts_and_is_another_one() {
    let mut place = Place::new(true);
    let client = place.connect();
    let (fd, count) = (client.session_fd().unwrap(), client.connections());
    place.stop();
    assert!(crate::sys::poll::wait_fd(&fd, Interest::HANGUP, far()).unwrap());
    assert!(client.lost().is_some());
    place.start();
    client.ping(far()).unwrap();
    assert!(client.lost().is_none());
    assert_eq!(client.connections(), count + 1);
    let fd = client.session_fd().unwrap();
    assert!(!crate::sys::poll::wait_fd(&fd, Interest::HANGUP, soon(20)).unwrap());
}

/// Stands between clients and a store, and breaks the connections when the next answer comes.
struct Proxy {
    addr: SocketAddr,
    /// The next answer is the last one of its connection, and does not get through.
    swallow: Arc<AtomicBool>,
    /// No connection is let through.
    closed: Arc<AtomicBool>,
}

impl Proxy {
    fn start(to: SocketAddr) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let (swallow, closed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let proxy = Proxy { addr, swallow: swallow.clone(), closed: closed.clone() };
        // Threads that end with the test's process.
        thread::spawn(move || {
            for near in listener.incoming().map_while(|c| c.ok()) {
                if closed.load(Ordering::SeqCst) {
                    continue;
                }
                let Ok(far) = TcpStream::connect(to) else { continue };
                let (mut near2, mut far2) = (near.try_clone().unwrap(), far.try_clone().unwrap());
                thread::spawn(move || {
                    let _ = io::copy(&mut near2, &mut far2);
                    let _ = far2.shutdown(Shutdown::Both);
                });
                let (swallow, closed) = (swallow.clone(), closed.clone());
                let (mut near, mut far) = (near, far);
                thread::spawn(move || {
                    let mut buf = [0; 4096];
                    while let Ok(n @ 1..) = far.read(&mut buf) {
                        if swallow.load(Ordering::SeqCst) {
                            closed.store(true, Ordering::SeqCst);
                            swallow.store(false, Ordering::SeqCst);
                            break;
                        }
                        if near.write_all(&buf[..n]).is_err() {
                            break;
                        }
                    }
                    let _ = near.shutdown(Shutdown::Both);
                    let _ = far.shutdown(Shutdown::Both);
                });
            }
        });
        proxy
    }

    /// Waits until an answer was lost; nobody comes through until [`Proxy::open`].
    fn wait_until_swallowed(&self) {
        while !self.closed.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn open(&self) {
        self.closed.store(false, Ordering::SeqCst);
    }
}

/// Whatever happens to a change's answer, the change is made once, and the answer is the one that was lost: with the
/// store there all the time, and with it gone and back before the client is.
#[test]
fn a_change_whose_answer_was_lost_is_made_once() {
    for (kept, restarts) in [(false, false), (true, false), (true, true)] {
        let mut place = Place::new(kept);
        let proxy = Proxy::start(place.addr);
        let client = Client::connect_to(proxy.addr, KEY, &secret(), far()).unwrap();
        let mut lose = |meanwhile: &dyn Fn(&Client), call: &(dyn Fn() + Sync)| {
            client.ping(far()).unwrap();
            proxy.swallow.store(true, Ordering::SeqCst);
            thread::scope(|scope| {
                let calls = scope.spawn(call);
                proxy.wait_until_swallowed();
                meanwhile(&place.connect());
                if restarts {
                    place.stop();
                    place.start();
                }
                proxy.open();
                calls.join().unwrap();
            });
        };
        // Somebody else has the key by the time that the client asks again.
        let take = |other: &Client| {
            assert_eq!(other.get(b"k", far()).unwrap().as_deref(), Some(&b"1"[..]));
            other.set(b"k", b"2", None, far()).unwrap();
        };
        lose(&take, &|| {
            let swap = client.compare_and_set(b"k", None, Some(b"1"), None, far()).unwrap();
            assert!(swap.swapped && swap.current.as_deref() == Some(b"1"));
        });
        assert_eq!(client.get(b"k", far()).unwrap().as_deref(), Some(&b"2"[..]));
        lose(&take, &|| client.set(b"k", b"1", None, far()).unwrap());
        assert_eq!(client.get(b"k", far()).unwrap().as_deref(), Some(&b"2"[..]));
        let put_back = |other: &Client| other.set(b"k", b"3", None, far()).unwrap();
        lose(&put_back, &|| assert_eq!(client.delete_prefix(b"k", far()).unwrap(), 1));
        assert_eq!(client.get(b"k", far()).unwrap().as_deref(), Some(&b"3"[..]));
        // A refusal changes nothing; asked again, it may be another answer.
        let remove = |other: &Client| assert_eq!(other.delete_prefix(b"k", far()).unwrap(), 1);
        lose(&remove, &|| {
            assert!(client.compare_and_set(b"k", None, Some(b"4"), None, far()).unwrap().swapped);
        });
        // A lease that nobody knew of has ended with the connection; the one that is answered works.
        lose(&|_| {}, &|| assert!(lease(&client, b"leased", 60_000).0 > 0));
        assert!(place.connect().get(b"leased", far()).unwrap().is_some());
    }
}

#[test]
fn what_cannot_be_kept_is_not_answered() {
    let mut place = Place::new(true);
    let client = place.connect();
    client.set(b"k", b"1", None, far()).unwrap();
    place.stop();
    let dir = place.dir.clone().unwrap();
    let before = std::fs::read_dir(&dir).unwrap().count();
    // A folder that another store uses.
    let (_journal, _) = Journal::open(&dir, Fsync::Never, Limits::default(), Instant::now()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let e = Server::start_kept(listener, Arc::new(|_| None), &dir, Fsync::Never).err().unwrap();
    assert!(e.text.contains("in use"), "{e}");
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), before);
}

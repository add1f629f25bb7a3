//! Links and news, with members that only listen.

use super::*;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

/// Writes down what it hears.
struct Listener {
    world: WorldId,
    peer: ProcessId,
    heard: Mutex<Vec<String>>,
}

impl Listener {
    fn join(w: &Watchdog, peer: ProcessId) -> Arc<Listener> {
        let world = WorldId(random());
        w.admit(world, Secret(vec![1; 32]));
        let l = Arc::new(Listener { world, peer, heard: Mutex::default() });
        w.register(l.clone());
        l
    }

    fn leave(&self, w: &Watchdog) -> Vec<String> {
        w.unregister((self.world, 1), 0);
        std::mem::take(&mut self.heard.lock())
    }
}

impl Member for Listener {
    fn world(&self) -> (WorldId, u64) {
        (self.world, 1)
    }
    fn rank(&self) -> u32 {
        0
    }
    fn heartbeat_timeout(&self) -> Duration {
        Duration::from_secs(60)
    }
    fn heartbeat_interval(&self) -> Duration {
        Duration::from_secs(1)
    }
    fn includes(&self, process: &ProcessId) -> bool {
        *process == self.peer
    }
    fn process_failed(&self, _process: &ProcessId, reason: &str, tell: bool) {
        self.heard.lock().push(format!("failed: {reason} {tell}"));
    }
    fn hear(&self, _from: &ProcessId, news: &News) {
        self.heard.lock().push(format!("{news:?}"));
    }
    fn compare(&self, _from: &ProcessId, _rank: u32, _call: &Fingerprint) {}

    fn tick(&self, _now: Instant) {}
}

fn random() -> [u8; 16] {
    let mut id = [0; 16];
    auth::fill_random(&mut id).unwrap();
    id
}

fn watchdog() -> &'static Arc<Watchdog> {
    Watchdog::get(Some("lo")).unwrap()
}

/// A link that only the test reads: it is in no table.
fn link(peer: ProcessId, host: HostId) -> (Link, Link) {
    let (a, b) = UnixStream::pair().unwrap();
    (Link::new(peer, host, a.into(), 0, None), Link::new(peer, host, b.into(), 0, None))
}

#[test]
fn all_last_words_are_heard_before_the_death() {
    let w = watchdog();
    for host in [w.address.host, HostId([9; 16])] {
        let peer = ProcessId(random());
        let l = Listener::join(w, peer);
        let (ours, theirs) = link(peer, host);
        // Held back: the watchdog's thread does not read a link that is in its table only.
        let ours = Arc::new(ours);
        w.links.lock().by_process.insert(peer, ours.clone());
        // More than one turn of reading takes.
        for rank in 0..80 {
            let news = News::Failed { rank, reason: "x".repeat(1000) };
            theirs.send(&Message::News { world: l.world, epoch: 1, news }, Vec::new());
        }
        theirs.send(&Message::News { world: l.world, epoch: 1, news: News::Left { rank: 80 } }, Vec::new());
        assert!(!theirs.has_backlog(), "else this test shows nothing");
        w.process_died(&ours, "its process died", false);
        w.process_died(&ours, "seen a second time", false);
        let heard = l.leave(w);
        assert_eq!(heard.len(), 82);
        assert_eq!(heard[80], "Left { rank: 80 }");
        assert_eq!(heard[81], "failed: its process died false");
    }
}

#[test]
fn a_newer_link_takes_the_place_of_an_old_one() {
    let w = watchdog();
    let peer = ProcessId(random());
    let l = Listener::join(w, peer);
    let (a, mut old) = UnixStream::pair().unwrap();
    w.adopt_link(peer, HostId([9; 16]), a.into()).unwrap();
    let first = w.links.lock().by_process[&peer].clone();
    let (b, new) = UnixStream::pair().unwrap();
    w.adopt_link(peer, HostId([9; 16]), b.into()).unwrap();
    assert!(!first.open.load(Ordering::Relaxed));
    w.process_died(&first, "the old one", false);
    assert!(w.links.lock().by_process.contains_key(&peer), "its end concerns nobody");
    drop(first);
    std::io::Read::read_to_end(&mut old, &mut Vec::new()).unwrap();
    drop(new);
    let until = Instant::now() + Duration::from_secs(10);
    while w.links.lock().by_process.contains_key(&peer) && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(Duration::from_millis(50));
    let heard = l.leave(w);
    assert_eq!(heard, ["failed: its control connection closed true"]);
}

#[test]
fn only_news_of_worlds_that_may_come_is_kept() {
    let w = watchdog();
    let from = ProcessId(random());
    let (known, strange) = (WorldId(random()), WorldId(random()));
    w.admit(known, Secret(vec![1; 32]));
    let kept = |world| w.early.lock().iter().filter(|e| e.world == (world, 1)).count();
    for rank in 0..2 * MAX_EARLY as u32 {
        w.keep(from, (strange, 1), &News::Left { rank }, None);
    }
    w.keep(from, (known, 1), &News::Left { rank: 0 }, None);
    assert_eq!((kept(known), kept(strange)), (1, 0));
    w.dismiss(known);
    assert_eq!(kept(known), 0);
}

#[test]
fn descriptors_of_no_message_are_closed_or_end_the_link() {
    let (ours, theirs) = link(ProcessId(random()), HostId([9; 16]));
    let fd = || -> OwnedFd { UnixStream::pair().unwrap().0.into() };
    theirs.send(&Message::Heartbeat, vec![fd(), fd()]);
    theirs.send(&Message::Segment { world: WorldId([1; 16]), epoch: 1 }, vec![fd()]);
    let received = ours.receive();
    assert_eq!(received.messages.len(), 2);
    assert!(received.end.is_none() && ours.held_fds() == 0);
    // Frames that never end, each byte with descriptors.
    for byte in [100u8, 0, 0, 0, 1] {
        let fds = [fd(), fd()];
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        crate::sys::fdpass::send(theirs.fd(), &[byte], &fds).unwrap();
    }
    assert!(ours.receive().end.unwrap().contains("descriptors"));
}

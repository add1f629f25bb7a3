use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

struct Bench {
    state: State,
    now: Instant,
    requests: u64,
}

const A: ClientId = 1;
const B: ClientId = 2;

impl Bench {
    fn new() -> Bench {
        Bench::with(Limits::default())
    }

    fn with(limits: Limits) -> Bench {
        let now = Instant::now();
        let mut state = State::new(limits, 0);
        state.connect(A, now);
        state.connect(B, now);
        Bench { state, now, requests: 0 }
    }

    fn pass(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
    }

    /// The request's number.
    fn post(&mut self, client: ClientId, request: Request) -> u64 {
        self.requests += 1;
        self.state.request(client, self.requests, request, self.now);
        self.requests
    }

    fn ask(&mut self, client: ClientId, request: Request) -> Answer {
        let id = self.post(client, request);
        let mut actions = self.state.take_actions();
        assert_eq!(actions.len(), 1);
        let action = actions.remove(0);
        assert_eq!((action.client, action.request), (client, id));
        action.answer
    }

    fn set(&mut self, client: ClientId, key: &str, value: &str, lease: Option<LeaseId>) -> Answer {
        self.ask(client, Request::Set { key: key.into(), value: value.into(), lease })
    }

    fn lease(&mut self, client: ClientId, ms: u64) -> LeaseId {
        match self.ask(client, Request::Lease { ttl: Duration::from_millis(ms) }) {
            Answer::Lease(id) => id,
            other => panic!("{other:?}"),
        }
    }

    fn keys(&self) -> Vec<String> {
        self.state.entries.keys().map(|k| String::from_utf8_lossy(k).into_owned()).collect()
    }

    /// Requests of watches that `settle` answers, with how many entries each sees.
    fn settle(&mut self) -> Vec<(ClientId, u64, usize)> {
        self.state.settle();
        let mut out = Vec::new();
        for a in self.state.take_actions() {
            match a.answer {
                Answer::Snapshot(s) => out.push((a.client, a.request, s.entries.len())),
                other => panic!("{other:?}"),
            }
        }
        out
    }

    fn watch(&mut self, client: ClientId, prefix: &str, after: Revision) -> u64 {
        self.post(client, Request::Watch { prefix: prefix.into(), after })
    }
}

#[test]
fn a_lease_lives_while_its_client_does_and_takes_its_keys_along() {
    let mut b = Bench::new();
    let lease = b.lease(A, 100);
    b.set(A, "mine", "1", Some(lease));
    b.set(A, "free", "1", None);
    for _ in 0..5 {
        b.pass(60);
        b.post(A, Request::Alive);
        b.state.tick(b.now);
        assert_eq!(b.keys(), ["free", "mine"]);
    }
    assert!(b.state.next_deadline().unwrap() > b.now);
    // Another client's life does not help.
    b.pass(99);
    b.state.alive(B, b.now);
    b.state.tick(b.now);
    assert_eq!(b.keys(), ["free", "mine"]);
    b.pass(1);
    b.state.tick(b.now);
    assert_eq!(b.keys(), ["free"]);
    assert_eq!(b.state.next_deadline(), None);
    assert_eq!(b.set(A, "mine", "2", Some(lease)), Answer::Refused(Refusal::NoLease));
    assert!(b.state.leases.is_empty());
}

#[test]
fn a_disconnected_client_leaves_nothing_behind() {
    let mut b = Bench::new();
    let lease = b.lease(A, 100_000);
    b.set(A, "mine", "1", Some(lease));
    let seen = b.state.revision();
    b.watch(A, "other", seen);
    let waiting = b.watch(B, "mine", seen);
    b.state.disconnect(A);
    assert_eq!(b.settle(), [(B, waiting, 0)]);
    assert!(b.state.watches.is_empty() && b.state.leases.is_empty());
    // Its expiry entry is swept later, without harm.
    b.pass(200_000);
    b.state.tick(b.now);
    assert_eq!(b.state.next_deadline(), None);
    b.state.disconnect(A);
    b.state.disconnect(B);
    assert!(b.state.is_idle());
}

#[test]
fn a_key_belongs_to_its_last_writer() {
    let mut b = Bench::new();
    let (one, two) = (b.lease(A, 1000), b.lease(B, 1000));
    b.set(A, "k", "1", Some(one));
    b.set(B, "k", "2", Some(two));
    b.ask(A, Request::Revoke { lease: one });
    assert_eq!(b.keys(), ["k"]);
    b.set(A, "k", "3", None);
    b.ask(B, Request::Revoke { lease: two });
    assert_eq!(b.keys(), ["k"]);
}

#[test]
fn a_lease_is_its_clients_own() {
    let mut b = Bench::new();
    let lease = b.lease(A, 1000);
    assert_eq!(b.set(B, "k", "1", Some(lease)), Answer::Refused(Refusal::NoLease));
    assert_eq!(b.ask(B, Request::Revoke { lease }), Answer::Refused(Refusal::NoLease));
    assert_eq!(b.ask(A, Request::Revoke { lease }), Answer::Done);
    assert_eq!(b.ask(A, Request::Revoke { lease }), Answer::Done);
}

#[test]
fn many_changes_cost_a_watch_one_answer() {
    let mut b = Bench::new();
    let one = b.watch(A, "w/", 0);
    let all = b.watch(B, "", 0);
    let none = b.watch(B, "x/", 0);
    for key in ["w/1", "w/2", "w/3"] {
        b.set(A, key, "", None);
    }
    let mut got = b.settle();
    got.sort_unstable();
    assert_eq!(got, [(A, one, 3), (B, all, 3)]);
    assert_eq!(b.settle(), []);
    b.set(A, "x/1", "", None);
    assert_eq!(b.settle(), [(B, none, 1)]);
}

#[test]
fn a_watch_answers_at_once_what_has_changed_before() {
    let mut b = Bench::new();
    b.set(A, "w/1", "", None);
    let seen = b.state.revision();
    b.set(A, "v/1", "", None);
    b.watch(A, "w/", seen);
    assert!(b.state.take_actions().is_empty(), "only another prefix has changed");
    assert!(matches!(b.ask(A, Request::Watch { prefix: "v/".into(), after: seen }), Answer::Snapshot(_)));
    b.ask(A, Request::DeletePrefix { prefix: "v/".into() });
    b.settle();
    let after = seen + 1;
    assert!(matches!(b.ask(A, Request::Watch { prefix: "v/".into(), after }), Answer::Snapshot(s)
        if s.entries.is_empty() && s.revision == after + 1));
    let after = 1_000_000;
    assert!(matches!(b.ask(A, Request::Watch { prefix: "v/".into(), after }), Answer::Snapshot(_)));
}

#[test]
fn a_cancelled_watch_is_never_answered() {
    let mut b = Bench::new();
    let id = b.watch(A, "w", 0);
    b.post(A, Request::Cancel { request: id });
    b.post(A, Request::Cancel { request: 999 });
    b.set(A, "w", "", None);
    assert_eq!(b.settle(), []);
}

#[test]
fn everything_is_bounded() {
    let mut b = Bench::with(Limits { entries: 2, bytes: 500, watches: 1, leases: 1 });
    assert_eq!(b.set(A, "1", "", None), Answer::Done);
    assert_eq!(b.set(A, "2", "", None), Answer::Done);
    assert_eq!(b.set(A, "3", "", None), Answer::Refused(Refusal::Full));
    assert_eq!(b.set(A, "2", &"x".repeat(400), None), Answer::Refused(Refusal::Full));
    assert_eq!(b.set(A, "2", &"x".repeat(200), None), Answer::Done);
    assert_eq!(b.ask(A, Request::DeletePrefix { prefix: "2".into() }), Answer::Count(1));
    assert_eq!(b.set(A, "3", "", None), Answer::Done);
    let seen = b.state.revision();
    b.watch(A, "a", seen);
    let answer = b.ask(A, Request::Watch { prefix: "b".into(), after: seen });
    assert_eq!(answer, Answer::Refused(Refusal::TooMany));
    b.lease(A, 1000);
    let answer = b.ask(A, Request::Lease { ttl: Duration::from_secs(1) });
    assert_eq!(answer, Answer::Refused(Refusal::TooMany));
}

#[test]
fn any_ttl_is_taken() {
    let mut b = Bench::new();
    for ttl in [Duration::ZERO, Duration::MAX] {
        assert!(matches!(b.ask(A, Request::Lease { ttl }), Answer::Lease(_)));
    }
    b.state.tick(b.now);
    assert_eq!(b.state.leases.len(), 2);
    b.pass(1);
    b.state.tick(b.now);
    assert_eq!(b.state.leases.len(), 1);
}

#[test]
fn what_a_session_has_done_is_remembered_until_it_knows() {
    let mut b = Bench::new();
    let s = SESSION | 1;
    let swap = |from: Option<&str>, to: &str| Request::CompareAndSet {
        key: "k".into(),
        expected: from.map(Into::into),
        new: Some(to.into()),
        lease: None,
    };
    let swapped = |to: &str| Answer::Swap(Swap { swapped: true, current: Some(to.into()) });
    let again = |b: &mut Bench, id: u64, request: Request| {
        b.state.request(s, id, request, b.now);
        b.state.take_actions().pop().map(|a| a.answer)
    };
    assert!(!b.state.connect(s, b.now));
    assert_eq!(again(&mut b, 1, swap(None, "1")), Some(swapped("1")));
    assert_eq!(again(&mut b, 2, swap(Some("1"), "2")), Some(swapped("2")));
    b.state.disconnect(s);
    assert!(b.state.connect(s, b.now), "the session is known");
    let revision = b.state.revision();
    assert_eq!(again(&mut b, 1, swap(None, "1")), Some(swapped("1")));
    assert_eq!(again(&mut b, 2, swap(Some("1"), "2")), Some(swapped("2")));
    assert_eq!(b.state.revision(), revision);
    // What it knows of is forgotten, and would be carried out.
    again(&mut b, 0, Request::Settled { below: 2 });
    assert_ne!(again(&mut b, 1, swap(None, "1")), Some(swapped("1")));
    assert_eq!(again(&mut b, 2, swap(Some("1"), "2")), Some(swapped("2")));
    // A session that does not come back is forgotten after a while, not before.
    b.state.disconnect(s);
    b.pass(MEMORY.as_millis() as u64 - 1);
    b.state.tick(b.now);
    assert!(b.state.clients.contains_key(&s));
    assert_eq!(b.state.next_deadline(), Some(b.now + Duration::from_millis(1)));
    b.pass(1);
    b.state.tick(b.now);
    assert!(!b.state.clients.contains_key(&s) && b.state.next_deadline().is_none());
    // One that says good-bye, at once.
    b.state.connect(s, b.now);
    b.set(s, "k", "3", None);
    b.post(s, Request::Leave);
    b.state.disconnect(s);
    assert!(!b.state.clients.contains_key(&s));
    // One that never says what it knows does not grow without limit; nor do those that are gone.
    b.state.connect(s, b.now);
    for _ in 0..OUTCOMES + 10 {
        b.set(s, "k", "", None);
    }
    assert_eq!(b.state.clients[&s].outcomes.len(), OUTCOMES);
    for n in 0..ABSENT as u64 + 10 {
        b.state.connect(SESSION | (n + 2), b.now);
        b.set(SESSION | (n + 2), "k", "", None);
        b.state.disconnect(SESSION | (n + 2));
    }
    assert_eq!((b.state.absent.len(), b.state.clients.len()), (ABSENT, ABSENT + 3));
}

#[test]
fn a_lease_that_nobody_knows_of_is_not_given_again_after_its_end() {
    let mut b = Bench::new();
    let s = SESSION | 1;
    b.state.connect(s, b.now);
    let first = b.lease(s, 1000);
    let id = b.requests;
    b.state.disconnect(s);
    assert!(b.state.leases.is_empty());
    b.state.connect(s, b.now);
    b.state.request(s, id, Request::Lease { ttl: Duration::from_secs(1) }, b.now);
    let answer = b.state.take_actions().pop().map(|a| a.answer);
    assert!(
        matches!(answer, Some(Answer::Lease(lease)) if lease != first && b.state.leases.contains_key(&lease))
    );
}

#[derive(Clone, Debug)]
enum Step {
    Set(u8, u8, bool),
    Swap(u8, Option<u8>, Option<u8>),
    DeletePrefix(u8),
    Watch(u8, u8),
    Settle,
    Pass(u8),
    Reconnect,
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0..6u8;
    prop_oneof![
        (key.clone(), any::<u8>(), any::<bool>()).prop_map(|(k, v, l)| Step::Set(k, v, l)),
        (key.clone(), proptest::option::of(0..3u8), proptest::option::of(0..3u8))
            .prop_map(|(k, e, n)| Step::Swap(k, e, n)),
        (0..3u8).prop_map(Step::DeletePrefix),
        (0..3u8, 0..4u8).prop_map(|(p, back)| Step::Watch(p, back)),
        Just(Step::Settle),
        (0..120u8).prop_map(Step::Pass),
        Just(Step::Reconnect),
    ]
}

/// Six keys under three prefixes.
fn key(k: u8) -> Vec<u8> {
    vec![b'a' + k % 3, b'0' + k / 3]
}

proptest! {
    /// Against a plain map; and no watch is ever missed: whenever all has settled, no pending watch's prefix
    /// has changed since it was posted.
    #[test]
    fn it_behaves_like_a_map_that_tells(steps in vec(step(), 1..80)) {
        let mut b = Bench::new();
        let mut model: BTreeMap<Vec<u8>, (Vec<u8>, bool)> = BTreeMap::new();
        let mut lease = b.lease(A, 100);
        let mut alive_until = b.now + Duration::from_millis(100);
        let mut pending: HashMap<u64, (Vec<u8>, Revision)> = HashMap::new();
        for step in steps {
            match step {
                Step::Set(k, v, leased) => {
                    let request = Request::Set {
                        key: key(k),
                        value: vec![v],
                        lease: leased.then_some(lease),
                    };
                    let was_alive = b.state.leases.contains_key(&lease);
                    let answer = b.ask(A, request);
                    alive_until = b.now + Duration::from_millis(100);
                    if leased && !was_alive {
                        prop_assert_eq!(answer, Answer::Refused(Refusal::NoLease));
                    } else {
                        model.insert(key(k), (vec![v], leased));
                    }
                }
                Step::Swap(k, expected, new) => {
                    let current = model.get(&key(k)).map(|(v, _)| v.clone());
                    let fits = current == expected.map(|v| vec![v]);
                    if fits {
                        match new {
                            Some(v) => { model.insert(key(k), (vec![v], false)); }
                            None => { model.remove(&key(k)); }
                        }
                    }
                    let request = Request::CompareAndSet {
                        key: key(k),
                        expected: expected.map(|v| vec![v]),
                        new: new.map(|v| vec![v]),
                        lease: None,
                    };
                    let current = model.get(&key(k)).map(|(v, _)| v.clone());
                    // B acts, so that A's lease is left alone.
                    prop_assert_eq!(b.ask(B, request), Answer::Swap(Swap { swapped: fits, current }));
                }
                Step::DeletePrefix(p) => {
                    let before = model.len();
                    model.retain(|k, _| k[0] != b'a' + p);
                    let request = Request::DeletePrefix { prefix: vec![b'a' + p] };
                    prop_assert_eq!(b.ask(B, request), Answer::Count((before - model.len()) as u64));
                }
                Step::Watch(p, back) => {
                    let after = b.state.revision().saturating_sub(u64::from(back));
                    let prefix = vec![b'a' + p];
                    let id = b.post(B, Request::Watch { prefix: prefix.clone(), after });
                    if b.state.take_actions().is_empty() {
                        pending.insert(id, (prefix, after));
                    }
                }
                Step::Settle => {
                    for (_, id, _) in b.settle() {
                        prop_assert!(pending.remove(&id).is_some());
                    }
                    for (prefix, after) in pending.values() {
                        prop_assert!(!b.state.changed_after(prefix, *after));
                    }
                }
                Step::Pass(ms) => {
                    b.pass(u64::from(ms));
                    b.state.tick(b.now);
                    if b.now >= alive_until {
                        model.retain(|_, (_, leased)| !*leased);
                    }
                }
                Step::Reconnect => {
                    b.state.disconnect(A);
                    model.retain(|_, (_, leased)| !*leased);
                    b.state.connect(A, b.now);
                    lease = b.lease(A, 100);
                    alive_until = b.now + Duration::from_millis(100);
                }
            }
            let want: Vec<_> = model.iter().map(|(k, (v, _))| (k.clone(), v.clone())).collect();
            let have: Vec<_> = b.state.entries.iter().map(|(k, r)| (k.clone(), r.value.clone())).collect();
            prop_assert_eq!(have, want);
            let bytes: usize = b.state.entries.iter().map(|(k, r)| cost(k, &r.value)).sum();
            prop_assert_eq!(bytes, b.state.bytes);
            let leased: usize = b.state.leases.values().map(|l| l.keys.len()).sum();
            prop_assert_eq!(leased, b.state.entries.values().filter(|r| r.lease.is_some()).count());
        }
    }
}

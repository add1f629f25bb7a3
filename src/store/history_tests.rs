//! What was written down leads to the same stores, wherever it is cut off.

use super::super::LeaseId;
use super::super::record::{self, BOOT, HEADER, Outcome};
use super::super::state::{ClientId, SESSION};
use super::super::wire::{Answer, Request};
use super::*;
use proptest::collection::vec;
use proptest::prelude::*;
use std::time::Duration;

const KEY: KeyId = KeyId([3; 16]);
const BOOTED: [u8; BOOT] = [b'b'; BOOT];

#[derive(Clone, Debug)]
enum Op {
    Set(u8, u8, u8, bool),
    Swap(u8, u8, Option<u8>, Option<u8>),
    DeletePrefix(u8, u8),
    Lease(u8),
    Revoke(u8),
    Settled(u8),
    Disconnect(u8),
    Pass(u16),
}

fn op() -> impl Strategy<Value = Op> {
    let (client, key, value) = (0..3u8, 0..6u8, 0..3u8);
    let maybe = || proptest::option::of(0..3u8);
    prop_oneof![
        3 => (client.clone(), key.clone(), value, any::<bool>()).prop_map(|(c, k, v, l)| Op::Set(c, k, v, l)),
        3 => (client.clone(), key.clone(), maybe(), maybe()).prop_map(|(c, k, e, n)| Op::Swap(c, k, e, n)),
        1 => (client.clone(), 0..3u8).prop_map(|(c, p)| Op::DeletePrefix(c, p)),
        2 => client.clone().prop_map(Op::Lease),
        1 => client.clone().prop_map(Op::Revoke),
        1 => client.clone().prop_map(Op::Settled),
        1 => client.prop_map(Op::Disconnect),
        1 => (0..30_000u16).prop_map(Op::Pass),
    ]
}

fn key(k: u8) -> Vec<u8> {
    vec![b'a' + k % 3, b'0' + k / 3]
}

/// All that a store remembers, in an order of its own, but for sessions.
fn content(state: &State) -> Vec<String> {
    let records = state.image().filter(|r| !matches!(r, Record::Session { .. }));
    let mut all: Vec<String> = records.map(|r| format!("{r:?}")).collect();
    all.sort();
    all
}

fn header(kind: Kind, synced: bool) -> Vec<u8> {
    Header { kind, synced, generation: 1, incarnation: 9, boot: BOOTED }.encode().to_vec()
}

fn snapshot(state: Option<&State>) -> Vec<u8> {
    let mut out = header(Kind::Snapshot, true);
    let records: Vec<Record> = state.map(|s| s.image().collect()).unwrap_or_default();
    records.iter().for_each(|r| record::encode(KEY, r, &mut out));
    record::encode(KEY, &Record::Complete { records: records.len() as u64 }, &mut out);
    out
}

struct Run {
    state: State,
    now: Instant,
    ids: [u64; 3],
    leases: [Option<LeaseId>; 3],
    log: Vec<u8>,
    /// Length of the log and content, after each step.
    states: Vec<(usize, Vec<String>)>,
}

fn client(c: u8) -> ClientId {
    SESSION | u64::from(c)
}

impl Run {
    fn new() -> Run {
        let now = Instant::now();
        let mut state = State::recorded(Limits::default(), 100);
        (0..3).for_each(|c| assert!(!state.connect(client(c), now)));
        let (ids, leases, log) = ([0; 3], [None; 3], header(Kind::Log, true));
        let mut run = Run { state, now, ids, leases, log, states: Vec::new() };
        run.write_down();
        run
    }

    fn write_down(&mut self) {
        for r in self.state.take_records() {
            record::encode(KEY, &r, &mut self.log);
        }
        self.states.push((self.log.len(), content(&self.state)));
    }

    fn ask(&mut self, c: u8, request: Request) -> Option<Answer> {
        self.ids[c as usize] += 1;
        self.state.request(client(c), self.ids[c as usize], request, self.now);
        self.state.take_actions().pop().map(|a| a.answer)
    }

    fn step(&mut self, op: &Op) {
        match *op {
            Op::Set(c, k, v, leased) => {
                let lease = self.leases[c as usize].filter(|_| leased);
                self.ask(c, Request::Set { key: key(k), value: vec![v], lease });
            }
            Op::Swap(c, k, expected, new) => {
                let (expected, new) = (expected.map(|v| vec![v]), new.map(|v| vec![v]));
                self.ask(c, Request::CompareAndSet { key: key(k), expected, new, lease: None });
            }
            Op::DeletePrefix(c, p) => {
                self.ask(c, Request::DeletePrefix { prefix: vec![b'a' + p] });
            }
            Op::Lease(c) => {
                if let Some(Answer::Lease(lease)) =
                    self.ask(c, Request::Lease { ttl: Duration::from_secs(20) })
                {
                    self.leases[c as usize] = Some(lease);
                }
            }
            Op::Revoke(c) => {
                if let Some(lease) = self.leases[c as usize] {
                    self.ask(c, Request::Revoke { lease });
                }
            }
            Op::Settled(c) => {
                let below = self.ids[c as usize];
                self.ask(c, Request::Settled { below });
            }
            Op::Disconnect(c) => {
                self.state.disconnect(client(c));
                self.state.connect(client(c), self.now);
            }
            Op::Pass(ms) => {
                self.now += Duration::from_millis(u64::from(ms));
                self.state.tick(self.now);
            }
        }
        self.write_down();
    }
}

fn recovered(snapshot: &[u8], log: &[u8], now: Instant) -> History {
    read(1, snapshot, Some(log), &BOOTED, now).unwrap()
}

proptest! {
    /// A log that was cut off anywhere leads to what the store was at some moment, and to no other: the last one of
    /// which it tells wholly.
    #[test]
    fn a_cut_log_is_a_prefix_of_what_happened(
        ops in vec(op(), 1..60),
        cuts in vec(any::<proptest::sample::Index>(), 1..8),
    ) {
        let mut run = Run::new();
        ops.iter().for_each(|op| run.step(op));
        let cuts = cuts.iter().map(|c| HEADER + c.index(run.log.len() + 1 - HEADER)).chain([run.log.len()]);
        for cut in cuts {
            let mut found = recovered(&snapshot(None), &run.log[..cut], run.now);
            prop_assert_eq!(found.loss, None);
            let last = run.states.iter().rev().find(|(len, _)| *len <= cut);
            match (last, found.stores.get(&KEY)) {
                // One step may be several changes; of such a step each is whole, or not there.
                (Some((len, want)), Some(state)) if cut - len == found.cut => {
                    prop_assert_eq!(&content(state), want);
                }
                (Some(_), Some(_)) => {}
                (None, found) => prop_assert!(found.is_none()),
                (Some(_), None) => prop_assert!(false, "the store is missing"),
            }
            // What was found goes on to be the same through a snapshot.
            if let Some(state) = found.stores.get(&KEY) {
                let again = recovered(&snapshot(Some(state)), &header(Kind::Log, true), run.now);
                prop_assert_eq!(content(&again.stores[&KEY]), content(state));
                let revision = state.revision();
                let resumed = found.resume(Limits::default());
                prop_assert!(found.revision >= revision);
                prop_assert!(resumed.get(&KEY).is_none_or(|s| s.revision() == revision));
            }
        }
    }

    /// What was asked and is asked again after a restart is answered as before, and done once.
    #[test]
    fn what_was_done_is_not_done_again(ops in vec(op(), 1..40), new in any::<u8>()) {
        let mut run = Run::new();
        ops.iter().for_each(|op| run.step(op));
        let set = Request::Set { key: key(0), value: vec![1], lease: None };
        run.ask(0, set);
        let swap = Request::CompareAndSet { key: key(0), expected: Some(vec![1]), new: Some(vec![new]), lease: None };
        let first = run.ask(0, swap.clone());
        let id = run.ids[0];
        // Somebody else is faster than the client that comes back.
        let between = Request::Set { key: key(0), value: vec![1], lease: None };
        run.ask(1, between);
        run.write_down();
        let mut found = recovered(&snapshot(None), &run.log, run.now);
        let mut stores = found.resume(Limits::default());
        let state = stores.get_mut(&KEY).unwrap();
        prop_assert!(state.connect(client(0), run.now));
        let before = content(state);
        state.request(client(0), id, swap, run.now);
        prop_assert_eq!(state.take_actions().pop().map(|a| a.answer), first);
        prop_assert_eq!(content(state), before);
    }
}

#[test]
fn a_lease_waits_for_its_client_as_long_as_it_lasts() {
    for comes_back in [true, false] {
        let mut run = Run::new();
        run.step(&Op::Lease(0));
        run.step(&Op::Set(0, 0, 1, true));
        run.step(&Op::Set(1, 1, 1, false));
        let mut found = recovered(&snapshot(None), &run.log, run.now);
        let mut stores = found.resume(Limits::default());
        let state = stores.get_mut(&KEY).unwrap();
        let mut now = run.now + Duration::from_secs(19);
        state.tick(now);
        assert_eq!(state.leases_of(client(0)).len(), 1);
        if comes_back {
            assert!(state.connect(client(0), now));
        }
        now += Duration::from_secs(2);
        state.tick(now);
        assert_eq!(state.leases_of(client(0)).len(), usize::from(comes_back));
        let has =
            |k| content(state).iter().any(|e| e.starts_with("Entry") && e.contains(&format!("{:?}", key(k))));
        assert_eq!((has(0), has(1)), (comes_back, true));
        // In the end all sessions are forgotten.
        if !comes_back {
            now += Duration::from_secs(300);
            state.tick(now);
            assert!(!state.image().any(|r| matches!(r, Record::Session { .. })));
        }
    }
}

#[test]
fn who_has_no_session_does_not_come_back() {
    let mut run = Run::new();
    run.state.connect(7, run.now);
    run.state.request(7, 1, Request::Lease { ttl: Duration::from_secs(9) }, run.now);
    let Some(Answer::Lease(lease)) = run.state.take_actions().pop().map(|a| a.answer) else { panic!() };
    run.state.request(7, 2, Request::Set { key: key(0), value: vec![], lease: Some(lease) }, run.now);
    run.step(&Op::Set(1, 1, 1, false));
    let mut stores = recovered(&snapshot(None), &run.log, run.now).resume(Limits::default());
    let state = stores.get_mut(&KEY).unwrap();
    assert!(!state.connect(7, run.now));
    assert!(state.leases_of(7).is_empty());
    assert_eq!(content(state).iter().filter(|e| e.starts_with("Entry")).count(), 1);
}

/// Where answered changes may be missing, everybody who waits has to look anew, and no lease is given twice.
#[test]
fn after_a_loss_all_has_changed() {
    let mut run = Run::new();
    run.step(&Op::Set(0, 0, 1, false));
    let seen = run.state.revision();
    run.step(&Op::Set(0, 1, 1, false));
    let whole = run.log.clone();
    let end = whole.len();
    let unsynced = [&header(Kind::Log, false)[..], &whole[HEADER..]].concat();
    let mut broken = whole.clone();
    broken[end - 3] ^= 1;
    let elsewhere = [b'c'; BOOT];
    let changed = |log: &[u8], boot: &[u8]| {
        let mut found = read(1, &snapshot(None), Some(log), boot, run.now).unwrap();
        let loss = found.loss;
        let mut stores = found.resume(Limits::default());
        let state = stores.get_mut(&KEY).unwrap();
        state.connect(client(5), run.now);
        // Of another prefix nothing is known to have changed.
        state.request(client(5), 1, Request::Watch { prefix: b"z".to_vec(), after: seen }, run.now);
        (loss.is_some(), !state.take_actions().is_empty())
    };
    assert_eq!(changed(&whole, &BOOTED), (false, false));
    assert_eq!(changed(&whole, &elsewhere), (false, false), "all was synced");
    assert_eq!(changed(&unsynced, &BOOTED), (false, false), "the process has ended, not the machine");
    assert_eq!(changed(&unsynced, &elsewhere), (true, true));
    assert_eq!(changed(&broken, &BOOTED), (true, true));
    assert_eq!(changed(&whole[..end - 1], &BOOTED), (false, false), "no answer was sent of what is torn");
}

#[test]
fn what_fits_together_nowhere_is_refused() {
    let now = Instant::now();
    let log = header(Kind::Log, true);
    let whole = snapshot(None);
    let refused = |snapshot: &[u8], log: &[u8]| read(1, snapshot, Some(log), &BOOTED, now).unwrap_err();
    assert!(matches!(refused(&whole[..whole.len() - 1], &log), Unusable::Snapshot(_)));
    assert!(matches!(refused(&whole[..HEADER], &log), Unusable::Snapshot(_)));
    assert!(matches!(refused(&log, &log), Unusable::Snapshot(_)));
    assert!(matches!(refused(&whole, &whole), Unusable::Log(_)));
    let mut other = log.clone();
    other.truncate(0);
    other.extend(
        Header { kind: Kind::Log, synced: true, generation: 1, incarnation: 8, boot: BOOTED }.encode(),
    );
    assert!(matches!(refused(&whole, &other), Unusable::Log(_)));
    // Records of no store, and a change that cannot have happened.
    let mut orphan = log.clone();
    record::encode(KEY, &Record::Ended { lease: LeaseId(1) }, &mut orphan);
    assert!(matches!(refused(&whole, &orphan), Unusable::Log(_)));
    let mut wrong = log.clone();
    record::encode(KEY, &Record::Began { revision: 1 }, &mut wrong);
    let request = Request::Set { key: vec![], value: vec![], lease: None };
    let asked = Record::Asked { client: SESSION, id: 1, settled: 0, revision: 5, request };
    record::encode(KEY, &asked, &mut wrong);
    assert!(matches!(refused(&whole, &wrong), Unusable::Log(_)));
    assert_eq!(Outcome::of(&Answer::Count(0)), None);
}

//! Candidates as threads at a store in memory: all come, some die, one comes late, the store forgets.

use super::*;
use crate::store::memory::Memory;
use crate::sync::{Condvar, Mutex};
use crate::types::{HostId, ProcessId};
use std::collections::BTreeSet;
use std::net::SocketAddr;

const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(300);

fn address(process: u8) -> Address {
    Address {
        process: ProcessId([process; 16]),
        host: HostId([1; 16]),
        tcp: SocketAddr::from(([127, 0, 0, 1], 1000 + u16::from(process))),
    }
}

fn first(world: u8, n: u8) -> View<Member> {
    let addresses: Vec<Address> = (0..n).map(address).collect();
    View { world: WorldId([world; 16]), epoch: 1, members: Member::first(&addresses) }
}

/// A barrier for once that a failing test does not leave others waiting at.
struct Gate {
    missing: Mutex<usize>,
    open: Condvar,
}

impl Gate {
    fn new(n: usize) -> Gate {
        Gate { missing: Mutex::new(n), open: Condvar::new() }
    }

    fn wait(&self) {
        let (mut missing, until) = (self.missing.lock(), Instant::now() + LONG);
        *missing -= 1;
        self.open.notify_all();
        while *missing > 0 {
            assert!(!self.open.wait_until(&mut missing, until).timed_out(), "somebody did not come");
        }
    }
}

/// Waits for a key that holds something like this.
fn has(store: &Memory, key: &str, is_it: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let until = Instant::now() + LONG;
    loop {
        if let Some(value) = store.get(key.as_bytes(), until).unwrap().filter(|v| is_it(v)) {
            return value;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Who a candidate knows to have gone, and the doors it has opened.
#[derive(Default)]
struct Known {
    gone: Mutex<Vec<u32>>,
    doors: Mutex<BTreeSet<[u8; 16]>>,
}

impl Known {
    fn of(gone: &[u32]) -> Known {
        Known { gone: Mutex::new(gone.to_vec()), ..Known::default() }
    }
}

impl Surroundings for Known {
    fn admit(&self, world: &WorldId) {
        self.doors.lock().insert(world.0);
    }

    fn gone(&self) -> Vec<u32> {
        self.gone.lock().clone()
    }
}

fn wish(address: &Address, from: Option<(View<Member>, u32)>, bounds: Option<(u32, u32)>) -> Wish<'_> {
    Wish {
        name: "w",
        address,
        from,
        bounds: bounds.map(|(min, max)| Bounds { min, max }),
        newcomers: Duration::from_millis(50),
        stragglers: Duration::from_millis(200),
        deadline: Instant::now() + LONG,
    }
}

fn at<'a>(store: &Memory, wish: Wish<'a>, known: &'a Known) -> Reforming<'a> {
    let mut reforming = Reforming::new(wish, known).unwrap();
    reforming.go_to(Arc::new(store.another())).unwrap();
    reforming
}

/// The processes of an epoch, by rank.
fn processes(view: &View<Member>) -> Vec<u8> {
    view.members.iter().map(|m| m.address.process.0[0]).collect()
}

/// One call from start to end, of a process with a lease of its own, which it keeps until `barrier`.
fn call(
    store: &Memory,
    process: u8,
    from: Option<(&View<Member>, u32)>,
    bounds: Option<(u32, u32)>,
    gone: &[u32],
    all_have_it: &Gate,
) -> Result<(View<Member>, u32)> {
    let (known, me) = (Known::of(gone), address(process));
    let from = from.map(|(view, rank)| (view.clone(), rank));
    let mut reforming = at(store, wish(&me, from, bounds), &known);
    let found = reforming.run();
    if let Ok((view, rank)) = &found {
        assert_eq!(view.members[*rank as usize].address, me);
        assert!(known.doors.lock().contains(&view.world.0), "the door is open");
        assert!(reforming.absent(view, Instant::now() + LONG).unwrap().is_empty());
    }
    all_have_it.wait();
    reforming.finish();
    found
}

#[test]
fn what_is_written_can_be_read() {
    let view = first(9, 3);
    for before in [None, Some(WorldId([4; 16]))] {
        let record = Record { view: view.clone(), before };
        let raw = record.encode();
        assert_eq!(Record::decode(&raw), Some(record));
        assert!((0..raw.len()).all(|cut| Record::decode(&raw[..cut]).is_none_or(|r| r.view != view)));
    }
    for claim in [None, Some(Claim { epoch: 3, rank: 1 })] {
        let candidate = Candidate { member: view.members[1].clone(), claim, order: 7 };
        let raw = Card { candidate: candidate.clone(), world: view.world }.encode();
        assert_eq!(Card::decode(&raw).unwrap().candidate, candidate);
        assert!((0..raw.len()).all(|cut| Card::decode(&raw[..cut]).is_none()));
        assert!(Card::decode(&[&raw[..], b"x"].concat()).is_none());
    }
    let bounds = Bounds { min: 2, max: 4 };
    assert_eq!(Bounds::decode(&bounds.encode()), Some(bounds));
    assert_eq!(Bounds::decode(b"x"), None);
}

#[test]
fn a_spare_takes_the_place_of_a_dead_member_and_the_store_is_tidy() {
    let store = Memory::new();
    let old = first(9, 3);
    found(&store, "w", old.clone(), Instant::now() + LONG).unwrap();
    let all_have_it = Gate::new(3);
    let (old, store, all) = (&old, &store, &all_have_it);
    let views: Vec<(View<Member>, u32)> = std::thread::scope(|s| {
        let spare = s.spawn(move || call(store, 7, None, None, &[], all).unwrap());
        let mut threads = vec![spare];
        for rank in [2u32, 0] {
            std::thread::sleep(Duration::from_millis(10));
            let body = move || call(store, rank as u8, Some((old, rank)), Some((3, 3)), &[1], all).unwrap();
            threads.push(s.spawn(body));
        }
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    let ranks: Vec<u32> = views.iter().map(|(_, rank)| *rank).collect();
    assert_eq!(ranks, [1, 2, 0]);
    for (view, _) in &views {
        assert_eq!((view.epoch, view.world, processes(view)), (2, old.world, vec![0, 7, 2]));
        assert_eq!(view.members, views[0].0.members);
    }
    let left = store.list(b"", Instant::now() + LONG).unwrap();
    assert_eq!(left.entries.len(), 1, "only the record stays");
    dissolve(store, "w", &old.world, 1, Instant::now() + LONG).unwrap();
    assert_eq!(store.list(b"", Instant::now() + LONG).unwrap().entries.len(), 1, "not this epoch's any more");
    dissolve(store, "w", &old.world, 2, Instant::now() + LONG).unwrap();
    assert!(store.list(b"", Instant::now() + LONG).unwrap().entries.is_empty());
}

#[test]
fn who_says_other_numbers_is_told_and_disturbs_nobody() {
    let store = Memory::new();
    let old = first(9, 2);
    found(&store, "w", old.clone(), Instant::now() + LONG).unwrap();
    let (here, all_have_it) = (address(0), Gate::new(2));
    let known = Known::default();
    std::thread::scope(|s| {
        let waiting = s.spawn(|| call(&store, 1, Some((&old, 1)), Some((2, 2)), &[], &all_have_it));
        has(&store, "r/w/b/1", |_| true);
        for (from, argument) in [(Some((old.clone(), 0)), (2, 3)), (None, (1, 2))] {
            let wish = wish(&here, from, Some(argument));
            let mut wrong = at(&store, wish, &known);
            let e = wrong.run().unwrap_err();
            wrong.finish();
            assert_eq!(e.code, Code::InvalidArgument);
            assert!(e.text.contains(if argument.0 == 2 { "maxRanks" } else { "minRanks" }), "{e}");
        }
        call(&store, 0, Some((&old, 0)), Some((2, 2)), &[], &all_have_it).unwrap();
        assert_eq!(processes(&waiting.join().unwrap().unwrap().0), [0, 1]);
    });
}

#[test]
fn a_straggler_is_waited_for_and_then_told_that_it_was_left_out() {
    let store = Memory::new();
    let old = first(9, 3);
    found(&store, "w", old.clone(), Instant::now() + LONG).unwrap();
    let all_have_it = Gate::new(2);
    let begin = Instant::now();
    std::thread::scope(|s| {
        let other = s.spawn(|| call(&store, 2, Some((&old, 2)), Some((2, 3)), &[], &all_have_it).unwrap());
        let (view, rank) = call(&store, 0, Some((&old, 0)), Some((2, 3)), &[], &all_have_it).unwrap();
        assert_eq!((view.epoch, rank, processes(&view)), (2, 0, vec![0, 2]));
        assert_eq!(other.join().unwrap().1, 1);
    });
    assert!(begin.elapsed() >= Duration::from_millis(200), "its time was not up");
    let (late, known) = (address(1), Known::default());
    let mut late = at(&store, wish(&late, Some((old, 1)), Some((2, 3))), &known);
    let e = late.run().unwrap_err();
    late.finish();
    assert!(e.code == Code::Remote && e.text.contains("epoch 2 has begun without"), "{e}");
}

#[test]
fn too_few_and_nobody_at_all_say_so_in_time() {
    let store = Memory::new();
    let old = first(9, 3);
    let (me, known) = (address(0), Known::of(&[1]));
    let fail = |from: Option<(View<Member>, u32)>| {
        let wish = Wish { deadline: Instant::now() + SHORT, ..wish(&me, from, Some((2, 3))) };
        let mut r = at(&store, wish, &known);
        let e = r.run().unwrap_err();
        r.finish();
        assert_eq!(e.code, Code::Timeout);
        e.text
    };
    assert!(fail(None).contains("no world of this name"));
    found(&store, "w", old.clone(), Instant::now() + LONG).unwrap();
    assert!(fail(None).contains("no member of epoch 1"));
    let text = fail(Some((old.clone(), 0)));
    assert!(
        text.contains("1 members came in time, at least 2 are needed; ranks [2] of epoch 1 are alive"),
        "{text}"
    );
    // A world of the same name that was made since.
    found(&store, "w", first(8, 2), Instant::now() + LONG).unwrap();
    let mut r = at(&store, wish(&me, Some((old, 0)), Some((1, 3))), &known);
    let e = r.run().unwrap_err();
    assert!(e.code == Code::Remote && e.text.contains("another world"), "{e}");
    r.finish();
}

#[test]
fn an_epoch_that_comes_to_nothing_is_followed_by_the_next() {
    let store = Memory::new();
    let old = first(9, 3);
    found(&store, "w", old.clone(), Instant::now() + LONG).unwrap();
    let all_have_it = Gate::new(2);
    let met = Gate::new(3);
    // Rank 2 dies as soon as the second epoch has it as a member; the others find out when they connect.
    let survive = |rank: u32| {
        let (known, me) = (Known::default(), address(rank as u8));
        let mut r = at(&store, wish(&me, Some((old.clone(), rank)), Some((1, 3))), &known);
        let (view, _) = r.run().unwrap();
        assert_eq!((view.epoch, view.members.len()), (2, 3));
        met.wait();
        r.lost(Some(2));
        let (view, rank) = r.run().unwrap();
        all_have_it.wait();
        r.finish();
        (view, rank)
    };
    std::thread::scope(|s| {
        let others: Vec<_> = (0..2).map(|rank| s.spawn(move || survive(rank))).collect();
        let (known, me) = (Known::default(), address(2));
        let mut r = at(&store, wish(&me, Some((old.clone(), 2)), Some((1, 3))), &known);
        assert_eq!(r.run().unwrap().0.epoch, 2);
        // It lets the others see it before it goes, and its lease does not end at once.
        met.wait();
        for (rank, other) in others.into_iter().enumerate() {
            let (view, mine) = other.join().unwrap();
            assert_eq!((view.epoch, mine, processes(&view)), (3, rank as u32, vec![0, 1]));
        }
        r.finish();
    });
}

#[test]
fn a_store_that_has_forgotten_is_told_and_whoever_knows_better_corrects_it() {
    let store = Memory::new();
    let old = first(9, 2);
    let later = View { epoch: 2, ..old.clone() };
    let has = |condition: &dyn Fn(&Record) -> bool| {
        let raw = has(&store, "r/w/view", |raw| Record::decode(raw).is_some_and(|r| condition(&r)));
        Record::decode(&raw).unwrap()
    };
    let come = |rank: u32, from: &View<Member>| {
        let (known, me) = (Known::default(), address(rank as u8));
        let wish = wish(&me, Some((from.clone(), rank)), Some((2, 2)));
        let mut r = at(&store, wish, &known);
        let mut found = r.run().unwrap().0;
        if found.epoch == 2 {
            r.lost(None);
            found = r.run().unwrap().0;
        }
        // The other one takes it from the record, not from the card.
        has(&|record| record.view.epoch == 3);
        (r.finish(), found).1
    };
    std::thread::scope(|s| {
        // Comes from an epoch that the other one has left behind.
        let laggard = s.spawn(|| come(0, &old));
        let record = has(&|record| record.view.epoch == 1);
        assert_eq!(record.before, Some(old.world));
        assert_ne!(
            record.view.world, old.world,
            "what was agreed on before does not mix with what is agreed on now"
        );
        let view = come(1, &later);
        assert_eq!((view.epoch, processes(&view)), (3, vec![0, 1]));
        assert!(![record.view.world, old.world].contains(&view.world));
        assert_eq!(laggard.join().unwrap(), view);
    });
}

#[test]
fn nonsense_in_the_store_is_named() {
    let (me, known) = (address(0), Known::default());
    for (key, value) in [("r/w/view", "?"), ("r/w/c/0", "?"), ("r/w/b/1", "?")] {
        let (store, old) = (Memory::new(), first(9, 2));
        found(&store, "w", old.clone(), Instant::now() + LONG).unwrap();
        store.set(key.as_bytes(), value.as_bytes(), None, Instant::now() + LONG).unwrap();
        let mut r = at(&store, wish(&me, Some((old, 0)), Some((1, 2))), &known);
        let e = r.run().unwrap_err();
        assert!(e.text.contains(&format!("nonsense under '{key}'")), "{e}");
        assert!(!is_store_lost(&e), "trying again would not help");
        r.finish();
    }
}

#[test]
fn who_claims_another_ones_rank_gets_none() {
    let store = Memory::new();
    let old = first(9, 2);
    found(&store, "w", old.clone(), Instant::now() + LONG).unwrap();
    // Same rank, another process: an epoch of its own imagination.
    let imagined = View { members: Member::first(&[address(0), address(7)]), ..old.clone() };
    let (me, known) = (address(7), Known::default());
    let mut r = at(&store, wish(&me, Some((imagined, 1)), Some((1, 2))), &known);
    assert!(r.run().is_err());
    r.finish();
    let gate = Gate::new(2);
    std::thread::scope(|s| {
        let other = s.spawn(|| call(&store, 1, Some((&old, 1)), Some((2, 2)), &[], &gate).unwrap());
        let (view, rank) = call(&store, 0, Some((&old, 0)), Some((2, 2)), &[], &gate).unwrap();
        assert_eq!((rank, processes(&view)), (0, vec![0, 1]));
        assert_eq!(other.join().unwrap().1, 1);
    });
}

//! Meeting through a store: everybody comes, too few come, the wrong ones come, and some die on the way.

use super::*;
use crate::store::memory::Memory;
use crate::sync::{Arc, Mutex};

#[test]
fn cards_survive_the_store() {
    for tcp in ["127.0.0.1:80", "[2001:db8::1]:65535"] {
        let a = Address { process: ProcessId([1; 16]), host: HostId([2; 16]), tcp: tcp.parse().unwrap() };
        let raw = encode(&a);
        assert_eq!(raw.len(), CARD);
        assert_eq!(decode(&raw), Some(a));
        assert_eq!(decode(&raw[1..]), None);
    }
    let w = WorldId([9; 16]);
    assert_eq!(decode_lead(&encode_lead(&w, 7)), Some((w, 7)));
    assert_eq!(decode_lead(b"x"), None);
}

fn address(process: u8) -> Address {
    Address {
        process: ProcessId([process; 16]),
        host: HostId([1; 16]),
        tcp: SocketAddr::from(([127, 0, 0, 1], 1000 + u16::from(process))),
    }
}

const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(200);

/// Joins as a process of its own; answers what it found, after withdrawing what it wrote.
fn join(store: &dyn Store, nranks: u32, rank: u32, process: u8, limit: Duration) -> Result<Membership> {
    let me = address(process);
    let admit = |_: &WorldId| {};
    let joining = Joining::new(store, "w", nranks, rank, &me, &admit, Instant::now() + limit)?;
    joining.run()
}

fn empty(store: &Memory) -> bool {
    store.list(b"", Instant::now() + LONG).unwrap().entries.is_empty()
}

#[test]
fn everybody_gets_the_same_list_and_nothing_stays_behind() {
    let store = Memory::new();
    let met = Mutex::new(Vec::new());
    let all_have_it = std::sync::Barrier::new(5);
    std::thread::scope(|s| {
        for rank in (0..5).rev() {
            let (store, met, all_have_it) = (store.another(), &met, &all_have_it);
            s.spawn(move || {
                let me = address(rank as u8);
                let admitted = Mutex::new(None);
                let admit = |w: &WorldId| *admitted.lock() = Some(*w);
                let joining = Joining::new(&store, "w", 5, rank, &me, &admit, Instant::now() + LONG).unwrap();
                let m = joining.run().unwrap();
                assert_eq!(*admitted.lock(), Some(m.world), "the door is open before anybody can come");
                met.lock().push(m);
                all_have_it.wait();
                joining.finish();
            });
        }
    });
    let met = met.into_inner();
    assert!(met.iter().all(|m| *m == met[0]));
    let processes: Vec<u8> = met[0].members.iter().map(|a| a.process.0[0]).collect();
    assert_eq!(processes, [0, 1, 2, 3, 4]);
    assert!(empty(&store));
}

#[test]
fn who_is_missing_is_named() {
    let store = Memory::new();
    let e = join(&store, 3, 1, 1, SHORT).unwrap_err();
    assert!(e.code == Code::Timeout && e.text.contains("rank 0"), "{e}");
    let store = Memory::new();
    let e = join(&store, 3, 0, 0, SHORT).unwrap_err();
    assert!(e.code == Code::Timeout && e.text.contains("[1, 2]"), "{e}");
}

#[test]
fn another_size_or_a_rank_taken_is_an_error_of_the_newcomer() {
    let store = Arc::new(Memory::new());
    let first = store.another();
    let lead = address(0);
    let admit = |_: &WorldId| {};
    let joining = Joining::new(&first, "w", 2, 0, &lead, &admit, Instant::now() + SHORT).unwrap();
    assert_eq!(joining.run().unwrap_err().code, Code::Timeout);
    let e = join(&store.another(), 3, 1, 1, SHORT).unwrap_err();
    assert!(e.code == Code::InvalidArgument && e.text.starts_with("nranks:"), "{e}");
    let e = join(&store.another(), 2, 0, 7, SHORT).unwrap_err();
    assert!(e.code == Code::InvalidUsage && e.text.starts_with("rank:"), "{e}");
    joining.finish();
}

#[test]
fn a_new_rank_0_begins_anew_where_the_old_one_died() {
    let store = Memory::new();
    let old = store.another();
    assert_eq!(join(&old, 2, 0, 9, SHORT).unwrap_err().code, Code::Timeout);
    std::thread::scope(|s| {
        let other = store.another();
        let waits = s.spawn(move || {
            let me = address(1);
            let admit = |_: &WorldId| {};
            let joining = Joining::new(&other, "w", 2, 1, &me, &admit, Instant::now() + LONG).unwrap();
            joining.run().unwrap()
        });
        std::thread::sleep(Duration::from_millis(50));
        // Its connection goes with the process, and with that its leases.
        drop(old);
        // The new one's must stay until the other has read what it wrote.
        let new = store.another();
        let met = join(&new, 2, 0, 0, LONG).unwrap();
        assert_eq!(met.members[0].process, ProcessId([0; 16]));
        assert_eq!(waits.join().unwrap(), met);
    });
}

#[test]
fn nonsense_in_the_store_is_an_error() {
    let store = Memory::new();
    store.set(b"w/w/lead", b"nonsense", None, Instant::now() + LONG).unwrap();
    let e = join(&store, 2, 1, 1, SHORT).unwrap_err();
    assert!(e.text.contains("nonsense under 'w/w/lead'"), "{e}");
}

/// What it takes to find that a lease has ended, in whatever way.
#[test]
fn who_has_lost_his_lease_begins_anew() {
    let store = Memory::new();
    std::thread::scope(|s| {
        let (other, mine) = (store.another(), store.another());
        let waits = s.spawn(move || {
            let (me, admit) = (address(1), |_: &WorldId| {});
            let joining = Joining::new(&other, "w", 2, 1, &me, &admit, Instant::now() + LONG).unwrap();
            // As if the store had forgotten it.
            other.revoke(joining.lease.get(), Instant::now() + LONG).unwrap();
            joining.run().unwrap()
        });
        let (me, admit) = (address(0), |_: &WorldId| {});
        let joining = Joining::new(&mine, "w", 2, 0, &me, &admit, Instant::now() + LONG).unwrap();
        mine.revoke(joining.lease.get(), Instant::now() + LONG).unwrap();
        let met = joining.run().unwrap();
        assert_eq!(waits.join().unwrap(), met);
    });
}

//! Tests of the handle table.

use super::*;
use crate::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;

#[test]
fn a_handle_names_its_value_until_removed() {
    let slab = Slab::new(3);
    let a = slab.insert(Arc::new("a")).unwrap();
    let b = slab.insert(Arc::new("b")).unwrap();
    assert_eq!((**slab.get(a).unwrap(), **slab.get(b).unwrap()), ("a", "b"));
    assert_eq!(slab.remove(a).as_deref(), Some(&"a"));
    assert!(slab.get(a).is_none() && slab.remove(a).is_none());
    assert_eq!(**slab.get(b).unwrap(), "b");
}

#[test]
fn a_handle_is_never_null_nor_an_address() {
    let slab = Slab::new(0);
    let handle = slab.insert(Arc::new(())).unwrap();
    assert!(handle & 1 == 1 && handle >> 62 == 1);
    assert_eq!(kind_of(handle), Some(0));
    assert_eq!(kind_of(&raw const slab as usize), None);
}

#[test]
fn foreign_numbers_find_nothing() {
    let (worlds, requests) = (Slab::new(1), Slab::new(2));
    let handle = worlds.insert(Arc::new(())).unwrap();
    requests.insert(Arc::new(())).unwrap();
    assert!(requests.get(handle).is_none());
    for raw in [0, 1, usize::MAX, handle ^ 1, handle + (1 << INDEX_SHIFT), handle | 0x7ffff << INDEX_SHIFT] {
        assert!(worlds.get(raw).is_none(), "{raw:x}");
    }
    let all_indices = handle | (INDEX_MASK as usize) << INDEX_SHIFT;
    assert!(worlds.get(all_indices).is_none());
    assert!(worlds.get(handle).is_some());
}

#[test]
fn a_slot_used_again_has_another_handle() {
    let slab = Slab::new(1);
    let first = slab.insert(Arc::new(1)).unwrap();
    slab.remove(first);
    let second = slab.insert(Arc::new(2)).unwrap();
    assert_eq!(first >> INDEX_SHIFT & INDEX_MASK as usize, second >> INDEX_SHIFT & INDEX_MASK as usize);
    assert_ne!(first, second);
    assert!(slab.get(first).is_none());
    assert_eq!(**slab.get(second).unwrap(), 2);
}

#[test]
fn a_slot_without_generations_left_is_retired() {
    let slab = Slab::with_last_generation(1, 2);
    let mut seen = std::collections::HashSet::new();
    for i in 0..30 {
        let handle = slab.insert(Arc::new(i)).unwrap();
        assert!(seen.insert(handle));
        assert_eq!(slab.remove(handle).as_deref(), Some(&i));
    }
    assert_eq!(slab.free.lock().next, 10);
    assert!(seen.iter().all(|&h| slab.get(h).is_none()));
}

#[test]
fn removal_waits_for_nobody_and_the_value_outlives_it() {
    let slab = Slab::new(1);
    let value = Arc::new(7);
    let handle = slab.insert(Arc::clone(&value)).unwrap();
    let guard = slab.get(handle).unwrap();
    assert_eq!(slab.remove(handle).as_deref(), Some(&7));
    assert!(slab.get(handle).is_none());
    assert_eq!((**guard, Arc::strong_count(&value)), (7, 2));
    drop(guard);
    assert_eq!(Arc::strong_count(&value), 1);
}

#[test]
fn values_are_dropped_with_the_slab() {
    let value = Arc::new(());
    let slab = Slab::new(1);
    let handles: Vec<_> = (0..1000).map(|_| slab.insert(Arc::clone(&value)).unwrap()).collect();
    assert!(handles.iter().all(|&h| slab.get(h).is_some()));
    drop(slab);
    assert_eq!(Arc::strong_count(&value), 1);
}

/// Counts itself and knows its handle, so that a reader can tell that it got what it asked for.
struct Probe<'a> {
    handle: AtomicUsize,
    alive: AtomicUsize,
    drops: &'a AtomicUsize,
}

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        assert_eq!(self.alive.swap(0, Relaxed), 1, "dropped twice");
        self.drops.fetch_add(1, Relaxed);
    }
}

/// Every thread inserts into, reads and removes from a few shared cells, so that gets, removes and reuses of
/// the same slots meet all the time.
#[test]
fn many_threads_see_only_what_they_asked_for() {
    const ROUNDS: usize = 30_000;
    let (drops, removed, inserted) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    let slab = Slab::new(9);
    let cells: Vec<AtomicUsize> = (0..3).map(|_| AtomicUsize::new(0)).collect();
    thread::scope(|s| {
        for t in 0..4usize {
            let (slab, cells, drops, removed, inserted) = (&slab, &cells, &drops, &removed, &inserted);
            s.spawn(move || {
                let mut random = 0x9e37_79b9 + t;
                for _ in 0..ROUNDS {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let cell = &cells[(random >> 40) % cells.len()];
                    if (random >> 50).is_multiple_of(4) {
                        let probe = Probe { handle: AtomicUsize::new(0), alive: AtomicUsize::new(1), drops };
                        let probe = Arc::new(probe);
                        let handle = slab.insert(Arc::clone(&probe)).unwrap();
                        probe.handle.store(handle, Relaxed);
                        inserted.fetch_add(1, Relaxed);
                        let old = cell.swap(handle, Relaxed);
                        if let Some(old) = slab.remove(old) {
                            assert_eq!(old.alive.load(Relaxed), 1);
                            removed.fetch_add(1, Relaxed);
                        }
                    } else if (random >> 50) % 4 == 1 {
                        if slab.remove(cell.load(Relaxed)).is_some() {
                            removed.fetch_add(1, Relaxed);
                        }
                    } else {
                        let handle = cell.load(Relaxed);
                        if let Some(guard) = slab.get(handle) {
                            assert_eq!(guard.alive.load(Relaxed), 1);
                            assert_eq!(guard.handle.load(Relaxed), handle);
                        }
                    }
                }
            });
        }
    });
    for cell in &cells {
        removed.fetch_add(usize::from(slab.remove(cell.load(Relaxed)).is_some()), Relaxed);
    }
    assert_eq!(removed.load(Relaxed), inserted.load(Relaxed));
    assert_eq!(drops.load(Relaxed), inserted.load(Relaxed));
    let free = slab.free.lock();
    assert_eq!(free.vacant.len(), free.next as usize, "every slot came back");
}

/// One handle, many threads that want to be the one who removes it.
#[test]
fn one_remove_succeeds() {
    let slab = Slab::new(1);
    for _ in 0..500 {
        let handle = slab.insert(Arc::new(())).unwrap();
        let wins: usize = thread::scope(|s| {
            let racers = [(); 3].map(|()| s.spawn(|| usize::from(slab.remove(handle).is_some())));
            racers.into_iter().map(|r| r.join().unwrap()).sum()
        });
        assert_eq!(wins, 1);
    }
}

#[test]
fn a_handle_is_live_until_it_is_removed() {
    let slab = Slab::new(5);
    let first = slab.insert(Arc::new(1)).unwrap();
    assert!(slab.is_live(first) && !slab.is_live(0) && !slab.is_live(first ^ 1 << 62));
    let guard = slab.get(first).unwrap();
    assert!(slab.is_live(first));
    slab.remove(first).unwrap();
    assert!(!slab.is_live(first), "although it is still referred to");
    drop(guard);
    let second = slab.insert(Arc::new(2)).unwrap();
    assert!(slab.is_live(second) && !slab.is_live(first));
    assert!(!Slab::<i32>::new(6).is_live(second));
}

//! Split, shrink, grow.

mod common;
use common::*;
use std::ffi::c_int;
use std::sync::Barrier;
use std::sync::Mutex;

fn check(comm: Comm, rank: usize, ranks: usize) {
    let (mut count, mut own) = (0, 0);
    assert_eq!((ncclCommCount(comm, &mut count), count), (0, ranks as c_int));
    assert_eq!((ncclCommUserRank(comm, &mut own), own), (0, rank as c_int));
    let mut value = 1;
    let place: Mut = std::ptr::from_mut(&mut value).cast();
    // SAFETY: one value that outlives the operation.
    let code = unsafe { ncclAllReduce(place, place, 1, INT, 0, comm, STREAM) };
    assert_eq!(done(comm, code), 0);
    assert_eq!(value, ranks as i32);
}

#[test]
fn split_by_color_ordered_by_key() {
    let _turn = turn("");
    for blocking in [true, false] {
        world(4, blocking, |rank, comm| {
            for round in 0..2 {
                let (mut new, none) = (Comm(8 as Mut), std::ptr::null());
                let color = if rank == 3 { -1 } else { round };
                // SAFETY: a place that lives until the parent is no longer in progress.
                assert_eq!(unsafe { ncclCommSplit(comm, color, -(rank as c_int), &mut new, none) }, 0);
                assert_eq!(settled(comm), 0);
                if rank == 3 {
                    assert_eq!(new, NULL);
                } else {
                    check(new, 2 - rank, 3);
                    assert_eq!(ncclCommDestroy(new), 0);
                }
            }
            check(comm, rank, 4);
            assert_eq!(ncclCommDestroy(comm), 0);
        });
    }
    assert_clean();
}

#[test]
fn split_appears_when_the_parent_is_done() {
    let _turn = turn("Split@*=slow:60;reshape-in-progress");
    world(2, false, |rank, comm| {
        let mut new = NULL;
        let place = &raw mut new;
        // SAFETY: a place that lives until the parent is no longer in progress.
        unsafe {
            assert_eq!(ncclCommSplit(comm, 0, 0, place, std::ptr::null()), 7);
            assert_eq!(place.read_volatile(), NULL);
            assert_eq!(settled(comm), 0);
            new = place.read_volatile();
        }
        check(new, rank, 2);
        assert_eq!(ncclCommDestroy(new), 0);
        assert_eq!(ncclCommDestroy(comm), 0);
    });
    assert_clean();
}

#[test]
fn shrink_around_a_rank_that_is_stuck() {
    let _turn = turn("");
    world(3, false, |rank, comm| {
        let mut value = 1;
        if rank == 1 {
            assert_eq!(ncclCommAbort(comm), 0);
            return;
        }
        let place: Mut = std::ptr::from_mut(&mut value).cast();
        // SAFETY: one value that outlives the operation.
        let code = unsafe { ncclAllReduce(place, place, 1, INT, 0, comm, STREAM) };
        assert_eq!(code, 7);
        let (mut new, mut out) = (NULL, [1]);
        // SAFETY: places that live until the parent is no longer in progress.
        let code = unsafe { ncclCommShrink(comm, out.as_mut_ptr(), 1, &mut new, std::ptr::null(), 1) };
        assert_eq!(code, 0, "{}", last_error());
        assert_eq!(settled(comm), 0);
        check(new, rank / 2, 2);
        assert_eq!(ncclCommDestroy(new), 0);
        assert_eq!(ncclCommAbort(comm), 0);
    });
    assert_clean();
}

#[test]
fn shrink_after_a_revoke() {
    let _turn = turn("");
    world(3, true, |rank, comm| {
        assert_eq!(ncclCommRevoke(comm, 0), 0);
        if rank < 2 {
            let (mut new, mut out) = (NULL, [2]);
            // SAFETY: places that live through the call.
            let code = unsafe { ncclCommShrink(comm, out.as_mut_ptr(), 1, &mut new, std::ptr::null(), 0) };
            assert_eq!(code, 0, "{}", last_error());
            check(new, rank, 2);
            assert_eq!(ncclCommDestroy(new), 0);
        }
        assert_eq!(ncclCommDestroy(comm), 0);
    });
    assert_clean();
}

#[test]
fn grow_at_the_tail() {
    let _turn = turn("");
    let (told, sign) = (Mutex::new(None), Barrier::new(2));
    let (told, sign) = (&told, &sign);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            sign.wait();
            let id: Id = told.lock().expect("no panic").expect("an id");
            let (mut new, config) = (NULL, config(false));
            // SAFETY: places that live through the call.
            let code = unsafe { ncclCommGrow(NULL, 4, &id, 3, &mut new, &config) };
            assert_eq!(code, 0, "{}", last_error());
            assert_eq!(settled(new), 0);
            check(new, 3, 4);
            assert_eq!(ncclCommDestroy(new), 0);
        });
        world(3, false, |rank, comm| {
            let (mut new, mut id) = (NULL, Id([0; 128]));
            if rank == 1 {
                // The others wait inside their call for this.
                std::thread::sleep(std::time::Duration::from_millis(30));
                assert_eq!(ncclCommGetUniqueId(comm, &mut id), 0);
                assert_eq!(ncclCommGetUniqueId(comm, &mut Id([0; 128])), 5, "one at a time");
                *told.lock().expect("no panic") = Some(id);
                sign.wait();
            }
            let given: *const Id = if rank == 1 { &id } else { std::ptr::null() };
            // SAFETY: places that live through the call.
            let code = unsafe { ncclCommGrow(comm, 4, given, -1, &mut new, std::ptr::null()) };
            assert_eq!(code, 0, "{}", last_error());
            assert_eq!(settled(new), 0);
            check(new, rank, 4);
            assert_eq!(ncclCommDestroy(new), 0);
            assert_eq!(ncclCommAbort(comm), 0);
        });
    });
    assert_eq!(violations().1.replace("CommGetUniqueId", ""), "");
}

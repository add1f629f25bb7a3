//! How calls behave when communicators do not block, and the rules whose breach is noticed.

mod common;
use common::*;
use std::ffi::c_int;
use std::time::Duration;

fn sum_of_one(comm: Comm, value: &mut i32) -> c_int {
    let place: Mut = std::ptr::from_mut(value).cast();
    // SAFETY: one value, which the caller keeps until the operation is over.
    unsafe { ncclAllReduce(place, place, 1, INT, 0, comm, STREAM) }
}

#[test]
fn init_is_in_progress_until_all_are_there() {
    let _turn = turn("");
    let (id, mut comm, config) = (new_id(), NULL, config(false));
    // SAFETY: a place and a configuration that live through the call.
    assert_eq!(unsafe { ncclCommInitRankConfig(&mut comm, 2, id, 0, &config) }, 7);
    std::thread::sleep(Duration::from_millis(30));
    let mut error = 0;
    assert_eq!((ncclCommGetAsyncError(comm, &mut error), error), (0, 7));
    std::thread::scope(|scope| {
        scope.spawn(|| assert_eq!(ncclCommDestroy(join(2, 1, id, true)), 0));
        assert_eq!(settled(comm), 0);
        let mut count = 0;
        assert_eq!((ncclCommCount(comm, &mut count), count), (0, 2));
        assert_eq!(done(comm, ncclCommFinalize(comm)), 0);
        assert_eq!(ncclCommFinalize(comm), 4, "twice");
        assert_eq!(settled(comm), 4, "which spoils it, as in NCCL");
        assert_eq!(ncclCommAbort(comm), 0);
        // The other rank waits in destroy for ever, unless it is let go.
        assert_eq!(script(""), 0);
    });
}

#[test]
fn all_bytes_of_the_id_must_agree() {
    let _turn = turn("");
    let (id, config) = (new_id(), config(false));
    let mut other = id;
    other.0[127] = 1;
    let mut comms = [NULL; 2];
    for (rank, id) in [id, other].into_iter().enumerate() {
        // SAFETY: a place and a configuration that live through the call.
        let code = unsafe { ncclCommInitRankConfig(&mut comms[rank], 2, id, rank as c_int, &config) };
        assert_eq!(code, 7);
    }
    std::thread::sleep(Duration::from_millis(50));
    for comm in comms {
        let mut error = 0;
        assert_eq!((ncclCommGetAsyncError(comm, &mut error), error), (0, 7));
        assert_eq!(ncclCommAbort(comm), 0);
    }
    assert_clean();
}

#[test]
fn abort_frees_what_waits_for_a_peer() {
    let _turn = turn("");
    world(2, false, |rank, comm| {
        let mut value = 1;
        if rank == 0 {
            assert_eq!(sum_of_one(comm, &mut value), 7);
            std::thread::sleep(Duration::from_millis(30));
            let mut error = 0;
            assert_eq!((ncclCommGetAsyncError(comm, &mut error), error), (0, 7));
        }
        assert_eq!(ncclCommAbort(comm), 0);
        assert_eq!(value, 1);
    });
    assert_clean();
}

#[test]
fn revoke_frees_the_kernel_and_closes_the_communicator() {
    let _turn = turn("");
    world(2, false, |rank, comm| {
        let mut value = 1;
        if rank == 0 {
            assert_eq!(sum_of_one(comm, &mut value), 7);
        }
        assert_eq!(ncclCommRevoke(comm, 1), 4);
        assert_eq!(done(comm, ncclCommRevoke(comm, 0)), 0);
        assert_eq!(ncclCommRevoke(comm, 0), 4);
        assert_eq!(sum_of_one(comm, &mut value), 5);
        assert_eq!(ncclCommAbort(comm), 0);
    });
    assert_clean();
}

#[test]
fn a_bad_argument_spoils_a_communicator_that_does_not_block() {
    let _turn = turn("");
    world(1, false, |_, comm| {
        // SAFETY: refused before a buffer is looked at.
        let code = unsafe { ncclAllReduce(std::ptr::null(), STREAM, 1, 99, 0, comm, STREAM) };
        assert_eq!(code, 4);
        assert_eq!(settled(comm), 4);
        assert_eq!(sum_of_one(comm, &mut 1), 4);
        assert_eq!(ncclCommAbort(comm), 0);
    });
    assert_clean();
}

#[test]
fn an_error_in_a_group_fails_the_group() {
    let _turn = turn("");
    world(1, true, |_, comm| {
        let mut value = 3;
        let mut out = 0;
        assert_eq!(ncclGroupStart(), 0);
        // SAFETY: one value each; the second call is refused.
        unsafe {
            let (from, to) = (std::ptr::from_mut(&mut value).cast(), std::ptr::from_mut(&mut out).cast());
            assert_eq!(ncclAllReduce(from, to, 1, INT, 0, comm, STREAM), 0);
            assert_eq!(ncclAllReduce(from, to, 1, INT, 0, NULL, STREAM), 4);
        }
        assert_eq!(ncclGroupEnd(), 4);
        assert_eq!(out, 0, "what was in the group is dropped");
        assert_eq!(ncclCommDestroy(comm), 0);
    });
    assert_clean();
}

#[test]
fn several_aborts_in_one_group() {
    let _turn = turn("");
    let (first, second) = (join(1, 0, new_id(), false), join(1, 0, new_id(), false));
    assert_eq!(ncclGroupStart(), 0);
    assert_eq!(ncclCommAbort(first), 0);
    assert_eq!(ncclCommAbort(second), 0);
    assert_eq!(ncclGroupEnd(), 0);
    assert_clean();
}

/// Runs something wrong and expects a violation with these words.
fn wrong(words: &str, deed: impl FnOnce()) {
    let _turn = turn("");
    deed();
    let (count, text) = violations();
    assert!(count > 0 && text.contains(words), "{count}: {text}");
}

#[test]
fn a_second_abort_and_a_use_after_it() {
    wrong("destroyed or aborted", || {
        let comm = join(1, 0, new_id(), false);
        assert_eq!(ncclCommAbort(comm), 0);
        assert_eq!(ncclCommAbort(comm), 4);
    });
    wrong("destroyed or aborted", || {
        let comm = join(1, 0, new_id(), true);
        assert_eq!(ncclCommDestroy(comm), 0);
        assert_eq!(sum_of_one(comm, &mut 1), 4);
    });
    wrong("is no communicator", || assert_eq!(ncclCommAbort(Comm(16 as Mut)), 4));
}

#[test]
fn use_while_in_progress() {
    wrong("before its last call had completed", || {
        let (mut comm, config) = (NULL, config(false));
        // SAFETY: a place and a configuration that live through the call.
        assert_eq!(unsafe { ncclCommInitRankConfig(&mut comm, 2, new_id(), 0, &config) }, 7);
        assert_eq!(sum_of_one(comm, &mut 1), 4);
        assert_eq!(ncclCommAbort(comm), 0);
    });
}

#[test]
fn two_threads_inside_one_communicator() {
    wrong("another thread is inside", || {
        let (mut comm, id) = (NULL, new_id());
        let place = &raw mut comm as usize;
        std::thread::scope(|scope| {
            let blocked = scope.spawn(move || {
                let config = config(true);
                // SAFETY: the place lives in the surrounding scope.
                unsafe { ncclCommInitRankConfig(place as *mut Comm, 2, id, 0, &config) }
            });
            // SAFETY: the place is written once, early in the call.
            let read = || unsafe { std::ptr::read_volatile(place as *const Comm) };
            eventually("a handle", || read() != NULL);
            assert_eq!(ncclCommAbort(read()), 0);
            assert_ne!(blocked.join().expect("the thread"), 0);
        });
    });
}

#[test]
fn mixtures_in_one_group() {
    wrong("blocking and non-blocking", || {
        let (blocking, other) = (join(1, 0, new_id(), true), join(1, 0, new_id(), false));
        let (mut a, mut b) = (1, 1);
        assert_eq!(ncclGroupStart(), 0);
        assert_eq!(sum_of_one(blocking, &mut a), 0);
        assert_eq!(sum_of_one(other, &mut b), 0);
        assert_eq!(done(other, ncclGroupEnd()), 0);
        ncclCommAbort(blocking);
        ncclCommAbort(other);
    });
    wrong("operations in one group with", || {
        let comm = join(1, 0, new_id(), true);
        let (mut value, mut late) = (1, NULL);
        assert_eq!(ncclGroupStart(), 0);
        assert_eq!(sum_of_one(comm, &mut value), 0);
        assert_eq!(ncclCommInitRank(&mut late, 1, new_id(), 0), 0);
        assert_eq!(ncclGroupEnd(), 0);
        ncclCommAbort(comm);
        ncclCommAbort(late);
    });
}

#[test]
fn an_id_is_good_for_one_communicator() {
    wrong("second time", || {
        let id = new_id();
        ncclCommAbort(join(1, 0, id, true));
        ncclCommAbort(join(1, 0, id, true));
    });
}

#[test]
fn collectives_that_do_not_match_hang() {
    wrong("met something else", || {
        world(2, false, |rank, comm| {
            let mut values = [1, 2];
            let place: Mut = values.as_mut_ptr().cast();
            // SAFETY: two values that outlive the communicator.
            let code = unsafe { ncclAllReduce(place, place, rank + 1, INT, 0, comm, STREAM) };
            assert_eq!(code, 7);
            std::thread::sleep(Duration::from_millis(50));
            assert_eq!(ncclCommAbort(comm), 0);
        });
    });
}

//! What a script can make happen.

mod common;
use common::*;
use std::ffi::c_int;
use std::time::{Duration, Instant};

fn sum_of_one(comm: Comm, value: &mut i32) -> c_int {
    let place: Mut = std::ptr::from_mut(value).cast();
    // SAFETY: one value, which the caller keeps until the operation is over.
    unsafe { ncclAllReduce(place, place, 1, INT, 0, comm, STREAM) }
}

fn begin(blocking: bool) -> (c_int, Comm) {
    let (mut comm, config) = (NULL, config(blocking));
    // SAFETY: a place and a configuration that live through the call.
    let code = unsafe { ncclCommInitRankConfig(&mut comm, 1, new_id(), 0, &config) };
    (code, comm)
}

#[test]
fn the_nth_call_fails_and_its_communicator_is_condemned() {
    let _turn = turn("AllReduce@2=error:2");
    let comm = join(1, 0, new_id(), true);
    assert_eq!([0, 2, 0].map(|_| sum_of_one(comm, &mut 1)), [0, 2, 0]);
    assert!(violations().1.contains("after AllReduce returned 2"), "{}", violations().1);
    assert_eq!(ncclCommAbort(comm), 0);
}

#[test]
fn asynchronous_errors() {
    let _turn = turn("AllReduce@1=async:6;CommGetAsyncError@3=error:3");
    let comm = join(1, 0, new_id(), true);
    assert_eq!(sum_of_one(comm, &mut 1), 0);
    let mut error = 0;
    assert_eq!((ncclCommGetAsyncError(comm, &mut error), error), (0, 6));
    assert_eq!(sum_of_one(comm, &mut 1), 6);
    assert_eq!((ncclCommGetAsyncError(comm, &mut error), error), (0, 6));
    assert_eq!(ncclCommGetAsyncError(comm, &mut error), 3);
    assert_eq!(ncclCommAbort(comm), 0);
}

#[test]
fn a_kernel_that_hangs_leaves_at_abort() {
    let _turn = turn("AllReduce@1=hang+async:6");
    let (_, comm) = begin(false);
    assert_eq!(settled(comm), 0);
    assert_eq!(sum_of_one(comm, &mut 1), 7);
    assert_eq!(settled(comm), 6);
    assert_eq!(ncclCommAbort(comm), 0);
    assert_clean();
}

#[test]
fn init_fails_or_hangs() {
    let _turn =
        turn("CommInitRank*@1=error:2;CommInitRank*@2=async:3;CommInitRank*@3=hang;CommInitRank*@4=async:1");
    assert_eq!(begin(false), (2, NULL));
    let (code, comm) = begin(false);
    assert_eq!(done(comm, code), 3);
    assert_eq!(ncclCommAbort(comm), 0);
    let (code, comm) = begin(false);
    assert_eq!(code, 7);
    std::thread::sleep(Duration::from_millis(20));
    let mut error = 0;
    assert_eq!((ncclCommGetAsyncError(comm, &mut error), error), (0, 7));
    assert_eq!(ncclCommAbort(comm), 0);
    let (code, comm) = begin(true);
    assert_eq!(code, 1);
    assert_eq!(ncclCommAbort(comm), 0);
    assert_clean();
}

#[test]
fn abort_blocks_and_hangs() {
    let _turn = turn("Abort@1=block:60;Abort@2=hang;Abort@3=error:3");
    let start = Instant::now();
    assert_eq!(ncclCommAbort(join(1, 0, new_id(), true)), 0);
    assert!(start.elapsed() >= Duration::from_millis(60));
    let comm = join(1, 0, new_id(), true);
    std::thread::scope(|scope| {
        let stuck = scope.spawn(move || ncclCommAbort(comm));
        std::thread::sleep(Duration::from_millis(50));
        assert!(!stuck.is_finished());
        assert_eq!(ncclCommAbort(join(1, 0, new_id(), true)), 3);
        assert_eq!(script(""), 0);
        assert_eq!(stuck.join().expect("the thread"), 0);
    });
}

#[test]
fn group_ends_and_revokes_fail() {
    let _turn = turn("GroupEnd@1=error:5;Revoke@*=error:3");
    let comm = join(1, 0, new_id(), false);
    let mut value = 1;
    assert_eq!(ncclGroupStart(), 0);
    assert_eq!(sum_of_one(comm, &mut value), 0);
    assert_eq!(ncclGroupEnd(), 5);
    assert_eq!(settled(comm), 5);
    assert_eq!(ncclCommRevoke(comm, 0), 3);
    assert_eq!(ncclCommAbort(comm), 0);
    assert_clean();
}

#[test]
fn a_revoke_that_never_completes_is_ended_by_abort() {
    let _turn = turn("Revoke@1=hang");
    let comm = join(1, 0, new_id(), false);
    assert_eq!(ncclCommRevoke(comm, 0), 7);
    std::thread::sleep(Duration::from_millis(20));
    let mut error = 0;
    assert_eq!((ncclCommGetAsyncError(comm, &mut error), error), (0, 7));
    assert_eq!(ncclCommAbort(comm), 0);
    assert_clean();
}

#[test]
fn a_mistake_in_the_script_fails_every_call() {
    let _turn = turn("");
    let mut version = 0;
    assert_eq!((ncclGetVersion(&mut version), version), (0, 23203));
    assert_eq!(script("AllReduce@0=hang"), 4);
    assert_eq!(ncclGetVersion(&mut version), 3);
    assert!(last_error().contains("mistake"));
    assert_eq!(script("version=21903"), 0);
    assert_eq!((ncclGetVersion(&mut version), version), (0, 21903));
}

#[test]
fn operations_that_do_nothing() {
    let _turn = turn("");
    let comm = join(1, 0, new_id(), false);
    assert_eq!(script("null-ops"), 0);
    let mut value = 7;
    let before = calls("AllReduce");
    assert_eq!(sum_of_one(comm, &mut value), 0);
    assert_eq!(calls("AllReduce"), before + 1);
    assert_eq!(script("busy-ops:2000000"), 0);
    let start = Instant::now();
    assert_eq!(sum_of_one(comm, &mut value), 0);
    assert!(start.elapsed() >= Duration::from_millis(2));
    assert_eq!(script(""), 0);
    assert_eq!(ncclCommAbort(comm), 0);
    assert_clean();
}

#[test]
fn calls_are_logged_in_order() {
    let _turn = turn("");
    let comm = join(1, 0, new_id(), true);
    assert_eq!(sum_of_one(comm, &mut 1), 0);
    assert_eq!(ncclCommAbort(comm), 0);
    let log = log();
    let names: Vec<&str> = log.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(names, ["GetUniqueId", "CommInitRankConfig", "AllReduce", "CommAbort"]);
    assert!(log.lines().last().is_some_and(|line| line.ends_with(" 0")), "{log}");
    assert_eq!((calls("AllReduce"), calls("Nothing")), (1, u64::MAX));
}

#[test]
fn only_the_named_rank_is_hit() {
    let _turn = turn("AllReduce/1@1=error:1");
    world(2, false, |rank, comm| {
        let mut value = 1;
        assert_eq!(sum_of_one(comm, &mut value), if rank == 1 { 1 } else { 7 });
        assert_eq!(ncclCommAbort(comm), 0);
    });
    assert_clean();
}

#[test]
fn a_smaller_configuration_is_understood() {
    let _turn = turn("");
    for size in [24, 44, 48, 96, 120, 4096] {
        let mut comm = NULL;
        // As large as the largest, so that a stated size beyond ours is nothing but a number.
        let config = Config { size, ..config(false) };
        // SAFETY: places that live through the call; no more than the known size is read.
        let code = unsafe { ncclCommInitRankConfig(&mut comm, 2, new_id(), 0, &config) };
        assert_eq!(code, 7, "blocking is read, or it would wait for the other rank");
        assert_eq!(ncclCommAbort(comm), 0);
    }
    let (mut comm, wrong) = (NULL, Config { magic: 1, ..config(false) });
    // SAFETY: as above.
    assert_eq!(unsafe { ncclCommInitRankConfig(&mut comm, 1, new_id(), 0, &wrong) }, 4);
    assert_eq!(comm, NULL);
}

#[test]
fn properties_honour_the_size() {
    let _turn = turn("");
    let comm = join(1, 0, new_id(), true);
    for size in [16usize, 24, 144, 176, 400] {
        let mut bytes = [0xaau8; 400];
        bytes[..8].copy_from_slice(&size.to_le_bytes());
        bytes[8..12].copy_from_slice(&0xcafe_beefu32.to_le_bytes());
        // SAFETY: as large as is stated.
        assert_eq!(unsafe { ncclCommQueryProperties(comm, bytes.as_mut_ptr().cast()) }, 0);
        assert!(bytes[size..].iter().all(|byte| *byte == 0xaa), "{size}");
        if size >= 24 {
            assert_eq!(bytes[20..24], [1, 0, 0, 0], "one rank");
        }
    }
    assert_eq!(ncclCommDestroy(comm), 0);
}

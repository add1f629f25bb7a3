//! Every operation against a naive reference, ranks as threads, blocking and not.

mod common;
use common::*;
use std::ffi::c_int;

fn input(rank: usize, length: usize) -> Vec<i32> {
    (0..length).map(|index| (rank as i32 + 1) * 1000 + index as i32).collect()
}

fn each_world(body: impl Fn(usize, usize, Comm) + Sync) {
    for ranks in [1, 2, 4] {
        for blocking in [true, false] {
            world(ranks, blocking, |rank, comm| {
                body(rank, ranks, comm);
                assert_eq!(ncclCommDestroy(comm), 0);
            });
        }
    }
    assert_clean();
}

const COUNT: usize = 5;

#[test]
fn collectives_that_reduce() {
    let _turn = turn("");
    each_world(|rank, ranks, comm| {
        let all: Vec<Vec<i32>> = (0..ranks).map(|peer| input(peer, COUNT * ranks)).collect();
        let sum = |index: usize| all.iter().map(|one| one[index]).sum::<i32>();
        let mut out = vec![0; COUNT * ranks];
        let own = &all[rank];
        // SAFETY: buffers of the stated sizes that outlive the operations.
        unsafe {
            let code =
                ncclAllReduce(own.as_ptr().cast(), out.as_mut_ptr().cast(), COUNT, INT, 0, comm, STREAM);
            assert_eq!(done(comm, code), 0);
            assert_eq!(out[..COUNT], (0..COUNT).map(sum).collect::<Vec<_>>());
            let mut place = own.clone();
            let code =
                ncclAllReduce(place.as_ptr().cast(), place.as_mut_ptr().cast(), COUNT, INT, 2, comm, STREAM);
            assert_eq!(done(comm, code), 0);
            assert_eq!(place[..COUNT], input(ranks - 1, COUNT), "in place, maximum");
            out.fill(-1);
            let root = ranks as c_int - 1;
            let code =
                ncclReduce(own.as_ptr().cast(), out.as_mut_ptr().cast(), COUNT, INT, 0, root, comm, STREAM);
            assert_eq!(done(comm, code), 0);
            let expected = if rank == ranks - 1 { (0..COUNT).map(sum).collect() } else { vec![-1; COUNT] };
            assert_eq!(out[..COUNT], expected);
            let code =
                ncclReduceScatter(own.as_ptr().cast(), out.as_mut_ptr().cast(), COUNT, INT, 0, comm, STREAM);
            assert_eq!(done(comm, code), 0);
            assert_eq!(out[..COUNT], (rank * COUNT..(rank + 1) * COUNT).map(sum).collect::<Vec<_>>());
        }
    });
}

#[test]
fn collectives_that_move() {
    let _turn = turn("");
    each_world(|rank, ranks, comm| {
        let all: Vec<Vec<i32>> = (0..ranks).map(|peer| input(peer, COUNT * ranks)).collect();
        let own = &all[rank];
        let mut out = vec![-1; COUNT * ranks];
        let root = ranks - 1;
        let at = root as c_int;
        let block = |peer: usize, index: usize| all[peer][index * COUNT..(index + 1) * COUNT].to_vec();
        let first: Vec<i32> = (0..ranks).flat_map(|peer| block(peer, 0)).collect();
        // SAFETY: buffers of the stated sizes that outlive the operations.
        unsafe {
            let code =
                ncclBroadcast(own.as_ptr().cast(), out.as_mut_ptr().cast(), COUNT, INT, at, comm, STREAM);
            assert_eq!(done(comm, code), 0);
            assert_eq!(out[..COUNT], block(root, 0));
            let mut place = own.clone();
            assert_eq!(done(comm, ncclBcast(place.as_mut_ptr().cast(), COUNT, INT, at, comm, STREAM)), 0);
            assert_eq!(place[..COUNT], block(root, 0));
            let code = ncclAllGather(own.as_ptr().cast(), out.as_mut_ptr().cast(), COUNT, INT, comm, STREAM);
            assert_eq!(done(comm, code), 0);
            assert_eq!(out, first);
            let code = ncclAlltoAll(own.as_ptr().cast(), out.as_mut_ptr().cast(), COUNT, INT, comm, STREAM);
            assert_eq!(done(comm, code), 0);
            assert_eq!(out, (0..ranks).flat_map(|peer| block(peer, rank)).collect::<Vec<_>>());
            out.fill(-1);
            let code = ncclGather(own.as_ptr().cast(), out.as_mut_ptr().cast(), COUNT, INT, at, comm, STREAM);
            assert_eq!(done(comm, code), 0);
            assert_eq!(out, if rank == root { first } else { vec![-1; COUNT * ranks] });
            let code =
                ncclScatter(own.as_ptr().cast(), out.as_mut_ptr().cast(), COUNT, INT, at, comm, STREAM);
            assert_eq!(done(comm, code), 0);
            assert_eq!(out[..COUNT], block(root, rank));
        }
    });
}

#[test]
fn sends_and_receives_in_a_group() {
    let _turn = turn("");
    each_world(|rank, ranks, comm| {
        let own = input(rank, ranks * 70_000);
        let mut out = vec![0; ranks * 70_000];
        assert_eq!(ncclGroupStart(), 0);
        for peer in 0..ranks {
            // SAFETY: buffers of the stated sizes that outlive the operations.
            unsafe {
                let (send, receive) = (own[peer * 70_000..].as_ptr(), out[peer * 70_000..].as_mut_ptr());
                assert_eq!(ncclSend(send.cast(), 70_000, INT, peer as c_int, comm, STREAM), 0);
                assert_eq!(ncclRecv(receive.cast(), 70_000, INT, peer as c_int, comm, STREAM), 0);
            }
        }
        assert_eq!(done(comm, ncclGroupEnd()), 0);
        for peer in 0..ranks {
            let theirs = input(peer, ranks * 70_000);
            assert_eq!(out[peer * 70_000..][..70_000], theirs[rank * 70_000..][..70_000]);
        }
    });
}

#[test]
fn own_operators_multiply_first() {
    let _turn = turn("");
    each_world(|rank, ranks, comm| {
        let (mut op, mut scalar) = (0, (rank + 1) as f32);
        let (own, mut out) = ([2.0f32, 3.0], [0.0f32; 2]);
        // SAFETY: buffers of the stated sizes that outlive the operations.
        unsafe {
            assert_eq!(ncclRedOpCreatePreMulSum(&mut op, (&raw mut scalar).cast(), FLOAT, 1, comm), 0);
            let code =
                ncclAllReduce(own.as_ptr().cast(), out.as_mut_ptr().cast(), 2, FLOAT, op, comm, STREAM);
            assert_eq!(done(comm, code), 0);
        }
        let weights = (ranks * (ranks + 1) / 2) as f32;
        assert_eq!(out, [2.0 * weights, 3.0 * weights]);
        assert_eq!(ncclRedOpDestroy(op, comm), 0);
        assert_eq!(ncclRedOpDestroy(op, comm), 4);
    });
}

#[test]
fn one_thread_drives_all_ranks() {
    let _turn = turn("");
    let mut comms = [NULL; 4];
    // SAFETY: room for four handles.
    assert_eq!(unsafe { ncclCommInitAll(comms.as_mut_ptr(), 4, std::ptr::null()) }, 0, "{}", last_error());
    let inputs: Vec<Vec<i32>> = (0..4).map(|rank| input(rank, COUNT)).collect();
    let mut outputs = vec![vec![0; COUNT]; 4];
    assert_eq!(ncclGroupStart(), 0);
    for ((comm, own), out) in comms.iter().zip(&inputs).zip(&mut outputs) {
        // SAFETY: buffers of the stated sizes that outlive the operations.
        let code = unsafe {
            ncclAllReduce(own.as_ptr().cast(), out.as_mut_ptr().cast(), COUNT, INT, 0, *comm, STREAM)
        };
        assert_eq!(code, 0);
    }
    assert_eq!(ncclGroupEnd(), 0);
    let expected: Vec<i32> = (0..COUNT).map(|index| inputs.iter().map(|one| one[index]).sum()).collect();
    outputs.iter().for_each(|out| assert_eq!(*out, expected));
    comms.iter().for_each(|comm| assert_eq!(ncclCommDestroy(*comm), 0));
    assert_clean();
}

#[test]
fn bad_arguments() {
    let _turn = turn("");
    world(1, true, |_, comm| {
        let mut out = [0i32; 4];
        let buffer: Mut = out.as_mut_ptr().cast();
        // SAFETY: a buffer that outlives the calls, or arguments that are refused.
        unsafe {
            assert_eq!(ncclAllReduce(buffer, buffer, 4, INT, 0, NULL, STREAM), 4);
            assert_eq!(ncclAllReduce(buffer, buffer, 4, 12, 0, comm, STREAM), 4);
            assert_eq!(ncclAllReduce(buffer, buffer, 4, INT, 5, comm, STREAM), 4);
            assert_eq!(ncclAllReduce(buffer, buffer, 4, INT, -1, comm, STREAM), 4);
            assert_eq!(ncclAllReduce(std::ptr::null(), buffer, 4, INT, 0, comm, STREAM), 4);
            assert_eq!(ncclBroadcast(buffer, buffer, 4, INT, 1, comm, STREAM), 4);
            assert_eq!(ncclSend(buffer, 4, INT, -1, comm, STREAM), 4);
            assert_eq!(ncclSend(buffer, 4, INT, 0, comm, STREAM), 5, "to itself, outside a group");
        }
        assert!(last_error().contains("itself"));
        assert_eq!(ncclCommAbort(comm), 0);
    });
    assert_eq!(ncclGroupEnd(), 5);
    assert_clean();
}

//! The engine over the transport with scripted faults.

use super::*;
use crate::sync::Arc;
use crate::transport::loopback;
use crate::types::{Fingerprint, OpKind};
use std::time::{Duration, Instant};

fn fp(count: u64) -> Fingerprint {
    Fingerprint {
        kind: OpKind::PointToPoint,
        dtype: 0,
        redop: Fingerprint::NO_REDOP,
        root: -1,
        seq: 0,
        count,
    }
}

fn far() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

/// Two engines of a world of two.
fn pair() -> (Engine, Engine) {
    let (a, b) = loopback::pair(1 << 16);
    (Engine::new(0, vec![None, Some(Box::new(a))]), Engine::new(1, vec![Some(Box::new(b)), None]))
}

fn post(e: &mut Engine, peer: u32, send: bool, ptr: *mut u8, len: usize) -> Arc<Ticket> {
    let ticket = Arc::new(Ticket::new(1));
    let message = Message { fp: fp(len as u64), ptr, len, peer, send };
    e.post(Operation::Message(message), ticket.clone(), far());
    ticket
}

fn send(e: &mut Engine, peer: u32, data: &[u8]) -> Arc<Ticket> {
    post(e, peer, true, data.as_ptr().cast_mut(), data.len())
}

fn recv(e: &mut Engine, peer: u32, data: &mut [u8]) -> Arc<Ticket> {
    post(e, peer, false, data.as_mut_ptr(), data.len())
}

#[test]
fn what_finished_before_an_error_counts_as_movement() {
    let (mut a, mut b) = pair();
    let sent = send(&mut a, 1, b"x");
    a.progress();
    assert!(sent.is_done());
    drop(a);
    let (mut x, mut y) = ([0], [0]);
    let (first, second) = (recv(&mut b, 0, &mut x), recv(&mut b, 0, &mut y));
    let (moved, trouble) = b.progress();
    assert!(first.is_done() && !second.is_done());
    assert!(matches!(trouble, Some(Trouble::Closed(0))));
    assert!(moved, "another thread may wait for the first");
}

#[test]
fn a_mismatch_with_a_peer_that_has_left_is_still_one() {
    let (mut a, mut b) = pair();
    send(&mut a, 1, b"xyz");
    a.progress();
    drop(a);
    let mut x = [0];
    let ticket = recv(&mut b, 0, &mut x);
    let left = crate::error::Error::usage("it left");
    match b.give_up_peer(0, &left) {
        Err(Trouble::Mismatch { peer: 0, mine, theirs, .. }) => {
            assert_eq!((mine.count, theirs.count), (1, 3))
        }
        other => panic!("{other:?}"),
    }
    b.end(&left);
    assert!(ticket.is_done());
}

#[test]
fn a_mismatch_with_oneself_does_not_block_what_follows() {
    let mut e = Engine::new(0, vec![None]);
    let mut x = [0, 0];
    let (s, r) = (send(&mut e, 0, b"x"), recv(&mut e, 0, &mut x));
    let barrier = Arc::new(Ticket::new(1));
    let shape = crate::collective::Shape {
        kind: OpKind::Barrier,
        nranks: 1,
        rank: 0,
        root: 0,
        count: 0,
        dtype: crate::types::DataType::Int8,
        reduction: crate::types::Reduction::Builtin(crate::types::RedOp::Sum),
        in_place: true,
    };
    let fp = Fingerprint { kind: OpKind::Barrier, ..fp(0) };
    let (input, output) = (std::ptr::null(), std::ptr::null_mut());
    e.post(Operation::Collective { shape, input, output, fp }, barrier.clone(), far());
    e.progress();
    assert!(s.result().is_err() && r.result().is_err());
    assert!(barrier.is_done());
    assert_eq!(barrier.result(), Ok(()));
}

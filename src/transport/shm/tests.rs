//! The conformance suite on shared memory, with and without direct reads, and with buffers in regions.

use super::endpoint::{ShmEndpoint, Wiring};
use super::neighbour::Neighbour;
use super::region::{self, View};
use super::segment::Segment;
use crate::transport::conformance::driver::{Patience, Registered, fp, pattern, with_registered};
use crate::transport::{Endpoint, EndpointError, Progress, RecvMsg, SendMsg, Sink};
use std::ptr::NonNull;

/// Two ends in one process.
pub fn pair(direct: bool) -> (ShmEndpoint, ShmEndpoint) {
    let (segment, _) = Segment::create(2, true).unwrap();
    let neighbour = Neighbour::own();
    let wiring = |me, peer| Wiring {
        segment: segment.clone(),
        me,
        peer,
        direct,
        doorbell: None,
        neighbour: neighbour.clone(),
    };
    segment.introduce(0);
    segment.introduce(1);
    (ShmEndpoint::new(wiring(0, 1)), ShmEndpoint::new(wiring(1, 0)))
}

fn boxed(direct: bool) -> (Box<dyn Endpoint>, Box<dyn Endpoint>) {
    let (a, b) = pair(direct);
    (Box::new(a), Box::new(b))
}

#[test]
fn conforms_with_direct_reads() {
    crate::transport::conformance::suite(&|| boxed(true));
}

#[test]
fn conforms_through_the_ring() {
    crate::transport::conformance::suite(&|| boxed(false));
}

fn registered(outgoing: bool, incoming: bool) {
    let registered = Registered { outgoing, incoming };
    with_registered(registered, || crate::transport::conformance::suite(&|| boxed(outgoing != incoming)));
}

#[test]
fn conforms_from_regions() {
    registered(true, false);
}

#[test]
fn conforms_into_regions() {
    registered(false, true);
}

#[test]
fn conforms_between_regions() {
    registered(true, true);
}

/// A message between two regions, with what has to be done for it; the bytes that arrive.
struct Long {
    from: NonNull<u8>,
    to: NonNull<u8>,
    len: usize,
    out: SendMsg,
    inn: RecvMsg,
}

impl Long {
    fn new(len: usize) -> Long {
        let [from, to] = [(); 2].map(|()| region::allocate(len, true).unwrap());
        // SAFETY: as much as was asked for, and nobody else's.
        unsafe { std::slice::from_raw_parts_mut(from.as_ptr(), len) }.copy_from_slice(&pattern(1, len));
        let out = SendMsg::new(fp(0), from.as_ptr(), len);
        Long { from, to, len, out, inn: RecvMsg::new(fp(0), Sink::Copy(to.as_ptr()), len) }
    }

    fn arrived(&self) -> &[u8] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts(self.to.as_ptr(), self.len) }
    }
}

impl Drop for Long {
    fn drop(&mut self) {
        assert!(region::release(self.from.as_ptr()) && region::release(self.to.as_ptr()));
    }
}

#[test]
fn a_sender_that_waits_takes_its_share() {
    for len in [8 << 20, (9 << 20) + 5] {
        let (mut a, mut b) = pair(true);
        let mut long = Long::new(len);
        // SAFETY: the buffers live as long as the endpoints use them.
        unsafe {
            assert_eq!(a.send(&mut long.out).unwrap(), Progress::Posted);
            assert_eq!(b.recv(&mut long.inn).unwrap(), Progress::Some);
        }
        let begun = long.inn.offset;
        assert!(begun > 0 && begun < len / 2);
        // All that is left but for the edges, piece by piece.
        for _ in 0..1000 {
            assert_eq!(a.reap().unwrap(), 0);
        }
        let mut patience = Patience::default();
        // SAFETY: as above.
        while unsafe { b.recv(&mut long.inn).unwrap() } != Progress::Done {
            patience.after(false);
        }
        assert_eq!(a.reap().unwrap(), 1);
        assert!(long.arrived() == &pattern(1, len)[..], "{len}");
    }
}

#[test]
fn a_sender_that_stopped_in_the_middle_of_a_piece_reaches_the_buffer_no_more() {
    let (mut a, mut b) = pair(true);
    let mut long = Long::new(8 << 20);
    // SAFETY: the buffers live as long as the endpoints use them.
    unsafe {
        assert_eq!(a.send(&mut long.out).unwrap(), Progress::Posted);
        assert_eq!(b.recv(&mut long.inn).unwrap(), Progress::Some);
    }
    let place = a.stop_in_a_piece();
    let mapping = Neighbour::own().mapping(place.id).unwrap();
    b.cancel();
    // Nobody else finds the region any more, and its buffer is memory still.
    assert!(View::default().find(&Neighbour::own(), long.to.as_ptr(), 1).is_none());
    // SAFETY: memory of its own.
    unsafe { long.to.write_bytes(7, long.len) };
    drop(mapping);
    drop((a, b));
}

#[test]
fn what_a_sender_says_of_regions_is_checked() {
    let base = region::allocate(8192, true).unwrap();
    let place = View::default().find(&Neighbour::own(), base.as_ptr(), 1).unwrap();
    for [id, at] in [[place.id, 4097], [place.id, u64::MAX], [place.id + 1000, 0], [u64::MAX, 0]] {
        let (mut a, mut b) = pair(true);
        let mut out = SendMsg::new(fp(0), base.as_ptr(), 4096);
        a.announce_region(&mut out, [id, at]);
        let mut to = vec![0; 4096];
        let mut inn = RecvMsg::new(fp(0), Sink::Copy(to.as_mut_ptr()), 4096);
        // SAFETY: the buffers live as long as the endpoints use them.
        let got = unsafe { b.recv(&mut inn) };
        assert!(matches!(got, Err(EndpointError::Corrupt(_))), "{id} {at}: {got:?}");
        // The same from one that has given up, and freed what it speaks of, is no offence.
        let (mut a, mut b) = pair(true);
        let mut out = SendMsg::new(fp(0), base.as_ptr(), 4096);
        a.announce_region(&mut out, [u64::MAX, 0]);
        a.cancel();
        let mut inn = RecvMsg::new(fp(0), Sink::Copy(to.as_mut_ptr()), 4096);
        // SAFETY: as above.
        let got = unsafe { b.recv(&mut inn) };
        assert!(matches!(got, Err(EndpointError::Closed)), "{got:?}");
    }
    assert!(region::release(base.as_ptr()));
}

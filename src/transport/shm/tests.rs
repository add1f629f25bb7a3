//! The conformance suite on shared memory, with and without direct reads, and with buffers in regions.

use super::endpoint::{ShmEndpoint, Wiring};
use super::neighbour::Neighbour;
use super::region::{self, View};
use super::ring::{Receiver, Sender, TAG_DATA};
use super::segment::Segment;
use crate::transport::conformance::driver::{Registered, fp, with_registered};
use crate::transport::{Endpoint, EndpointError, RecvMsg, SendMsg, Sink};

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

#[test]
fn messages_tell_what_has_been_received_of_the_opposite_ring() {
    let (segment, _) = Segment::create(2, true).unwrap();
    let (mut there, mut back) = (Sender::new(segment.clone(), 0, 1), Sender::new(segment.clone(), 1, 0));
    let (mut end, mut origin) = (Receiver::new(segment.clone(), 0, 1), Receiver::new(segment, 1, 0));
    let publish = |sender: &mut Sender, len: usize| {
        let fragment = sender.reserve(len, 0).unwrap();
        sender.write_first(&fp(0), len as u64);
        sender.publish(&fragment, TAG_DATA);
    };
    for round in 0..1000u64 {
        publish(&mut there, 100);
        // Nonsense says nothing.
        for nonsense in [round + 2, round + 100, u64::MAX, 1 << 47, 1 << 48] {
            there.hear(nonsense);
            assert!(there.is_ahead());
        }
        assert_eq!((end.peek(), end.first().unwrap().total), (TAG_DATA, 100));
        back.say(end.release());
        // The mark is not looked at.
        end.control().head.store(round / 2, std::sync::atomic::Ordering::Relaxed);
        publish(&mut back, 8);
        assert_eq!(origin.peek(), TAG_DATA);
        let first = origin.first().unwrap();
        assert_eq!((first.released, first.total), (round + 1, 8));
        origin.release();
        there.hear(first.released);
    }
}

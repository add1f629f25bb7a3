//! The conformance suite on shared memory, with and without direct reads.

use super::endpoint::{ShmEndpoint, Wiring};
use super::neighbour::Neighbour;
use super::segment::Segment;
use crate::transport::Endpoint;

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

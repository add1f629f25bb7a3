//! The conformance suite over 127.0.0.1, and what only a raw socket on the other side can provoke.

use super::*;
use crate::transport::conformance::driver::{Patience, Peer, fill, fp, pattern};
use crate::transport::conformance::{random_schedule, suite};
use std::io::{Read, Write};
use std::net::TcpListener;

/// A connection; `buffers` limits what the kernel holds for it.
fn connect(buffers: Option<u32>) -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    if let Some(bytes) = buffers {
        stream::set_buffers(listener.as_fd(), bytes, bytes).unwrap();
    }
    let a = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    if let Some(bytes) = buffers {
        stream::set_buffers(a.as_fd(), bytes, bytes).unwrap();
    }
    (a, listener.accept().unwrap().0)
}

fn ends(buffers: Option<u32>) -> (Box<dyn Endpoint>, Box<dyn Endpoint>) {
    let (a, b) = connect(buffers);
    (Box::new(TcpEndpoint::new(a).unwrap()), Box::new(TcpEndpoint::new(b).unwrap()))
}

/// An endpoint and a plain socket that plays its peer.
fn against_raw() -> (Peer, TcpStream) {
    let (a, raw) = connect(None);
    raw.set_nodelay(true).unwrap();
    (Peer::new(Box::new(TcpEndpoint::new(a).unwrap())), raw)
}

fn header(seq: u32, len: usize) -> Vec<u8> {
    Header { fp: fp(seq), len: len as u64 }.encode().to_vec()
}

fn receive_all(peer: &mut Peer) {
    let mut patience = Patience::default();
    while peer.pending().1 > 0 {
        patience.after(peer.poll_recv().unwrap() != Progress::None);
    }
}

#[test]
fn conforms() {
    suite(&|| ends(None));
}

#[test]
fn random_schedules_with_tiny_buffers() {
    for seed in 0..8 {
        random_schedule(&|| ends(Some(16384)), seed, 30, 60_000);
    }
}

#[test]
fn wire_form_is_header_then_payload() {
    let (mut a, mut raw) = against_raw();
    a.send(fp(3), pattern(1, 10));
    assert!(fill(&mut a));
    let mut got = vec![0; Header::SIZE + 10];
    raw.read_exact(&mut got).unwrap();
    assert_eq!(got, [header(3, 10), pattern(1, 10).to_vec()].concat());
}

#[test]
fn stream_may_be_cut_anywhere() {
    let (mut a, mut raw) = against_raw();
    let sizes = [5, 0, 40, 3];
    let mut wire = Vec::new();
    for (i, len) in (0..).zip(sizes) {
        a.recv(fp(i), len);
        wire.extend(header(i, len));
        wire.extend_from_slice(&pattern(u64::from(i), len));
    }
    for byte in wire {
        raw.write_all(&[byte]).unwrap();
        let mut patience = Patience::default();
        while a.poll_recv().unwrap() == Progress::None {
            patience.after(false);
        }
    }
    receive_all(&mut a);
    for (i, len) in (0..).zip(sizes) {
        assert_eq!(a.take(), *pattern(i, len));
    }
}

#[test]
fn end_of_stream_is_closed_wherever_it_comes() {
    let wire = [header(0, 20_000), pattern(1, 20_000).to_vec()].concat();
    for cut in [0, 1, 31, 32, 33, 10_000, wire.len() - 1] {
        let (mut a, mut raw) = against_raw();
        a.recv(fp(0), 20_000);
        raw.write_all(&wire[..cut]).unwrap();
        drop(raw);
        assert!(matches!(a.recv_error(), EndpointError::Closed), "after {cut} bytes");
    }
}

#[test]
fn messages_before_the_end_are_delivered() {
    let (mut a, mut raw) = against_raw();
    for i in 0..5 {
        raw.write_all(&header(i, 100)).unwrap();
        raw.write_all(&pattern(1, 100)).unwrap();
    }
    drop(raw);
    (0..6).for_each(|i| a.recv(fp(i), 100));
    assert!(matches!(a.recv_error(), EndpointError::Closed));
    assert_eq!(a.received.len(), 5);
}

#[test]
fn drop_does_not_overtake_what_was_sent() {
    let (a, b) = ends(Some(16 << 10));
    let (mut a, mut b) = (Peer::new(a), Peer::new(b));
    // Unread when a goes, which by itself would reset the connection.
    b.send(fp(0), pattern(2, 500));
    assert!(fill(&mut b));
    let count = 500;
    (0..count).for_each(|i| a.send(fp(i), pattern(1, 1000)));
    assert!(!fill(&mut a), "more than the kernel holds");
    let done = count as usize - a.pending().0;
    drop(a);
    (0..count).for_each(|i| b.recv(fp(i), 1000));
    assert!(matches!(b.recv_error(), EndpointError::Closed));
    assert_eq!(b.received.len(), done);
}

#[test]
fn reset_is_closed_in_both_directions_after_delivery() {
    let (mut a, mut raw) = against_raw();
    a.send(fp(0), pattern(1, 100));
    assert!(fill(&mut a));
    raw.write_all(&header(0, 4)).unwrap();
    raw.write_all(b"last").unwrap();
    // Unread bytes turn the close into a reset.
    drop(raw);
    a.send(fp(1), pattern(1, 100));
    let mut patience = Patience::default();
    let err = loop {
        match a.poll_send() {
            Ok(progress) => {
                a.send(fp(2), pattern(1, 100));
                patience.after(progress != Progress::None);
            }
            Err(err) => break err,
        }
    };
    assert!(matches!(err, EndpointError::Closed), "{err:?}");
    a.recv(fp(0), 4);
    receive_all(&mut a);
    assert_eq!(a.take(), b"last");
    a.recv(fp(1), 4);
    assert!(matches!(a.recv_error(), EndpointError::Closed));
    a.provoke();
}

#[test]
fn garbage_is_corrupt_and_touches_nothing() {
    let (mut a, mut raw) = against_raw();
    a.recv(fp(0), 64);
    raw.write_all(&[0x16; 64]).unwrap();
    for _ in 0..3 {
        assert!(matches!(a.recv_error(), EndpointError::Corrupt(_)));
    }
    assert!(a.untouched());
    a.provoke();
}

#[test]
fn idle_endpoints_hold_no_memory() {
    let (a, mut raw) = connect(None);
    let mut a = TcpEndpoint::new(a).unwrap();
    let mut buf = [0u8; 8];
    for i in 0..2 {
        raw.write_all(&header(i, 8)).unwrap();
        raw.write_all(b"8 bytes.").unwrap();
    }
    raw.flush().unwrap();
    for i in 0..3 {
        let mut msg = RecvMsg::new(fp(i), Sink::Copy(buf.as_mut_ptr()), 8);
        let mut patience = Patience::default();
        loop {
            // SAFETY: `buf` outlives the message.
            match unsafe { a.recv(&mut msg) }.unwrap() {
                Progress::Done => break,
                Progress::None if i == 2 => break,
                progress => patience.after(progress != Progress::None),
            }
        }
        assert!(i == 0 || !a.inbox.holds_memory());
    }
    let mut msg = SendMsg::new(fp(0), buf.as_ptr(), 8);
    // SAFETY: `buf` outlives the message.
    assert_eq!(unsafe { a.send(&mut msg) }.unwrap(), Progress::Posted);
    assert!(a.outbox.holds_memory());
    assert_eq!(a.reap().unwrap(), 1);
    assert!(!a.outbox.holds_memory());
    // Not dropped by accident before the message is given up.
    a.cancel();
}

#[test]
fn small_messages_go_out_together() {
    let (mut a, mut raw) = against_raw();
    for i in 0..3 {
        a.send(fp(i), pattern(1, 10));
        assert_eq!(a.poll_send().unwrap(), Progress::Posted);
    }
    raw.set_nonblocking(true).unwrap();
    assert_eq!(raw.peek(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    assert!(a.poll_reap().unwrap());
    assert_eq!(a.pending().0, 0);
    raw.set_nonblocking(false).unwrap();
    let mut got = vec![0; 3 * (Header::SIZE + 10)];
    raw.read_exact(&mut got).unwrap();
    let message = |i| [header(i, 10), pattern(1, 10).to_vec()].concat();
    assert_eq!(got, [message(0), message(1), message(2)].concat());
}

#[test]
fn a_long_message_takes_small_ones_along() {
    let (mut a, mut raw) = against_raw();
    let long = outbox::SMALL + 1;
    a.send(fp(0), pattern(1, 10));
    a.send(fp(1), pattern(2, long));
    assert_eq!(a.poll_send().unwrap(), Progress::Posted);
    assert_eq!(a.poll_send().unwrap(), Progress::Done);
    let mut got = vec![0; 2 * Header::SIZE + 10 + long];
    raw.read_exact(&mut got).unwrap();
    let whole = [header(0, 10), pattern(1, 10).to_vec(), header(1, long), pattern(2, long).to_vec()];
    assert_eq!(got, whole.concat());
    assert!(a.poll_reap().unwrap());
    assert_eq!(a.pending().0, 0);
}

#[test]
fn finish_sends_what_was_held_back() {
    let (mut a, mut raw) = against_raw();
    a.send(fp(0), pattern(1, 10));
    assert_eq!(a.poll_send().unwrap(), Progress::Posted);
    a.end.finish();
    let mut got = Vec::new();
    raw.read_to_end(&mut got).unwrap();
    assert_eq!(got, [header(0, 10), pattern(1, 10).to_vec()].concat());
    assert!(a.poll_reap().unwrap());
}

#[test]
fn finish_waits_for_room() {
    let (a, b) = ends(Some(16 << 10));
    let (mut a, mut b) = (Peer::new(a), Peer::new(b));
    let count = 500;
    (0..count).for_each(|i| a.send(fp(i), pattern(1, 1000)));
    assert!(!fill(&mut a), "more than the kernel holds");
    let posted = count as usize - a.unsent();
    a.end.finish();
    (0..count).for_each(|i| b.recv(fp(i), 1000));
    let mut patience = Patience::default();
    while b.received.len() < posted {
        // Only what has been accepted before; the rest is refused.
        let moved = a.poll_reap().unwrap();
        patience.after(moved | (b.poll_recv().unwrap() != Progress::None));
    }
    assert!(matches!(b.recv_error(), EndpointError::Closed));
}

#[test]
fn misuse_is_an_error() {
    let (a, _raw) = connect(None);
    let mut a = TcpEndpoint::new(a).unwrap();
    let data = pattern(1, 4 << 20);
    let mut one = SendMsg::new(fp(0), data.as_ptr(), data.len());
    let mut two = SendMsg::new(fp(1), data.as_ptr(), data.len());
    // SAFETY: `data` outlives both messages.
    unsafe {
        assert!(matches!(a.send(&mut one), Ok(Progress::Some)));
        assert!(matches!(a.send(&mut two), Err(EndpointError::System(..))));
    }
}

#[test]
fn congestion_control_is_chosen_by_name() {
    let (a, _b) = connect(None);
    let a = TcpEndpoint::new(a).unwrap();
    // Linux always has this one.
    a.set_congestion("reno").unwrap();
    assert!(a.set_congestion("no-such-algorithm").is_err());
}

//! What every `Endpoint` must do: one suite that all transports pass.
//!
//! Both ends live in one thread that polls them in turn, so that whatever needs the peer to run at the same time
//! shows as a hang; one case uses two threads.

pub mod driver;

use crate::transport::{Endpoint, EndpointError, Progress};
use crate::types::OpKind;
use driver::{Patience, Peer, Rng, drive, fill, fp, pattern};

/// Makes two connected endpoints.
pub type Make<'a> = &'a dyn Fn() -> (Box<dyn Endpoint>, Box<dyn Endpoint>);

type Case = fn(Make<'_>);

const SIZES: [usize; 18] = [
    0,
    1,
    7,
    8,
    31,
    32,
    33,
    63,
    64,
    65,
    4095,
    4096,
    4097,
    (64 << 10) - 1,
    64 << 10,
    (64 << 10) + 1,
    (1 << 20) + 3,
    LARGE,
];
/// More than any transport buffers by itself at the first call.
const LARGE: usize = 9 << 20;

/// Every case.
pub fn suite(make: Make<'_>) {
    let cases: [(&str, Case); 17] = [
        ("sizes", sizes),
        ("sends ahead", sends_ahead),
        ("many small messages", many_small),
        ("both directions at once", both_directions),
        ("two threads", two_threads),
        ("reducing sinks", reducing_sinks),
        ("mismatch", mismatch),
        ("mismatch behind good messages", late_mismatch),
        ("back-pressure", back_pressure),
        ("a blocked direction", blocked_direction),
        ("finish", finish),
        ("drop", dropped),
        ("cancel by the sender", cancel_by_sender),
        ("cancel half-way", cancel_half_way),
        ("cancel by the receiver", cancel_by_receiver),
        ("calls after cancel", calls_after_cancel),
        ("random schedules", |make| (0..6).for_each(|seed| random_schedule(make, seed, 60, 300_000))),
    ];
    for (name, case) in cases {
        // Shown only when the test fails.
        println!("case: {name}");
        case(make);
    }
}

fn sizes(make: Make<'_>) {
    let (mut a, mut b) = Peer::pair(make);
    for (i, len) in (0..).zip(SIZES) {
        let data = pattern(u64::from(i), len);
        a.send(fp(i), data.clone());
        b.recv(fp(i), len);
        drive(&mut a, &mut b);
        assert!(b.take() == *data, "{len} bytes");
    }
}

fn sends_ahead(make: Make<'_>) {
    let (mut a, mut b) = Peer::pair(make);
    let mut rng = Rng(42);
    let messages: Vec<_> = (0..60)
        .map(|i| {
            let size = SIZES[rng.below(SIZES.len() - 1)];
            (fp(i), pattern(u64::from(i), size))
        })
        .collect();
    for (fp, data) in &messages {
        a.send(*fp, data.clone());
    }
    fill(&mut a);
    for (fp, data) in &messages {
        b.recv(*fp, data.len());
    }
    drive(&mut a, &mut b);
    for (fp, data) in &messages {
        assert!(b.take() == **data, "{fp}");
    }
}

fn many_small(make: Make<'_>) {
    let (mut a, mut b) = Peer::pair(make);
    let count = 10_000;
    for i in 0..count {
        a.send(fp(i), pattern(u64::from(i), i as usize % 40));
        b.recv(fp(i), i as usize % 40);
    }
    drive(&mut a, &mut b);
    for i in 0..count {
        assert!(b.take() == *pattern(u64::from(i), i as usize % 40), "message {i}");
    }
}

fn both_directions(make: Make<'_>) {
    let (mut a, mut b) = Peer::pair(make);
    let (x, y) = (pattern(1, LARGE), pattern(2, LARGE));
    // Neither side reads before its own sends are stuck.
    a.send(fp(0), x.clone());
    b.send(fp(0), y.clone());
    fill(&mut a);
    fill(&mut b);
    a.recv(fp(0), LARGE);
    b.recv(fp(0), LARGE);
    drive(&mut a, &mut b);
    assert!(a.take() == *y && b.take() == *x);
}

fn two_threads(make: Make<'_>) {
    let (mut a, mut b) = Peer::pair(make);
    let sizes = [0, 5, 100, 70_000, 1, 3 << 20, 4096, 17];
    let run = move |peer: &mut Peer, mine: u64, theirs: u64| {
        for round in 0..20 {
            for (i, len) in (0..).zip(sizes) {
                let seq = round * 100 + i;
                peer.send(fp(seq), pattern(mine + u64::from(i), len));
                peer.recv(fp(seq), len);
            }
            let mut patience = Patience::default();
            while peer.pending() != (0, 0) {
                patience.after(peer.poll().expect("an end"));
            }
            for (i, len) in (0..).zip(sizes) {
                assert!(peer.take() == *pattern(theirs + i, len), "round {round}, {len} bytes");
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| run(&mut a, 1000, 2000));
        run(&mut b, 2000, 1000);
    });
}

macro_rules! add_kernel {
    ($name:ident, $t:ty) => {
        /// Sums without assuming alignment.
        unsafe fn $name(dst: *mut u8, src: *const u8, count: usize) {
            for i in 0..count {
                // SAFETY: both hold `count` elements, by the contract of ReduceFn.
                unsafe {
                    let (dst, src) = (dst.cast::<$t>().add(i), src.cast::<$t>().add(i));
                    dst.write_unaligned(dst.read_unaligned() + src.read_unaligned());
                }
            }
        }
    };
}
add_kernel!(add_f32, f32);
add_kernel!(add_f64, f64);

fn reducing_sinks(make: Make<'_>) {
    let (mut a, mut b) = Peer::pair(make);
    for (i, count) in (0u32..).zip([0usize, 1, 3, 17, 1023, 4097, 16_385, 300_001]) {
        // Whole numbers, so that sums are exact.
        let ours = |j: usize| (j % 1000) as f32;
        let theirs = |j: usize| (j % 777 + i as usize) as f32;
        let sent: Vec<u8> = (0..count).flat_map(|j| theirs(j).to_ne_bytes()).collect();
        let initial: Vec<u8> = (0..count).flat_map(|j| ours(j).to_ne_bytes()).collect();
        let sum: Vec<u8> = (0..count).flat_map(|j| (ours(j) + theirs(j)).to_ne_bytes()).collect();
        a.send(fp(2 * i), sent.into());
        b.recv_reduce(fp(2 * i), &initial, add_f32, 4);

        let sent64: Vec<u8> = (0..count).flat_map(|j| f64::from(theirs(j)).to_ne_bytes()).collect();
        let initial64: Vec<u8> = (0..count).flat_map(|j| f64::from(ours(j)).to_ne_bytes()).collect();
        let sum64: Vec<u8> = (0..count).flat_map(|j| f64::from(ours(j) + theirs(j)).to_ne_bytes()).collect();
        a.send(fp(2 * i + 1), sent64.into());
        b.recv_reduce(fp(2 * i + 1), &initial64, add_f64, 8);

        drive(&mut a, &mut b);
        assert!(b.take() == sum, "{count} x f32");
        assert!(b.take() == sum64, "{count} x f64");
    }
}

fn mismatch(make: Make<'_>) {
    let ours = fp(5);
    let kinds = [
        crate::types::Fingerprint { kind: OpKind::AllReduce, ..ours },
        crate::types::Fingerprint { dtype: 3, ..ours },
        crate::types::Fingerprint { redop: 0, ..ours },
        crate::types::Fingerprint { root: 1, ..ours },
        crate::types::Fingerprint { seq: 6, ..ours },
        crate::types::Fingerprint { count: 8, ..ours },
    ];
    for len in [0usize, 100, 2 << 20] {
        let lens = [len + 1, len.saturating_sub(1)];
        let cases = kinds.iter().map(|fp| (*fp, len)).chain(lens.map(|l| (ours, l)));
        for (theirs, their_len) in cases.filter(|c| *c != (ours, len)) {
            let (mut a, mut b) = Peer::pair(make);
            a.send(theirs, pattern(1, their_len));
            b.recv(ours, len);
            fill(&mut a);
            for _ in 0..3 {
                match b.recv_error() {
                    EndpointError::Mismatch { theirs: got, their_len: got_len } => {
                        assert_eq!((got, got_len), (theirs, their_len as u64));
                    }
                    other => panic!("{theirs} of {their_len} bytes: {other:?}"),
                }
            }
            assert!(b.untouched(), "{theirs} of {their_len} bytes");
            a.end.cancel();
            b.provoke();
            assert!(b.untouched());
        }
    }
}

fn late_mismatch(make: Make<'_>) {
    let (mut a, mut b) = Peer::pair(make);
    for i in 0..10 {
        a.send(fp(i), pattern(1, 50));
        b.recv(fp(if i == 7 { 70 } else { i }), 50);
    }
    fill(&mut a);
    match b.recv_error() {
        EndpointError::Mismatch { theirs, .. } => assert_eq!(theirs, fp(7)),
        other => panic!("{other:?}"),
    }
    assert_eq!((b.received.len(), b.untouched()), (7, true));
    a.end.cancel();
}

fn back_pressure(make: Make<'_>) {
    let (mut a, mut b) = Peer::pair(make);
    let data = pattern(3, 1000);
    let mut sent = 0;
    loop {
        (0..100).for_each(|i| a.send(fp(sent + i), data.clone()));
        sent += 100;
        if !fill(&mut a) {
            break;
        }
        assert!(sent < 1_000_000, "the sender is never held back");
    }
    (0..sent).for_each(|i| b.recv(fp(i), 1000));
    drive(&mut a, &mut b);
    assert_eq!(b.received.len(), sent as usize);
    assert!(b.received.iter().all(|got| *got == *data));
}

fn blocked_direction(make: Make<'_>) {
    let (mut a, mut b) = Peer::pair(make);
    let data = pattern(4, LARGE);
    (0..4).for_each(|i| a.send(fp(i), data.clone()));
    fill(&mut a);
    // b never receives that, and talks to a meanwhile.
    for i in 0..100 {
        b.send(fp(i), pattern(u64::from(i), 3000));
        a.recv(fp(i), 3000);
    }
    let mut patience = Patience::default();
    while a.pending().1 > 0 || b.pending().0 > 0 {
        let moved = a.poll().expect("one end");
        patience.after(moved | b.poll().expect("the other end"));
    }
    assert_eq!(a.received.len(), 100);
    a.end.cancel();
}

fn finish(make: Make<'_>) {
    let (mut a, mut b) = Peer::pair(make);
    let sizes = [10, 0, 5000, 40, 200_000];
    for (i, len) in (0..).zip(sizes) {
        a.send(fp(i), pattern(u64::from(i), len));
    }
    let mut patience = Patience::default();
    // The last one may need a reader; none may be left in part.
    for (i, len) in (0..).zip(sizes) {
        b.recv(fp(i), len);
    }
    while a.unsent() > 0 {
        let moved = a.poll_send().expect("a sends") != Progress::None;
        patience.after(moved | (b.poll_recv().expect("b receives") != Progress::None));
    }
    a.end.finish();
    a.end.finish();
    drive(&mut a, &mut b);
    for (i, len) in (0..).zip(sizes) {
        assert!(b.take() == *pattern(i, len), "{len} bytes");
    }
    // The way back is open.
    b.send(fp(0), pattern(9, 100_000));
    a.recv(fp(0), 100_000);
    drive(&mut a, &mut b);
    assert!(a.take() == *pattern(9, 100_000));

    b.recv(fp(99), 10);
    for _ in 0..3 {
        assert!(matches!(b.recv_error(), EndpointError::Closed));
    }
    assert!(b.untouched());
    a.send(fp(99), pattern(0, 1));
    assert!(a.poll_send().is_err(), "a send after finish");
    b.provoke();
    a.provoke();
}

fn dropped(make: Make<'_>) {
    let (mut a, mut b) = Peer::pair(make);
    // What a never reads must not cost b anything.
    b.send(fp(0), pattern(1, 500));
    assert!(fill(&mut b));
    for i in 0..100 {
        a.send(fp(i), pattern(u64::from(i), 20));
    }
    assert!(fill(&mut a), "2 KiB of small messages find room");
    b.recv(fp(0), 20);
    let mut patience = Patience::default();
    while b.pending().1 > 0 {
        patience.after(b.poll().expect("b") | a.poll_reap().expect("a"));
    }
    while a.pending().0 > 0 {
        // Transports that post even small messages may still need the reader.
        b.recv(fp(u32::try_from(b.received.len()).unwrap()), 20);
        drive_receiver(&mut a, &mut b);
    }
    drop(a);
    let first = u32::try_from(b.received.len()).unwrap();
    (first..=100).for_each(|i| b.recv(fp(i), 20));
    let mut patience = Patience::default();
    while b.received.len() < 100 {
        patience.after(b.poll_recv().expect("what was sent before") != Progress::None);
    }
    assert!(matches!(b.recv_error(), EndpointError::Closed));
    for i in 0..100 {
        assert!(b.take() == *pattern(i, 20), "message {i}");
    }
    // Sending to nobody fails, sooner or later, and harms nobody.
    for i in 1..2000 {
        b.send(fp(i), pattern(1, 5000));
    }
    let mut patience = Patience::default();
    while let Ok(progress) = b.poll_send() {
        patience.after(progress != Progress::None);
    }
    b.provoke();
}

fn drive_receiver(a: &mut Peer, b: &mut Peer) {
    let mut patience = Patience::default();
    while b.pending().1 > 0 {
        patience.after(b.poll_recv().expect("b") != Progress::None);
    }
    a.poll_reap().expect("a");
}

/// After `a` has cancelled a message that `b` waits for, `b` fails and has nothing that was written later.
fn check_cancelled(mut a: Peer, mut b: Peer, data: crate::sync::Arc<Vec<u8>>, keep_end: bool) {
    a.end.cancel();
    a.end.cancel();
    let expected = data.to_vec();
    drop(data);
    // The buffer is the caller's again.
    a.scribble();
    if !keep_end {
        drop(a);
    }
    let _err = b.recv_error();
    let (offset, buf) = b.under_way().expect("still posted");
    assert!(buf[..offset] == expected[..offset]);
    assert!(b.poll_recv().is_err());
    b.provoke();
}

fn cancel_by_sender(make: Make<'_>) {
    for keep_end in [true, false] {
        let (mut a, mut b) = Peer::pair(make);
        let data = pattern(6, LARGE);
        a.send(fp(0), data.clone());
        assert_ne!(a.poll_send().expect("a"), Progress::Done);
        b.recv(fp(0), LARGE);
        check_cancelled(a, b, data, keep_end);
    }
}

fn cancel_half_way(make: Make<'_>) {
    for keep_end in [true, false] {
        let (mut a, mut b) = Peer::pair(make);
        let data = pattern(7, LARGE);
        // Messages that were done before do not stand in the way.
        a.send(fp(0), pattern(1, 100));
        b.recv(fp(0), 100);
        drive(&mut a, &mut b);
        a.send(fp(1), data.clone());
        b.recv(fp(1), LARGE);
        let mut patience = Patience::default();
        while b.under_way().is_some_and(|(offset, _)| offset == 0) {
            let moved = a.poll_send().expect("a") != Progress::None;
            patience.after(moved | (b.poll_recv().expect("b") != Progress::None));
        }
        if b.pending().1 == 0 {
            // A transport that delivers it in one call leaves nothing to cancel.
            a.end.cancel();
            continue;
        }
        check_cancelled(a, b, data, keep_end);
    }
}

fn cancel_by_receiver(make: Make<'_>) {
    let (mut a, mut b) = Peer::pair(make);
    a.send(fp(0), pattern(8, LARGE));
    b.recv(fp(0), LARGE);
    a.poll_send().expect("a");
    b.poll_recv().expect("b");
    if b.pending().1 == 0 {
        return;
    }
    b.end.cancel();
    let before = b.under_way().map(|(_, buf)| buf.to_vec());
    for _ in 0..100 {
        // Whether it notices is up to the transport; what counts is that nobody writes to b's buffer.
        let _ = a.poll_send();
        let _ = a.poll_reap();
    }
    assert!(b.poll_recv().is_err());
    assert!(b.under_way().map(|(_, buf)| buf.to_vec()) == before);
    a.provoke();
    b.provoke();
}

fn calls_after_cancel(make: Make<'_>) {
    let (mut a, mut b) = Peer::pair(make);
    a.end.cancel();
    a.end.cancel();
    a.send(fp(0), pattern(1, 10));
    a.recv(fp(0), 10);
    for _ in 0..3 {
        assert!(a.poll_send().is_err());
        assert!(a.poll_recv().is_err());
    }
    assert!(a.untouched());
    a.provoke();
    b.recv(fp(0), 10);
    b.recv_error();
    b.provoke();
    let (mut a, mut b) = Peer::pair(make);
    a.provoke();
    b.provoke();
}

/// Two members exchange `count` random messages each way of at most `max` bytes; sends, receives and polls happen
/// in random order.
pub fn random_schedule(make: Make<'_>, seed: u64, count: u32, max: usize) {
    let mut rng = Rng(seed);
    let (mut a, mut b) = Peer::pair(make);
    let plan: Vec<_> = (0..2 * count)
        .map(|_| {
            let magnitude = 1 + rng.below(max);
            let limit = 1 << rng.below(20);
            let len = rng.below(magnitude.min(limit));
            let reduce = rng.below(4) == 0;
            (pattern(rng.draw(), if reduce { len & !3 } else { len }), reduce)
        })
        .collect();
    let (to_b, to_a) = plan.split_at(count as usize);
    // Messages posted so far: sent by a, received by b, sent by b, received by a.
    let mut next = [0usize; 4];
    let mut patience = Patience::default();
    while next.iter().any(|n| *n < count as usize) || (a.pending(), b.pending()) != ((0, 0), (0, 0)) {
        let mut moved = true;
        match rng.below(12) {
            what @ 0..4 if next[what] < count as usize => {
                let i = next[what];
                next[what] += 1;
                let (data, reduce) = &if what < 2 { to_b } else { to_a }[i];
                let peer = if what == 0 || what == 3 { &mut a } else { &mut b };
                let fp = fp(u32::try_from(i).unwrap());
                match (what % 2, reduce) {
                    (0, _) => peer.send(fp, data.clone()),
                    (_, false) => peer.recv(fp, data.len()),
                    (_, true) => peer.recv_reduce(fp, &vec![1; data.len()], xor_u32, 4),
                }
            }
            0..4 => moved = false,
            4 | 5 => moved = a.poll_send().expect("a sends") != Progress::None,
            6 | 7 => moved = b.poll_send().expect("b sends") != Progress::None,
            8 => moved = a.poll_recv().expect("a receives") != Progress::None,
            9 => moved = b.poll_recv().expect("b receives") != Progress::None,
            10 => moved = a.poll_reap().expect("a reaps"),
            _ => moved = b.poll_reap().expect("b reaps"),
        }
        patience.after(moved);
    }
    for (peer, plan) in [(&mut b, to_b), (&mut a, to_a)] {
        for (i, (data, reduce)) in plan.iter().enumerate() {
            let mut expected = data.to_vec();
            if *reduce {
                expected.iter_mut().for_each(|byte| *byte ^= 1);
            }
            assert!(peer.take() == expected, "seed {seed}, message {i}");
        }
    }
}

unsafe fn xor_u32(dst: *mut u8, src: *const u8, count: usize) {
    for i in 0..4 * count {
        // SAFETY: both hold `count` elements of four bytes, by the contract of ReduceFn.
        unsafe { *dst.add(i) ^= *src.add(i) };
    }
}

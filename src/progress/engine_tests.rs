//! Engines over the loopback transport, one call of `progress` at a time: what they start when, and what becomes of
//! it when something goes wrong.

use super::*;
use crate::error::Code;
use crate::transport::loopback::{self, Control};
use crate::transport::protocol::Header;
use crate::transport::shm;
use crate::types::{DataType, RedOp};
use std::time::Duration;

/// Bytes that a direction holds; longer messages are lent.
const CAPACITY: usize = 1000;
/// A message that is lent.
const LONG: usize = 10 * CAPACITY;

/// The engines of a world, and the script of what each sends to each.
struct Net {
    engines: Vec<Engine>,
    controls: Vec<Vec<Option<Control>>>,
    start: Instant,
}

fn net(n: usize) -> Net {
    let mut ends: Vec<Vec<Option<Box<dyn Endpoint>>>> =
        (0..n).map(|_| (0..n).map(|_| None).collect()).collect();
    let mut controls = vec![vec![None; n]; n];
    for i in 0..n {
        for j in i + 1..n {
            let (a, b) = loopback::pair(CAPACITY);
            (controls[i][j], controls[j][i]) = (Some(a.control()), Some(b.control()));
            ends[i][j] = Some(Box::new(a));
            ends[j][i] = Some(Box::new(b));
        }
    }
    let engines = ends.into_iter().enumerate().map(|(r, e)| Engine::new(r as u32, e)).collect();
    Net { engines, controls, start: Instant::now() }
}

fn fp(kind: OpKind, count: usize) -> Fingerprint {
    let redop = if kind.reduces() { RedOp::Sum as u8 } else { Fingerprint::NO_REDOP };
    let root = if kind.rooted() { 0 } else { -1 };
    Fingerprint { kind, dtype: DataType::Uint8 as u8, redop, root, seq: 0, count: count as u64 }
}

fn broken() -> Error {
    Error::new(Code::Remote, crate::error::Extent::World, "the world broke").by(1)
}

impl Net {
    fn control(&self, from: usize, to: usize) -> &Control {
        self.controls[from][to].as_ref().expect("two different ranks")
    }

    fn post(&mut self, rank: usize, operation: Operation, ms: u64) -> Arc<Ticket> {
        let ticket = Arc::new(Ticket::new(1));
        self.engines[rank].post(operation, ticket.clone(), self.start + Duration::from_millis(ms));
        ticket
    }

    fn send(&mut self, rank: usize, peer: u32, data: &[u8]) -> Arc<Ticket> {
        self.post(rank, send(peer, data), 1000)
    }

    fn recv(&mut self, rank: usize, peer: u32, data: &mut [u8]) -> Arc<Ticket> {
        self.post(rank, recv(peer, data), 1000)
    }

    fn barrier(&mut self, rank: usize) -> Arc<Ticket> {
        let operation = self.collective(rank, OpKind::Barrier, &[], &mut []);
        self.post(rank, operation, 1000)
    }

    /// A collective on bytes with root 0.
    fn collective(&self, rank: usize, kind: OpKind, input: &[u8], output: &mut [u8]) -> Operation {
        let count = input.len().max(output.len());
        let shape = Shape {
            kind,
            nranks: self.engines.len() as u32,
            rank: rank as u32,
            root: 0,
            count,
            dtype: DataType::Uint8,
            reduction: Reduction::Builtin(RedOp::Sum),
            in_place: false,
        };
        Operation::Collective {
            shape,
            input: input.as_ptr(),
            output: output.as_mut_ptr(),
            fp: fp(kind, count),
        }
    }

    /// Lets the engines take turns until nothing moves; answers the troubles with who had them.
    fn run(&mut self) -> Vec<(usize, Trouble)> {
        let mut troubles = Vec::new();
        loop {
            let mut any = false;
            for (rank, e) in self.engines.iter_mut().enumerate() {
                let (moved, trouble) = e.progress();
                any |= moved || trouble.is_some();
                troubles.extend(trouble.map(|t| (rank, t)));
            }
            if !any {
                return troubles;
            }
            assert!(troubles.len() < 100, "{troubles:?}");
        }
    }

    fn run_well(&mut self) {
        let troubles = self.run();
        assert!(troubles.is_empty(), "{troubles:?}");
    }

    fn all_idle(&self) -> bool {
        self.engines.iter().all(Engine::is_idle)
    }
}

fn message(peer: u32, send: bool, ptr: *mut u8, len: usize) -> Operation {
    Operation::Message(Message { fp: fp(OpKind::PointToPoint, len), ptr, len, peer, send })
}

fn send(peer: u32, data: &[u8]) -> Operation {
    message(peer, true, data.as_ptr().cast_mut(), data.len())
}

fn recv(peer: u32, data: &mut [u8]) -> Operation {
    message(peer, false, data.as_mut_ptr(), data.len())
}

/// Whether giving up a peer could be confined to point-to-point operations.
fn give_up(e: &mut Engine, peer: u32, error: &Error) -> bool {
    e.give_up_peer(peer, error).expect("no other trouble")
}

/// Who is waited for in which operation when it is too late.
fn overdue(e: &Engine, now: Instant) -> Option<(Fingerprint, Vec<u32>)> {
    e.overdue(now).map(|(fp, peers, _)| (fp, peers))
}

fn done(tickets: &[&Arc<Ticket>]) -> Vec<bool> {
    tickets.iter().map(|t| t.is_done()).collect()
}

#[test]
fn a_collective_waits_for_what_is_before_it_and_holds_what_is_after() {
    let mut net = net(2);
    let (long, short) = (vec![1; LONG], [2; 5]);
    let (mut got_long, mut got_short) = (vec![0; LONG], [0; 5]);
    let first = net.send(0, 1, &long);
    let barrier = net.barrier(0);
    let after = net.send(0, 1, &short);
    net.run_well();
    // The long one is on its way, and nothing else has been started.
    assert_eq!(done(&[&first, &barrier, &after]), [false; 3]);
    let received = net.recv(1, 0, &mut got_long);
    net.run_well();
    assert_eq!(done(&[&first, &barrier, &after, &received]), [true, false, false, true]);
    let last = net.recv(1, 0, &mut got_short);
    // Were the short message on its way already, this would be a mismatch there: it was called before the barrier.
    assert!(!last.is_done());
    let error = broken();
    net.engines.iter_mut().for_each(|e| e.end(&error));
    assert_eq!(got_long, long);
    assert_eq!(got_short, [0; 5]);

    let mut net = self::net(2);
    let waiting = net.recv(1, 0, &mut got_short);
    let theirs = net.barrier(1);
    let after = net.recv(1, 0, &mut got_long);
    let sent = net.send(0, 1, &short);
    let ours = net.barrier(0);
    let last = net.send(0, 1, &long);
    net.run_well();
    assert_eq!(done(&[&waiting, &theirs, &after, &sent, &ours, &last]), [true; 6]);
    assert_eq!((got_short, got_long), (short, long));
    assert!(net.all_idle());
}

#[test]
fn collectives_run_one_after_the_other() {
    let mut net = net(3);
    let inputs: Vec<Vec<u8>> = (0..3).map(|r| vec![r + 1; 300]).collect();
    let mut sums = vec![vec![0; 300]; 3];
    let mut copies = vec![vec![0; 300]; 3];
    let mut tickets = Vec::new();
    for r in 0..3 {
        let sum = net.collective(r, OpKind::AllReduce, &inputs[r], &mut sums[r]);
        let copy = net.collective(r, OpKind::Broadcast, &inputs[r], &mut copies[r]);
        tickets.push((net.post(r, sum, 1000), net.barrier(r), net.post(r, copy, 1000)));
        // Those who have called it do what they can, one after the other.
        net.run_well();
        let ahead = tickets.iter().any(|(sum, barrier, copy)| {
            (barrier.is_done() && !sum.is_done()) || (copy.is_done() && !barrier.is_done())
        });
        assert!(!ahead);
        assert_eq!(tickets.iter().all(|t| t.0.is_done()), r == 2);
    }
    assert!(tickets.iter().all(|t| t.1.is_done() && t.2.is_done()) && net.all_idle());
    assert!(sums.iter().flatten().all(|x| *x == 6) && copies.iter().flatten().all(|x| *x == 1));
    assert_eq!(net.engines[0].operations, 3);
}

#[test]
fn directions_and_peers_do_not_hold_up_each_other() {
    let mut net = net(3);
    let (data, mut x, mut y, mut z) = (vec![7; LONG], vec![0; LONG], vec![0; LONG], [0; 3]);
    // Nobody sends that yet.
    let blocked = net.recv(0, 1, &mut x);
    let out = net.send(0, 1, &data);
    let other = net.recv(0, 2, &mut z);
    let there = net.recv(1, 0, &mut y);
    net.send(2, 0, &[8; 3]);
    net.run_well();
    assert_eq!(done(&[&blocked, &out, &other, &there]), [false, true, true, true]);
    let back = net.send(1, 0, &data);
    net.run_well();
    assert_eq!(done(&[&blocked, &back]), [true; 2]);
    assert_eq!((x, y, z), (data.clone(), data, [8; 3]));
    assert_eq!(net.engines[0].bytes, (LONG as u64, LONG as u64 + 3));
    assert!(net.all_idle());
}

#[test]
fn a_group_of_exchanges_has_no_order_that_could_block() {
    let mut net = net(2);
    let data = [vec![1; LONG], vec![2; LONG]];
    let mut got = vec![vec![0; LONG]; 2];
    let mut tickets = Vec::new();
    for me in 0..2 {
        let ticket = Arc::new(Ticket::new(2));
        let peer = 1 - me as u32;
        // Both send first.
        net.engines[me].post(send(peer, &data[me]), ticket.clone(), net.start);
        net.engines[me].post(recv(peer, &mut got[me]), ticket.clone(), net.start);
        tickets.push(ticket);
    }
    net.engines[0].progress();
    assert!(!tickets[0].is_done());
    net.run_well();
    assert!(tickets.iter().all(|t| t.is_done() && t.result() == Ok(())));
    assert_eq!((&got[0], &got[1]), (&data[1], &data[0]));
}

#[test]
fn messages_of_one_direction_arrive_in_order() {
    let mut net = net(2);
    // Lent, copied, empty, in all orders; and cut into small pieces.
    net.control(0, 1).limit_per_call(7);
    let lengths = [0, LONG, 3, 0, 0, 2000, LONG, 1, 0];
    let data: Vec<Vec<u8>> = lengths.iter().enumerate().map(|(i, len)| vec![i as u8 + 1; *len]).collect();
    let mut got: Vec<Vec<u8>> = lengths.iter().map(|len| vec![0; *len]).collect();
    let sent: Vec<_> = data.iter().map(|d| net.send(0, 1, d)).collect();
    let received: Vec<_> = got.iter_mut().map(|g| net.recv(1, 0, g)).collect();
    loop {
        let before = received.iter().filter(|t| t.is_done()).count();
        let moved = net.engines.iter_mut().filter_map(|e| e.progress().0.then_some(())).count() > 0;
        let now = done(&received.iter().collect::<Vec<_>>());
        assert!(now.is_sorted_by(|a, b| a >= b), "{now:?}");
        assert!(now.iter().filter(|d| **d).count() >= before);
        if !moved {
            break;
        }
    }
    assert_eq!(got, data);
    assert!(sent.iter().chain(&received).all(|t| t.result() == Ok(())) && net.all_idle());
}

#[test]
fn empty_messages_are_messages() {
    let mut net = net(2);
    let sent = net.send(0, 1, &[]);
    net.run_well();
    assert!(sent.is_done());
    let received = net.recv(1, 0, &mut []);
    net.run_well();
    assert!(received.is_done());
    let early = net.recv(1, 0, &mut []);
    net.run_well();
    assert!(!early.is_done(), "nothing was sent");
    net.send(0, 1, &[]);
    net.run_well();
    assert!(early.is_done());
    // One of a single byte is not an empty one.
    let mut x = [0];
    net.recv(1, 0, &mut x);
    net.send(0, 1, &[]);
    assert!(matches!(net.run()[..], [(1, Trouble::Mismatch { my_len: 1, their_len: 0, .. })]));
}

#[test]
fn a_buffer_is_needed_until_the_peer_has_read_it() {
    let mut net = net(2);
    let (a, b) = (vec![1; LONG], vec![2; LONG]);
    let (mut x, mut y, mut z) = (vec![0; LONG], [0; 4], vec![0; LONG]);
    let first = net.send(0, 1, &a);
    let between = net.send(0, 1, &[9; 4]);
    let second = net.send(0, 1, &b);
    net.run_well();
    assert_eq!(done(&[&first, &between, &second]), [false, true, false], "copied, so it is free");
    net.recv(1, 0, &mut x);
    net.engines[1].progress();
    while net.engines[1].progress().0 {}
    assert!(!first.is_done(), "it has been read, but nobody looked");
    net.engines[0].progress();
    assert_eq!(done(&[&first, &second]), [true, false]);
    net.recv(1, 0, &mut y);
    net.recv(1, 0, &mut z);
    net.run_well();
    assert!(second.is_done() && net.all_idle());
    assert_eq!((x, y, z), (a, [9; 4], b));
}

#[test]
fn what_is_over_for_its_sender_is_there_for_its_receiver() {
    let (ours, mut theirs) = shm::tests::pair(true);
    let mut engine = Engine::new(0, vec![None, Some(Box::new(ours))]);
    let (data, mut got) = ([7u8; 40], [0u8; 40]);
    let mut seq = 0;
    let mut take = |count: usize| {
        for _ in 0..count {
            let fp = Fingerprint { seq, ..fp(OpKind::PointToPoint, 20) };
            let mut msg = RecvMsg::new(fp, Sink::Copy(got.as_mut_ptr()), 20);
            // SAFETY: the buffer outlives the message.
            let progress = unsafe { theirs.recv(&mut msg) };
            assert!(matches!(progress, Ok(crate::transport::Progress::Done)), "{progress:?}");
            seq += 1;
        }
    };
    let ticket = Arc::new(Ticket::new(3));
    let late = Instant::now() + Duration::from_secs(1000);
    let Operation::Message(message) = send(1, &data[..20]) else { unreachable!() };
    // Nobody drives the engine, neither after a message nor after several that could share a slot.
    engine.post(Operation::Message(message), ticket.clone(), late);
    take(1);
    engine.post_batch(&mut vec![message; 5], ticket.clone(), late);
    take(5);
    engine.post(Operation::Message(message), ticket.clone(), late);
    assert!(ticket.is_done());
    take(1);
}

#[test]
fn a_message_to_oneself_meets_its_receive() {
    let mut net = net(2);
    let mut x = [0; 4];
    let sent = net.send(0, 0, &[1, 2, 3, 4]);
    net.run_well();
    assert!(!sent.is_done());
    let received = net.recv(0, 0, &mut x);
    net.run_well();
    assert_eq!(done(&[&sent, &received]), [true; 2]);
    assert_eq!(x, [1, 2, 3, 4]);
    let (sent, received) = (net.send(0, 0, &[5; 3]), net.recv(0, 0, &mut x));
    net.run_well();
    for t in [sent, received] {
        let e = t.result().unwrap_err();
        assert_eq!((e.code, e.extent), (Code::InvalidUsage, crate::error::Extent::Operation));
    }
    assert_eq!(x, [1, 2, 3, 4], "nothing is truncated");
    assert!(net.all_idle());
}

#[test]
fn a_connection_that_ends_within_a_message_is_told_once() {
    for part in [0, 1, Header::SIZE as u64, Header::SIZE as u64 + 10] {
        let mut net = net(2);
        let (data, mut x) = (vec![1; 500], vec![0; 500]);
        let first = net.recv(1, 0, &mut x);
        let mut y = [0];
        let second = net.recv(1, 0, &mut y);
        net.control(0, 1).close_after(part);
        net.send(0, 1, &data);
        let troubles = net.run();
        let here: Vec<_> = troubles.iter().filter(|(rank, _)| *rank == 1).collect();
        assert!(matches!(here[..], [(1, Trouble::Closed(0))]), "{troubles:?}");
        // The verdict is the watchdog's; until then they wait.
        assert_eq!(done(&[&first, &second]), [false; 2]);
        // The other direction goes on.
        let mut z = [0];
        let back = net.recv(0, 1, &mut z);
        net.send(1, 0, &[3]);
        net.run_well();
        assert!(back.is_done() && z == [3]);
        let error = broken();
        net.engines[1].end(&error);
        assert_eq!((first.result(), second.result()), (Err(error.clone()), Err(error)));
    }
}

#[test]
fn a_peer_that_is_gone_is_told_once_for_each_direction() {
    let mut net = net(2);
    let mut x = [0];
    net.recv(0, 1, &mut x);
    net.send(0, 1, &[1; LONG]);
    net.engines[0].progress();
    drop(net.engines.pop());
    let troubles = net.run();
    assert!(matches!(troubles[..], [(0, Trouble::Closed(1)), (0, Trouble::Closed(1))]), "{troubles:?}");
    net.run_well();
}

#[test]
fn messages_that_contradict_name_both_calls() {
    let mut net = net(2);
    let mut x = [0; 8];
    let waits = net.recv(1, 0, &mut x);
    net.send(0, 1, &[1; 3]);
    match &net.run()[..] {
        [(1, Trouble::Mismatch { peer: 0, mine, theirs, my_len: 8, their_len: 3 })] => {
            assert_eq!((mine.count, theirs.count), (8, 3));
        }
        other => panic!("{other:?}"),
    }
    net.run_well();
    assert!(!waits.is_done() && x == [0; 8]);

    let mut net = self::net(2);
    let (input, mut sum, mut copy) = ([1; 4], [0; 4], [0; 4]);
    let reduce = net.collective(0, OpKind::AllReduce, &input, &mut sum);
    let broadcast = net.collective(1, OpKind::Broadcast, &input, &mut copy);
    net.post(0, reduce, 1000);
    net.post(1, broadcast, 1000);
    match &net.run()[..] {
        [(1, Trouble::Mismatch { peer: 0, mine, theirs, .. })] => {
            assert_eq!((mine.kind, theirs.kind), (OpKind::Broadcast, OpKind::AllReduce));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(copy, [0; 4], "nothing of it gets through");

    // The same call, but not the same one in the row.
    let mut net = self::net(2);
    let (first, mut got) = (net.barrier(0), [0]);
    net.recv(1, 0, &mut got);
    assert!(matches!(net.run()[..], [(1, Trouble::Mismatch { .. })]));
    assert!(!first.is_done());
}

#[test]
fn garbage_makes_the_connection_unusable() {
    let mut net = net(2);
    let mut x = [0];
    net.recv(1, 0, &mut x);
    net.control(0, 1).corrupt_header();
    net.send(0, 1, &[1]);
    assert!(matches!(net.run()[..], [(1, Trouble::Corrupt(0, _))]));
    assert_eq!(x, [0]);
}

#[test]
fn an_end_completes_everything_and_lets_go_of_all_buffers() {
    let mut net = net(2);
    for (from, to) in [(0, 1), (1, 0)] {
        net.control(from, to).limit_per_call(10);
    }
    let mut data = vec![1; LONG];
    let mut got = vec![0; LONG];
    let mut sum = vec![0; 50];
    let input = vec![1; 50];
    let mut own = [0];
    let sent = net.send(0, 1, &data);
    let received = net.recv(1, 0, &mut got);
    let to_oneself = [net.send(1, 1, &[1]), net.send(1, 1, &[2])];
    let from_oneself = net.recv(1, 1, &mut own);
    let operation = net.collective(1, OpKind::AllReduce, &input, &mut sum);
    let queued = net.post(1, operation, 1000);
    for _ in 0..3 {
        net.engines.iter_mut().for_each(|e| drop(e.progress()));
    }
    let some = got.iter().filter(|b| **b == 1).count();
    assert!(some > 0 && some < LONG, "in the middle: {some}");
    let error = broken();
    net.engines[1].end(&error);
    for t in [&received, &to_oneself[1], &queued] {
        assert_eq!(t.result(), Err(error.clone()));
    }
    assert!(to_oneself[0].result().is_ok() && from_oneself.result().is_ok(), "it was done before");
    assert!(net.engines[1].is_idle() && net.engines[1].deadline().is_none());
    let before = got.clone();
    let troubles = net.run();
    assert!(matches!(troubles[..], [(0, Trouble::Closed(1))]), "{troubles:?}");
    assert!(got == before && sum == [0; 50] && !sent.is_done());
    // Whatever comes later is refused at once, and an end has no second one.
    let late = net.send(1, 0, &[1]);
    assert_eq!(late.result(), Err(error.clone()));
    net.engines[1].end(&Error::usage("another"));
    assert_eq!(net.send(1, 0, &[1]).result(), Err(error));

    // The sender ends: what it lent may change at once, and none of that arrives.
    let mut net = self::net(2);
    net.control(0, 1).limit_per_call(10);
    got.fill(0);
    net.send(0, 1, &data);
    let received = net.recv(1, 0, &mut got);
    for _ in 0..3 {
        net.engines.iter_mut().for_each(|e| drop(e.progress()));
    }
    net.engines[0].end(&broken());
    data.fill(99);
    let troubles = net.run();
    assert!(matches!(troubles[..], [(1, Trouble::Closed(0))]), "{troubles:?}");
    assert!(!received.is_done() && !got.contains(&99));
}

#[test]
fn a_peer_that_leaves_takes_only_what_waits_for_it() {
    let mut net = net(3);
    let mut x = [[0; 4]; 3];
    let [first, second, other] = &mut x;
    net.send(1, 0, &[1; 4]);
    net.engines[1].progress();
    // It says that it sends no more, and reads no more.
    let left = Error::new(Code::Remote, crate::error::Extent::Operation, "rank 1 has left").by(1);
    net.engines[1].retire(&left);
    assert_eq!(net.send(1, 0, &[2; 4]).result(), Err(left.clone()));
    let delivered = net.recv(0, 1, first);
    let missing = net.recv(0, 1, second);
    let unharmed = net.recv(0, 2, other);
    let long = vec![0; LONG];
    let unread = net.send(0, 1, &long);
    let barrier = net.barrier(0);
    // Until all that it sent has been read, a look may be needed for each message.
    net.engines[0].progress();
    net.engines[0].progress();
    assert!(give_up(&mut net.engines[0], 1, &left), "no collective was under way");
    assert_eq!(
        (delivered.result(), missing.result(), unread.result()),
        (Ok(()), Err(left.clone()), Err(left.clone()))
    );
    assert_eq!(x[0], [1; 4]);
    assert_eq!(done(&[&unharmed, &barrier]), [false; 2]);
    net.send(2, 0, &[3; 4]);
    net.engines[2].progress();
    net.engines[0].progress();
    assert!(unharmed.is_done() && x[2] == [3; 4]);
    // Now the barrier is under way, and once rank 2 has come it needs rank 1.
    net.barrier(2);
    net.engines[2].progress();
    net.engines[0].progress();
    net.engines[0].progress();
    assert!(!barrier.is_done());
    assert!(!give_up(&mut net.engines[0], 1, &left), "a collective breaks the world");
    // That is said, not done.
    assert!(!barrier.is_done());
    net.engines[0].end(&left);
    assert_eq!(barrier.result(), Err(left));
}

#[test]
fn deadlines_are_those_of_the_operations() {
    let mut net = net(3);
    let at = |net: &Net, ms| net.start + Duration::from_millis(ms);
    assert_eq!(net.engines[0].deadline(), None);
    let (mut x, mut y) = ([0], [0]);
    net.post(0, recv(1, &mut x), 300);
    net.post(0, recv(2, &mut y), 200);
    let barrier = net.collective(0, OpKind::Barrier, &[], &mut []);
    net.post(0, barrier, 100);
    assert_eq!(net.engines[0].deadline(), Some(at(&net, 100)));
    assert_eq!(overdue(&net.engines[0], at(&net, 99)), None);
    // The barrier waits for what is before it, and for nobody yet.
    let (late, peers) = overdue(&net.engines[0], at(&net, 100)).unwrap();
    assert_eq!((late.kind, peers), (OpKind::Barrier, vec![]));
    net.send(2, 0, &[1]);
    net.send(1, 0, &[1]);
    net.run_well();
    // Now it waits for its peers of the first step.
    let (late, peers) = overdue(&net.engines[0], at(&net, 150)).unwrap();
    assert_eq!(late.kind, OpKind::Barrier);
    assert!(!peers.is_empty() && peers.iter().all(|p| *p == 1 || *p == 2), "{peers:?}");
    net.barrier(1);
    net.barrier(2);
    net.run_well();
    assert!(net.engines[0].deadline().is_none() && overdue(&net.engines[0], at(&net, 5000)).is_none());
    // Whom a message waits for is plain.
    let long = vec![0; LONG];
    net.post(0, send(2, &long), 10);
    net.post(0, recv(1, &mut x), 20);
    net.run_well();
    let (late, peers) = overdue(&net.engines[0], at(&net, 10)).unwrap();
    assert_eq!((late.count, peers), (LONG as u64, vec![2]));
}

/// A net whose connections move so many bytes per call.
fn cut(n: usize, piece: usize) -> Net {
    let net = net(n);
    for (i, j) in (0..n).flat_map(|i| (0..n).map(move |j| (i, j))).filter(|(i, j)| i != j) {
        net.control(i, j).limit_per_call(piece);
    }
    net
}

/// Everybody's input, and their sum.
fn summands(n: usize, len: usize) -> (Vec<Vec<u8>>, Vec<u8>) {
    let inputs: Vec<Vec<u8>> = (0..n).map(|r| (0..len).map(|i| (i * (r + 1)) as u8).collect()).collect();
    let sum = (0..len).map(|i| inputs.iter().fold(0u8, |s, input| s.wrapping_add(input[i]))).collect();
    (inputs, sum)
}

#[test]
fn collectives_survive_any_cut_of_the_stream() {
    for (n, piece) in [(2, 1), (3, 5), (4, 13), (5, 999), (7, 64)] {
        let mut net = cut(n, piece);
        for len in [1, 100, 3000] {
            let (inputs, expected) = summands(n, len);
            let mut sums = vec![vec![0; len]; n];
            let mut tickets = Vec::new();
            for r in 0..n {
                let operation = net.collective(r, OpKind::AllReduce, &inputs[r], &mut sums[r]);
                tickets.push(net.post(r, operation, 1000));
            }
            net.run_well();
            assert!(tickets.iter().all(|t| t.is_done() && t.result() == Ok(())) && net.all_idle());
            assert!(sums.iter().all(|s| *s == expected), "{n} ranks, {len} bytes, {piece} at a time");
        }
    }
}

#[test]
fn a_collective_on_the_spot_ends_like_one_that_was_posted() {
    let mut on_the_spot = 0;
    for (n, piece) in [(2, CAPACITY), (2, 7), (3, CAPACITY), (4, 13), (5, CAPACITY)] {
        let mut net = cut(n, piece);
        for (round, len) in [1, 100, 3000, LONG, 8, 0, 500].into_iter().enumerate() {
            let (inputs, expected) = summands(n, len);
            let mut sums = vec![vec![0; len]; n];
            let mut tickets = Vec::new();
            for r in (0..n).map(|r| (r + round) % n) {
                let operation = net.collective(r, OpKind::AllReduce, &inputs[r], &mut sums[r]);
                if round + 1 == r {
                    tickets.push(net.post(r, operation, 1000));
                    continue;
                }
                let ticket = || Arc::new(Ticket::new(1));
                match net.engines[r].attempt_collective(operation, 3, || false, ticket) {
                    None => on_the_spot += 1,
                    Some(ticket) => tickets.push(ticket),
                }
            }
            net.run_well();
            assert!(tickets.iter().all(|t| t.is_done() && t.result() == Ok(())) && net.all_idle());
            assert!(sums.iter().all(|s| *s == expected), "{n} ranks, {len} bytes, {piece} at a time");
        }
        assert!(net.engines.iter().all(|e| e.operations == 7));
    }
    assert!(on_the_spot >= 10, "{on_the_spot}");
}

#[test]
fn a_collective_on_the_spot_gives_way() {
    let mut net = net(2);
    let ticket = || Arc::new(Ticket::new(1));
    let (long, mut sums) = (vec![3; LONG], [[0; 4]; 2]);
    // What was called before comes first,
    let first = net.send(0, 1, &long);
    let operation = net.collective(0, OpKind::AllReduce, &[1; 4], &mut sums[0]);
    let second = net.engines[0].attempt_collective(operation, 3, || false, ticket).unwrap();
    let mut got = vec![0; LONG];
    let received = net.recv(1, 0, &mut got);
    net.run_well();
    assert_eq!(done(&[&first, &received, &second]), [true, true, false]);
    // whoever wants in gets in although the message is there,
    let operation = net.collective(1, OpKind::AllReduce, &[2; 4], &mut sums[1]);
    let third = net.engines[1].attempt_collective(operation, 3, || true, ticket);
    net.run_well();
    assert!(third.is_none_or(|t| t.is_done()) && second.is_done() && sums == [[3; 4]; 2]);
    // what contradicts is told as ever,
    let barrier = net.collective(0, OpKind::Barrier, &[], &mut []);
    let barrier = net.engines[0].attempt_collective(barrier, 3, || false, ticket).unwrap();
    let operation = net.collective(1, OpKind::AllReduce, &[2; 4], &mut sums[1]);
    let other = net.engines[1].attempt_collective(operation, 3, || false, ticket).unwrap();
    let troubles = net.run();
    assert!(
        matches!(troubles[..], [(_, Trouble::Mismatch { .. }), (_, Trouble::Mismatch { .. })]),
        "{troubles:?}"
    );
    assert_eq!(done(&[&barrier, &other]), [false; 2]);
    // and what has ended has ended.
    net.engines.iter_mut().for_each(|e| e.end(&broken()));
    let barrier = net.collective(0, OpKind::Barrier, &[], &mut []);
    let barrier = net.engines[0].attempt_collective(barrier, 3, || false, ticket).unwrap();
    assert!(barrier.is_done() && barrier.result() == Err(broken()));
}

#[test]
fn dismantled_endpoints_still_deliver() {
    let mut net = net(2);
    net.send(0, 1, &[4; 10]);
    net.engines[0].progress();
    net.engines[0].retire(&Error::usage("finalized"));
    let kept = net.engines[0].dismantle();
    let mut x = [0; 10];
    let received = net.recv(1, 0, &mut x);
    net.run_well();
    assert!(received.is_done() && x == [4; 10]);
    drop(kept);
}

//! What an operation meets on its way, one thing at a time: the ring of shared memory, the look-up of a handle, the life
//! of a request, the codecs. `cargo bench --bench path`; a filter is a part of a name.

use criterion::{BenchmarkGroup, Criterion, Throughput, measurement::WallTime};
use multiworld::capi::{mwResult_t, mwWorld_t, mwWorldDestroy, mwWorldInitAll, mwWorldUserRank};
use multiworld::config::{Config, TransportChoice};
use multiworld::fault::health::News;
use multiworld::rendezvous::id::Ticket;
use multiworld::store::wire;
use multiworld::sync::Arc;
use multiworld::sync::slab::Slab;
use multiworld::transport::protocol::Header;
use multiworld::transport::shm::Neighbour;
use multiworld::transport::shm::endpoint::Wiring;
use multiworld::transport::shm::ring::{Receiver, Sender, TAG_DATA};
use multiworld::transport::shm::{Segment, ShmEndpoint};
use multiworld::transport::{Endpoint, Progress, RecvMsg, SendMsg, Sink};
use multiworld::types::{DataType, Fingerprint, OpKind, RedOp, Reduction, WorldId};
use multiworld::watchdog::message::Message;
use multiworld::world::{Call, Calls, Request, World};
use std::hint::{black_box, spin_loop};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

type Group<'a> = BenchmarkGroup<'a, WallTime>;

fn fingerprint(len: usize) -> Fingerprint {
    let (kind, redop) = (OpKind::PointToPoint, Fingerprint::NO_REDOP);
    Fingerprint { kind, dtype: DataType::Uint8 as u8, redop, root: -1, seq: 0, count: len as u64 }
}

fn group<'a>(c: &'a mut Criterion, name: &str, size: usize) -> Group<'a> {
    let mut group = c.benchmark_group(name);
    group.throughput(Throughput::Bytes(size as u64));
    group
}

fn segment() -> Arc<Segment> {
    let (segment, _) = Segment::create(2, true).expect("shared memory");
    segment.introduce(0);
    segment.introduce(1);
    segment
}

/// A fragment is filled, published, found, read and released, all by one thread: what it costs besides the way from one
/// processor to another.
fn fragments(c: &mut Criterion) {
    for size in [8, 4096, 8192] {
        let segment = segment();
        let (mut sender, mut receiver) = (Sender::new(segment.clone(), 0, 1), Receiver::new(segment, 0, 1));
        let (from, mut to, fp) = (vec![1u8; size], vec![0u8; size], fingerprint(size));
        group(c, &format!("ring/fragment/{size}"), size).bench_function("one thread", |b| {
            b.iter(|| {
                let fragment = sender.reserve(size, 0).expect("room in an empty ring");
                sender.write_first(&fp, size as u64);
                // SAFETY: the fragment is as long as was asked for: it is no longer than the shortest first one.
                unsafe { ptr::copy_nonoverlapping(from.as_ptr(), fragment.payload, size) };
                sender.publish(&fragment, TAG_DATA);
                assert_eq!(receiver.peek(), TAG_DATA);
                let first = receiver.first().expect("what was published");
                // SAFETY: as above.
                unsafe { ptr::copy_nonoverlapping(first.fragment.payload, to.as_mut_ptr(), size) };
                receiver.release();
            })
        });
    }
}

/// Sends and receives messages of one size.
struct End {
    endpoint: ShmEndpoint,
    from: Vec<u8>,
    to: Vec<u8>,
    fp: Fingerprint,
}

impl End {
    fn new(segment: &Arc<Segment>, me: u32, size: usize) -> End {
        let (segment, neighbour) = (segment.clone(), Neighbour::own());
        let wiring = Wiring { segment, me, peer: 1 - me, direct: false, doorbell: None, neighbour };
        let (from, to) = (vec![1; size], vec![0; size]);
        End { endpoint: ShmEndpoint::new(wiring), from, to, fp: fingerprint(size) }
    }

    /// Answers false if `stop` was set meanwhile.
    fn send(&mut self, stop: &AtomicBool) -> bool {
        let mut message = SendMsg::new(self.fp, self.from.as_ptr(), self.from.len());
        // SAFETY: the buffer is valid until this returns, and the message is forgotten with it.
        self.finish(stop, |endpoint| unsafe { endpoint.send(&mut message) }.expect("sending"))
    }

    fn recv(&mut self, stop: &AtomicBool) -> bool {
        let mut message = RecvMsg::new(self.fp, Sink::Copy(self.to.as_mut_ptr()), self.to.len());
        // SAFETY: as above.
        self.finish(stop, |endpoint| unsafe { endpoint.recv(&mut message) }.expect("receiving"))
    }

    fn finish(&mut self, stop: &AtomicBool, mut advance: impl FnMut(&mut ShmEndpoint) -> Progress) -> bool {
        loop {
            match advance(&mut self.endpoint) {
                Progress::Done => break,
                Progress::None if stop.load(Ordering::Relaxed) => return false,
                _ => spin_loop(),
            }
        }
        self.endpoint.flush();
        true
    }
}

/// Messages go back and forth between two threads; the time is that of a round trip.
fn round_trips(c: &mut Criterion) {
    for size in [8, 4096, 40_000, 400_000] {
        let (segment, stop) = (segment(), AtomicBool::new(false));
        let mut here = End::new(&segment, 0, size);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut there = End::new(&segment, 1, size);
                while there.recv(&stop) && there.send(&stop) {}
            });
            group(c, &format!("ring/round trip/{size}"), 2 * size)
                .bench_function("two threads", |b| b.iter(|| here.send(&stop) && here.recv(&stop)));
            stop.store(true, Ordering::Relaxed);
        });
    }
}

fn handles(c: &mut Criterion) {
    let slab = Slab::new(0x155);
    let handle = slab.insert(Arc::new(7u64)).expect("room");
    let stale = slab.insert(Arc::new(8)).expect("room");
    drop(slab.remove(stale));
    let mut group = c.benchmark_group("handle");
    group.bench_function("get", |b| b.iter(|| slab.get(black_box(handle)).is_some()));
    group.bench_function("get, stale", |b| b.iter(|| slab.get(black_box(stale)).is_some()));
    group.bench_function("is_live", |b| b.iter(|| slab.is_live(black_box(handle))));
    let value = Arc::new(9);
    group.bench_function("insert and remove", |b| {
        b.iter(|| slab.insert(Arc::clone(&value)).and_then(|handle| slab.remove(handle)))
    });
    let mut world: mwWorld_t = ptr::null_mut();
    // SAFETY: room for one handle; no configuration.
    assert_eq!(unsafe { mwWorldInitAll(&mut world, 1, ptr::null()) }, mwResult_t::mwSuccess);
    let mut rank = 0;
    group.bench_function("mwWorldUserRank", |b| {
        // SAFETY: `rank` is writable.
        b.iter(|| unsafe { mwWorldUserRank(black_box(world), &mut rank) })
    });
    assert_eq!(mwWorldDestroy(world), mwResult_t::mwSuccess);
}

fn message(send: bool, buffer: *mut u8, count: usize, peer: i32) -> Call {
    Call {
        kind: OpKind::PointToPoint,
        send,
        sendbuf: if send { buffer } else { ptr::null() },
        recvbuf: if send { ptr::null_mut() } else { buffer },
        count,
        dtype: DataType::Uint8,
        reduction: Reduction::Builtin(RedOp::Sum),
        peer,
        stream: ptr::null_mut(),
        scalar_on_device: false,
    }
}

/// A send and its receive, on two members of a world in this process: submitted and waited for by one thread, in either
/// order.
fn requests(c: &mut Criterion) {
    let settings = Config::from_env().expect("settings");
    let config = Config { transport: TransportChoice::Shm, ifname: Some("lo".into()), ..settings };
    let worlds = World::init_all(2, &config).expect("a world");
    let mut calls = Calls::new();
    let mut submit = |world: &Arc<World>, call: Call, background| {
        calls.add(world, call);
        Request::submit(&mut calls, background)
    };
    let done = |request: Arc<Request>| request.wait(None).expect("no limit").expect("a message");
    for size in [8, 4096] {
        let (mut from, mut to) = (vec![1u8; size], vec![0u8; size]);
        let out = message(true, from.as_mut_ptr(), size, 1);
        let within = message(false, to.as_mut_ptr(), size, 0);
        let mut group = group(c, &format!("request/{size}"), size);
        group.bench_function("send, receive, wait", |b| {
            b.iter(|| {
                let sent = submit(&worlds[0], out, true);
                let received = submit(&worlds[1], within, true);
                done(received);
                done(sent);
            })
        });
        group.bench_function("receive, send, wait", |b| {
            b.iter(|| {
                // Nobody drives it in the background: that is another thread's time.
                let received = submit(&worlds[1], within, false);
                let sent = submit(&worlds[0], out, false);
                done(sent);
                done(received);
            })
        });
    }
    std::thread::scope(|scope| {
        worlds.iter().for_each(|world| drop(scope.spawn(|| world.destroy().expect("leaving"))));
    });
}

fn codecs(c: &mut Criterion) {
    let fp = fingerprint(4096);
    let mut group = c.benchmark_group("codec");
    group.bench_function("fingerprint, encode", |b| b.iter(|| black_box(&fp).encode()));
    let raw = fp.encode();
    group.bench_function("fingerprint, decode", |b| b.iter(|| Fingerprint::decode(black_box(&raw))));
    let header = Header { fp, len: 4096 };
    group.bench_function("TCP header, encode", |b| b.iter(|| black_box(&header).encode()));
    let raw = header.encode();
    group.bench_function("TCP header, decode", |b| b.iter(|| Header::decode(black_box(&raw))));
    let news = News::Failed { rank: 3, reason: "its process died".into() };
    let messages = [
        ("heartbeat", Message::Heartbeat),
        ("news", Message::News { world: WorldId([7; 16]), epoch: 2, news }),
        ("calling", Message::Calling { world: WorldId([7; 16]), epoch: 2, rank: 1, call: fp }),
    ];
    for (name, message) in messages {
        group.bench_function(format!("control, {name}, encode"), |b| b.iter(|| black_box(&message).encode()));
        let raw = message.encode();
        group.bench_function(format!("control, {name}, decode"), |b| {
            b.iter(|| Message::decode(black_box(&raw)))
        });
    }
    let ticket = Ticket::fresh(([127, 0, 0, 1], 4000).into()).expect("random bytes");
    group.bench_function("unique id, encode", |b| b.iter(|| black_box(&ticket).encode()));
    let raw = ticket.encode();
    group.bench_function("unique id, decode", |b| b.iter(|| Ticket::decode(black_box(&raw)).is_ok()));
    let set = wire::Request::Set { key: b"worlds/name/rank/3".to_vec(), value: vec![5; 200], lease: None };
    let mut frame = Vec::new();
    wire::encode_request(9, &set, &mut frame);
    group.bench_function("store, set, encode", |b| {
        b.iter(|| {
            frame.clear();
            wire::encode_request(9, black_box(&set), &mut frame);
        })
    });
    // Behind the frame's length.
    group.bench_function("store, set, decode", |b| b.iter(|| wire::decode_request(black_box(&frame[4..]))));
}

fn main() {
    let mut c = Criterion::default()
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(500))
        .without_plots()
        .sample_size(20)
        .configure_from_args();
    fragments(&mut c);
    round_trips(&mut c);
    handles(&mut c);
    requests(&mut c);
    codecs(&mut c);
    c.final_summary();
}

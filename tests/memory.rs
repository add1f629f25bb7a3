//! Memory from mwMemAlloc between real processes: contents, freeing while worlds live, deaths and aborts in the middle of
//! messages, and what happens without the facilities that it is made of.

mod common;

use common::{Rank, barrier, collective, listen, recv, role, say, send, settle_in, store_address};
use multiworld::backend::memory;
use multiworld::config::Config;
use multiworld::error::Code;
use multiworld::types::{DataType, OpKind, RedOp, Reduction};
use multiworld::world::{Call, Request, World};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Around every size at which something changes, in and out of pages.
const SIZES: [usize; 22] = [
    0, 1, 8, 1000, 2047, 2048, 2049, 4095, 4096, 4097, 8192, 16_384, 16_385, 40_000, 65_536, 98_303, 98_304,
    110_001, 400_000, 1_048_577, 4_000_000, 9_000_003,
];

/// Memory from mwMemAlloc.
struct Memory(NonNull<u8>, usize);

// SAFETY: memory of its own.
unsafe impl Send for Memory {}

impl Memory {
    fn new(len: usize) -> Memory {
        Memory(memory::allocate(len).expect("memory"), len)
    }

    fn filled(bytes: &[u8]) -> Memory {
        let mut memory = Memory::new(bytes.len());
        memory.copy_from_slice(bytes);
        memory
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        memory::release(self.0).expect("freeing");
    }
}

impl Deref for Memory {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: zeroed when it was allocated, and its own until drop.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr(), self.1) }
    }
}

impl DerefMut for Memory {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_ptr(), self.1) }
    }
}

fn pattern(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|i| ((i + seed * 31) % 251) as u8).collect()
}

/// Mappings of memory from mwMemAlloc in this process: its own, and its peers'.
fn mapped() -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("/proc/self/maps");
    maps.lines().filter(|line| line.contains("multiworld-memory")).count()
}

fn until(what: &str, mut body: impl FnMut() -> bool) {
    let end = Instant::now() + common::PATIENCE;
    while !body() {
        assert!(Instant::now() < end, "{what}: not in time");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn join(name: &str, n: usize, me: usize) -> Arc<World> {
    World::init_named(name, n as i32, me as i32, &Config::from_env().expect("settings")).expect("joining")
}

#[test]
fn rank() {
    let Some((role, args)) = role() else { return };
    settle_in();
    let me: usize = args[0].parse().expect("a rank");
    match &*role {
        "contents" => contents(me, args[1].parse().expect("a number of ranks")),
        "lives" => lives(me),
        "worlds" => worlds(me),
        "victim" => victim(me),
        "abort" => abort(me),
        "descriptors" => descriptors(me),
        "stopped" => stopped(me),
        "twice" => twice(),
        other => panic!("no role {other}"),
    }
}

fn start(role: &str, n: usize, env: &[(&str, &str)]) -> Vec<Rank> {
    let store = store_address();
    let mut all = vec![("MW_STORE", &*store)];
    all.extend(env);
    (0..n).map(|me| Rank::start("rank", role, &[me.to_string(), n.to_string()], &all)).collect()
}

fn both(role: &str, n: usize, env: &[(&str, &str)]) {
    start(role, n, env).into_iter().for_each(Rank::finish);
}

/// Every size, registered or not on either side, there and back, and every collective.
fn contents(me: usize, n: usize) {
    let w = join("contents", n, me);
    if me < 2 {
        let peer = 1 - me as u32;
        for round in 0..3 {
            for (i, &len) in SIZES.iter().enumerate() {
                for registered in [true, false] {
                    let bytes = pattern(me + i + round, len);
                    let (from, mut to) = (Memory::filled(&bytes), Memory::new(len));
                    let mut plain = vec![0; len];
                    let to: &mut [u8] = if registered { &mut to } else { &mut plain };
                    for _ in 0..2 {
                        to.fill(0);
                        if me == 0 {
                            w.run(&send(&from, peer)).expect("send");
                            w.run(&recv(to, peer)).expect("recv");
                        } else {
                            w.run(&recv(to, peer)).expect("recv");
                            w.run(&send(&from, peer)).expect("send");
                        }
                        assert!(*to == pattern(1 - me + i + round, len), "{len} bytes, {registered}");
                    }
                }
            }
        }
        messages_at_once(&w, peer, me);
    }
    let longest = 2_000_000;
    let (mut from, mut to) = (Memory::new(longest * n), Memory::new(longest * n));
    for (i, count) in [1, 1000, 5000, 40_000, 100_003, longest].into_iter().enumerate() {
        for offset in [0, 3] {
            // What both sides have mapped is used by the second round at the latest.
            for round in 0..3 {
                collectives(&w, &mut from, &mut to, count - offset.min(count - 1), offset, me + i + round);
            }
        }
    }
    sums(&w, &mut from, &mut to);
    w.run(&barrier()).expect("barrier");
    w.destroy().expect("destroying");
}

/// Many messages in both directions, between different parts of one allocation.
fn messages_at_once(w: &Arc<World>, peer: u32, me: usize) {
    let lens = [3000, 500_000, 10, 120_000, 2048];
    let total: usize = lens.iter().sum();
    let mut memory = Memory::new(2 * total);
    for round in 0..20 {
        let (mine, theirs) = memory.split_at_mut(total);
        mine.copy_from_slice(&pattern(me + round, total));
        theirs.fill(0);
        let mut calls = Vec::new();
        let (mut rest, mut at) = (&mut *theirs, 0);
        for len in lens {
            let (part, behind) = rest.split_at_mut(len);
            calls.push((w.clone(), send(&mine[at..at + len], peer)));
            calls.push((w.clone(), recv(part, peer)));
            (rest, at) = (behind, at + len);
        }
        Request::submit(&mut calls.into(), false).wait(None).expect("a deadline").expect("messages");
        assert!(*theirs == pattern(1 - me + round, total), "round {round}");
    }
}

fn collectives(w: &World, from: &mut [u8], to: &mut [u8], count: usize, offset: usize, seed: usize) {
    let (n, me) = (w.nranks() as usize, w.rank() as usize);
    let base = seed - me;
    let input = |rank: usize| pattern(base + rank, count);
    let from = &mut from[offset..];
    let to = &mut to[offset..];
    from[..count].copy_from_slice(&input(me));
    w.run(&collective(OpKind::AllGather, &from[..count], &mut to[..n * count], count, 0)).expect("AllGather");
    for rank in 0..n {
        assert!(to[rank * count..][..count] == input(rank), "AllGather of {count}");
    }
    to[..count].fill(0);
    w.run(&collective(OpKind::Broadcast, &from[..count], &mut to[..count], count, 0)).expect("Broadcast");
    assert!(to[..count] == input(0), "Broadcast of {count}");
    let sum = (0..n).fold(vec![0u8; count], |sum, rank| {
        sum.iter().zip(input(rank)).map(|(a, b)| a.wrapping_add(b)).collect()
    });
    w.run(&collective(OpKind::AllReduce, &from[..count], &mut to[..count], count, 0)).expect("AllReduce");
    assert!(to[..count] == sum, "AllReduce of {count}");
    let each = count / n;
    w.run(&collective(OpKind::ReduceScatter, &from[..n * each], &mut to[..each], each, 0))
        .expect("ReduceScatter");
    assert!(to[..each] == sum[me * each..][..each], "ReduceScatter of {each}");
    w.run(&collective(OpKind::AllToAll, &from[..n * each], &mut to[..n * each], each, 0)).expect("AllToAll");
    for rank in 0..n {
        assert!(to[rank * each..][..each] == input(rank)[me * each..][..each], "AllToAll of {each}");
    }
    // In place.
    w.run(&collective(OpKind::AllReduce, itself(from, count), &mut from[..count], count, 0))
        .expect("AllReduce");
    assert!(from[..count] == sum, "AllReduce in place of {count}");
}

/// The same bytes once more: an operation in place.
fn itself<'a>(bytes: &[u8], count: usize) -> &'a [u8] {
    // SAFETY: only its address is used.
    unsafe { std::slice::from_raw_parts(bytes.as_ptr(), count) }
}

/// Elements that must not be torn.
fn sums(w: &World, from: &mut [u8], to: &mut [u8]) {
    let (n, me) = (w.nranks() as usize, w.rank() as usize);
    for count in [3, 1001, 70_001, 200_003] {
        for (i, e) in from.chunks_exact_mut(8).take(count).enumerate() {
            e.copy_from_slice(&((i * 3 + me) as f64).to_ne_bytes());
        }
        let call = Call {
            dtype: DataType::Float64,
            reduction: Reduction::Builtin(RedOp::Sum),
            ..collective(OpKind::AllReduce, from, to, count, 0)
        };
        for _ in 0..3 {
            w.run(&call).expect("AllReduce");
            for (i, e) in to.chunks_exact(8).take(count).enumerate() {
                let sum = (i * 3 * n + n * (n - 1) / 2) as f64;
                assert_eq!(
                    f64::from_ne_bytes(e.try_into().expect("eight bytes")),
                    sum,
                    "element {i} of {count}"
                );
            }
        }
    }
}

#[test]
fn what_is_sent_arrives() {
    both("contents", 2, &[]);
}

#[test]
fn what_is_sent_arrives_with_more_ranks_than_processors() {
    both("contents", 3, &[]);
}

#[test]
fn what_is_sent_arrives_over_tcp() {
    both("contents", 2, &[("MW_TRANSPORT", "tcp")]);
}

#[test]
fn what_is_sent_arrives_without_facilities() {
    both("contents", 2, &[("MW_DISABLE", "memfd,cma,robust,futex_waitv")]);
}

/// Sends until the peer has mapped it.
fn ping(w: &World, me: usize, from: &[u8], to: &mut [u8]) {
    let peer = 1 - me as u32;
    if me == 0 {
        w.run(&send(from, peer)).expect("send");
        w.run(&recv(to, peer)).expect("recv");
    } else {
        w.run(&recv(to, peer)).expect("recv");
        w.run(&send(from, peer)).expect("send");
    }
}

/// Memory comes and goes while worlds live.
fn lives(me: usize) {
    assert_eq!(mapped(), 0);
    // Before there is a world.
    let early = Memory::filled(&pattern(me, 100_000));
    let mut to = vec![0; 100_000];
    let w = join("lives", 2, me);
    assert_eq!(mapped(), 1, "nobody maps what was never sent");
    w.run(&barrier()).expect("barrier");
    // Both come to the same end, because each maps what the other sends.
    for _ in 0..1000 {
        ping(&w, me, &early, &mut to);
        assert!(to == pattern(1 - me, 100_000));
        let mut mine = vec![u8::from(mapped() == 2); 1];
        let mut all = vec![0; 2];
        w.run(&collective(OpKind::AllGather, &mine, &mut all, 1, 0)).expect("AllGather");
        mine.clear();
        if all == [1, 1] {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(mapped(), 2, "its own, and the peer's");
    let again = join("again", 2, me);
    for _ in 0..10 {
        ping(&again, me, &early, &mut to);
    }
    assert_eq!(mapped(), 2, "once for both worlds");
    w.run(&barrier()).expect("barrier");
    drop(early);
    until("the peer's memory is unmapped", || mapped() == 0);
    w.run(&barrier()).expect("barrier");
    for round in 0..50 {
        let len = 10_000 + 37_000 * (round % 7);
        let from = Memory::filled(&pattern(me + round, len));
        let mut to = Memory::new(len);
        for _ in 0..5 {
            to.fill(0);
            ping(&w, me, &from, &mut to);
            assert!(*to == pattern(1 - me + round, len), "round {round}");
        }
    }
    w.run(&barrier()).expect("barrier");
    until("everything is unmapped", || mapped() == 0);
    // With worlds gone it is memory still.
    let last = Memory::filled(&pattern(me, 5000));
    w.destroy().expect("destroying");
    again.destroy().expect("destroying");
    assert!(*last == pattern(me, 5000));
}

#[test]
fn memory_comes_and_goes_while_worlds_live() {
    both("lives", 2, &[]);
}

/// Several worlds of the same two processes, driven by two threads, with parts of the same memory.
fn worlds(me: usize) {
    let all: Vec<_> = (0..4).map(|i| join(&format!("world-{i}"), 2, me)).collect();
    let len = 300_000;
    let mut memory = Memory::new(2 * all.len() * len);
    std::thread::scope(|scope| {
        for (pair, part) in all.chunks(2).zip(memory.chunks_mut(4 * len)) {
            scope.spawn(move || {
                for round in 0..100 {
                    for (i, (w, part)) in pair.iter().zip(part.chunks_mut(2 * len)).enumerate() {
                        let (from, to) = part.split_at_mut(len);
                        from.copy_from_slice(&pattern(me + i + round, len));
                        ping(w, me, from, to);
                        assert!(*to == pattern(1 - me + i + round, len), "round {round}");
                    }
                }
            });
        }
    });
    all.iter().for_each(|w| w.destroy().expect("destroying"));
}

#[test]
fn several_worlds_and_threads_share_one_mapping() {
    both("worlds", 2, &[]);
}

/// Streams large messages from rank 1 to rank 0 until rank 1 is killed.
fn victim(me: usize) {
    let len = 24_000_000;
    let mut memory = Memory::filled(&pattern(1, len));
    let w = join("victim", 2, me);
    say("going");
    if me == 1 {
        loop {
            w.run(&send(&memory, 0)).expect("the survivor lives");
        }
    }
    let mut rounds = 0;
    let error = loop {
        match w.run(&recv(&mut memory, 1)) {
            Ok(()) => assert!(memory[len / 2] == pattern(1, len / 2 + 1)[len / 2]),
            Err(e) => break e,
        }
        rounds += 1;
    };
    assert_eq!(error.code, Code::Remote, "{error}");
    untouched(&mut memory);
    say(&format!("over {rounds}"));
    w.destroy().expect("destroying");
    drop(memory);
    until("nothing of the victim is mapped", || mapped() == 0);
}

/// The buffer is its owner's again: nobody writes to it.
fn untouched(memory: &mut Memory) {
    memory.fill(99);
    let end = Instant::now() + Duration::from_millis(100);
    while Instant::now() < end {
        assert!(memory.iter().all(|b| *b == 99), "somebody wrote to it");
    }
}

#[test]
fn a_sender_is_killed_in_the_middle_of_messages() {
    for i in 0..4 {
        let mut ranks = start("victim", 2, &[]);
        ranks.iter_mut().for_each(|r| r.expect("going"));
        std::thread::sleep(Duration::from_millis(200 + 3 * i));
        ranks[1].kill();
        assert!(ranks[0].hear_of("over").parse::<u64>().expect("a number") > 0);
        ranks.remove(0).finish();
    }
}

/// Rank 1 sends until it is stopped; rank 0 finds out that it is silent, and uses its buffer for something else.
fn stopped(me: usize) {
    let len = 24_000_000;
    let mut memory = Memory::filled(&pattern(1, len));
    let w = join("stopped", 2, me);
    say("going");
    if me == 1 {
        while w.run(&send(&memory, 0)).is_ok() {}
        return;
    }
    let error = loop {
        if let Err(e) = w.run(&recv(&mut memory, 1)) {
            break e;
        }
    };
    assert_eq!(error.code, Code::Remote, "{error}");
    memory.fill(99);
    say("over");
    assert_eq!(listen(), "continued");
    untouched(&mut memory);
    w.destroy().expect("destroying");
}

#[test]
fn a_sender_that_was_stopped_writes_to_nobody_s_buffer_later() {
    for i in 0..3 {
        let mut ranks = start("stopped", 2, &[]);
        ranks.iter_mut().for_each(|r| r.expect("going"));
        std::thread::sleep(Duration::from_millis(200 + 3 * i));
        ranks[1].signal(libc::SIGSTOP);
        ranks[0].expect("over");
        ranks[1].signal(libc::SIGCONT);
        ranks[0].tell("continued");
        ranks.remove(0).finish();
    }
}

/// Both exchange large messages until rank 0 aborts, frees its memory and goes on in another world.
fn abort(me: usize) {
    let len = 16_000_000;
    let other = join("other", 2, me);
    for round in 0..5 {
        let w = join(&format!("abort-{round}"), 2, me);
        let from = Memory::filled(&pattern(me, len));
        let mut to = Memory::new(len);
        let aborter = w.clone();
        let thread = (me == 0).then(|| {
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(60 + 7 * round));
                aborter.abort();
            })
        });
        let error = loop {
            let calls =
                vec![(w.clone(), send(&from, 1 - me as u32)), (w.clone(), recv(&mut to, 1 - me as u32))];
            if let Err(e) = Request::submit(&mut calls.into(), false).wait(None).expect("a deadline") {
                break e;
            }
            assert!(*to == pattern(1 - me, len));
        };
        assert!(matches!(error.code, Code::Aborted | Code::Remote), "{error}");
        drop(from);
        untouched(&mut to);
        drop(to);
        if let Some(thread) = thread {
            thread.join().expect("the aborting thread");
        }
        w.destroy().expect("destroying");
        let (from, mut to) = (Memory::filled(&pattern(me, 50_000)), Memory::new(50_000));
        ping(&other, me, &from, &mut to);
        assert!(*to == pattern(1 - me, 50_000));
    }
    other.destroy().expect("destroying");
}

#[test]
fn an_abort_in_the_middle_gives_the_buffers_back() {
    both("abort", 2, &[]);
}

/// Without descriptors left memory is memory still.
fn descriptors(me: usize) {
    let w = join("descriptors", 2, me);
    let spare = std::fs::File::open("/dev/null").expect("/dev/null");
    let used = std::fs::read_dir("/proc/self/fd").expect("/proc/self/fd").count() as u64;
    let limit = libc::rlimit { rlim_cur: used + 8, rlim_max: used + 8 };
    // SAFETY: a valid limit.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
    let len = 200_000;
    let mut all: Vec<Memory> = (0..40).map(|i| Memory::filled(&pattern(me + i, len))).collect();
    drop(spare);
    let shared = mapped();
    assert!((1..40).contains(&shared), "{shared}");
    let mut to = Memory::new(len);
    for _ in 0..3 {
        for (i, from) in all.iter().enumerate() {
            ping(&w, me, from, &mut to);
            assert!(*to == pattern(1 - me + i, len), "{i}");
        }
    }
    // What was given back can be shared again.
    w.run(&barrier()).expect("barrier");
    all.clear();
    let from = Memory::filled(&pattern(me, len));
    ping(&w, me, &from, &mut to);
    assert!(*to == pattern(1 - me, len));
    w.run(&barrier()).expect("barrier");
    w.destroy().expect("destroying");
}

#[test]
fn without_descriptors_messages_take_the_usual_ways() {
    let mut ranks = start("descriptors", 2, &[("MW_DEBUG", "warn")]);
    let second = ranks.pop().expect("two ranks");
    second.finish();
    let first = ranks.pop().expect("two ranks");
    until("a warning", || first.log().contains("mwMemAlloc: "));
    assert_eq!(first.log().matches("mwMemAlloc: ").count(), 1, "{}", first.log());
    first.finish();
}

/// What was freed is gone: there is no other thread that could get the same address.
fn twice() {
    let first = memory::allocate(5000).expect("memory");
    memory::release(first).expect("freeing");
    let e = memory::release(first).expect_err("memory that is gone");
    assert!(e.code == Code::InvalidArgument && e.text.starts_with("ptr: "), "{e}");
    let before = mapped();
    let all: Vec<_> = (0..100).map(|_| memory::allocate(1 << 20).expect("memory")).collect();
    assert!(mapped() > before);
    all.into_iter().for_each(|at| memory::release(at).expect("freeing"));
    assert_eq!(mapped(), before);
    // SAFETY: the child calls only what says that it can be called there, and `_exit`.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let refused =
            |r: Result<(), multiworld::error::Error>| r.is_err_and(|e| e.code == Code::InvalidUsage);
        let right = refused(memory::allocate(1).map(drop)) && refused(memory::release(first));
        // SAFETY: ends the process.
        unsafe { libc::_exit(if right { 0 } else { 1 }) };
    }
    let mut status = 1;
    // SAFETY: our own child and a valid place for its status.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    assert_eq!(status, 0);
}

#[test]
fn memory_is_freed_once_and_by_its_own_process() {
    both("twice", 1, &[]);
}

//! A process that is measured: does what each line says, and answers with a line of numbers.

use crate::calls::{Result, World};
use crate::usage;
use std::hint::black_box;
use std::io::{BufRead, stdin};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Threads that join many worlds.
const JOINERS: usize = 4;
/// Bytes of the answer to a stream of messages.
const ANSWER: usize = 4;
/// Round trips between two readings of the clock, for messages that are small.
const AT_ONCE: usize = 50;
const SMALL: usize = 16 << 10;
/// Messages of traffic between two answers.
const MESSAGES: u64 = 16;

struct Member {
    rank: i32,
    /// In the same order in all processes.
    worlds: Vec<World>,
    /// Worlds so far: no two have the same name.
    joined: usize,
    send: Vec<u8>,
    recv: Vec<u8>,
}

fn nanoseconds(since: Instant, by: usize) -> f64 {
    since.elapsed().as_nanos() as f64 / by as f64
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or(0.0)
}

/// Until there are no more orders.
pub fn run() -> Result<()> {
    usage::end_with_parent();
    let rank = std::env::var("MW_RANK").ok().and_then(|rank| rank.parse().ok()).unwrap_or(0);
    let mut member = Member { rank, worlds: Vec::new(), joined: 0, send: Vec::new(), recv: Vec::new() };
    for line in stdin().lock().lines() {
        let line = line.map_err(|e| e.to_string())?;
        let mut words = line.split_whitespace();
        let order = words.next().unwrap_or_default();
        let numbers: Vec<usize> = words.filter_map(|word| word.parse().ok()).collect();
        let answer: Vec<String> = member.obey(order, &numbers)?.iter().map(f64::to_string).collect();
        println!("{}", answer.join(" "));
    }
    Ok(())
}

impl Member {
    fn obey(&mut self, order: &str, numbers: &[usize]) -> Result<Vec<f64>> {
        match (order, numbers) {
            ("bind", []) => usage::bind(self.rank as usize).map(|()| vec![0.0]),
            ("join", &[number]) => self.join(number),
            ("keep", &[number]) => self.keep(number),
            ("usage", []) => {
                usage::memory_and_threads().map(|(kib, threads)| vec![kib as f64, threads as f64])
            }
            ("idle", &[ms]) => {
                let (before, since) = (usage::thread_time("mw-")?, Instant::now());
                std::thread::sleep(Duration::from_millis(ms as u64));
                let used = usage::thread_time("mw-")? - before;
                Ok(vec![used as f64 / 1e3 / since.elapsed().as_secs_f64()])
            }
            ("latency", &[size, active, times]) => self.latency(size, active, times),
            ("stream", &[size, active, number, times]) => self.stream(size, active, number, times),
            ("pair", &[number]) => self.pair(number),
            ("traffic", &[size, ms, joins]) => self.traffic(size, ms, joins),
            ("barrier", &[_, times]) => self.collective(times, |world, _, _| world.barrier()),
            ("allreduce", &[size, times]) => {
                self.buffers(size);
                self.collective(times, |world, send, recv| world.all_reduce(&send[..size], &mut recv[..size]))
            }
            _ => Err(format!("{order} {numbers:?} is no order")),
        }
    }

    fn buffers(&mut self, size: usize) {
        for buffer in [&mut self.send, &mut self.recv] {
            if buffer.len() < size.max(ANSWER) {
                buffer.resize(size.max(ANSWER), 1);
            }
        }
    }

    /// Answers the milliseconds for all of them. One alone is joined by this thread.
    fn join(&mut self, number: usize) -> Result<Vec<f64>> {
        let (since, next, joined) = (Instant::now(), AtomicUsize::new(0), Mutex::new(Vec::new()));
        let some = || -> Result<()> {
            loop {
                let i = self.joined + next.fetch_add(1, Ordering::Relaxed);
                if i >= self.joined + number {
                    return Ok(());
                }
                let world = World::join(&format!("scale-{i}"))?;
                joined.lock().unwrap_or_else(|e| e.into_inner()).push((i, world));
            }
        };
        std::thread::scope(|scope| {
            let more: Vec<_> = (1..JOINERS.min(number)).map(|_| scope.spawn(some)).collect();
            let mine = some();
            let all = more.into_iter().map(|t| t.join().unwrap_or_else(|_| Err("a thread panicked".into())));
            all.fold(mine, Result::and)
        })?;
        let ms = nanoseconds(since, 1) / 1e6;
        let mut joined = joined.into_inner().unwrap_or_else(|e| e.into_inner());
        joined.sort_by_key(|(i, _)| *i);
        self.worlds.extend(joined.into_iter().map(|(_, world)| world));
        self.joined += number;
        Ok(vec![ms])
    }

    /// Joins worlds of the first two processes.
    fn pair(&mut self, number: usize) -> Result<Vec<f64>> {
        for i in (0..number).filter(|_| self.rank < 2) {
            self.worlds.push(World::join_as(&format!("pair-{i}"), 2, self.rank)?);
        }
        Ok(vec![0.0])
    }

    /// The first two processes send messages through all their worlds in turn for a while; the first one and the third one
    /// join worlds meanwhile, spread over that time, and leave them again. The first one answers messages per second and
    /// the median milliseconds that it took to join.
    fn traffic(&mut self, size: usize, ms: usize, joins: usize) -> Result<Vec<f64>> {
        let first = self.joined;
        self.joined += joins;
        let (rank, every) = (self.rank.min(1), Duration::from_millis(ms as u64) / (joins.max(1) as u32));
        let begin = Instant::now();
        let come_and_go = || -> Result<Vec<f64>> {
            let mut times = Vec::new();
            for i in 0..joins {
                let turn = every * i as u32 + every / 2;
                std::thread::sleep(turn.saturating_sub(begin.elapsed()));
                let since = Instant::now();
                let world = World::join_as(&format!("new-{}", first + i), 2, rank)?;
                times.push(nanoseconds(since, 1) / 1e6);
                world.leave()?;
            }
            Ok(times)
        };
        match self.rank {
            2 => come_and_go().map(|_| vec![0.0]),
            0 => std::thread::scope(|scope| {
                let beside = scope.spawn(come_and_go);
                let rate = self.pour(size, Duration::from_millis(ms as u64));
                let times = beside.join().unwrap_or_else(|_| Err("a thread panicked".into()))?;
                Ok(vec![rate?, median(times)])
            }),
            _ => self.pour(size, Duration::MAX).map(|_| vec![0.0]),
        }
    }

    /// Messages one way and an answer, over and over; the first process says when to stop. Answers messages per second.
    fn pour(&mut self, size: usize, time: Duration) -> Result<f64> {
        self.buffers(size);
        let peer = 1 - self.rank;
        let (mut i, mut messages, since) = (0, 0u64, Instant::now());
        loop {
            self.send[0] = u8::from(since.elapsed() >= time);
            let mut is_last = self.send[0] == 1;
            for _ in 0..MESSAGES {
                let world = self.world(i, self.worlds.len())?;
                i += 1;
                if self.rank == 0 {
                    world.send(&self.send[..size], peer)?;
                } else {
                    world.recv(&mut self.recv[..size], peer)?;
                    is_last = self.recv[0] == 1;
                }
            }
            let world = self.world(0, 1)?;
            if self.rank == 0 {
                world.recv(&mut self.recv[..ANSWER], peer)?;
            } else {
                world.send(&self.send[..ANSWER], peer)?;
            }
            messages += MESSAGES;
            if is_last {
                return Ok(messages as f64 / since.elapsed().as_secs_f64());
            }
        }
    }

    /// Leaves all worlds but the first ones.
    fn keep(&mut self, number: usize) -> Result<Vec<f64>> {
        let since = Instant::now();
        for world in self.worlds.drain(number.min(self.worlds.len())..) {
            world.leave()?;
        }
        Ok(vec![nanoseconds(since, 1) / 1e6])
    }

    fn world(&self, i: usize, active: usize) -> Result<World> {
        self.worlds.get(i % active.max(1)).copied().ok_or_else(|| "there are not so many worlds".into())
    }

    /// Messages go back and forth, in one world after the other. Answers the median time of one in nanoseconds.
    fn latency(&mut self, size: usize, active: usize, times: usize) -> Result<Vec<f64>> {
        self.buffers(size);
        let at_once = if size < SMALL { AT_ONCE } else { 1 };
        let peer = 1 - self.rank;
        let (send, mut recv) = (std::mem::take(&mut self.send), std::mem::take(&mut self.recv));
        let (out, into) = (&send[..size], &mut recv[..size]);
        let (mut i, mut samples) = (0, Vec::with_capacity(times));
        for _ in 0..times {
            let since = Instant::now();
            for _ in 0..at_once {
                let world = self.world(i, active)?;
                i += 1;
                if self.rank == 0 {
                    world.send(out, peer)?;
                    world.recv(into, peer)?;
                } else {
                    world.recv(into, peer)?;
                    world.send(out, peer)?;
                }
            }
            samples.push(nanoseconds(since, 2 * at_once));
        }
        (self.send, self.recv) = (send, recv);
        Ok(vec![median(samples)])
    }

    /// Messages go one way, each in another world than the one before, and after `number` of them comes an answer. The
    /// median time of one in nanoseconds.
    fn stream(&mut self, size: usize, active: usize, number: usize, times: usize) -> Result<Vec<f64>> {
        self.buffers(size);
        let peer = 1 - self.rank;
        let (send, mut recv) = (std::mem::take(&mut self.send), std::mem::take(&mut self.recv));
        let (mut i, mut samples) = (0, Vec::with_capacity(times));
        for _ in 0..times {
            let since = Instant::now();
            for _ in 0..number {
                let world = self.world(i, active)?;
                i += 1;
                if self.rank == 0 {
                    world.send(&send[..size], peer)?;
                } else {
                    world.recv(&mut recv[..size], peer)?;
                }
            }
            let world = self.world(0, active)?;
            if self.rank == 0 {
                world.recv(&mut recv[..ANSWER], peer)?;
            } else {
                world.send(&send[..ANSWER], peer)?;
            }
            samples.push(nanoseconds(since, number));
        }
        (self.send, self.recv) = (black_box(send), black_box(recv));
        Ok(vec![median(samples)])
    }

    /// An operation of all ranks in the first world, over and over. Answers the average time in nanoseconds.
    fn collective(
        &mut self,
        times: usize,
        operation: impl Fn(World, &[u8], &mut [u8]) -> Result<()>,
    ) -> Result<Vec<f64>> {
        let world = self.world(0, 1)?;
        world.barrier()?;
        let since = Instant::now();
        for _ in 0..times {
            operation(world, &self.send, &mut self.recv)?;
        }
        Ok(vec![nanoseconds(since, times)])
    }
}

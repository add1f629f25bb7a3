//! One operation with its buffers: carrying it out, timing it, checking what it did.

use super::contents::{Part, View};
use super::memory::{Memory, Source};
use super::op::Op;
use super::pattern::Recipe;
use super::stats::Samples;
use crate::api::{self, Elements, Result, World};
use multiworld::types::DataType;
use std::ptr;
use std::time::{Duration, Instant};

/// How operations that are under way together are posted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Post {
    /// mwGroupStart ... mwGroupEnd
    #[default]
    Group,
    /// mwGroupStart ... mwGroupSubmit, then mwRequestWait
    Submit,
}

/// What does not depend on operation and size.
#[derive(Clone)]
pub struct Setting {
    /// Operations go over these in turn.
    pub worlds: Vec<World>,
    pub recipe: Recipe,
    pub rank: usize,
    pub root: usize,
    pub post: Post,
    pub source: Source,
}

/// One operation at one size.
pub struct Exercise<'a> {
    setting: &'a Setting,
    view: View,
    elements: Elements,
    /// Bytes from one message of a window to the next.
    stride: usize,
    next_world: usize,
    stream: multiworld::capi::mwStream_t,
    answer: Elements,
    /// The send buffer, or in place the only one.
    first: Memory,
    second: Option<Memory>,
    /// Where the send and receive buffers begin in their memory, in elements.
    begin: (usize, usize),
    /// Keeps what `answer` points to.
    _answer: Memory,
}

/// What the buffers hold before something is received, which is no pattern.
const NOTHING: u8 = 0xa5;

impl<'a> Exercise<'a> {
    pub fn new(setting: &'a Setting, op: Op, size: u64, in_place: bool) -> Result<Exercise<'a>> {
        let Recipe { datatype, nranks, .. } = setting.recipe;
        let element = datatype.size();
        let count = op.count(size, element, nranks);
        let part = count * element;
        let room = op.buffers(part, nranks);
        let window = op.window(part as u64);
        let view = View { op, rank: setting.rank, nranks, root: setting.root, count, window };
        let (first, second, begin) = if in_place {
            (setting.source.take(room.send.max(room.recv))?, None, view.in_place())
        } else {
            (setting.source.take(room.send)?, Some(setting.source.take(room.recv)?), (0, 0))
        };
        let recv = second.as_ref().unwrap_or(&first).start();
        let elements = Elements {
            send: first.start().wrapping_add(begin.0 * element),
            recv: recv.wrapping_add(begin.1 * element),
            count,
            datatype: datatype as i32,
        };
        let answer = setting.source.take(1)?;
        Ok(Exercise {
            setting,
            view,
            elements,
            stride: if op == Op::Bwd { part } else { 0 },
            next_world: 0,
            stream: match &setting.source {
                Source::Host | Source::Registered => ptr::null_mut(),
                Source::Device { stream, .. } => stream.raw().cast(),
            },
            answer: Elements {
                send: answer.start(),
                recv: answer.start(),
                count: 1,
                datatype: DataType::Uint8 as i32,
            },
            first,
            second,
            begin,
            _answer: answer,
        })
    }

    pub fn view(&self) -> &View {
        &self.view
    }

    /// Whether this rank has a part in it.
    fn takes_part(&self) -> bool {
        !self.view.op.is_point_to_point() || self.view.rank < 2
    }

    /// Carries it out so often and answers how long that took.
    pub fn run(&mut self, iterations: u64) -> Result<Duration> {
        if !self.takes_part() {
            return Ok(Duration::ZERO);
        }
        let start = Instant::now();
        for _ in 0..iterations {
            self.step()?;
        }
        self.setting.source.settle()?;
        Ok(start.elapsed())
    }

    /// The same over one of the worlds, for operations in which every rank has a part.
    pub fn run_on(&mut self, world: usize, iterations: u64) -> Result<Duration> {
        let start = Instant::now();
        for _ in 0..iterations {
            self.next_world = world;
            self.step()?;
        }
        self.setting.source.settle()?;
        Ok(start.elapsed())
    }

    /// The same with the time of every iteration.
    pub fn run_sampled(&mut self, iterations: u64, samples: &mut Samples) -> Result<Duration> {
        if !self.takes_part() {
            return Ok(Duration::ZERO);
        }
        let start = Instant::now();
        let mut last = start;
        for _ in 0..iterations {
            self.step()?;
            self.setting.source.settle()?;
            let now = Instant::now();
            samples.push(now - last);
            last = now;
        }
        Ok(last - start)
    }

    /// One iteration.
    #[inline]
    fn step(&mut self) -> Result<()> {
        let Some(&world) = self.setting.worlds.get(self.next_world) else { return Ok(()) };
        self.next_world += 1;
        if self.next_world == self.setting.worlds.len() {
            self.next_world = 0;
        }
        let (e, s) = (&self.elements, self.stream);
        let (op, root) = (self.setting.recipe.redop as i32, self.setting.root as i32);
        // SAFETY: the buffers hold what `Op::buffers` says that these calls take, live as long as `self`, and are
        // neither read nor written by anybody else until the calls (and on a device the stream) are through,
        // which everybody who calls this waits for.
        unsafe {
            match self.view.op {
                Op::SendRecv if self.view.rank == 0 => {
                    world.send(e, 1, s)?;
                    world.recv(e, 1, s)
                }
                Op::SendRecv => {
                    world.recv(e, 0, s)?;
                    world.send(e, 0, s)
                }
                Op::Bw | Op::Bwd => self.window(world),
                Op::AllReduce => world.all_reduce(e, op, s),
                Op::AllGather => world.all_gather(e, s),
                Op::ReduceScatter => world.reduce_scatter(e, op, s),
                Op::Broadcast => world.broadcast(e, root, s),
                Op::Reduce => world.reduce(e, op, root, s),
                Op::AllToAll => world.all_to_all(e, s),
                Op::Gather => world.gather(e, root, s),
                Op::Scatter => world.scatter(e, root, s),
                Op::Barrier => world.barrier(s),
            }
        }
    }

    /// A window of messages and its answer.
    ///
    /// # Safety
    /// As for the operations of [`World`]: the buffers hold as many messages as the window has.
    unsafe fn window(&self, world: World) -> Result<()> {
        let sends = self.view.rank == 0;
        let mut e = self.elements;
        api::group_start()?;
        for _ in 0..self.view.window {
            // SAFETY: by this function's contract.
            unsafe { if sends { world.send(&e, 1, self.stream)? } else { world.recv(&e, 0, self.stream)? } }
            e.send = e.send.wrapping_add(self.stride);
            e.recv = e.recv.wrapping_add(self.stride);
        }
        match self.setting.post {
            Post::Group => api::group_end()?,
            Post::Submit => api::group_submit_and_wait()?,
        }
        // SAFETY: one byte, which is this exercise's.
        unsafe {
            if sends {
                world.recv(&self.answer, 1, self.stream)
            } else {
                world.send(&self.answer, 0, self.stream)
            }
        }
    }

    /// Puts what this rank sends in an iteration into its buffer, and nonsense where something is to be received.
    pub fn prepare(&mut self, iteration: u64) -> Result<()> {
        let (parts, begin) = (self.view.sent(), self.begin.0);
        if let Some(second) = &mut self.second {
            second.change(|bytes| bytes.fill(NOTHING))?;
        }
        let recipe = self.setting.recipe;
        self.first.change(|bytes| {
            bytes.fill(NOTHING);
            for part in &parts {
                let (range, size) = place(part, begin, recipe);
                if let Some(bytes) = bytes.get_mut(range) {
                    recipe.tile(part.content, size, iteration).fill(bytes, part.start);
                }
            }
        })
    }

    /// Elements that are not what they should be after an iteration.
    pub fn wrong(&mut self, iteration: u64) -> Result<u64> {
        let (parts, begin) = (self.view.received(), self.begin.1);
        let recipe = self.setting.recipe;
        self.second.as_mut().unwrap_or(&mut self.first).look(|bytes| {
            let wrong = |part: &Part| {
                let (range, size) = place(part, begin, recipe);
                match bytes.get(range) {
                    Some(bytes) => recipe.tile(part.content, size, iteration).wrong(bytes, part.start),
                    None => part.count as u64,
                }
            };
            parts.iter().map(wrong).sum()
        })
    }
}

/// Bytes of a part in its memory, and elements of its pattern.
fn place(part: &Part, begin: usize, recipe: Recipe) -> (std::ops::Range<usize>, usize) {
    let size = recipe.datatype.size();
    ((begin + part.at) * size..(begin + part.at + part.count) * size, part.start + part.count)
}

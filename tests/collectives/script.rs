//! Random operations, and one rank's part in them: prepare, call, compare.

use super::values::{self, PREMULSUM, Random, Value};
use multiworld::sync::Arc;
use multiworld::types::{DataType, OpKind, RedOp, Reduction};
use multiworld::world::{Call, Request, World};

/// A collective as all ranks of a world call it.
#[derive(Clone, Copy, Debug)]
pub struct Op {
    pub kind: OpKind,
    pub dtype: DataType,
    /// As in `values`.
    pub red: u8,
    /// To be taken modulo the number of ranks.
    pub root: u32,
    pub count: usize,
    /// One bit per rank.
    pub in_place: u16,
    /// How far buffers are from an aligned address.
    pub offset: usize,
    /// Floats are any bits.
    pub wild: bool,
    pub seed: u64,
}

/// A message within a world.
#[derive(Clone, Copy, Debug)]
pub struct Message {
    /// To be taken modulo the number of ranks.
    pub from: u32,
    pub to: u32,
    pub dtype: DataType,
    pub count: usize,
    pub seed: u64,
}

#[derive(Clone, Copy, Debug)]
pub enum Item {
    Op(Op),
    Message(Message),
}

/// What happens next. Worlds are told apart by a number: 0 has all ranks, 1 only some of them.
#[derive(Clone, Debug)]
pub enum Step {
    One(u8, Item),
    /// In one group; with `background` waited for late.
    Group {
        items: Vec<(u8, Item)>,
        background: bool,
    },
}

/// The most bytes that one operation has in one buffer.
const LARGEST: usize = 2 << 20;
/// Bytes around every buffer that nobody may touch.
const MARGIN: usize = 64;
const UNTOUCHED: u8 = 0xa5;

/// One call's memory.
struct Prepared {
    call: Call,
    arena: Vec<u8>,
    /// Input and output within the arena.
    output: (usize, usize),
    what: Item,
    /// What the arena held before.
    before: Vec<u8>,
}

impl Op {
    /// As it is for a world of `n` ranks.
    fn fit(mut self, n: usize) -> Op {
        self.root %= n as u32;
        let parts = if self.whole(n) > 1 { n } else { 1 };
        self.count = self.count.min(LARGEST / self.dtype.size() / parts);
        if self.kind == OpKind::Barrier {
            self.count = 0;
        }
        if !self.kind.reduces() {
            self.red = 0;
        }
        self
    }

    /// How many parts of `count` elements the larger buffer has.
    fn whole(&self, n: usize) -> usize {
        match self.kind {
            OpKind::AllGather
            | OpKind::ReduceScatter
            | OpKind::AllToAll
            | OpKind::Gather
            | OpKind::Scatter => n,
            _ => 1,
        }
    }

    /// Elements that a rank gives and gets; 0 where it has no such buffer.
    fn lengths(&self, n: usize, me: usize) -> (usize, usize) {
        let root = me == self.root as usize;
        let at_root = |c| if root { c } else { 0 };
        let (one, all) = (self.count, self.count * n);
        match self.kind {
            OpKind::PointToPoint | OpKind::Barrier => (0, 0),
            OpKind::Broadcast => (at_root(one), one),
            OpKind::Reduce => (one, at_root(one)),
            OpKind::AllReduce => (one, one),
            OpKind::AllGather => (one, all),
            OpKind::ReduceScatter => (all, one),
            OpKind::AllToAll => (all, all),
            OpKind::Gather => (one, at_root(all)),
            OpKind::Scatter => (at_root(all), one),
        }
    }

    fn random(&self, rank: usize) -> Random {
        Random::new(self.seed, rank as u64, self.wild)
    }

    fn input(&self, n: usize, rank: usize) -> Vec<u8> {
        let count = self.lengths(n, rank).0;
        self.random(rank).elements(self.dtype, count)
    }

    fn scalar(&self, rank: usize) -> [u8; 8] {
        Random::new(self.seed, 1000 + rank as u64, false).element(self.dtype, 0)
    }

    fn reduction(&self, rank: usize) -> Reduction {
        match RedOp::from_raw(self.red.into()) {
            Some(op) => Reduction::Builtin(op),
            None => Reduction::PreMulSum(self.scalar(rank)),
        }
    }

    /// With `aligned`, buffers begin where a device can read and write elements.
    fn prepare(self, n: usize, me: usize, aligned: bool) -> Prepared {
        let size = self.dtype.size();
        let (ins, outs) = self.lengths(n, me);
        let (ins, outs) = (ins * size, outs * size);
        let each = self.count * size;
        let in_place = self.in_place >> me & 1 == 1 && ins > 0 && outs > 0;
        let (offset, gap) = match aligned {
            true => (self.offset % MARGIN / size * size, MARGIN + size),
            false => (self.offset % MARGIN, MARGIN + 1),
        };
        let start = MARGIN + offset;
        // Where the second buffer begins: within the first one, as NCCL defines it, or behind it.
        let (input, output) = match (in_place, self.kind) {
            (true, OpKind::AllGather | OpKind::Gather) => (start + me * each, start),
            (true, OpKind::ReduceScatter | OpKind::Scatter) => (start, start + me * each),
            (true, _) => (start, start),
            (false, _) => (start, start + ins + gap),
        };
        let mut arena = vec![UNTOUCHED; (input + ins).max(output + outs) + MARGIN];
        arena[input..input + ins].copy_from_slice(&self.input(n, me));
        let base = arena.as_mut_ptr();
        let call = Call {
            kind: self.kind,
            send: false,
            sendbuf: if ins > 0 { base.wrapping_add(input) } else { std::ptr::null() },
            recvbuf: if outs > 0 { base.wrapping_add(output) } else { std::ptr::null_mut() },
            count: self.count,
            dtype: self.dtype,
            reduction: self.reduction(me),
            peer: self.root as i32,
            stream: std::ptr::null_mut(),
            scalar_on_device: false,
        };
        Prepared { call, before: arena.clone(), arena, output: (output, outs), what: Item::Op(self) }
    }

    /// Compares this rank's output with what the operation means.
    fn check(&self, n: usize, me: usize, got: &[u8]) -> Result<(), String> {
        let each = self.count * self.dtype.size();
        let input = |r| self.input(n, r);
        let part = |bytes: Vec<u8>, i: usize| bytes[i * each..(i + 1) * each].to_vec();
        let root = self.root as usize;
        let expected = match self.kind {
            _ if got.is_empty() => return Ok(()),
            OpKind::PointToPoint | OpKind::Barrier => return Ok(()),
            OpKind::Broadcast => input(root),
            OpKind::AllGather | OpKind::Gather => (0..n).flat_map(input).collect(),
            OpKind::AllToAll => (0..n).flat_map(|r| part(input(r), me)).collect(),
            OpKind::Scatter => part(input(root), me),
            OpKind::Reduce | OpKind::AllReduce | OpKind::ReduceScatter => {
                let at = if self.kind == OpKind::ReduceScatter { me } else { 0 };
                return self.check_reduced(n, at * self.count, got);
            }
        };
        match got.iter().zip(&expected).position(|(g, e)| g != e) {
            None if got.len() == expected.len() => Ok(()),
            at => Err(format!("wrong at byte {at:?} of {}", expected.len())),
        }
    }

    /// `first` is the index in the inputs of the first element of `got`. Of very many elements some are checked.
    fn check_reduced(&self, n: usize, first: usize, got: &[u8]) -> Result<(), String> {
        let size = self.dtype.size();
        let value = |raw: &[u8]| values::load(self.dtype, &raw[..size]);
        let scalars: Vec<Value> = match self.red {
            PREMULSUM => (0..n).map(|r| value(&self.scalar(r))).collect(),
            _ => Vec::new(),
        };
        let inputs: Vec<Random> = (0..n).map(|r| self.random(r)).collect();
        let mut elements = Vec::new();
        for i in (0..self.count).step_by(1 + self.count / 20_000) {
            elements.clear();
            elements.extend(inputs.iter().map(|r| value(&r.element(self.dtype, first + i))));
            values::check(self.dtype, self.red, &scalars, &elements, value(&got[i * size..]))
                .map_err(|e| format!("element {i}: {e}"))?;
        }
        Ok(())
    }
}

impl Message {
    fn fit(mut self, n: usize) -> Message {
        self.from %= n as u32;
        self.to %= n as u32;
        self.count = self.count.min(LARGEST / self.dtype.size());
        self
    }

    fn contents(&self) -> Vec<u8> {
        Random::new(self.seed, 0, true).elements(self.dtype, self.count)
    }

    /// This rank's calls: none, one, or, from itself to itself, both.
    fn prepare(self, me: usize) -> Vec<Prepared> {
        let bytes = self.count * self.dtype.size();
        let half = |send: bool| {
            let mut arena = vec![UNTOUCHED; MARGIN + bytes + MARGIN];
            if send {
                arena[MARGIN..MARGIN + bytes].copy_from_slice(&self.contents());
            }
            let at = arena.as_mut_ptr().wrapping_add(MARGIN);
            let call = Call {
                kind: OpKind::PointToPoint,
                send,
                sendbuf: if send { at } else { std::ptr::null() },
                recvbuf: if send { std::ptr::null_mut() } else { at },
                count: self.count,
                dtype: self.dtype,
                reduction: Reduction::Builtin(RedOp::Sum),
                peer: (if send { self.to } else { self.from }) as i32,
                stream: std::ptr::null_mut(),
                scalar_on_device: false,
            };
            let output = (MARGIN, if send { 0 } else { bytes });
            Prepared { call, before: arena.clone(), arena, output, what: Item::Message(self) }
        };
        let mut out = Vec::new();
        if self.from as usize == me {
            out.push(half(true));
        }
        if self.to as usize == me {
            out.push(half(false));
        }
        out
    }
}

impl Prepared {
    /// Compares the output with the reference and everything else with what it was; answers the output where all
    /// ranks must have the same.
    fn check(&self, n: usize, me: usize) -> Result<Option<Vec<u8>>, String> {
        let (at, len) = self.output;
        let got = &self.arena[at..at + len];
        let fail = |e: String| Err(format!("rank {me} of {n}, {:?}: {e}", self.what));
        match &self.what {
            Item::Op(op) => op.check(n, me, got).or_else(fail)?,
            Item::Message(m) if !self.call.send && *got != m.contents() => {
                return fail("wrong contents".into()).map(|()| None);
            }
            Item::Message(_) => {}
        }
        let outside = |i: &usize| !(at..at + len).contains(i);
        if let Some(i) = (0..self.arena.len()).filter(outside).find(|i| self.arena[*i] != self.before[*i]) {
            let text = format!("byte {i} outside of the output ({at} + {len}) was written");
            return fail(text).map(|()| None);
        }
        Ok((self.call.kind == OpKind::AllReduce).then(|| got.to_vec()))
    }
}

/// Where buffers are while operations run, if not where they are made and looked at.
pub trait Memory {
    /// Puts bytes at a place that is so far from the beginning, and answers its address.
    fn put(&self, at: usize, bytes: &[u8]) -> Result<*mut u8, String>;
    /// Gets bytes from there.
    fn get(&self, at: usize, bytes: &mut [u8]) -> Result<(), String>;
    /// The stream for operations on it.
    fn stream(&self) -> *mut std::ffi::c_void;
}

/// How far apart the arenas of one step are, at least, so that each is aligned to everything.
const SPACING: usize = 256;

/// Moves what was prepared into another memory; answers where each arena went.
fn put(memory: &dyn Memory, calls: &mut [(Arc<World>, Prepared)]) -> Result<Vec<usize>, String> {
    let mut next = 0;
    let mut places = Vec::new();
    for (_, p) in calls {
        let (here, there) = (p.arena.as_ptr() as usize, memory.put(next, &p.arena)?);
        let moved = |address: usize| there.wrapping_add(address.wrapping_sub(here));
        if !p.call.sendbuf.is_null() {
            p.call.sendbuf = moved(p.call.sendbuf as usize);
        }
        if !p.call.recvbuf.is_null() {
            p.call.recvbuf = moved(p.call.recvbuf as usize);
        }
        p.call.stream = memory.stream();
        places.push(next);
        next += p.arena.len().next_multiple_of(SPACING);
    }
    Ok(places)
}

/// Runs a script as one rank. `worlds[1]` is missing where this rank is no member. Answers the outputs that must
/// be the same on all ranks of world 0.
pub fn play(worlds: &[Arc<World>], steps: &[Step]) -> Result<Vec<Vec<u8>>, String> {
    play_in(worlds, steps, None)
}

/// As [`play`], with the buffers in another memory.
pub fn play_in(
    worlds: &[Arc<World>],
    steps: &[Step],
    memory: Option<&dyn Memory>,
) -> Result<Vec<Vec<u8>>, String> {
    let mut same = Vec::new();
    let prepare = |which: u8, item: &Item| -> Vec<(Arc<World>, Prepared)> {
        let Some(w) = worlds.get(usize::from(which)) else { return Vec::new() };
        let (n, me) = (w.nranks() as usize, w.rank() as usize);
        let calls = match item {
            Item::Op(op) => vec![op.fit(n).prepare(n, me, memory.is_some())],
            Item::Message(m) => m.fit(n).prepare(me),
        };
        calls.into_iter().map(|p| (w.clone(), p)).collect()
    };
    for (i, step) in steps.iter().enumerate() {
        let failed = |e: multiworld::error::Error| format!("step {i}: {step:?}: {e}");
        let mut calls: Vec<(Arc<World>, Prepared)> = match step {
            Step::One(which, item) => prepare(*which, item),
            Step::Group { items, .. } => items.iter().flat_map(|(w, item)| prepare(*w, item)).collect(),
        };
        let places = memory.map(|m| put(m, &mut calls)).transpose()?;
        match step {
            Step::One(..) if calls.len() < 2 && !calls.iter().any(|(w, _)| w.is_on_device()) => {
                calls.iter().try_for_each(|(w, p)| w.run(&p.call)).map_err(failed)?;
            }
            // To oneself, or enqueued only.
            Step::One(..) => submit(&calls, false).wait(None).expect("no limit").map_err(failed)?,
            Step::Group { background, .. } => {
                let request = submit(&calls, *background);
                if *background {
                    // The library's thread has a chance to do it alone.
                    for _ in 0..100 {
                        if request.test().is_some() {
                            break;
                        }
                        std::thread::yield_now();
                    }
                }
                request.wait(None).expect("no limit").map_err(failed)?;
            }
        }
        if let (Some(m), Some(places)) = (memory, places) {
            for (at, (_, p)) in places.into_iter().zip(&mut calls) {
                m.get(at, &mut p.arena)?;
            }
        }
        for (w, p) in &calls {
            let output = p.check(w.nranks() as usize, w.rank() as usize)?;
            if w.nranks() == worlds[0].nranks() {
                same.extend(output);
            }
        }
    }
    Ok(same)
}

/// What is enqueued on a device is waited for, too, if it is submitted.
fn submit(calls: &[(Arc<World>, Prepared)], background: bool) -> Arc<Request> {
    let background = background || calls.iter().any(|(w, _)| w.is_on_device());
    Request::submit(&mut calls.iter().map(|(w, p)| (w.clone(), p.call)).collect(), background)
}

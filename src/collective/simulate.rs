//! A world in one thread: runs the plans of all ranks over simulated channels in a random order of events,
//! and checks what the engine relies on: bounds, hazards within a step, equal lengths on both sides, order,
//! and that nothing ever gets stuck.

use super::{Action, Buf, Plan, Shape, Slice, Tuning, kernel, reduce};
use crate::types::{OpKind, Reduction};
use std::collections::VecDeque;
use std::ops::Range;

/// When a send completes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delivery {
    /// At any time after it was posted; the channel holds any number of messages.
    Eager,
    /// Not before its receive has been posted.
    Rendezvous,
}

/// What became of one rank.
#[derive(Debug)]
pub(super) struct Outcome {
    /// The bytes of the output.
    pub output: Vec<u8>,
    /// Bytes sent to other ranks.
    pub sent: usize,
    /// Steps taken.
    pub steps: usize,
    /// Whether it finished before the late rank began.
    pub before_late: bool,
}

/// Numbers that look random and are the same in every run.
pub(super) struct Dice(pub u64);

impl Dice {
    /// The next number (SplitMix64).
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.roll() % limit as u64) as usize
    }

    /// Any bytes.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.roll() as u8).collect()
    }
}

/// A message of the current step.
struct Message {
    peer: usize,
    range: Range<usize>,
    done: bool,
    /// `None` for a send.
    receives: Option<Arrives>,
}

/// What a receive does with the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Arrives {
    Copy,
    Reduce,
    Combine { own: Range<usize>, own_first: bool },
}

struct Rank {
    shape: Shape,
    plan: Plan,
    /// Input, output and scratch, which overlap where the operation is in place.
    memory: Vec<u8>,
    before: Vec<u8>,
    input: Range<usize>,
    output: Range<usize>,
    scratch: Range<usize>,
    k: usize,
    finished: bool,
    messages: Vec<Message>,
    sent: usize,
    before_late: bool,
}

/// Something that may happen next.
enum Event {
    NextStep { rank: usize },
    Deposit { rank: usize, message: usize },
    Collect { rank: usize, message: usize },
    Transfer { from: usize, send: usize, to: usize, recv: usize },
}

impl Rank {
    fn new(shape: Shape, tuning: &Tuning, input: &[u8], dice: &mut Dice) -> Rank {
        let plan = Plan::new(&shape, tuning);
        let (input_len, output_len) = shape.lengths().expect("small");
        assert_eq!(input.len(), input_len);
        // Odd distances, so that nothing is aligned.
        let input_at = 1;
        let inside = shape.count * shape.dtype.size() * shape.rank as usize;
        let root = shape.rank == shape.root;
        let apart = input_at + input_len + 3;
        let (input_at, output_at) = match shape.kind {
            _ if !shape.in_place => (input_at, apart),
            OpKind::AllGather => (input_at + inside, input_at),
            OpKind::Gather if root => (input_at + inside, input_at),
            OpKind::ReduceScatter => (input_at, input_at + inside),
            OpKind::Scatter if root => (input_at, input_at + inside),
            OpKind::Gather | OpKind::Scatter => (input_at, apart),
            _ => (input_at, input_at),
        };
        let scratch_at = (input_at + input_len).max(output_at + output_len) + 3;
        let mut memory = dice.bytes(scratch_at + plan.scratch_len() + 3);
        let input_range = input_at..input_at + input_len;
        memory[input_range.clone()].copy_from_slice(input);
        Rank {
            shape,
            plan,
            before: memory.clone(),
            input: input_range,
            output: output_at..output_at + output_len,
            scratch: scratch_at..scratch_at + plan.scratch_len(),
            memory,
            k: 0,
            finished: false,
            messages: Vec::new(),
            sent: 0,
            before_late: false,
        }
    }

    fn resolve(&self, slice: Slice) -> Range<usize> {
        let buffer = match slice.buf {
            Buf::Input => &self.input,
            Buf::Output => &self.output,
            Buf::Scratch => &self.scratch,
        };
        assert!(slice.off + slice.len <= buffer.len(), "{slice:?} is out of bounds ({:?})", self.shape);
        buffer.start + slice.off..buffer.start + slice.off + slice.len
    }

    fn resolve_written(&self, slice: Slice) -> Range<usize> {
        assert!(slice.buf != Buf::Input, "{slice:?} is written");
        self.resolve(slice)
    }

    fn combine(&mut self, dst: Range<usize>, src: &[u8]) {
        let count = dst.len() / self.shape.dtype.size();
        let dst = &mut self.memory[dst];
        assert_eq!(dst.len(), src.len());
        // SAFETY: both slices hold `count` elements and are different borrows.
        unsafe { kernel(&self.shape)(dst.as_mut_ptr(), src.as_ptr(), count) };
    }

    fn combine3(&mut self, dst: Range<usize>, a: &[u8], b: &[u8]) {
        let count = dst.len() / self.shape.dtype.size();
        let dst = &mut self.memory[dst];
        assert!(dst.len() == a.len() && dst.len() == b.len());
        let kernel = reduce::kernel3(self.shape.dtype, self.shape.reduction);
        // SAFETY: all slices hold `count` elements and are different borrows.
        unsafe { kernel(dst.as_mut_ptr(), a.as_ptr(), b.as_ptr(), count) };
    }

    fn local(&mut self, action: Action) {
        let dtype = self.shape.dtype;
        match action {
            Action::Copy { src, dst } => {
                let (src, dst) = (self.resolve(src), self.resolve_written(dst));
                assert!(src.len() == dst.len() && !overlap(&src, &dst), "{action:?}");
                self.memory.copy_within(src, dst.start);
            }
            Action::Reduce { src, dst } => {
                let (src, dst) = (self.resolve(src), self.resolve_written(dst));
                assert!(!overlap(&src, &dst), "{action:?}");
                let src = self.memory[src].to_vec();
                self.combine(dst, &src);
            }
            Action::Combine { a, b, dst } => {
                let (a, b, dst) = (self.resolve(a), self.resolve(b), self.resolve_written(dst));
                assert!(a == dst || !overlap(&a, &dst), "{action:?}");
                assert!(b == dst || !overlap(&b, &dst), "{action:?}");
                let (a, b) = (self.memory[a].to_vec(), self.memory[b].to_vec());
                self.combine3(dst, &a, &b);
            }
            Action::PreMul { src, dst } => {
                let (src, dst) = (self.resolve(src), self.resolve_written(dst));
                assert!(src.len() == dst.len() && (src == dst || !overlap(&src, &dst)), "{action:?}");
                let Reduction::PreMulSum(scalar) = self.shape.reduction else { panic!("{action:?}") };
                let count = dst.len() / dtype.size();
                let base = self.memory.as_mut_ptr();
                // SAFETY: both ranges lie in `memory`, and are the same or apart.
                unsafe { reduce::premul(dtype)(base.add(dst.start), base.add(src.start), count, &scalar) };
            }
            Action::Average { dst } => {
                let dst = self.resolve_written(dst);
                let dst = &mut self.memory[dst];
                let (ptr, count) = (dst.as_mut_ptr(), dst.len() / dtype.size());
                // SAFETY: the slice holds `count` elements.
                unsafe { reduce::average(dtype)(ptr, count, self.shape.nranks) };
            }
            _ => panic!("{action:?} is not local"),
        }
    }

    fn post(&mut self, peer: u32, range: Range<usize>, receives: Option<Arrives>) {
        assert!(peer < self.shape.nranks && peer != self.shape.rank);
        let operand = |receives: &Option<Arrives>| match receives {
            Some(Arrives::Combine { own, .. }) => own.clone(),
            _ => 0..0,
        };
        let own = operand(&receives);
        assert!(own == range || !overlap(&own, &range), "step {} of {:?}", self.k, self.shape);
        for other in &self.messages {
            let both_read = receives.is_none() && other.receives.is_none();
            let hazard = !both_read && overlap(&range, &other.range)
                || receives.is_some() && overlap(&range, &operand(&other.receives))
                || other.receives.is_some() && overlap(&other.range, &own);
            assert!(!hazard, "hazard in step {} of {:?}", self.k, self.shape);
        }
        self.messages.push(Message { peer: peer as usize, range, done: false, receives });
    }

    fn next_step(&mut self) {
        let mut actions = Vec::new();
        let mut again = Vec::new();
        let more = self.plan.step(self.k, &mut actions);
        assert_eq!((more, &actions), (self.plan.step(self.k, &mut again), &again), "not a function of k");
        self.messages.clear();
        if !more {
            assert!(actions.is_empty());
            self.finished = true;
            return;
        }
        for action in actions {
            match action {
                Action::Send { peer, src } => {
                    let range = self.resolve(src);
                    self.sent += range.len();
                    self.post(peer, range, None);
                }
                Action::Recv { peer, dst } => self.post(peer, self.resolve_written(dst), Some(Arrives::Copy)),
                Action::RecvReduce { peer, dst } => {
                    self.post(peer, self.resolve_written(dst), Some(Arrives::Reduce));
                }
                Action::RecvCombine { peer, own, dst, own_first } => {
                    let own = self.resolve(own);
                    self.post(peer, self.resolve_written(dst), Some(Arrives::Combine { own, own_first }));
                }
                local => {
                    assert!(self.messages.is_empty(), "a local action after a message");
                    self.local(local);
                }
            }
        }
        self.k += 1;
    }

    /// The oldest message to (or from) each peer that is not done.
    fn oldest(&self, receives: bool) -> impl Iterator<Item = (usize, usize)> {
        let mut seen = Vec::new();
        self.messages.iter().enumerate().filter_map(move |(index, m)| {
            if m.done || m.receives.is_some() != receives || seen.contains(&m.peer) {
                return None;
            }
            seen.push(m.peer);
            Some((index, m.peer))
        })
    }

    fn deliver(&mut self, message: usize, bytes: &[u8]) {
        let message = &mut self.messages[message];
        message.done = true;
        let (range, receives) = (message.range.clone(), message.receives.clone());
        assert_eq!(range.len(), bytes.len(), "lengths differ ({:?})", self.shape);
        match receives {
            Some(Arrives::Reduce) => self.combine(range, bytes),
            Some(Arrives::Combine { own, own_first }) => {
                let own = self.memory[own].to_vec();
                let (a, b) = if own_first { (&own[..], bytes) } else { (bytes, &own[..]) };
                self.combine3(range, a, b);
            }
            Some(Arrives::Copy) | None => self.memory[range].copy_from_slice(bytes),
        }
    }

    fn take(&mut self, message: usize) -> Vec<u8> {
        let message = &mut self.messages[message];
        message.done = true;
        self.memory[message.range.clone()].to_vec()
    }

    fn outcome(self) -> Outcome {
        for (at, (now, before)) in self.memory.iter().zip(&self.before).enumerate() {
            let ours = self.output.contains(&at) || self.scratch.contains(&at);
            assert!(ours || now == before, "byte {at} is written ({:?})", self.shape);
        }
        let output = self.memory[self.output].to_vec();
        Outcome { output, sent: self.sent, steps: self.k, before_late: self.before_late }
    }
}

fn overlap(a: &Range<usize>, b: &Range<usize>) -> bool {
    !a.is_empty() && !b.is_empty() && a.start < b.end && b.start < a.end
}

/// Runs one operation on all ranks. A `late` rank begins only when nobody else can go on without it.
pub(super) fn run(
    shapes: &[Shape],
    inputs: &[Vec<u8>],
    tuning: &Tuning,
    delivery: Delivery,
    late: Option<usize>,
    dice: &mut Dice,
) -> Vec<Outcome> {
    let n = shapes.len();
    let mut ranks: Vec<Rank> =
        shapes.iter().zip(inputs).map(|(shape, input)| Rank::new(*shape, tuning, input, dice)).collect();
    let mut channels = vec![VecDeque::<Vec<u8>>::new(); n * n];
    let mut held = late;
    loop {
        let mut events = Vec::new();
        for (index, rank) in ranks.iter().enumerate() {
            if rank.messages.iter().all(|m| m.done) && !rank.finished && held != Some(index) {
                events.push(Event::NextStep { rank: index });
            }
            for (message, peer) in rank.oldest(false) {
                if delivery == Delivery::Eager {
                    events.push(Event::Deposit { rank: index, message });
                } else if let Some((recv, _)) = ranks[peer].oldest(true).find(|(_, from)| *from == index) {
                    events.push(Event::Transfer { from: index, send: message, to: peer, recv });
                }
            }
            for (message, peer) in rank.oldest(true) {
                if !channels[peer * n + index].is_empty() {
                    events.push(Event::Collect { rank: index, message });
                }
            }
        }
        if events.is_empty() {
            if held.take().is_some() {
                ranks.iter_mut().for_each(|rank| rank.before_late = rank.finished);
                continue;
            }
            break;
        }
        match events.swap_remove(dice.below(events.len())) {
            Event::NextStep { rank } => ranks[rank].next_step(),
            Event::Deposit { rank, message } => {
                let peer = ranks[rank].messages[message].peer;
                let bytes = ranks[rank].take(message);
                channels[rank * n + peer].push_back(bytes);
            }
            Event::Collect { rank, message } => {
                let peer = ranks[rank].messages[message].peer;
                let bytes = channels[peer * n + rank].pop_front().expect("not empty");
                ranks[rank].deliver(message, &bytes);
            }
            Event::Transfer { from, send, to, recv } => {
                let bytes = ranks[from].take(send);
                ranks[to].deliver(recv, &bytes);
            }
        }
    }
    for rank in &ranks {
        assert!(rank.finished, "deadlock in step {} of {:?}", rank.k, rank.shape);
    }
    assert!(channels.iter().all(VecDeque::is_empty), "a message was never received");
    ranks.into_iter().map(Rank::outcome).collect()
}

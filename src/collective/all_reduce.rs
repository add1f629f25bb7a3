//! AllReduce: everybody's input combined, on every rank, with the same bits on all of them.
//!
//! **Flat**, for small messages: everybody sends its input to everybody at once and combines all, in the order
//! of ranks. One step of messages, (n - 1) B bytes, (n - 1) B of temporary memory. Two ranks need none when
//! they have a buffer each for input and output: what arrives is combined on the way.
//!
//! **Recursive doubling**, for small messages of many ranks. In round j ranks whose numbers differ in bit j
//! exchange what they have and both combine it, with the lower rank's operand on the left on both sides, so
//! that both compute the very same expression. When n is not a power of two, the first 2 (n - 2^m) ranks pair
//! up before: the odd one hands its input to the even one, sits the rounds out and is told the result.
//! floor(log2 n) rounds of B bytes, and two more where n is not a power of two. Needs B of temporary memory.
//!
//! **Direct**, for larger ones. The buffer is cut into segments and each segment into n blocks. Everybody
//! sends block j to rank j, which combines all it gets (reduce-scatter), its own first, then those of the ranks
//! after it; then everybody sends its block to everybody (all-gather), while the next segment is scattered.
//! With S segments S + 1 steps, 2 B (n - 1) / n bytes, the least that is possible, and temporary memory for
//! n - 2 blocks.
//!
//! **Ring**, for large ones where many senders to one receiver get into each other's way. The buffer is cut
//! into n blocks. First every block travels once around the ring and each rank adds its input: after n - 1
//! steps rank r has the sum of block r + 1. Then the sums travel around. 2 (n - 1) steps, 2 B (n - 1) / n
//! bytes, no temporary memory.
//!
//! In the last two each block is computed on one rank only.

use super::frame::{Frame, Pieces, recv, recv_combine, recv_reduce, send};
use super::plan::Schedule;
use super::{Action, Buf, Slice};

/// AllReduce with everybody at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct AllReduceFlat {
    frame: Frame,
}

impl AllReduceFlat {
    pub fn new(frame: Frame) -> AllReduceFlat {
        AllReduceFlat { frame }
    }

    /// Whether what arrives can be combined at once: the output must not be what is being sent.
    fn is_fused(&self) -> bool {
        self.frame.n == 2 && !self.frame.in_place && !self.frame.premul
    }

    /// Where the contribution of another rank waits.
    fn slot(&self, rank: usize) -> Slice {
        self.frame.part(Buf::Scratch, if rank < self.frame.me { rank } else { rank - 1 })
    }

    fn exchange(&self, out: &mut Vec<Action>) {
        let frame = &self.frame;
        let output = frame.part(Buf::Output, 0);
        let own = frame.contribution(frame.part(Buf::Input, 0), output, out);
        for distance in 1..frame.n {
            send(frame.after(distance), own, out);
        }
        for distance in 1..frame.n {
            let from = frame.before(distance);
            if self.is_fused() {
                recv_combine(from, own, output, frame.me < from, out);
            } else {
                recv(from, self.slot(from), out);
            }
        }
    }

    fn combine(&self, out: &mut Vec<Action>) {
        let frame = &self.frame;
        let output = frame.part(Buf::Output, 0);
        let in_output = frame.premul || frame.in_place;
        let own = if in_output { output } else { frame.part(Buf::Input, 0) };
        let of = |rank| if rank == frame.me { own } else { self.slot(rank) };
        let mut sum = of(0);
        for rank in 1..frame.n {
            // The output may hold what has not had its turn.
            let dst = if in_output && rank < frame.me { self.slot(0) } else { output };
            out.push(Action::Combine { a: sum, b: of(rank), dst });
            sum = dst;
        }
    }
}

impl Schedule for AllReduceFlat {
    fn scratch_len(&self) -> usize {
        if self.is_fused() { 0 } else { (self.frame.n - 1) * self.frame.bytes }
    }

    fn steps(&self) -> usize {
        1 + usize::from(!self.is_fused() || self.frame.average)
    }

    fn step(&self, k: usize, out: &mut Vec<Action>) {
        let frame = &self.frame;
        if k == 0 {
            return self.exchange(out);
        }
        if frame.bytes > 0 && !self.is_fused() {
            self.combine(out);
        }
        frame.finish(frame.part(Buf::Output, 0), out);
    }
}

/// AllReduce by reduce-scatter and all-gather with everybody at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct AllReduceDirect {
    frame: Frame,
    segments: Pieces,
}

impl AllReduceDirect {
    pub fn new(frame: Frame, segment: usize) -> AllReduceDirect {
        AllReduceDirect { frame, segments: Pieces::by_size(frame.bytes, segment) }
    }

    /// A rank's block of a segment.
    fn block(&self, buf: Buf, segment: usize, rank: usize) -> Slice {
        let whole = self.segments.piece(buf, segment);
        let block = Pieces::by_number(whole.len, self.frame.n).piece(buf, rank);
        buf.at(whole.off + block.off, block.len)
    }

    /// Where own block waits as the rank `distance` after this one, which is not the next, has it.
    fn slot(&self, distance: usize, len: usize) -> Slice {
        let longest = Pieces::by_number(self.segments.longest(), self.frame.n).longest();
        Buf::Scratch.at((distance - 2) * longest, len)
    }

    fn all_gather(&self, segment: usize, out: &mut Vec<Action>) {
        let frame = &self.frame;
        let of = |rank| self.block(Buf::Output, segment, rank);
        for distance in 1..frame.n {
            send(frame.after(distance), of(frame.me), out);
            let from = frame.before(distance);
            recv(from, of(from), out);
        }
    }

    /// The local part of a segment's reduce-scatter.
    fn sum_up(&self, segment: usize, out: &mut Vec<Action>) {
        let frame = &self.frame;
        let sum = self.block(Buf::Output, segment, frame.me);
        if sum.len > 0 {
            let others = (2..frame.n).map(|distance| self.slot(distance, sum.len));
            out.extend(others.map(|src| Action::Reduce { src, dst: sum }));
        }
        frame.finish(sum, out);
    }

    fn reduce_scatter(&self, segment: usize, out: &mut Vec<Action>) {
        let frame = &self.frame;
        let sum = self.block(Buf::Output, segment, frame.me);
        let buf = if frame.premul || frame.in_place { Buf::Output } else { Buf::Input };
        let own = self.block(buf, segment, frame.me);
        for distance in 1..frame.n {
            // Towards the one, away from the other, so that the first message sent is the first one expected.
            let to = frame.before(distance);
            send(to, self.block(buf, segment, to), out);
            let from = frame.after(distance);
            if distance == 1 {
                recv_combine(from, own, sum, true, out);
            } else {
                recv(from, self.slot(distance, sum.len), out);
            }
        }
    }
}

impl Schedule for AllReduceDirect {
    fn scratch_len(&self) -> usize {
        (self.frame.n - 2) * Pieces::by_number(self.segments.longest(), self.frame.n).longest()
    }

    fn steps(&self) -> usize {
        // One more to gather the last one.
        self.segments.number() + 1
    }

    fn step(&self, k: usize, out: &mut Vec<Action>) {
        let frame = &self.frame;
        if k > 0 {
            self.sum_up(k - 1, out);
        }
        if k < self.segments.number() && frame.premul {
            frame.load(self.segments.piece(Buf::Input, k), self.segments.piece(Buf::Output, k), out);
        }
        if k > 0 {
            self.all_gather(k - 1, out);
        }
        if k < self.segments.number() {
            self.reduce_scatter(k, out);
        }
    }
}

/// AllReduce by recursive doubling.
#[derive(Clone, Copy, Debug)]
pub(super) struct AllReduceDoubling {
    frame: Frame,
    rounds: usize,
    part: Part,
}

/// What a rank does in recursive doubling.
#[derive(Clone, Copy, Debug)]
enum Part {
    /// Its input goes to its even neighbour, the result comes from there.
    Folded,
    /// Takes part in the rounds under this number; `stands_for` says whether its odd neighbour is folded into
    /// it.
    Active { number: usize, stands_for: bool },
}

impl AllReduceDoubling {
    pub fn new(frame: Frame) -> AllReduceDoubling {
        let rounds = frame.n.ilog2() as usize;
        let folded = frame.n - (1 << rounds);
        let part = if frame.me >= 2 * folded {
            Part::Active { number: frame.me - folded, stands_for: false }
        } else if frame.me.is_multiple_of(2) {
            Part::Active { number: frame.me / 2, stands_for: true }
        } else {
            Part::Folded
        };
        AllReduceDoubling { frame, rounds, part }
    }

    /// The rank that takes part under a number.
    fn rank(&self, number: usize) -> usize {
        let folded = self.frame.n - (1 << self.rounds);
        if number < folded { 2 * number } else { number + folded }
    }

    /// Where the sum is before round `j`, and where the peer's goes. The higher rank of a pair combines into
    /// the peer's operand, so the two buffers change places in every round in which this rank is the higher
    /// one. They start such that the last sum is in the output.
    fn buffers(&self, number: usize, j: usize) -> (Slice, Slice) {
        let (output, scratch) = (self.frame.part(Buf::Output, 0), self.frame.part(Buf::Scratch, 0));
        if (number >> j).count_ones().is_multiple_of(2) { (output, scratch) } else { (scratch, output) }
    }

    fn combine(&self, number: usize, j: usize, out: &mut Vec<Action>) {
        let (mine, theirs) = self.buffers(number, j);
        let lower = number & (1 << j) == 0;
        let (dst, src) = if lower { (mine, theirs) } else { (theirs, mine) };
        if dst.len > 0 {
            out.push(Action::Reduce { src, dst });
        }
    }

    fn step_of_folded(&self, k: usize, out: &mut Vec<Action>) {
        let frame = &self.frame;
        let (input, output) = (frame.part(Buf::Input, 0), frame.part(Buf::Output, 0));
        let neighbour = frame.me - 1;
        match k {
            0 if frame.premul => {
                frame.load(input, output, out);
                send(neighbour, output, out);
            }
            0 => send(neighbour, input, out),
            _ => recv(neighbour, output, out),
        }
    }
}

impl Schedule for AllReduceDoubling {
    fn scratch_len(&self) -> usize {
        match self.part {
            Part::Folded => 0,
            Part::Active { .. } => self.frame.bytes,
        }
    }

    fn steps(&self) -> usize {
        match self.part {
            Part::Folded => 2,
            Part::Active { stands_for, .. } => usize::from(stands_for) + self.rounds + 1,
        }
    }

    fn step(&self, k: usize, out: &mut Vec<Action>) {
        let frame = &self.frame;
        let Part::Active { number, stands_for } = self.part else {
            return self.step_of_folded(k, out);
        };
        if k == 0 {
            let (mine, _) = self.buffers(number, 0);
            frame.load(frame.part(Buf::Input, 0), mine, out);
            if stands_for {
                return recv_reduce(frame.me + 1, mine, out);
            }
        }
        let j = k - usize::from(stands_for);
        if j > 0 {
            self.combine(number, j - 1, out);
        }
        let (mine, theirs) = self.buffers(number, j);
        if j < self.rounds {
            let peer = self.rank(number ^ (1 << j));
            send(peer, mine, out);
            recv(peer, theirs, out);
            return;
        }
        frame.finish(mine, out);
        if stands_for {
            send(frame.me + 1, mine, out);
        }
    }
}

/// AllReduce around a ring.
#[derive(Clone, Copy, Debug)]
pub(super) struct AllReduceRing {
    frame: Frame,
    blocks: Pieces,
}

impl AllReduceRing {
    pub fn new(frame: Frame) -> AllReduceRing {
        AllReduceRing { frame, blocks: Pieces::by_number(frame.bytes, frame.n) }
    }

    fn reduce_scatter(&self, k: usize, out: &mut Vec<Action>) {
        let frame = &self.frame;
        let mut outgoing = self.blocks.piece(Buf::Output, frame.before(k));
        if k == 0 {
            let own = self.blocks.piece(Buf::Input, frame.me);
            if frame.premul {
                frame.load(own, outgoing, out);
            } else {
                outgoing = own;
            }
        }
        let block = frame.before(k + 1);
        let sum = self.blocks.piece(Buf::Output, block);
        frame.load(self.blocks.piece(Buf::Input, block), sum, out);
        send(frame.after(1), outgoing, out);
        recv_reduce(frame.before(1), sum, out);
    }

    fn all_gather(&self, k: usize, out: &mut Vec<Action>) {
        let frame = &self.frame;
        // Rank r begins with the sum of block r + 1.
        let outgoing = self.blocks.piece(Buf::Output, (frame.before(k) + 1) % frame.n);
        if k == 0 {
            frame.finish(outgoing, out);
        }
        send(frame.after(1), outgoing, out);
        recv(frame.before(1), self.blocks.piece(Buf::Output, frame.before(k)), out);
    }
}

impl Schedule for AllReduceRing {
    fn scratch_len(&self) -> usize {
        0
    }

    fn steps(&self) -> usize {
        2 * (self.frame.n - 1)
    }

    fn step(&self, k: usize, out: &mut Vec<Action>) {
        let last = self.frame.n - 1;
        if k < last { self.reduce_scatter(k, out) } else { self.all_gather(k - last, out) }
    }
}

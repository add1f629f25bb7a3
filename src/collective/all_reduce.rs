//! AllReduce: everybody's input combined, on every rank, with the same bits on all of them.
//!
//! **Recursive doubling**, for small messages. In round j ranks whose numbers differ in bit j exchange what
//! they have and both combine it, with the lower rank's operand on the left on both sides, so that both
//! compute the very same expression. When n is not a power of two, the first 2 (n - 2^m) ranks pair up
//! before: the odd one hands its input to the even one, sits the rounds out and is told the result.
//! floor(log2 n) rounds of B bytes, and two more where n is not a power of two. Needs B of temporary memory.
//!
//! **Ring**, for large ones. The buffer is cut into n blocks. First every block travels once around the ring
//! and each rank adds its input (reduce-scatter): after n - 1 steps rank r has the sum of block r + 1. Then
//! the sums travel around (all-gather). 2 (n - 1) steps, 2 B (n - 1) / n bytes, the least that is possible.
//! Each block is computed on one rank only, and input is copied block by block just before it is needed,
//! while it is in cache anyway.

use super::frame::{Frame, Pieces, recv, recv_reduce, send};
use super::plan::Schedule;
use super::{Action, Buf, Slice};

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

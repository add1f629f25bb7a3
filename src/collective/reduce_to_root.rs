//! Reduce: everybody's input combined at the root.
//!
//! **Tree**, for small messages: Broadcast's binomial tree upwards. A rank takes in its children's sums one
//! after the other, the smallest subtree first because it is ready first, and passes the result on. At most
//! ceil(log2 n) + 1 steps; a rank sends B and receives at most B log2 n.
//!
//! **Chain**, for large ones: root + n - 1, ..., root + 1, root. Each rank adds its input to the chunk it
//! receives while it passes on the one before. With C chunks it takes C + n - 2 rounds of one chunk; a rank
//! sends at most B and receives at most B. Accumulating needs two chunks of temporary memory.
//!
//! In both the order of the operands depends only on the number of ranks and the root, so repeated calls give
//! the same bits.

use super::broadcast::{children, parent};
use super::frame::{Frame, Pieces, recv_reduce, send};
use super::plan::Schedule;
use super::{Action, Buf, Slice};

/// Reduce by a binomial tree.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReduceTree {
    frame: Frame,
    children: usize,
}

impl ReduceTree {
    pub fn new(frame: Frame) -> ReduceTree {
        ReduceTree { frame, children: children(frame.n, frame.place()).count() }
    }

    /// Where the sum of this subtree comes about. A leaf that has nothing to compute sends its input as it
    /// is.
    fn accumulator(&self) -> Slice {
        let buf = match (self.frame.is_root(), self.children) {
            (true, _) => Buf::Output,
            (false, 0) if !self.frame.premul => Buf::Input,
            (false, _) => Buf::Scratch,
        };
        self.frame.part(buf, 0)
    }
}

impl Schedule for ReduceTree {
    fn scratch_len(&self) -> usize {
        let accumulator = self.accumulator();
        if accumulator.buf == Buf::Scratch { accumulator.len } else { 0 }
    }

    fn steps(&self) -> usize {
        self.children + 1
    }

    fn step(&self, k: usize, out: &mut Vec<Action>) {
        let frame = &self.frame;
        let (place, accumulator) = (frame.place(), self.accumulator());
        if k == 0 && accumulator.buf != Buf::Input {
            frame.load(frame.part(Buf::Input, 0), accumulator, out);
        }
        if k < self.children {
            recv_reduce(frame.rank_at(place + (1 << k)), accumulator, out);
        } else if frame.is_root() {
            frame.finish(accumulator, out);
        } else {
            send(frame.rank_at(parent(place)), accumulator, out);
        }
    }
}

/// Reduce by a pipelined chain.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReduceChain {
    frame: Frame,
    chunks: Pieces,
}

impl ReduceChain {
    pub fn new(frame: Frame, chunk: usize) -> ReduceChain {
        ReduceChain { frame, chunks: Pieces::by_size(frame.bytes, chunk) }
    }

    fn is_end(&self) -> bool {
        self.frame.place() + 1 == self.frame.n
    }

    /// Room for a chunk; two take turns, so that one is filled while the other is sent.
    fn slot(&self, k: usize) -> Slice {
        let len = self.chunks.piece(Buf::Input, k).len;
        Buf::Scratch.at(k % 2 * self.chunks.longest(), len)
    }

    fn step_of_root(&self, k: usize, out: &mut Vec<Action>) {
        let frame = &self.frame;
        if k > 0 {
            frame.finish(self.chunks.piece(Buf::Output, k - 1), out);
        }
        if k < self.chunks.number() {
            let dst = self.chunks.piece(Buf::Output, k);
            frame.load(self.chunks.piece(Buf::Input, k), dst, out);
            recv_reduce(frame.after(1), dst, out);
        }
    }

    fn step_of_end(&self, k: usize, out: &mut Vec<Action>) {
        let src = self.chunks.piece(Buf::Input, k);
        if self.frame.premul {
            self.frame.load(src, self.slot(k), out);
            send(self.frame.before(1), self.slot(k), out);
        } else {
            send(self.frame.before(1), src, out);
        }
    }
}

impl Schedule for ReduceChain {
    fn scratch_len(&self) -> usize {
        let used = !self.frame.is_root() && (self.frame.premul || !self.is_end());
        if used { 2 * self.chunks.longest() } else { 0 }
    }

    fn steps(&self) -> usize {
        // One more than chunks to pass the last one on, or to divide it.
        self.chunks.number() + usize::from(!self.is_end())
    }

    fn step(&self, k: usize, out: &mut Vec<Action>) {
        let frame = &self.frame;
        if frame.is_root() {
            return self.step_of_root(k, out);
        }
        if self.is_end() {
            return self.step_of_end(k, out);
        }
        if k < self.chunks.number() {
            frame.load(self.chunks.piece(Buf::Input, k), self.slot(k), out);
            recv_reduce(frame.after(1), self.slot(k), out);
        }
        if k > 0 {
            send(frame.before(1), self.slot(k - 1), out);
        }
    }
}

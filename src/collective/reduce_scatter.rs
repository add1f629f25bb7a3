//! ReduceScatter: rank r gets everybody's rth part combined. B is one part.
//!
//! **Halving**, for small messages of many ranks, is Bruck's AllGather backwards. At first a rank has a sum, which is its
//! input, for each rank from itself on around the world. In each round, with d half of them rounded up to a power of
//! two, it hands those from the dth on to the rank d after it, and adds what the rank d before it has for the first of
//! its own, until there is one left, for itself. ceil(log2 n) rounds, the first of at most two messages, (n - 1) B
//! bytes, and temporary memory for n / 2 parts, rounded up to a power of two. For every part the same ranks are
//! added in the same order, counted from its own: in pairs, then in pairs of pairs.
//!
//! **Direct**: everybody sends every other rank its part at once. The nearest rank's is combined as it arrives,
//! the others when all have come. Parts are cut into pieces that take turns, so that what waits stays in the
//! cache: with C pieces C + 1 steps, (n - 1) B bytes, and temporary memory for n - 2 pieces.
//!
//! **Pairwise**, for large ones where many senders to one receiver get into each other's way: in step s a rank
//! sends to the one s after it, and adds what it receives from the one s before it. n - 1 steps, (n - 1) B
//! bytes, no temporary memory.
//!
//! A pre-multiplied sum multiplies each part before it is sent, and needs temporary memory for that: n parts
//! altogether for halving, n - 1 pieces more for the direct one, B for the pairwise one. The last two add in the same
//! order: own part, then those of the ranks before, nearest first.

use super::frame::{Frame, Pieces, copy, recv, recv_combine, recv_reduce, send};
use super::plan::Schedule;
use super::{Action, Buf, Slice};

/// ReduceScatter in rounds that halve what a rank has. Of more than two ranks.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReduceScatterHalving {
    pub frame: Frame,
}

impl ReduceScatterHalving {
    /// How far away the first round's peers are.
    fn first_distance(&self) -> usize {
        1 << (self.frame.rounds() - 1)
    }

    /// The sums for `number` ranks from the `first`th after this one on.
    fn sums(&self, first: usize, number: usize) -> Slice {
        Buf::Scratch.at(first * self.frame.bytes, number * self.frame.bytes)
    }

    /// The inputs for the same, and where their sums go.
    fn inputs(&self, first: usize, number: usize) -> impl Iterator<Item = (Slice, Slice)> {
        let mut off = first * self.frame.bytes;
        self.frame.turned(Buf::Input, self.frame.after(first), number).map(move |input| {
            let sum = Buf::Scratch.at(off, input.len);
            off += input.len;
            (input, sum)
        })
    }

    /// Inputs are where they are, unless they have to be multiplied.
    fn first_round(&self, out: &mut Vec<Action>) {
        let frame = &self.frame;
        let distance = self.first_distance();
        let number = frame.n - distance;
        if frame.premul {
            self.inputs(0, frame.n).for_each(|(input, sum)| frame.load(input, sum, out));
        }
        let loaded = |(input, sum)| if frame.premul { sum } else { input };
        let to = frame.after(distance);
        self.inputs(distance, number).for_each(|part| send(to, loaded(part), out));
        let from = frame.before(distance);
        self.inputs(0, number).for_each(|part| recv_combine(from, loaded(part), part.1, true, out));
    }
}

impl Schedule for ReduceScatterHalving {
    fn scratch_len(&self) -> usize {
        let parts = if self.frame.premul { self.frame.n } else { self.first_distance() };
        parts * self.frame.bytes
    }

    fn steps(&self) -> usize {
        self.frame.rounds() + 1
    }

    fn step(&self, k: usize, out: &mut Vec<Action>) {
        let frame = &self.frame;
        let output = frame.part(Buf::Output, 0);
        let distance = self.first_distance() >> k;
        match k {
            0 => return self.first_round(out),
            1 if !frame.premul => {
                // Those that nothing has been added to, as n is no power of two.
                let alone = frame.n - 2 * distance;
                self.inputs(alone, 2 * distance - alone).for_each(|(input, sum)| copy(input, sum, out));
            }
            _ => {}
        }
        if distance == 0 {
            return frame.finish(output, out);
        }
        send(frame.after(distance), self.sums(distance, distance), out);
        let own = self.sums(0, distance);
        let sum = if distance == 1 { output } else { own };
        recv_combine(frame.before(distance), own, sum, true, out);
    }
}

/// ReduceScatter with everybody at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReduceScatterDirect {
    frame: Frame,
    pieces: Pieces,
}

impl ReduceScatterDirect {
    pub fn new(frame: Frame, piece: usize) -> ReduceScatterDirect {
        ReduceScatterDirect { frame, pieces: Pieces::by_size(frame.bytes, piece) }
    }

    /// A piece of a rank's part of the input.
    fn piece(&self, k: usize, rank: usize) -> Slice {
        let piece = self.pieces.piece(Buf::Input, k);
        Buf::Input.at(rank * self.frame.bytes + piece.off, piece.len)
    }

    /// Temporary memory for one piece.
    fn slot(&self, index: usize, len: usize) -> Slice {
        Buf::Scratch.at(index * self.pieces.longest(), len)
    }

    fn sum_up(&self, k: usize, out: &mut Vec<Action>) {
        let frame = &self.frame;
        let sum = self.pieces.piece(Buf::Output, k);
        if sum.len > 0 {
            let others = (2..frame.n).map(|distance| self.slot(distance - 2, sum.len));
            out.extend(others.map(|src| Action::Reduce { src, dst: sum }));
        }
        frame.finish(sum, out);
    }

    /// Scratch holds what came from the second nearest rank before, from the next one, ..., then multiplied pieces
    /// for the nearest rank after, for the next one, ...
    fn exchange(&self, k: usize, out: &mut Vec<Action>) {
        let frame = &self.frame;
        let sum = self.pieces.piece(Buf::Output, k);
        let multiplied = |distance| self.slot(frame.n - 2 + distance - 1, sum.len);
        if frame.premul {
            for distance in 1..frame.n {
                frame.load(self.piece(k, frame.after(distance)), multiplied(distance), out);
            }
        }
        let own = frame.contribution(self.piece(k, frame.me), sum, out);
        for distance in 1..frame.n {
            let to = frame.after(distance);
            send(to, if frame.premul { multiplied(distance) } else { self.piece(k, to) }, out);
            let from = frame.before(distance);
            if distance == 1 {
                recv_combine(from, own, sum, true, out);
            } else {
                recv(from, self.slot(distance - 2, sum.len), out);
            }
        }
    }
}

impl Schedule for ReduceScatterDirect {
    fn scratch_len(&self) -> usize {
        let others = self.frame.n - 2;
        let slots = if self.frame.premul { others + self.frame.n - 1 } else { others };
        slots * self.pieces.longest()
    }

    fn steps(&self) -> usize {
        self.pieces.number() + 1
    }

    fn step(&self, k: usize, out: &mut Vec<Action>) {
        if k > 0 {
            self.sum_up(k - 1, out);
        }
        if k < self.pieces.number() {
            self.exchange(k, out);
        }
    }
}

fn load_own(frame: &Frame, out: &mut Vec<Action>) -> Slice {
    let sum = frame.part(Buf::Output, 0);
    frame.load(frame.part(Buf::Input, frame.me), sum, out);
    sum
}

/// ReduceScatter rank by rank.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReduceScatterPairwise {
    pub frame: Frame,
}

impl Schedule for ReduceScatterPairwise {
    fn scratch_len(&self) -> usize {
        if self.frame.premul { self.frame.bytes } else { 0 }
    }

    fn steps(&self) -> usize {
        self.frame.n
    }

    fn step(&self, k: usize, out: &mut Vec<Action>) {
        let frame = &self.frame;
        let sum = frame.part(Buf::Output, 0);
        let distance = k + 1;
        if distance == frame.n {
            return frame.finish(sum, out);
        }
        if k == 0 {
            load_own(frame, out);
        }
        let to = frame.after(distance);
        let mut src = frame.part(Buf::Input, to);
        if frame.premul {
            let multiplied = frame.part(Buf::Scratch, 0);
            frame.load(src, multiplied, out);
            src = multiplied;
        }
        send(to, src, out);
        recv_reduce(frame.before(distance), sum, out);
    }
}

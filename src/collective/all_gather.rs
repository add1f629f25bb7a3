//! AllGather: everybody's input on every rank, by rank. B is one rank's contribution.
//!
//! **Bruck**, for small messages of many ranks. Before round k a rank has 2^k parts, its own and those of the ranks
//! after it; it hands them to the rank 2^k before it, and gets as many that it lacks from the rank 2^k after it. In
//! the last round it is what is missing. ceil(log2 n) steps of at most two messages, (n - 1) B bytes. Parts go where
//! they belong at once, so that what wraps around the last rank is a message of its own, and nothing is turned round
//! at the end.
//!
//! **Direct**, for larger ones, and where many senders to one receiver are no harm: everybody sends to everybody at
//! once. (n - 1) B bytes. Large contributions are cut into pieces, so that all read a piece while it is in a
//! cache that they share: with C pieces C steps.
//!
//! **Ring**, for large ones: in every step a rank passes on the part it received in the one before. n - 1
//! steps, (n - 1) B bytes, and only one neighbour at a time.
//!
//! In the last two, own input is copied to its place last, when nobody waits for it.

use super::frame::{Frame, Pieces, recv, send};
use super::plan::Schedule;
use super::{Action, Buf, Slice};

/// AllGather in rounds that double what a rank has. Of more than two ranks.
#[derive(Clone, Copy, Debug)]
pub(super) struct AllGatherBruck {
    pub frame: Frame,
}

impl Schedule for AllGatherBruck {
    fn scratch_len(&self) -> usize {
        0
    }

    fn steps(&self) -> usize {
        self.frame.rounds()
    }

    fn step(&self, k: usize, out: &mut Vec<Action>) {
        let frame = &self.frame;
        let (input, place) = own(frame);
        if k == 1 {
            // Nobody waits for it before.
            frame.load(input, place, out);
        }
        let has = 1 << k;
        let (to, from) = (frame.before(has), frame.after(has));
        let parts = has.min(frame.n - has);
        if k == 0 {
            send(to, input, out);
        } else {
            frame.turned(Buf::Output, frame.me, parts).for_each(|src| send(to, src, out));
        }
        frame.turned(Buf::Output, from, parts).for_each(|dst| recv(from, dst, out));
    }
}

/// AllGather with everybody at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct AllGatherDirect {
    frame: Frame,
    pieces: Pieces,
}

impl AllGatherDirect {
    pub fn new(frame: Frame, piece: usize) -> AllGatherDirect {
        AllGatherDirect { frame, pieces: Pieces::by_size(frame.bytes, piece) }
    }
}

fn own(frame: &Frame) -> (Slice, Slice) {
    (frame.part(Buf::Input, 0), frame.part(Buf::Output, frame.me))
}

impl Schedule for AllGatherDirect {
    fn scratch_len(&self) -> usize {
        0
    }

    fn steps(&self) -> usize {
        self.pieces.number() + 1
    }

    fn step(&self, k: usize, out: &mut Vec<Action>) {
        let frame = &self.frame;
        if k == self.pieces.number() {
            let (input, place) = own(frame);
            return frame.load(input, place, out);
        }
        let piece = self.pieces.piece(Buf::Input, k);
        for distance in 1..frame.n {
            send(frame.after(distance), piece, out);
            let from = frame.before(distance);
            recv(from, Buf::Output.at(from * frame.bytes + piece.off, piece.len), out);
        }
    }
}

/// AllGather around a ring.
#[derive(Clone, Copy, Debug)]
pub(super) struct AllGatherRing {
    pub frame: Frame,
}

impl Schedule for AllGatherRing {
    fn scratch_len(&self) -> usize {
        0
    }

    fn steps(&self) -> usize {
        self.frame.n
    }

    fn step(&self, k: usize, out: &mut Vec<Action>) {
        let frame = &self.frame;
        let (input, place) = own(frame);
        if k + 1 == frame.n {
            return frame.load(input, place, out);
        }
        let outgoing = if k == 0 { input } else { frame.part(Buf::Output, frame.before(k)) };
        send(frame.after(1), outgoing, out);
        recv(frame.before(1), frame.part(Buf::Output, frame.before(k + 1)), out);
    }
}

//! AllGather: everybody's input on every rank, by rank. B is one rank's contribution.
//!
//! **Direct**, for small messages, and where many senders to one receiver are no harm: everybody sends to everybody
//! at once. (n - 1) B bytes. Large contributions are cut into pieces, so that all read a piece while it is in a
//! cache that they share: with C pieces C steps.
//!
//! **Ring**, for large ones: in every step a rank passes on the part it received in the one before. n - 1
//! steps, (n - 1) B bytes, and only one neighbour at a time.
//!
//! In both, own input is copied to its place last, when nobody waits for it.

use super::frame::{Frame, Pieces, recv, send};
use super::plan::Schedule;
use super::{Action, Buf, Slice};

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

//! ReduceScatter: rank r gets everybody's rth part combined. B is one part.
//!
//! **Direct**, for small messages: everybody sends every other rank its part at once, and sums up when all
//! have come. One step of messages, (n - 1) B bytes, (n - 1) B of temporary memory.
//!
//! **Pairwise**, for large ones: in step s a rank sends to the one s after it, and adds what it receives from
//! the one s before it. n - 1 steps, (n - 1) B bytes, no temporary memory.
//!
//! A pre-multiplied sum multiplies each part before it is sent, and needs temporary memory for that: as much
//! again for the direct one, B for the pairwise one. Both add in the same order: own part, then those of the
//! ranks before, nearest first.

use super::frame::{Frame, recv, recv_reduce, send};
use super::plan::Schedule;
use super::{Action, Buf, Slice};

/// ReduceScatter with everybody at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReduceScatterDirect {
    pub frame: Frame,
}

fn load_own(frame: &Frame, out: &mut Vec<Action>) -> Slice {
    let sum = frame.part(Buf::Output, 0);
    frame.load(frame.part(Buf::Input, frame.me), sum, out);
    sum
}

impl Schedule for ReduceScatterDirect {
    fn scratch_len(&self) -> usize {
        let others = (self.frame.n - 1) * self.frame.bytes;
        if self.frame.premul { 2 * others } else { others }
    }

    fn steps(&self) -> usize {
        2
    }

    fn step(&self, k: usize, out: &mut Vec<Action>) {
        let frame = &self.frame;
        // Scratch holds what came from the nearest rank before, from the next one, ..., then multiplied parts
        // for the nearest rank after, for the next one, ...
        if k == 0 {
            if frame.premul {
                for distance in 1..frame.n {
                    let multiplied = frame.part(Buf::Scratch, frame.n - 1 + distance - 1);
                    frame.load(frame.part(Buf::Input, frame.after(distance)), multiplied, out);
                }
            }
            for distance in 1..frame.n {
                let to = frame.after(distance);
                let src = if frame.premul {
                    frame.part(Buf::Scratch, frame.n - 1 + distance - 1)
                } else {
                    frame.part(Buf::Input, to)
                };
                send(to, src, out);
                recv(frame.before(distance), frame.part(Buf::Scratch, distance - 1), out);
            }
            return;
        }
        let sum = load_own(frame, out);
        if sum.len > 0 {
            let received = (0..frame.n - 1).map(|index| frame.part(Buf::Scratch, index));
            out.extend(received.map(|src| Action::Reduce { src, dst: sum }));
        }
        frame.finish(sum, out);
    }
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

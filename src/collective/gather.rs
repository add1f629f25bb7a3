//! Gather: everybody's input at the root, by rank. Scatter: the parts of the root's input to the ranks they
//! belong to. B is one part.
//!
//! Both are direct: the root exchanges one message with every other rank, all at once. One step; the root
//! receives, or sends, (n - 1) B, which no algorithm avoids, and every other rank B. The root copies its own
//! part last, when nobody waits for it.

use super::frame::{Frame, recv, send};
use super::plan::Schedule;
use super::{Action, Buf};

/// Gather with everybody at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gather {
    pub frame: Frame,
}

impl Schedule for Gather {
    fn scratch_len(&self) -> usize {
        0
    }

    fn steps(&self) -> usize {
        1 + usize::from(self.frame.is_root())
    }

    fn step(&self, k: usize, out: &mut Vec<Action>) {
        let frame = &self.frame;
        let input = frame.part(Buf::Input, 0);
        if !frame.is_root() {
            return send(frame.root, input, out);
        }
        if k == 1 {
            return frame.load(input, frame.part(Buf::Output, frame.me), out);
        }
        for distance in 1..frame.n {
            let from = frame.after(distance);
            recv(from, frame.part(Buf::Output, from), out);
        }
    }
}

/// Scatter to everybody at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scatter {
    pub frame: Frame,
}

impl Schedule for Scatter {
    fn scratch_len(&self) -> usize {
        0
    }

    fn steps(&self) -> usize {
        1 + usize::from(self.frame.is_root())
    }

    fn step(&self, k: usize, out: &mut Vec<Action>) {
        let frame = &self.frame;
        let output = frame.part(Buf::Output, 0);
        if !frame.is_root() {
            return recv(frame.root, output, out);
        }
        if k == 1 {
            return frame.load(frame.part(Buf::Input, frame.me), output, out);
        }
        for distance in 1..frame.n {
            let to = frame.after(distance);
            send(to, frame.part(Buf::Input, to), out);
        }
    }
}

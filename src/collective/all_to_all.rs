//! AllToAll: part s of rank r's input becomes part r of rank s's output. B is one part.
//!
//! **Direct**: everybody sends to everybody at once. One step, (n - 1) B bytes. In place the whole input is
//! set aside first, which costs a copy and n B of temporary memory.
//!
//! **Pairwise**, for large buffers in place: in step s the ranks whose numbers add up to s (mod n) exchange
//! their parts, each after setting the one it sends aside. n steps, (n - 1) B bytes, B of temporary memory.
//! Ranks in place and ranks out of place can be in the same operation: every pair exchanges one message each
//! way, the direct ones have all of theirs posted from the start, and the pairs of the others follow one
//! global order.

use super::frame::{Frame, copy, recv, send};
use super::plan::Schedule;
use super::{Action, Buf};

/// AllToAll with everybody at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct AllToAllDirect {
    pub frame: Frame,
}

impl Schedule for AllToAllDirect {
    fn scratch_len(&self) -> usize {
        if self.frame.in_place { self.frame.n * self.frame.bytes } else { 0 }
    }

    fn steps(&self) -> usize {
        2
    }

    fn step(&self, k: usize, out: &mut Vec<Action>) {
        let frame = &self.frame;
        if k == 1 {
            return frame.load(frame.part(Buf::Input, frame.me), frame.part(Buf::Output, frame.me), out);
        }
        let mut from = Buf::Input;
        if frame.in_place {
            let all = frame.n * frame.bytes;
            copy(Buf::Input.at(0, all), Buf::Scratch.at(0, all), out);
            from = Buf::Scratch;
        }
        for distance in 1..frame.n {
            let (to, before) = (frame.after(distance), frame.before(distance));
            send(to, frame.part(from, to), out);
            recv(before, frame.part(Buf::Output, before), out);
        }
    }
}

/// AllToAll in place, part by part.
#[derive(Clone, Copy, Debug)]
pub(super) struct AllToAllPairwise {
    pub frame: Frame,
}

impl Schedule for AllToAllPairwise {
    fn scratch_len(&self) -> usize {
        self.frame.bytes
    }

    fn steps(&self) -> usize {
        self.frame.n
    }

    fn step(&self, k: usize, out: &mut Vec<Action>) {
        let frame = &self.frame;
        let peer = (k + frame.n - frame.me) % frame.n;
        if peer == frame.me {
            return;
        }
        let (aside, part) = (frame.part(Buf::Scratch, 0), frame.part(Buf::Output, peer));
        copy(part, aside, out);
        send(peer, aside, out);
        recv(peer, part, out);
    }
}

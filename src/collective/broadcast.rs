//! Broadcast.
//!
//! **Tree**, for small messages. Ranks count from the root. Rank v hears from the rank whose number is v
//! without its lowest set bit, and tells v + 2^j for every 2^j below that bit, the largest subtree first. Two
//! steps per rank; ceil(log2 n) messages on the longest way. A rank receives B and sends at most B log2 n.
//!
//! **Chain**, for large ones. Root, root + 1, root + 2, ... each pass on one chunk while they receive the
//! next. With C chunks it takes C + n - 2 rounds of one chunk, so that everybody is done after little more
//! than the time for B. A rank sends at most B and receives at most B.
//!
//! **Flat**, where every rank reads the root's buffer by itself, as over shared memory, and for small messages of
//! few ranks: the root sends to all at once. (n - 1) B bytes for the root. Large messages are cut into pieces, so
//! that all read a piece while it is in a cache that they share: with C pieces C steps.
//!
//! In all of them the root copies input to output after it has sent everything, when nobody waits for it.

use super::frame::{Frame, Pieces, recv, send};
use super::plan::Schedule;
use super::{Action, Buf};

/// Distances from a place in a binomial tree to its children, the nearest (with the smallest subtree) first.
pub(super) fn children(n: usize, place: usize) -> impl DoubleEndedIterator<Item = usize> {
    let below = if place == 0 { usize::BITS } else { place.trailing_zeros() };
    // The number of powers of two that stay below n.
    let inside = (n - place).next_power_of_two().trailing_zeros();
    (0..below.min(inside)).map(|bit| 1 << bit)
}

/// The parent of a place that is not the root's.
pub(super) fn parent(place: usize) -> usize {
    place & (place - 1)
}

/// Broadcast from the root to everybody at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct BroadcastFlat {
    frame: Frame,
    pieces: Pieces,
}

impl BroadcastFlat {
    pub fn new(frame: Frame, piece: usize) -> BroadcastFlat {
        BroadcastFlat { frame, pieces: Pieces::by_size(frame.bytes, piece) }
    }
}

impl Schedule for BroadcastFlat {
    fn scratch_len(&self) -> usize {
        0
    }

    fn steps(&self) -> usize {
        self.pieces.number() + usize::from(self.frame.is_root())
    }

    fn step(&self, k: usize, out: &mut Vec<Action>) {
        let frame = &self.frame;
        if !frame.is_root() {
            recv(frame.root, self.pieces.piece(Buf::Output, k), out);
        } else if k < self.pieces.number() {
            let piece = self.pieces.piece(Buf::Input, k);
            (1..frame.n).for_each(|distance| send(frame.after(distance), piece, out));
        } else {
            frame.load(frame.part(Buf::Input, 0), frame.part(Buf::Output, 0), out);
        }
    }
}

/// Broadcast by a binomial tree.
#[derive(Clone, Copy, Debug)]
pub(super) struct BroadcastTree {
    frame: Frame,
}

impl BroadcastTree {
    pub fn new(frame: Frame) -> BroadcastTree {
        BroadcastTree { frame }
    }

    fn send_to_children(&self, buf: Buf, out: &mut Vec<Action>) {
        let frame = &self.frame;
        let place = frame.place();
        for distance in children(frame.n, place).rev() {
            send(frame.rank_at(place + distance), frame.part(buf, 0), out);
        }
    }
}

impl Schedule for BroadcastTree {
    fn scratch_len(&self) -> usize {
        0
    }

    fn steps(&self) -> usize {
        2
    }

    fn step(&self, k: usize, out: &mut Vec<Action>) {
        let frame = &self.frame;
        match (frame.is_root(), k) {
            (true, 0) => self.send_to_children(Buf::Input, out),
            (true, _) => frame.load(frame.part(Buf::Input, 0), frame.part(Buf::Output, 0), out),
            (false, 0) => recv(frame.rank_at(parent(frame.place())), frame.part(Buf::Output, 0), out),
            (false, _) => self.send_to_children(Buf::Output, out),
        }
    }
}

/// Broadcast by a pipelined chain.
#[derive(Clone, Copy, Debug)]
pub(super) struct BroadcastChain {
    frame: Frame,
    chunks: Pieces,
}

impl BroadcastChain {
    pub fn new(frame: Frame, chunk: usize) -> BroadcastChain {
        BroadcastChain { frame, chunks: Pieces::by_size(frame.bytes, chunk) }
    }
}

impl Schedule for BroadcastChain {
    fn scratch_len(&self) -> usize {
        0
    }

    fn steps(&self) -> usize {
        self.chunks.number() + 1
    }

    fn step(&self, k: usize, out: &mut Vec<Action>) {
        let frame = &self.frame;
        let place = frame.place();
        if frame.is_root() {
            if k < self.chunks.number() {
                send(frame.after(1), self.chunks.piece(Buf::Input, k), out);
            } else {
                frame.load(frame.part(Buf::Input, 0), frame.part(Buf::Output, 0), out);
            }
            return;
        }
        if k < self.chunks.number() {
            recv(frame.before(1), self.chunks.piece(Buf::Output, k), out);
        }
        if k > 0 && place + 1 < frame.n {
            send(frame.after(1), self.chunks.piece(Buf::Output, k - 1), out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_reaches_everybody_once() {
        for n in 1..70 {
            let mut parents = vec![None; n];
            for place in 0..n {
                for distance in children(n, place) {
                    assert_eq!(parents[place + distance].replace(place), None);
                    assert_eq!(parent(place + distance), place);
                }
            }
            assert!(parents[1..].iter().all(Option::is_some));
        }
    }
}

//! What every algorithm needs of a [`Shape`], in the units it computes in.

use super::{Action, Buf, Shape, Slice};
use crate::types::{RedOp, Reduction};

/// Buffers are cut at multiples of this many bytes, a cache line: no element is torn apart, and no two pieces
/// share a line of an aligned buffer.
pub(super) const GRAIN: usize = 64;

/// A shape in ranks and bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    /// Members.
    pub n: usize,
    /// This member.
    pub me: usize,
    /// The root, or 0.
    pub root: usize,
    /// Bytes of the caller's count.
    pub bytes: usize,
    /// As in the shape.
    pub in_place: bool,
    /// Whether inputs are multiplied before they are summed.
    pub premul: bool,
    /// Whether sums are divided.
    pub average: bool,
}

impl Frame {
    /// Ranks and bytes of a shape.
    pub fn new(shape: &Shape) -> Frame {
        let reduces = shape.kind.reduces();
        Frame {
            n: shape.nranks as usize,
            me: shape.rank as usize,
            root: shape.root as usize,
            bytes: shape.count * shape.dtype.size(),
            in_place: shape.in_place,
            premul: reduces && matches!(shape.reduction, Reduction::PreMulSum(_)),
            average: reduces && shape.reduction == Reduction::Builtin(RedOp::Avg),
        }
    }

    /// Whether this member is the root.
    pub fn is_root(&self) -> bool {
        self.me == self.root
    }

    /// The rank `distance` (at most n) after this one.
    pub fn after(&self, distance: usize) -> usize {
        (self.me + distance) % self.n
    }

    /// The rank `distance` (at most n) before this one.
    pub fn before(&self, distance: usize) -> usize {
        (self.me + self.n - distance) % self.n
    }

    /// This member's place when ranks are counted from the root.
    pub fn place(&self) -> usize {
        (self.me + self.n - self.root) % self.n
    }

    /// The rank at a place counted from the root.
    pub fn rank_at(&self, place: usize) -> usize {
        (place + self.root) % self.n
    }

    /// The `index`th rank's part of a buffer that holds one for every rank.
    pub fn part(&self, buf: Buf, index: usize) -> Slice {
        buf.at(index * self.bytes, self.bytes)
    }

    /// How often something doubles before it reaches n.
    pub fn rounds(&self) -> usize {
        self.n.next_power_of_two().trailing_zeros() as usize
    }

    /// The parts of `number` (at most n) ranks from `first` on, in a buffer that holds one for every rank: in one piece,
    /// or in two where rank 0 comes after the last.
    pub fn turned(&self, buf: Buf, first: usize, number: usize) -> impl Iterator<Item = Slice> {
        let end = number.min(self.n - first);
        let (head, tail) = (buf.at(first * self.bytes, end * self.bytes), number - end);
        let tail = (tail > 0).then_some(buf.at(0, tail * self.bytes));
        [Some(head), tail].into_iter().flatten()
    }

    /// Brings own input to where it is accumulated, or passed on from, unless it is there already.
    pub fn load(&self, src: Slice, dst: Slice, out: &mut Vec<Action>) {
        if self.premul {
            if dst.len > 0 {
                out.push(Action::PreMul { src, dst });
            }
        } else if !(self.in_place && dst.buf == Buf::Output) {
            copy(src, dst, out);
        }
    }

    /// Where own contribution is, which is `src` of the input and whose place in the output is `dst`: there if it is
    /// already, or has to be multiplied first, which is done here.
    pub fn contribution(&self, src: Slice, dst: Slice, out: &mut Vec<Action>) -> Slice {
        if self.premul {
            self.load(src, dst, out);
        }
        if self.premul || self.in_place { dst } else { src }
    }

    /// The last thing done to a sum.
    pub fn finish(&self, dst: Slice, out: &mut Vec<Action>) {
        if self.average && dst.len > 0 {
            out.push(Action::Average { dst });
        }
    }
}

/// Copies what is not empty.
pub(super) fn copy(src: Slice, dst: Slice, out: &mut Vec<Action>) {
    if dst.len > 0 {
        out.push(Action::Copy { src, dst });
    }
}

/// Sends to a rank.
pub(super) fn send(rank: usize, src: Slice, out: &mut Vec<Action>) {
    out.push(Action::Send { peer: peer(rank), src });
}

/// Receives from a rank.
pub(super) fn recv(rank: usize, dst: Slice, out: &mut Vec<Action>) {
    out.push(Action::Recv { peer: peer(rank), dst });
}

/// Receives from a rank and combines.
pub(super) fn recv_reduce(rank: usize, dst: Slice, out: &mut Vec<Action>) {
    out.push(Action::RecvReduce { peer: peer(rank), dst });
}

/// Receives from a rank and combines with `own`.
pub(super) fn recv_combine(rank: usize, own: Slice, dst: Slice, own_first: bool, out: &mut Vec<Action>) {
    out.push(Action::RecvCombine { peer: peer(rank), own, dst, own_first });
}

/// Ranks are below `nranks`, which is 32 bits wide.
fn peer(rank: usize) -> u32 {
    rank as u32
}

/// A buffer cut into pieces of equal size, a multiple of [`GRAIN`], but for the last ones: one is shorter,
/// further ones are empty.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pieces {
    bytes: usize,
    size: usize,
}

impl Pieces {
    /// As many pieces as asked for.
    pub fn by_number(bytes: usize, number: usize) -> Pieces {
        Pieces { bytes, size: bytes.div_ceil(number).next_multiple_of(GRAIN) }
    }

    /// Pieces of a size.
    pub fn by_size(bytes: usize, size: usize) -> Pieces {
        // The smaller of the two keeps a size that somebody set to usize::MAX from overflowing.
        Pieces { bytes, size: size.min(bytes).max(1).next_multiple_of(GRAIN) }
    }

    /// How many there are; an empty buffer is one empty piece, so that it takes part in every exchange.
    pub fn number(&self) -> usize {
        self.bytes.div_ceil(self.size).max(1)
    }

    /// The bytes of the largest one.
    pub fn longest(&self) -> usize {
        self.size.min(self.bytes)
    }

    /// One of them.
    pub fn piece(&self, buf: Buf, index: usize) -> Slice {
        let off = index.saturating_mul(self.size).min(self.bytes);
        buf.at(off, self.size.min(self.bytes - off))
    }
}

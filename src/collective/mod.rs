//! Collective operations as schedules: which rank sends which bytes to whom, in what order.
//!
//! A [`Plan`] is pure: it does no I/O and knows no addresses. The engine in `progress` asks for step after
//! step, carries out the local actions in order, posts the messages, and goes to the next step when all are
//! done. The same plans run under a simulated network in the tests.

//!
//! Every algorithm is a file of its own that begins with how it works and what it costs. In the costs, n is
//! the number of ranks and B the bytes of the caller's count; a step is one round of messages, and bytes are
//! those a rank sends, which it also receives unless something else is said. [`Tuning`] says where one
//! algorithm takes over from another.

mod all_gather;
mod all_reduce;
mod all_to_all;
mod barrier;
mod broadcast;
mod frame;
mod gather;
mod plan;
pub mod reduce;
mod reduce_scatter;
mod reduce_to_root;
#[cfg(test)]
mod simulate;
#[cfg(test)]
mod tests;

pub use crate::config::tuning::Tuning;
pub use plan::Plan;

use crate::transport::ReduceFn;
use crate::types::{DataType, OpKind, Reduction};

/// What a caller asked for, as far as the schedule depends on it. All ranks pass the same, apart from `rank`
/// and `in_place`.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// The operation; never point-to-point.
    pub kind: OpKind,
    /// Members of the world.
    pub nranks: u32,
    /// This member.
    pub rank: u32,
    /// The root of a rooted operation, else 0.
    pub root: u32,
    /// Elements as the caller gave them (per rank where the operation counts per rank, as in NCCL).
    pub count: usize,
    /// Element type.
    pub dtype: DataType,
    /// Reduction of an operation that reduces, else `Builtin(Sum)`.
    pub reduction: Reduction,
    /// Whether the input is the output (or, as NCCL defines it per operation, this rank's part of it).
    pub in_place: bool,
}

impl Shape {
    /// Bytes of the input and of the output that an operation uses on this rank, as NCCL defines them; 0 for
    /// a buffer that is ignored and may be NULL. `None` where one of them, or one that another rank needs, is
    /// larger than an address space.
    pub fn lengths(&self) -> Option<(usize, usize)> {
        let each = self.count.checked_mul(self.dtype.size()).filter(|len| isize::try_from(*len).is_ok())?;
        let all = || {
            let all = each.checked_mul(usize::try_from(self.nranks).ok()?)?;
            isize::try_from(all).is_ok().then_some(all)
        };
        let root = self.rank == self.root;
        let at_root = |len| if root { len } else { 0 };
        Some(match self.kind {
            OpKind::PointToPoint | OpKind::AllReduce => (each, each),
            OpKind::Broadcast => (at_root(each), each),
            OpKind::Reduce => (each, at_root(each)),
            OpKind::AllGather => (each, all()?),
            OpKind::ReduceScatter => (all()?, each),
            OpKind::AllToAll => (all()?, all()?),
            OpKind::Gather => (each, at_root(all()?)),
            OpKind::Scatter => (at_root(all()?), each),
            OpKind::Barrier => (0, 0),
        })
    }
}

/// A buffer of this rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Buf {
    /// The caller's send buffer; never written, except where it is the output.
    Input,
    /// The caller's receive buffer.
    Output,
    /// Temporary memory of [`Plan::scratch_len`] bytes.
    Scratch,
}

impl Buf {
    /// `len` bytes from `off` on.
    pub const fn at(self, off: usize, len: usize) -> Slice {
        Slice { buf: self, off, len }
    }
}

/// A range of bytes in one of the buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// The buffer.
    pub buf: Buf,
    /// First byte.
    pub off: usize,
    /// Bytes.
    pub len: usize,
}

/// One thing to do within a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Local, done at once, in order, before the step's messages are posted: `dst = src`.
    Copy {
        /// From.
        src: Slice,
        /// To; does not overlap `src`.
        dst: Slice,
    },
    /// Local: `dst = dst op src`.
    Reduce {
        /// Operand.
        src: Slice,
        /// Accumulator; does not overlap `src`.
        dst: Slice,
    },
    /// Local: `dst = a op b`.
    Combine {
        /// Left operand.
        a: Slice,
        /// Right operand.
        b: Slice,
        /// Result; equals one of the operands, or overlaps neither.
        dst: Slice,
    },
    /// Local: `dst = src * scalar` of a pre-multiplied sum. `src` may equal `dst`.
    PreMul {
        /// From.
        src: Slice,
        /// To.
        dst: Slice,
    },
    /// Local: `dst = dst / nranks`, the last step of an average.
    Average {
        /// What to divide.
        dst: Slice,
    },
    /// Sends `src` to `peer`.
    Send {
        /// Rank.
        peer: u32,
        /// Bytes; not written by anything in the same step.
        src: Slice,
    },
    /// Receives into `dst` from `peer`.
    Recv {
        /// Rank.
        peer: u32,
        /// Destination.
        dst: Slice,
    },
    /// Receives from `peer` and combines: `dst = dst op received`.
    RecvReduce {
        /// Rank.
        peer: u32,
        /// Accumulator.
        dst: Slice,
    },
    /// Receives from `peer` and combines with something else: `dst = own op received`, or the other way around.
    RecvCombine {
        /// Rank.
        peer: u32,
        /// The other operand; equals `dst` or does not overlap it.
        own: Slice,
        /// Result.
        dst: Slice,
        /// Whether `own` is the left operand.
        own_first: bool,
    },
}

/// The operator of a shape, for `Reduce` and `RecvReduce`.
pub fn kernel(shape: &Shape) -> ReduceFn {
    reduce::kernel(shape.dtype, shape.reduction)
}

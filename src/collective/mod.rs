//! Collective operations as schedules: which rank sends which bytes to whom, in what order.
//!
//! A [`Plan`] is pure: it does no I/O and knows no addresses. The engine in `progress` asks for step after step,
//! carries out the local actions in order, posts the messages, and goes to the next step when all are done. The
//! same plans run under a simulated network in the tests.

pub mod reduce;

use crate::transport::ReduceFn;
use crate::types::{DataType, OpKind, Reduction};

/// What a caller asked for, as far as the schedule depends on it. All ranks pass the same, apart from `rank` and
/// `in_place`.
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

/// A buffer of this rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Buf {
    /// The caller's send buffer; never written.
    Input,
    /// The caller's receive buffer.
    Output,
    /// Temporary memory of [`Plan::scratch_len`] bytes.
    Scratch,
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
}

/// The operator of a shape, for `Reduce` and `RecvReduce`.
pub fn kernel(shape: &Shape) -> ReduceFn {
    reduce::kernel(shape.dtype, shape.reduction)
}

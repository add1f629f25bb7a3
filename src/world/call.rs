//! One call of an operation, and what is wrong with it.

use super::World;
pub use crate::backend::Call;
use crate::collective::Shape;
use crate::config::BackendChoice;
use crate::error::{Error, Result};
use crate::progress::{Message, Operation};
use crate::types::{Fingerprint, OpKind, Reduction};

impl World {
    /// Checks ranks and sizes; `Error::argument` names the C argument. No effect.
    pub fn check(&self, call: &Call) -> Result<()> {
        let n = self.nranks();
        if self.config.backend != BackendChoice::Nccl && !call.stream.is_null() {
            return Err(Error::argument("stream: not NULL, but the host backend has no streams"));
        }
        let what = if call.kind == OpKind::PointToPoint { "peer" } else { "root" };
        if (call.kind == OpKind::PointToPoint || call.kind.rooted())
            && !u32::try_from(call.peer).is_ok_and(|p| p < n)
        {
            return Err(Error::argument(format!(
                "{what}: {} is not a rank of world '{}' (0..{})",
                call.peer,
                self.name,
                n - 1
            )));
        }
        let ranks = match call.kind {
            OpKind::AllGather
            | OpKind::ReduceScatter
            | OpKind::AllToAll
            | OpKind::Gather
            | OpKind::Scatter => n,
            _ => 1,
        };
        let bytes = call.count.checked_mul(call.dtype.size()).and_then(|b| b.checked_mul(ranks as usize));
        if bytes.is_none_or(|b| b > isize::MAX as usize) {
            let name = match call.kind {
                OpKind::AllGather => "sendcount",
                OpKind::ReduceScatter => "recvcount",
                _ => "count",
            };
            return Err(Error::argument(format!(
                "{name}: {} x {} is more than an address space holds",
                call.count,
                call.dtype.name()
            )));
        }
        Ok(())
    }

    /// The engine's form of a checked point-to-point call.
    #[inline]
    pub(super) fn message(call: &Call) -> Message {
        let fp = Fingerprint {
            kind: OpKind::PointToPoint,
            dtype: call.dtype as u8,
            redop: Fingerprint::NO_REDOP,
            root: -1,
            seq: 0,
            count: call.count as u64,
        };
        let ptr = if call.send { call.sendbuf.cast_mut() } else { call.recvbuf };
        Message { fp, ptr, len: call.count * call.dtype.size(), peer: call.peer as u32, send: call.send }
    }

    /// The engine's form of a checked call.
    pub(super) fn operation(&self, call: &Call) -> Operation {
        let redop = match (call.kind.reduces(), call.reduction) {
            (false, _) => Fingerprint::NO_REDOP,
            (true, Reduction::Builtin(op)) => op as u8,
            (true, Reduction::PreMulSum(_)) => Fingerprint::PREMULSUM,
        };
        let root = if call.kind.rooted() { call.peer } else { -1 };
        let fp = Fingerprint {
            kind: call.kind,
            dtype: call.dtype as u8,
            redop,
            root,
            seq: 0,
            count: call.count as u64,
        };
        let bytes = call.count * call.dtype.size();
        let peer = call.peer as u32;
        match call.kind {
            OpKind::PointToPoint => Operation::Message(World::message(call)),
            _ => Operation::Collective {
                shape: Shape {
                    kind: call.kind,
                    nranks: self.nranks(),
                    rank: self.rank,
                    root: if call.kind.rooted() { peer } else { 0 },
                    count: call.count,
                    dtype: call.dtype,
                    reduction: call.reduction,
                    in_place: self.in_place(call, bytes),
                },
                input: call.sendbuf,
                output: call.recvbuf,
                fp,
            },
        }
    }

    /// Whether input and output are the same memory, as NCCL defines it for each operation.
    fn in_place(&self, call: &Call, bytes: usize) -> bool {
        let (input, output) = (call.sendbuf, call.recvbuf.cast_const());
        let mine = bytes.wrapping_mul(self.rank as usize);
        match call.kind {
            OpKind::AllGather | OpKind::Gather => input == output.wrapping_add(mine),
            OpKind::ReduceScatter | OpKind::Scatter => output == input.wrapping_add(mine),
            _ => input == output,
        }
    }
}

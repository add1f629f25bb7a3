//! One call of an operation, and what is wrong with it.

use super::World;
pub use crate::backend::Call;
use crate::collective::Shape;
use crate::config::BackendChoice;
use crate::error::{Error, Result};
use crate::nccl::cuda::Stream;
pub use crate::progress::Message;
use crate::progress::Operation;
use crate::types::{DataType, Fingerprint, OpKind, Reduction};

impl World {
    /// Checks ranks and sizes; `Error::argument` names the C argument. No effect.
    pub fn check(&self, call: &Call) -> Result<()> {
        self.check_stream(call.stream)?;
        if call.kind == OpKind::PointToPoint {
            self.check_rank("peer", call.peer)?;
        } else if call.kind.rooted() {
            self.check_rank("root", call.peer)?;
        }
        let ranks = match call.kind {
            OpKind::AllGather
            | OpKind::ReduceScatter
            | OpKind::AllToAll
            | OpKind::Gather
            | OpKind::Scatter => self.nranks(),
            _ => 1,
        };
        let name = match call.kind {
            OpKind::AllGather => "sendcount",
            OpKind::ReduceScatter => "recvcount",
            _ => "count",
        };
        check_size(name, call.count, call.dtype, ranks)
    }

    #[inline]
    fn check_stream(&self, stream: Stream) -> Result<()> {
        if self.config.backend != BackendChoice::Nccl && !stream.is_null() {
            return Err(Error::argument("stream: not NULL, but the host backend has no streams"));
        }
        Ok(())
    }

    #[inline]
    fn check_rank(&self, what: &str, rank: i32) -> Result<()> {
        let n = self.nranks();
        if u32::try_from(rank).is_ok_and(|r| r < n) {
            return Ok(());
        }
        let (name, last) = (&self.name, n - 1);
        Err(Error::argument(format!("{what}: {rank} is not a rank of world '{name}' (0..{last})")))
    }

    /// A message of a world on host memory, in the engine's form. The same checks as for a call.
    #[inline]
    pub fn message(
        &self,
        send: bool,
        ptr: *mut u8,
        count: usize,
        dtype: DataType,
        peer: i32,
        stream: Stream,
    ) -> Result<Message> {
        self.check_stream(stream)?;
        self.check_rank("peer", peer)?;
        check_size("count", count, dtype, 1)?;
        Ok(message(send, ptr, count, dtype, peer))
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
            OpKind::PointToPoint => Operation::Message(of_call(call)),
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

fn check_size(name: &str, count: usize, dtype: DataType, ranks: u32) -> Result<()> {
    let bytes = count.checked_mul(dtype.size()).and_then(|b| b.checked_mul(ranks as usize));
    if bytes.is_some_and(|b| b <= isize::MAX as usize) {
        return Ok(());
    }
    Err(Error::argument(format!("{name}: {count} x {} is more than an address space holds", dtype.name())))
}

/// The engine's form of a checked message.
#[inline]
fn message(send: bool, ptr: *mut u8, count: usize, dtype: DataType, peer: i32) -> Message {
    let fp = Fingerprint {
        kind: OpKind::PointToPoint,
        dtype: dtype as u8,
        redop: Fingerprint::NO_REDOP,
        root: -1,
        seq: 0,
        count: count as u64,
    };
    Message { fp, ptr, len: count * dtype.size(), peer: peer as u32, send }
}

/// The same of a checked point-to-point call.
pub(super) fn of_call(call: &Call) -> Message {
    let ptr = if call.send { call.sendbuf.cast_mut() } else { call.recvbuf };
    message(call.send, ptr, call.count, call.dtype, call.peer)
}

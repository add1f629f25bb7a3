//! The operations. All of them go the same way: described by [`Posted`], then to the communicator.

use crate::boundary::Answer;
use crate::comm::Comm;
use crate::cuda::Stream;
use crate::genuine::express;
use crate::host::run;
use crate::{config, genuine, group, handle};
use core::ffi::{c_int, c_void};
use multiworld::error::Error;
use multiworld::nccl::types::*;
use multiworld::types::OpKind;
use std::ptr;

/// An operation as C called it.
#[derive(Clone, Copy)]
pub struct Posted {
    /// The operation; for point-to-point, `send` tells the direction.
    pub kind: OpKind,
    /// Of point-to-point.
    pub send: bool,
    /// As given.
    pub sendbuff: *const c_void,
    /// As given.
    pub recvbuff: *mut c_void,
    /// As given.
    pub count: usize,
    /// As given.
    pub datatype: ncclDataType_t,
    /// Of operations that reduce.
    pub op: Option<ncclRedOp_t>,
    /// Peer or root.
    pub peer: c_int,
    /// Hints, or NULL.
    pub config: *const ncclCollConfig_t,
}

impl Posted {
    const fn new(kind: OpKind, count: usize, datatype: ncclDataType_t) -> Posted {
        Posted {
            kind,
            send: false,
            sendbuff: ptr::null(),
            recvbuff: ptr::null_mut(),
            count,
            datatype,
            op: None,
            peer: 0,
            config: ptr::null(),
        }
    }

    fn is_root(&self, rank: i32) -> bool {
        self.peer == rank
    }

    /// Which of the buffers that this rank needs is not there.
    #[inline(always)]
    pub fn missing_buffer(&self, rank: i32) -> Option<Fault> {
        let sends = match self.kind {
            OpKind::PointToPoint => self.send,
            OpKind::Broadcast | OpKind::Scatter => self.is_root(rank),
            _ => true,
        };
        let receives = match self.kind {
            OpKind::PointToPoint => !self.send,
            OpKind::Reduce | OpKind::Gather => self.is_root(rank),
            _ => true,
        };
        match self.count > 0 {
            true if sends && self.sendbuff.is_null() => Some(Fault::SendBuffer),
            true if receives && self.recvbuff.is_null() => Some(Fault::ReceiveBuffer),
            _ => None,
        }
    }

    /// The first wrong argument, as far as a rank can tell that knows no more than its place.
    #[inline(always)]
    pub fn fault(&self, (rank, nranks): (i32, i32)) -> Option<Fault> {
        if self.datatype >= ncclNumTypes {
            return Some(Fault::Datatype);
        }
        if self.peer < 0 || self.peer >= nranks {
            return Some(Fault::Peer);
        }
        // No address space holds as many elements of eight bytes on each rank.
        // Multiplied and not divided, which would be the longest step of all.
        if self.count.checked_mul(8 * nranks as usize).is_none_or(|bytes| bytes > isize::MAX as usize) {
            return Some(Fault::Count);
        }
        let missing = self.missing_buffer(rank);
        if missing.is_none() && self.kind == OpKind::PointToPoint && self.peer == rank && !group::is_open() {
            return Some(Fault::Alone);
        }
        missing
    }

    /// The sentence about a wrong argument.
    #[cold]
    pub fn explain(&self, fault: Fault, nranks: i32) -> Error {
        Error::argument(match fault {
            Fault::Datatype => format!("datatype: {} is no ncclDataType_t", self.datatype),
            Fault::Peer => {
                let what = if self.kind == OpKind::PointToPoint { "peer" } else { "root" };
                format!("{what}: {} is not a rank of the communicator (0..{})", self.peer, nranks - 1)
            }
            Fault::Count => format!("count: {} elements are more than an address space holds", self.count),
            Fault::SendBuffer => format!("sendbuff: NULL for {} elements", self.count),
            Fault::ReceiveBuffer => format!("recvbuff: NULL for {} elements", self.count),
            Fault::Alone => {
                return Error::usage("peer: a send to oneself and its receive must be in one group");
            }
        })
    }
}

/// What can be wrong with the arguments of an operation. Found on the way of every call, so that it is no sentence
/// yet: see [`Posted::explain`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No type of NCCL's.
    Datatype,
    /// No rank of the communicator.
    Peer,
    /// More than there can be.
    Count,
    /// NULL.
    SendBuffer,
    /// NULL.
    ReceiveBuffer,
    /// Point-to-point with oneself, which would wait for ever.
    Alone,
}

/// Inlined into each operation, so that what is known of it there needs not be asked. Answers as C gets it, because a
/// number stays in a register.
///
/// # Safety
/// As NCCL's operations.
#[inline(always)]
unsafe fn post(comm: ncclComm_t, stream: Stream, posted: Posted) -> ncclResult_t {
    // SAFETY: by this function's contract.
    unsafe { express::post(comm, stream, posted).unwrap_or_else(|| post_slowly(comm, stream, posted)) }
}

/// # Safety
/// As NCCL's operations.
#[inline(never)]
unsafe fn post_slowly(comm: ncclComm_t, stream: Stream, posted: Posted) -> ncclResult_t {
    let body = || {
        let owner = handle::comm(comm)?;
        match &**owner {
            Comm::Host(host) => {
                if !posted.config.is_null() {
                    // SAFETY: a configuration by NCCL's contract.
                    unsafe { config::check_coll_config(posted.config) }?;
                }
                run::post(host, stream, &posted).map(|()| ncclSuccess)
            }
            Comm::Genuine(g) => {
                // SAFETY: by this function's contract.
                let answer = unsafe { genuine::run::post(g, stream, &posted) };
                express::offer(comm, g);
                answer
            }
        }
    };
    body().map_err(group::poison).answer()
}

macro_rules! collectives {
    ($(
        fn $name:ident / $with_config:ident($($arg:ident: $type:ty),*)
            = $kind:ident($count:ident, $datatype:ident) { $($field:ident $(: $value:expr)?),* };
    )*) => {
        $(
            /// # Safety
            /// As NCCL's function.
            #[inline]
            pub unsafe fn $name($($arg: $type,)* comm: ncclComm_t, stream: *mut c_void) -> ncclResult_t {
                let posted = Posted::new(OpKind::$kind, $count, $datatype);
                // SAFETY: this function's contract.
                unsafe { post(comm, stream, Posted { $($field $(: $value)?,)* ..posted }) }
            }

            /// # Safety
            /// As NCCL's function.
            pub unsafe fn $with_config(
                $($arg: $type,)*
                comm: ncclComm_t,
                stream: *mut c_void,
                config: *const ncclCollConfig_t,
            ) -> ncclResult_t {
                let posted = Posted::new(OpKind::$kind, $count, $datatype);
                // SAFETY: this function's contract.
                unsafe { post(comm, stream, Posted { $($field $(: $value)?,)* config, ..posted }) }
            }
        )*
    };
}
collectives! {
    fn ncclReduce / ncclReduceConfig(
        sendbuff: *const c_void, recvbuff: *mut c_void, count: usize, datatype: ncclDataType_t,
        op: ncclRedOp_t, root: c_int
    ) = Reduce(count, datatype) { sendbuff, recvbuff, op: Some(op), peer: root };
    fn ncclBroadcast / ncclBroadcastConfig(
        sendbuff: *const c_void, recvbuff: *mut c_void, count: usize, datatype: ncclDataType_t, root: c_int
    ) = Broadcast(count, datatype) { sendbuff, recvbuff, peer: root };
    fn ncclAllReduce / ncclAllReduceConfig(
        sendbuff: *const c_void, recvbuff: *mut c_void, count: usize, datatype: ncclDataType_t,
        op: ncclRedOp_t
    ) = AllReduce(count, datatype) { sendbuff, recvbuff, op: Some(op) };
    fn ncclReduceScatter / ncclReduceScatterConfig(
        sendbuff: *const c_void, recvbuff: *mut c_void, recvcount: usize, datatype: ncclDataType_t,
        op: ncclRedOp_t
    ) = ReduceScatter(recvcount, datatype) { sendbuff, recvbuff, op: Some(op) };
    fn ncclAllGather / ncclAllGatherConfig(
        sendbuff: *const c_void, recvbuff: *mut c_void, sendcount: usize, datatype: ncclDataType_t
    ) = AllGather(sendcount, datatype) { sendbuff, recvbuff };
    fn ncclAlltoAll / ncclAlltoAllConfig(
        sendbuff: *const c_void, recvbuff: *mut c_void, count: usize, datatype: ncclDataType_t
    ) = AllToAll(count, datatype) { sendbuff, recvbuff };
    fn ncclGather / ncclGatherConfig(
        sendbuff: *const c_void, recvbuff: *mut c_void, count: usize, datatype: ncclDataType_t, root: c_int
    ) = Gather(count, datatype) { sendbuff, recvbuff, peer: root };
    fn ncclScatter / ncclScatterConfig(
        sendbuff: *const c_void, recvbuff: *mut c_void, count: usize, datatype: ncclDataType_t, root: c_int
    ) = Scatter(count, datatype) { sendbuff, recvbuff, peer: root };
}

/// # Safety
/// As NCCL's function.
pub unsafe fn ncclBcast(
    buff: *mut c_void,
    count: usize,
    datatype: ncclDataType_t,
    root: c_int,
    comm: ncclComm_t,
    stream: *mut c_void,
) -> ncclResult_t {
    // SAFETY: in place, and otherwise this function's contract.
    unsafe { ncclBroadcast(buff, buff, count, datatype, root, comm, stream) }
}

/// # Safety
/// As NCCL's function.
#[inline]
pub unsafe fn ncclSend(
    sendbuff: *const c_void,
    count: usize,
    datatype: ncclDataType_t,
    peer: c_int,
    comm: ncclComm_t,
    stream: *mut c_void,
) -> ncclResult_t {
    let posted = Posted::new(OpKind::PointToPoint, count, datatype);
    // SAFETY: this function's contract.
    unsafe { post(comm, stream, Posted { send: true, sendbuff, peer, ..posted }) }
}

/// # Safety
/// As NCCL's function.
#[inline]
pub unsafe fn ncclRecv(
    recvbuff: *mut c_void,
    count: usize,
    datatype: ncclDataType_t,
    peer: c_int,
    comm: ncclComm_t,
    stream: *mut c_void,
) -> ncclResult_t {
    let posted = Posted::new(OpKind::PointToPoint, count, datatype);
    // SAFETY: this function's contract.
    unsafe { post(comm, stream, Posted { recvbuff, peer, ..posted }) }
}

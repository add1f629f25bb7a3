//! The operations. All of them go the same way: described by [`Posted`], then to the communicator.

use crate::comm::Comm;
use crate::cuda::Stream;
use crate::host::run;
use crate::{config, genuine, group, handle};
use core::ffi::{c_int, c_void};
use multiworld::error::{Error, Result};
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

    fn is_root(&self, rank: u32) -> bool {
        u32::try_from(self.peer) == Ok(rank)
    }

    /// Whether the buffers that this rank needs are there.
    pub fn check_buffers(&self, rank: u32) -> Result<()> {
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
        if sends && self.sendbuff.is_null() {
            return Err(Error::argument(format!("sendbuff: NULL for {} elements", self.count)));
        }
        if receives && self.recvbuff.is_null() {
            return Err(Error::argument(format!("recvbuff: NULL for {} elements", self.count)));
        }
        Ok(())
    }
}

/// # Safety
/// As NCCL's operations.
#[inline]
unsafe fn post(comm: ncclComm_t, stream: Stream, posted: Posted) -> Result<ncclResult_t> {
    let mut failed = None;
    let last = handle::with_last(comm, |g| {
        // SAFETY: by this function's contract.
        unsafe { genuine::run::post(g, stream, &posted) }.unwrap_or_else(|e| {
            failed = Some(e);
            ncclInternalError
        })
    });
    match (last, failed) {
        (Some(_), Some(e)) => return Err(group::poison(e)),
        (Some(answer), None) => return Ok(answer),
        (None, _) => {}
    }
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
                handle::remember(comm, g);
                // SAFETY: by this function's contract.
                unsafe { genuine::run::post(g, stream, &posted) }
            }
        }
    };
    body().map_err(group::poison)
}

macro_rules! collectives {
    ($(
        fn $name:ident / $with_config:ident($($arg:ident: $type:ty),*)
            = $kind:ident($count:ident, $datatype:ident) { $($field:ident $(: $value:expr)?),* };
    )*) => {
        $(
            /// # Safety
            /// As NCCL's function.
            pub unsafe fn $name($($arg: $type,)* comm: ncclComm_t, stream: *mut c_void) -> Result<ncclResult_t> {
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
            ) -> Result<ncclResult_t> {
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
) -> Result<ncclResult_t> {
    // SAFETY: in place, and otherwise this function's contract.
    unsafe { ncclBroadcast(buff, buff, count, datatype, root, comm, stream) }
}

/// # Safety
/// As NCCL's function.
pub unsafe fn ncclSend(
    sendbuff: *const c_void,
    count: usize,
    datatype: ncclDataType_t,
    peer: c_int,
    comm: ncclComm_t,
    stream: *mut c_void,
) -> Result<ncclResult_t> {
    let posted = Posted::new(OpKind::PointToPoint, count, datatype);
    // SAFETY: this function's contract.
    unsafe { post(comm, stream, Posted { send: true, sendbuff, peer, ..posted }) }
}

/// # Safety
/// As NCCL's function.
pub unsafe fn ncclRecv(
    recvbuff: *mut c_void,
    count: usize,
    datatype: ncclDataType_t,
    peer: c_int,
    comm: ncclComm_t,
    stream: *mut c_void,
) -> Result<ncclResult_t> {
    let posted = Posted::new(OpKind::PointToPoint, count, datatype);
    // SAFETY: this function's contract.
    unsafe { post(comm, stream, Posted { recvbuff, peer, ..posted }) }
}

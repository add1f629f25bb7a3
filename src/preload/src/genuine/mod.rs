//! Communicators of the genuine NCCL.
//!
//! The application's handle is ours, and what it asks for is forwarded ([`forward`]). Functions without a
//! communicator are forwarded by whoever implements them.

pub mod forward;

use crate::comm::Comm;
use crate::cuda::Stream;
use crate::handle;
use crate::operation::Posted;
use multiworld::error::Result;
use multiworld::nccl::Library;
use multiworld::nccl::types::*;
use multiworld::types::OpKind;
use std::ffi::c_void;
use std::ptr;

/// One rank of one communicator.
pub struct Communicator {
    /// Whose it is.
    pub library: &'static Library,
    /// What the library calls it.
    pub real: ncclComm_t,
}

// SAFETY: the pointer is a token for the library's functions, which may be called from any thread, one at a
// time per communicator: that is the application's promise, as with NCCL.
unsafe impl Send for Communicator {}
// SAFETY: as above.
unsafe impl Sync for Communicator {}

/// Lets the library make a communicator, and gives the application a handle for it.
///
/// # Safety
/// `out` is NULL or writable; `make` is one of the library's functions that write a communicator.
pub unsafe fn create(
    library: &'static Library,
    out: *mut ncclComm_t,
    make: impl FnOnce(*mut ncclComm_t) -> Result<ncclResult_t>,
) -> Result<ncclResult_t> {
    // SAFETY: writable by this function's contract.
    let out = unsafe { crate::arg::Out::new(out, "comm") }?;
    out.set(ptr::null_mut());
    let mut real = ptr::null_mut();
    let result = make(&mut real)?;
    if !real.is_null() {
        out.set(handle::issue_comm(Comm::Genuine(multiworld::sync::Arc::new(Communicator {
            library,
            real,
        })))?);
    }
    Ok(result)
}

impl Communicator {
    /// Forwards an operation.
    ///
    /// # Safety
    /// As NCCL's functions.
    pub unsafe fn operation(&self, stream: Stream, p: &Posted) -> Result<ncclResult_t> {
        let Posted { sendbuff, recvbuff, count, datatype, peer, config, .. } = *p;
        let op = p.op.unwrap_or(ncclSum);
        let (l, c) = (self.library, self.real);
        // SAFETY: by this function's contract.
        unsafe {
            match (p.kind, config.is_null()) {
                (OpKind::PointToPoint, _) if p.send => {
                    forward::ncclSend(l, sendbuff, count, datatype, peer, c, stream)
                }
                (OpKind::PointToPoint, _) => forward::ncclRecv(l, recvbuff, count, datatype, peer, c, stream),
                (OpKind::Broadcast, true) => {
                    forward::ncclBroadcast(l, sendbuff, recvbuff, count, datatype, peer, c, stream)
                }
                (OpKind::Broadcast, false) => forward::ncclBroadcastConfig(
                    l, sendbuff, recvbuff, count, datatype, peer, c, stream, config,
                ),
                (OpKind::Reduce, true) => {
                    forward::ncclReduce(l, sendbuff, recvbuff, count, datatype, op, peer, c, stream)
                }
                (OpKind::Reduce, false) => forward::ncclReduceConfig(
                    l, sendbuff, recvbuff, count, datatype, op, peer, c, stream, config,
                ),
                (OpKind::AllReduce, true) => {
                    forward::ncclAllReduce(l, sendbuff, recvbuff, count, datatype, op, c, stream)
                }
                (OpKind::AllReduce, false) => forward::ncclAllReduceConfig(
                    l, sendbuff, recvbuff, count, datatype, op, c, stream, config,
                ),
                (OpKind::AllGather, true) => {
                    forward::ncclAllGather(l, sendbuff, recvbuff, count, datatype, c, stream)
                }
                (OpKind::AllGather, false) => {
                    forward::ncclAllGatherConfig(l, sendbuff, recvbuff, count, datatype, c, stream, config)
                }
                (OpKind::ReduceScatter, true) => {
                    forward::ncclReduceScatter(l, sendbuff, recvbuff, count, datatype, op, c, stream)
                }
                (OpKind::ReduceScatter, false) => forward::ncclReduceScatterConfig(
                    l, sendbuff, recvbuff, count, datatype, op, c, stream, config,
                ),
                (OpKind::AllToAll, true) => {
                    forward::ncclAlltoAll(l, sendbuff, recvbuff, count, datatype, c, stream)
                }
                (OpKind::AllToAll, false) => {
                    forward::ncclAlltoAllConfig(l, sendbuff, recvbuff, count, datatype, c, stream, config)
                }
                (OpKind::Gather, true) => {
                    forward::ncclGather(l, sendbuff, recvbuff, count, datatype, peer, c, stream)
                }
                (OpKind::Gather, false) => {
                    forward::ncclGatherConfig(l, sendbuff, recvbuff, count, datatype, peer, c, stream, config)
                }
                (OpKind::Scatter, true) => {
                    forward::ncclScatter(l, sendbuff, recvbuff, count, datatype, peer, c, stream)
                }
                (OpKind::Scatter, false) => forward::ncclScatterConfig(
                    l, sendbuff, recvbuff, count, datatype, peer, c, stream, config,
                ),
                (OpKind::Barrier, _) => Err(l.missing("barrier")),
            }
        }
    }

    /// Makes a reduction.
    ///
    /// # Safety
    /// As NCCL's function.
    pub unsafe fn create_redop(
        &self,
        op: *mut ncclRedOp_t,
        scalar: *mut c_void,
        datatype: ncclDataType_t,
        residence: ncclScalarResidence_t,
    ) -> Result<ncclResult_t> {
        // SAFETY: by this function's contract.
        unsafe { forward::ncclRedOpCreatePreMulSum(self.library, op, scalar, datatype, residence, self.real) }
    }

    /// Destroys a reduction.
    ///
    /// # Safety
    /// As NCCL's function.
    pub unsafe fn destroy_redop(&self, op: ncclRedOp_t) -> Result<ncclResult_t> {
        // SAFETY: by this function's contract.
        unsafe { forward::ncclRedOpDestroy(self.library, op, self.real) }
    }
}

/// Opens a group.
pub fn group_start(library: &Library) -> Result<ncclResult_t> {
    // SAFETY: no arguments.
    unsafe { forward::ncclGroupStart(library) }
}

/// Closes a group.
pub fn group_end(library: &Library) -> Result<ncclResult_t> {
    // SAFETY: no arguments.
    unsafe { forward::ncclGroupEnd(library) }
}

/// Closes a group without running it.
///
/// # Safety
/// As NCCL's function.
pub unsafe fn group_simulate_end(library: &Library, info: *mut ncclSimInfo_t) -> Result<ncclResult_t> {
    // SAFETY: by this function's contract.
    unsafe { forward::ncclGroupSimulateEnd(library, info) }
}

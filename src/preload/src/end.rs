//! The end of communicators.

use crate::comm::Comm;
use crate::genuine::express;
use crate::handle;
use crate::memory;
use core::ffi::c_int;
use multiworld::error::{Error, Result};
use multiworld::nccl::types::*;

/// # Safety
/// As NCCL's function.
pub unsafe fn ncclCommFinalize(comm: ncclComm_t) -> Result<ncclResult_t> {
    match &**handle::comm(comm)? {
        Comm::Host(host) => host.finalize().map(|()| ncclSuccess),
        Comm::Genuine(g) => g.finalize(),
    }
}

/// The handle is gone whatever this answers.
///
/// # Safety
/// As NCCL's function.
pub unsafe fn ncclCommDestroy(comm: ncclComm_t) -> Result<ncclResult_t> {
    match &*handle::remove_comm(comm)? {
        Comm::Host(host) => {
            memory::forget(host);
            host.destroy().map(|()| ncclSuccess)
        }
        // SAFETY: this function's contract is that of the forwarded one; the handle was removed, so this
        // comes once.
        Comm::Genuine(g) => g.destroy(),
    }
}

/// The handle is gone whatever this answers.
///
/// # Safety
/// As NCCL's function.
pub unsafe fn ncclCommAbort(comm: ncclComm_t) -> Result<ncclResult_t> {
    match &*handle::remove_comm(comm)? {
        Comm::Host(host) => {
            memory::forget(host);
            host.abort();
            Ok(ncclSuccess)
        }
        // SAFETY: this function's contract is that of the forwarded one; the handle was removed, so this
        // comes once.
        Comm::Genuine(g) => {
            g.abort();
            Ok(ncclSuccess)
        }
    }
}

/// # Safety
/// As NCCL's function.
pub unsafe fn ncclCommRevoke(comm: ncclComm_t, revokeFlags: c_int) -> Result<ncclResult_t> {
    match &**handle::comm(comm)? {
        Comm::Host(host) => {
            if revokeFlags.cast_unsigned() != NCCL_REVOKE_DEFAULT {
                return Err(Error::argument(format!("revokeFlags: {revokeFlags} is no flag of it")));
            }
            host.revoke().map(|()| ncclSuccess)
        }
        Comm::Genuine(g) => {
            let answer = g.revoke(revokeFlags);
            express::withdraw(comm);
            answer
        }
    }
}

/// # Safety
/// As NCCL's function.
pub unsafe fn ncclCommSuspend(comm: ncclComm_t, flags: c_int) -> Result<ncclResult_t> {
    match &**handle::comm(comm)? {
        Comm::Host(host) => {
            if flags.cast_unsigned() != NCCL_SUSPEND_MEM {
                return Err(Error::argument(format!("flags: {flags} is not NCCL_SUSPEND_MEM")));
            }
            host.suspend(true).map(|()| ncclSuccess)
        }
        Comm::Genuine(g) => {
            let answer = g.suspend(flags);
            express::withdraw(comm);
            answer
        }
    }
}

/// # Safety
/// As NCCL's function.
pub unsafe fn ncclCommResume(comm: ncclComm_t) -> Result<ncclResult_t> {
    match &**handle::comm(comm)? {
        Comm::Host(host) => host.suspend(false).map(|()| ncclSuccess),
        Comm::Genuine(g) => g.resume(),
    }
}

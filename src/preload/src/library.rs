//! The library itself: its version, its texts.

use crate::arg::Out;
use crate::boundary;
use crate::comm::Comm;
use crate::genuine::forward;
use crate::handle;
use crate::mode::{self, Mode};
use crate::result;
use core::ffi::{c_char, c_int};
use multiworld::error::{Error, Result};
use multiworld::nccl::types::*;

/// The genuine library, if it is in use.
fn genuine() -> Option<&'static multiworld::nccl::Library> {
    match mode::get() {
        Ok(Mode::Genuine(library)) => Some(library),
        _ => None,
    }
}

/// On host memory, the version whose interface this is.
///
/// # Safety
/// As NCCL's function.
pub unsafe fn ncclGetVersion(version: *mut c_int) -> Result<ncclResult_t> {
    if let Mode::Genuine(library) = mode::get()? {
        // SAFETY: this function's contract is that of the forwarded one.
        return unsafe { forward::ncclGetVersion(library, version) };
    }
    // SAFETY: writable by NCCL's contract.
    unsafe { Out::new(version, "version") }?.set(NCCL_VERSION_CODE.cast_signed());
    Ok(ncclSuccess)
}

/// # Safety
/// As NCCL's function.
pub unsafe fn ncclGetErrorString(result: ncclResult_t) -> *const c_char {
    // SAFETY: any number is allowed.
    let theirs = genuine().and_then(|library| unsafe { forward::ncclGetErrorString(library, result) }.ok());
    theirs.unwrap_or(result::describe(result).as_ptr())
}

/// With a communicator that has failed, why it has; else this thread's last error. Valid until this thread
/// asks again.
///
/// # Safety
/// As NCCL's function.
pub unsafe fn ncclGetLastError(comm: ncclComm_t) -> *const c_char {
    let comm = handle::comm(comm).ok();
    let comm = comm.as_ref().map(|c| &***c);
    let failed = match comm {
        Some(Comm::Host(host)) => host.async_error().err(),
        Some(Comm::Genuine(g)) => g.async_error().err(),
        None => None,
    };
    if let Some(e) = failed {
        return boundary::give_out(&e.text);
    }
    let ours = boundary::last_text();
    if ours.is_empty()
        && let Some(library) = genuine()
    {
        // SAFETY: NULL asks for this thread's last error.
        if let Ok(theirs) = unsafe { forward::ncclGetLastError(library, std::ptr::null_mut()) } {
            return theirs;
        }
    }
    boundary::give_out(&ours)
}

/// # Safety
/// As NCCL's function.
pub unsafe fn ncclResetDebugInit() {
    if let Some(library) = genuine() {
        // SAFETY: no arguments. That an older library has no such function is as good as having done it.
        let _ = unsafe { forward::ncclResetDebugInit(library) };
    }
}

/// # Safety
/// As NCCL's function.
pub unsafe fn ncclResetDebugInitInternal() {
    if let Some(library) = genuine() {
        // SAFETY: as above.
        let _ = unsafe { forward::ncclResetDebugInitInternal(library) };
    }
}

/// # Safety
/// As NCCL's function.
pub unsafe fn ncclSetEncryption(config: *const ncclEncryptionConfig_t) -> Result<ncclResult_t> {
    if let Mode::Genuine(library) = mode::get()? {
        // SAFETY: this function's contract is that of the forwarded one.
        return unsafe { forward::ncclSetEncryption(library, config) };
    }
    Err(Error::usage(
        "ncclSetEncryption: communicators on host memory authenticate their connections and do not encrypt them",
    ))
}

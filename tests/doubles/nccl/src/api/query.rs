//! Questions about a communicator and about the library.

use crate::abi::{Code, SUCCESS, VERSION, describe};
use crate::comm::Comm;
use crate::control;
use crate::entry::Call;
use crate::record;
use std::ffi::{c_char, c_int};
use std::sync::Arc;

/// `ncclGetVersion`.
///
/// # Safety
/// `version` is NULL or writable.
pub unsafe fn version(call: &Call, version: *mut c_int) -> Code {
    if version.is_null() {
        return call.invalid("version is NULL");
    }
    // SAFETY: not NULL, and the caller's promise.
    unsafe { version.write(control::script().version.unwrap_or(VERSION)) };
    SUCCESS
}

/// `ncclGetErrorString`.
pub fn error_string(_: &Call, code: Code) -> *const c_char {
    describe(code).as_ptr()
}

/// `ncclGetLastError`: of the process, whatever the communicator.
pub fn last_error(_: &Call) -> *const c_char {
    record::last_error()
}

/// `ncclResetDebugInit`, which has nothing to reset.
#[cfg(not(nccl_old))]
pub fn reset_debug(_: &Call) {}

/// `ncclCommGetAsyncError`, which also completes the pending job.
///
/// # Safety
/// `error` is NULL or writable.
pub unsafe fn async_error(call: &Call, error: *mut Code) -> Code {
    let comm = match call.comm() {
        Ok(comm) => comm,
        Err(code) => return code,
    };
    if error.is_null() {
        return call.invalid("asyncError is NULL");
    }
    // SAFETY: not NULL, and the caller's promise.
    unsafe { error.write(comm.poll()) };
    SUCCESS
}

/// An integer about a communicator that is ready.
unsafe fn number(call: &Call, place: *mut c_int, answer: impl FnOnce(&Arc<Comm>) -> usize) -> Code {
    let comm = match call.comm() {
        Ok(comm) => comm,
        Err(code) => return code,
    };
    if place.is_null() {
        return call.invalid("the place for the answer is NULL");
    }
    match comm.ensure_ready(call.function.name()) {
        SUCCESS => {}
        code => return code,
    }
    // SAFETY: not NULL, and the caller's promise.
    unsafe { place.write(answer(&comm) as c_int) };
    SUCCESS
}

/// `ncclCommCount`.
///
/// # Safety
/// `count` is NULL or writable.
pub unsafe fn count(call: &Call, count: *mut c_int) -> Code {
    let told = control::script().count.and_then(|count| usize::try_from(count).ok());
    // SAFETY: the caller's promise.
    unsafe { number(call, count, |comm| told.unwrap_or(comm.ranks)) }
}

/// `ncclCommUserRank`.
///
/// # Safety
/// `rank` is NULL or writable.
pub unsafe fn user_rank(call: &Call, rank: *mut c_int) -> Code {
    // SAFETY: the caller's promise.
    unsafe { number(call, rank, |comm| comm.rank) }
}

/// `ncclCommCuDevice`.
///
/// # Safety
/// `device` is NULL or writable.
pub unsafe fn device(call: &Call, device: *mut c_int) -> Code {
    // SAFETY: the caller's promise.
    unsafe { number(call, device, |comm| comm.device.number as usize) }
}

#[cfg(not(nccl_old))]
pub use newer::*;

#[cfg(not(nccl_old))]
mod newer {
    use super::*;
    use crate::abi::{API_MAGIC, CommProperties, EncryptionConfig, Header, UNHANDLED_CUDA_ERROR};
    use std::sync::atomic::Ordering;

    /// What a communicator is said to have allocated, per rank.
    const MEMORY_PER_RANK: u64 = 4 << 20;

    /// `ncclCommMemStats`.
    ///
    /// # Safety
    /// `value` is NULL or writable.
    pub unsafe fn memory_stats(call: &Call, stat: c_int, value: *mut u64) -> Code {
        let comm = match call.comm() {
            Ok(comm) => comm,
            Err(code) => return code,
        };
        let suspended = comm.flags.suspended.load(Ordering::Acquire);
        let whole = MEMORY_PER_RANK * comm.ranks as u64;
        let answer = match stat {
            0 => whole / 2,
            1 => u64::from(suspended),
            2 => whole / 2,
            3 => whole,
            _ => return call.invalid("no such statistic"),
        };
        if value.is_null() {
            return call.invalid("value is NULL");
        }
        // SAFETY: not NULL, and the caller's promise.
        unsafe { value.write(answer) };
        SUCCESS
    }

    /// `ncclCommSuspend`, which waits for the whole device.
    pub fn suspend(call: &Call, flags: c_int) -> Code {
        const MEMORY: c_int = 1;
        if flags != MEMORY {
            return call.invalid("flags is not NCCL_SUSPEND_MEM");
        }
        turn(call, true)
    }

    /// `ncclCommResume`, which waits for the whole device too.
    pub fn resume(call: &Call) -> Code {
        turn(call, false)
    }

    fn turn(call: &Call, suspend: bool) -> Code {
        let comm = match call.comm() {
            Ok(comm) => comm,
            Err(code) => return code,
        };
        match comm.ensure_ready(call.function.name()) {
            SUCCESS => {}
            code => return call.fail(code),
        }
        if comm.flags.suspended.swap(suspend, Ordering::AcqRel) == suspend {
            return call.misused(if suspend { "suspended already" } else { "not suspended" });
        }
        let synchronize = || match comm.device.cuda {
            Some(cuda) => comm.device.enter().and_then(|()| cuda.synchronize()),
            None => Ok(()),
        };
        if comm.kernels.wait_idle(&comm.device).and_then(|()| synchronize()).is_ok() {
            SUCCESS
        } else {
            call.fail(UNHANDLED_CUDA_ERROR)
        }
    }

    /// `ncclCommQueryProperties`: as much as the caller's structure, by its stated size, has room for.
    ///
    /// # Safety
    /// `given` is NULL or points to a structure of the size that its first word states.
    pub unsafe fn properties(call: &Call, given: *mut CommProperties) -> Code {
        let comm = match call.comm() {
            Ok(comm) => comm,
            Err(code) => return code,
        };
        if given.is_null() {
            return call.invalid("props is NULL");
        }
        match comm.ensure_ready(call.function.name()) {
            SUCCESS => {}
            code => return code,
        }
        // SAFETY: the caller vouches for the header.
        let header = unsafe { given.cast::<Header>().read_unaligned() };
        if header.magic != API_MAGIC || header.size < size_of::<Header>() {
            return call.invalid("not NCCL_COMM_PROPERTIES_INITIALIZER");
        }
        let answer = CommProperties {
            header,
            rank: comm.rank as c_int,
            ranks: comm.ranks as c_int,
            cuda_device: comm.device.number,
            nvml_device: comm.device.number,
            device_api: false,
            multimem: false,
            gin_type: 0,
            lsa_teams: 1,
            host_rma: false,
            railed_gin_type: 0,
            hash: comm.key.low(),
            gin_min_stride: 0,
            gin_connection: 0,
            gin_support: [false; 64],
            dev_comm_size: 0,
            cft: false,
            cft_multicast: false,
            cft_counted: false,
        };
        let copied = header.size.min(size_of::<CommProperties>());
        // SAFETY: no more than the caller's structure has room for, and no more than ours has.
        unsafe {
            std::ptr::copy_nonoverlapping((&raw const answer).cast::<u8>(), given.cast::<u8>(), copied);
        }
        SUCCESS
    }

    /// `ncclSetEncryption`: there is nothing to encrypt on one machine, so only no encryption is accepted.
    ///
    /// # Safety
    /// `config` is NULL or points to an `ncclEncryptionConfig_t`.
    pub unsafe fn encryption(call: &Call, config: *const EncryptionConfig) -> Code {
        // SAFETY: the caller's promise.
        match unsafe { config.as_ref() } {
            Some(config) if config.header.magic != API_MAGIC => {
                call.invalid("not NCCL_ENCRYPTION_CONFIG_INITIALIZER")
            }
            Some(config) if config.mode == 0 => SUCCESS,
            Some(_) => call.misused("the double does not encrypt"),
            None => call.invalid("config is NULL"),
        }
    }
}

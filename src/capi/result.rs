//! `mwResult_t`, the version, and error texts.

use super::arg::Out;
use super::boundary::{guard, last_error};
use super::handle::{self, mwWorld_t};
use crate::error::Code;
use std::ffi::{c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// First number of the version: changes when programs have to be changed.
pub const MW_MAJOR: c_int = 0;
/// Second number of the version: changes when functions are added.
pub const MW_MINOR: c_int = 1;
/// Third number of the version.
pub const MW_PATCH: c_int = 0;
/// The version as one number: major * 10000 + minor * 100 + patch.
pub const MW_VERSION_CODE: c_int = 100;

const _: () = assert!(MW_VERSION_CODE == MW_MAJOR * 10000 + MW_MINOR * 100 + MW_PATCH);

/// What a call came to. The values up to 8 are those of ncclResult_t; values are only ever added.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum mwResult_t {
    /// It worked.
    mwSuccess = 0,
    /// A CUDA call failed.
    mwUnhandledCudaError = 1,
    /// A system call failed.
    mwSystemError = 2,
    /// A bug in multiworld.
    mwInternalError = 3,
    /// An argument is wrong; the call had no effect.
    mwInvalidArgument = 4,
    /// The call is not allowed here or now, or the ranks called different operations.
    mwInvalidUsage = 5,
    /// Another member of the world failed, left or was cut off.
    mwRemoteError = 6,
    /// Not done yet. Not an error.
    mwInProgress = 7,
    /// A deadline passed.
    mwTimeout = 8,
    /// A member revoked the world.
    mwRevoked = 100,
    /// This member aborted the world.
    mwAborted = 101,
    /// The secret of the store or of the world is wrong.
    mwUnauthorized = 102,
}

/// A result as C passes it: shown as `mwResult_t` in the header.
pub type RawResult = c_int;

impl From<Code> for mwResult_t {
    fn from(code: Code) -> mwResult_t {
        match code {
            Code::UnhandledCuda => mwResult_t::mwUnhandledCudaError,
            Code::System => mwResult_t::mwSystemError,
            Code::Internal => mwResult_t::mwInternalError,
            Code::InvalidArgument => mwResult_t::mwInvalidArgument,
            Code::InvalidUsage => mwResult_t::mwInvalidUsage,
            Code::Remote => mwResult_t::mwRemoteError,
            Code::InProgress => mwResult_t::mwInProgress,
            Code::Timeout => mwResult_t::mwTimeout,
            Code::Revoked => mwResult_t::mwRevoked,
            Code::Aborted => mwResult_t::mwAborted,
            Code::Unauthorized => mwResult_t::mwUnauthorized,
        }
    }
}

/// Writes the version of the library, which may be newer than the MW_VERSION_CODE a program was compiled
/// with.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mwGetVersion(version: *mut c_int) -> mwResult_t {
    guard(|| {
        // SAFETY: writable by the contract of every output argument.
        unsafe { Out::new(version, "version") }?.set(MW_VERSION_CODE);
        Ok(())
    })
}

/// What a result means, in a few words. Never NULL, valid for ever.
#[unsafe(no_mangle)]
pub extern "C" fn mwGetErrorString(result: RawResult) -> *const c_char {
    let text = match result {
        0 => c"no error",
        1 => c"unhandled CUDA error",
        2 => c"system error",
        3 => c"internal error",
        4 => c"invalid argument",
        5 => c"invalid usage",
        6 => c"another member failed or left",
        7 => c"in progress",
        8 => c"deadline passed",
        100 => c"world revoked",
        101 => c"world aborted",
        102 => c"wrong secret",
        _ => c"unknown result code",
    };
    text.as_ptr()
}

/// One sentence about an error: with a world that is no longer active, why it is not; otherwise (the world is
/// active, NULL, or not a world) the last error that a call of this thread returned. The text of a wrong
/// argument begins with the argument's name. A call that succeeds does not clear it, as in NCCL. Never NULL;
/// empty when there was no error. Valid until this thread's next call of a function of this library; do not
/// free.
#[unsafe(no_mangle)]
pub extern "C" fn mwGetLastError(world: mwWorld_t) -> *const c_char {
    let error = catch_unwind(AssertUnwindSafe(|| handle::world(world).ok().and_then(|world| world.error())));
    last_error(error.ok().flatten().as_ref().map(|err| &*err.text))
}

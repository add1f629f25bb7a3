//! The C types of NCCL's interface, as far as the double reads them.

use std::ffi::{c_int, c_uint, c_void};

/// `ncclResult_t`.
pub type Code = c_int;

pub const SUCCESS: Code = 0;
pub const UNHANDLED_CUDA_ERROR: Code = 1;
pub const SYSTEM_ERROR: Code = 2;
pub const INTERNAL_ERROR: Code = 3;
pub const INVALID_ARGUMENT: Code = 4;
pub const INVALID_USAGE: Code = 5;
pub const REMOTE_ERROR: Code = 6;
pub const IN_PROGRESS: Code = 7;
pub const TIMEOUT: Code = 8;

/// The version whose interface is exported, and which `ncclGetVersion` reports unless a script says
/// otherwise.
#[cfg(not(nccl_old))]
pub const VERSION: c_int = 23203;
/// The version whose interface is exported, and which `ncclGetVersion` reports unless a script says
/// otherwise.
#[cfg(nccl_old)]
pub const VERSION: c_int = 21903;

/// The word by which NCCL recognizes a structure that its initializer macro filled.
pub const API_MAGIC: c_uint = 0xcafe_beef;
/// A configuration value that was left alone.
pub const UNDEFINED: c_int = c_int::MIN;

/// `ncclComm_t`.
pub type CommPointer = *mut c_void;
/// `cudaStream_t`.
pub type Stream = *mut c_void;

/// `ncclUniqueId`, passed by value.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct UniqueId(pub [u8; 128]);

/// `ncclTeam_t`: every `stride`-th rank of the communicator.
#[cfg(not(nccl_old))]
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Team {
    pub ranks: c_int,
    pub rank: c_int,
    pub stride: c_int,
}

/// The leading words that every structure with an initializer macro has.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Header {
    pub size: usize,
    pub magic: c_uint,
    pub version: c_uint,
}

/// `ncclSimInfo_t`.
#[cfg(not(nccl_old))]
#[repr(C)]
pub struct SimInfo {
    pub header: Header,
    pub estimated_time: f32,
}

/// `ncclEncryptionConfig_t`.
#[cfg(not(nccl_old))]
#[repr(C)]
pub struct EncryptionConfig {
    pub header: Header,
    pub mode: c_int,
    pub psk: *const std::ffi::c_char,
}

/// `ncclCommProperties_t`.
#[cfg(not(nccl_old))]
#[repr(C)]
pub struct CommProperties {
    pub header: Header,
    pub rank: c_int,
    pub ranks: c_int,
    pub cuda_device: c_int,
    pub nvml_device: c_int,
    pub device_api: bool,
    pub multimem: bool,
    pub gin_type: c_int,
    pub lsa_teams: c_int,
    pub host_rma: bool,
    pub railed_gin_type: c_int,
    pub hash: u64,
    pub gin_min_stride: c_int,
    pub gin_connection: c_int,
    pub gin_support: [bool; 64],
    pub dev_comm_size: usize,
    pub cft: bool,
    pub cft_multicast: bool,
    pub cft_counted: bool,
}

/// The size of one element of a data type, or none for a number that is no data type.
pub fn size_of_type(datatype: c_int) -> Option<usize> {
    Some(match datatype {
        0 | 1 | 10 | 11 => 1,
        6 | 9 => 2,
        2 | 3 | 7 => 4,
        4 | 5 | 8 => 8,
        _ => return None,
    })
    .filter(|_| cfg!(not(nccl_old)) || datatype < 10)
}

/// The sentence that `ncclGetErrorString` answers.
pub fn describe(code: Code) -> &'static std::ffi::CStr {
    match code {
        SUCCESS => c"no error",
        UNHANDLED_CUDA_ERROR => c"unhandled cuda error (run with NCCL_DEBUG=INFO for details)",
        SYSTEM_ERROR => c"unhandled system error (run with NCCL_DEBUG=INFO for details)",
        INTERNAL_ERROR => c"internal error - please report this issue to the NCCL developers",
        INVALID_ARGUMENT => c"invalid argument (run with NCCL_DEBUG=WARN for details)",
        INVALID_USAGE => c"invalid usage (run with NCCL_DEBUG=WARN for details)",
        REMOTE_ERROR => c"remote process exited or there was a network error",
        IN_PROGRESS => c"NCCL operation in progress",
        TIMEOUT if cfg!(not(nccl_old)) => c"timeout",
        _ => c"unknown result code",
    }
}

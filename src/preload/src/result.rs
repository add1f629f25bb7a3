//! Our results as NCCL's.

use core::ffi::CStr;
use multiworld::error::Code;
use multiworld::nccl::types::*;

/// Up to 8 the values are NCCL's own; the others become what an NCCL program knows how to handle.
pub fn code(code: Code) -> ncclResult_t {
    match code {
        Code::UnhandledCuda => ncclUnhandledCudaError,
        Code::System => ncclSystemError,
        Code::Internal => ncclInternalError,
        Code::InvalidArgument => ncclInvalidArgument,
        Code::InvalidUsage => ncclInvalidUsage,
        Code::Remote => ncclRemoteError,
        Code::InProgress => ncclInProgress,
        Code::Timeout => ncclTimeout,
        // Another rank has ended the communicator.
        Code::Revoked => ncclRemoteError,
        // A call on a communicator that this rank has aborted.
        Code::Aborted => ncclInvalidUsage,
        // A peer that does not let us in.
        Code::Unauthorized => ncclSystemError,
    }
}

/// What a result means, in a few words.
pub fn describe(result: ncclResult_t) -> &'static CStr {
    match result {
        ncclSuccess => c"no error",
        ncclUnhandledCudaError => c"a CUDA call failed",
        ncclSystemError => c"a system call failed",
        ncclInternalError => c"a bug in multiworld",
        ncclInvalidArgument => c"invalid argument",
        ncclInvalidUsage => c"invalid usage",
        ncclRemoteError => c"another rank failed, left or was cut off",
        ncclInProgress => c"in progress",
        ncclTimeout => c"a deadline passed",
        _ => c"unknown result code",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_up_to_eight_are_the_same_numbers() {
        let all = [
            Code::UnhandledCuda,
            Code::System,
            Code::Internal,
            Code::InvalidArgument,
            Code::InvalidUsage,
            Code::Remote,
            Code::InProgress,
            Code::Timeout,
        ];
        assert!(all.iter().all(|c| code(*c) == *c as u32));
        assert_eq!(code(Code::Revoked), ncclRemoteError);
        assert!((0..ncclNumResults).all(|r| describe(r) != describe(ncclNumResults)));
    }
}

//! Error codes. The runtime's and the driver's agree on numbers wherever this double uses them.

use std::ffi::CStr;

/// Any code but success.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Error(pub i32);

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub const INVALID_VALUE: Error = Error(1);
    pub const OUT_OF_MEMORY: Error = Error(2);
    pub const NOT_INITIALIZED: Error = Error(3);
    pub const UNLOADING: Error = Error(4);
    pub const INVALID_COPY_DIRECTION: Error = Error(21);
    pub const NO_DEVICE: Error = Error(100);
    pub const INVALID_DEVICE: Error = Error(101);
    pub const INVALID_CONTEXT: Error = Error(201);
    pub const OPERATING_SYSTEM: Error = Error(304);
    pub const INVALID_HANDLE: Error = Error(400);
    pub const ILLEGAL_STATE: Error = Error(401);
    pub const NOT_FOUND: Error = Error(500);
    pub const NOT_READY: Error = Error(600);
    pub const PEER_ACCESS_ALREADY_ENABLED: Error = Error(704);
    pub const PEER_ACCESS_NOT_ENABLED: Error = Error(705);
    pub const ALREADY_REGISTERED: Error = Error(712);
    pub const NOT_REGISTERED: Error = Error(713);
    pub const NOT_PERMITTED: Error = Error(800);
    pub const NOT_SUPPORTED: Error = Error(801);
    pub const CAPTURE_UNSUPPORTED: Error = Error(900);
    pub const CAPTURE_INVALIDATED: Error = Error(901);
    pub const CAPTURE_MERGE: Error = Error(902);
    pub const CAPTURE_UNMATCHED: Error = Error(903);
    pub const CAPTURE_UNJOINED: Error = Error(904);
    pub const CAPTURE_ISOLATION: Error = Error(905);
    pub const CAPTURE_IMPLICIT: Error = Error(906);
    pub const CAPTURED_EVENT: Error = Error(907);
    pub const CAPTURE_WRONG_THREAD: Error = Error(908);
    pub const UNKNOWN: Error = Error(999);
}

/// What both faces call a code, and a sentence.
pub struct Description {
    code: i32,
    pub runtime: &'static CStr,
    pub driver: &'static CStr,
    pub text: &'static CStr,
}

/// None for a code that is not listed here.
pub fn describe(code: i32) -> Option<&'static Description> {
    DESCRIPTIONS.iter().find(|description| description.code == code)
}

macro_rules! descriptions {
    ($($code:literal $runtime:literal $driver:literal $text:literal;)*) => {
        &[$(Description { code: $code, runtime: $runtime, driver: $driver, text: $text },)*]
    };
}

static DESCRIPTIONS: &[Description] = descriptions! {
    0 c"cudaSuccess" c"CUDA_SUCCESS" c"no error";
    1 c"cudaErrorInvalidValue" c"CUDA_ERROR_INVALID_VALUE" c"invalid argument";
    2 c"cudaErrorMemoryAllocation" c"CUDA_ERROR_OUT_OF_MEMORY" c"out of memory";
    3 c"cudaErrorInitializationError" c"CUDA_ERROR_NOT_INITIALIZED" c"initialization error";
    4 c"cudaErrorCudartUnloading" c"CUDA_ERROR_DEINITIALIZED" c"driver shutting down";
    // The driver has no such code; its face never gives it.
    21 c"cudaErrorInvalidMemcpyDirection" c"CUDA_ERROR_INVALID_VALUE" c"invalid copy direction for memcpy";
    46 c"cudaErrorDevicesUnavailable" c"CUDA_ERROR_DEVICE_UNAVAILABLE" c"devices are busy or unavailable";
    100 c"cudaErrorNoDevice" c"CUDA_ERROR_NO_DEVICE" c"no CUDA-capable device is detected";
    101 c"cudaErrorInvalidDevice" c"CUDA_ERROR_INVALID_DEVICE" c"invalid device ordinal";
    201 c"cudaErrorDeviceUninitialized" c"CUDA_ERROR_INVALID_CONTEXT" c"invalid device context";
    214 c"cudaErrorECCUncorrectable" c"CUDA_ERROR_ECC_UNCORRECTABLE" c"uncorrectable ECC error encountered";
    217 c"cudaErrorPeerAccessUnsupported" c"CUDA_ERROR_PEER_ACCESS_UNSUPPORTED"
        c"peer access is not supported";
    220 c"cudaErrorNvlinkUncorrectable" c"CUDA_ERROR_NVLINK_UNCORRECTABLE" c"uncorrectable NVLink error";
    304 c"cudaErrorOperatingSystem" c"CUDA_ERROR_OPERATING_SYSTEM" c"OS call failed";
    400 c"cudaErrorInvalidResourceHandle" c"CUDA_ERROR_INVALID_HANDLE" c"invalid resource handle";
    401 c"cudaErrorIllegalState" c"CUDA_ERROR_ILLEGAL_STATE" c"the resource is not in a state to do this";
    500 c"cudaErrorSymbolNotFound" c"CUDA_ERROR_NOT_FOUND" c"named symbol not found";
    600 c"cudaErrorNotReady" c"CUDA_ERROR_NOT_READY" c"device not ready";
    700 c"cudaErrorIllegalAddress" c"CUDA_ERROR_ILLEGAL_ADDRESS" c"an illegal memory access was encountered";
    702 c"cudaErrorLaunchTimeout" c"CUDA_ERROR_LAUNCH_TIMEOUT" c"the launch timed out and was terminated";
    704 c"cudaErrorPeerAccessAlreadyEnabled" c"CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED"
        c"peer access is already enabled";
    705 c"cudaErrorPeerAccessNotEnabled" c"CUDA_ERROR_PEER_ACCESS_NOT_ENABLED"
        c"peer access has not been enabled";
    709 c"cudaErrorContextIsDestroyed" c"CUDA_ERROR_CONTEXT_IS_DESTROYED" c"context is destroyed";
    710 c"cudaErrorAssert" c"CUDA_ERROR_ASSERT" c"device-side assert triggered";
    712 c"cudaErrorHostMemoryAlreadyRegistered" c"CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED"
        c"part or all of the memory is already registered";
    713 c"cudaErrorHostMemoryNotRegistered" c"CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED"
        c"the memory is not registered";
    714 c"cudaErrorHardwareStackError" c"CUDA_ERROR_HARDWARE_STACK_ERROR" c"hardware stack error";
    715 c"cudaErrorIllegalInstruction" c"CUDA_ERROR_ILLEGAL_INSTRUCTION"
        c"an illegal instruction was encountered";
    716 c"cudaErrorMisalignedAddress" c"CUDA_ERROR_MISALIGNED_ADDRESS" c"misaligned address";
    717 c"cudaErrorInvalidAddressSpace" c"CUDA_ERROR_INVALID_ADDRESS_SPACE" c"invalid address space";
    718 c"cudaErrorInvalidPc" c"CUDA_ERROR_INVALID_PC" c"invalid program counter";
    719 c"cudaErrorLaunchFailure" c"CUDA_ERROR_LAUNCH_FAILED" c"unspecified launch failure";
    800 c"cudaErrorNotPermitted" c"CUDA_ERROR_NOT_PERMITTED" c"operation not permitted";
    801 c"cudaErrorNotSupported" c"CUDA_ERROR_NOT_SUPPORTED" c"operation not supported";
    900 c"cudaErrorStreamCaptureUnsupported" c"CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"
        c"operation not permitted when stream is capturing";
    901 c"cudaErrorStreamCaptureInvalidated" c"CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"
        c"operation failed due to a previous error during capture";
    902 c"cudaErrorStreamCaptureMerge" c"CUDA_ERROR_STREAM_CAPTURE_MERGE"
        c"two separate captures would be merged";
    903 c"cudaErrorStreamCaptureUnmatched" c"CUDA_ERROR_STREAM_CAPTURE_UNMATCHED"
        c"the capture was not begun in this stream";
    904 c"cudaErrorStreamCaptureUnjoined" c"CUDA_ERROR_STREAM_CAPTURE_UNJOINED"
        c"the capture has work that was not joined to the stream in which it began";
    905 c"cudaErrorStreamCaptureIsolation" c"CUDA_ERROR_STREAM_CAPTURE_ISOLATION"
        c"a dependency on uncaptured work in another stream";
    906 c"cudaErrorStreamCaptureImplicit" c"CUDA_ERROR_STREAM_CAPTURE_IMPLICIT"
        c"the legacy stream would depend on a capturing blocking stream";
    907 c"cudaErrorCapturedEvent" c"CUDA_ERROR_CAPTURED_EVENT"
        c"the event was last recorded in a capturing stream";
    908 c"cudaErrorStreamCaptureWrongThread" c"CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD"
        c"the capture was begun by another thread";
    999 c"cudaErrorUnknown" c"CUDA_ERROR_UNKNOWN" c"unknown error";
};

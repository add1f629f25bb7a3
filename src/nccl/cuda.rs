//! What is needed of the CUDA driver: which device, marks on streams, capture, and whether the context still works.
//!
//! Streams are passed as the addresses that the application knows them by; runtime and driver share them.

pub mod memory;

use crate::error::{Code, Error, Extent, Result};
use crate::sync::atomic::AtomicU64;
use crate::sync::{Mutex, OnceLock};
use core::ffi::{c_int, c_void};
use cudarc::driver::sys::{self, CUcontext, CUevent, CUresult, CUstream};
use std::collections::HashMap;

/// A stream, as the application passes it.
pub type Stream = *mut c_void;

/// Whether there is a driver with at least one device. Asked once.
pub fn is_usable() -> bool {
    devices() > 0
}

/// Number of devices; 0 without a driver.
pub fn devices() -> i32 {
    static COUNT: OnceLock<i32> = OnceLock::new();
    *COUNT.get_or_init(|| {
        // SAFETY: looks whether the library can be opened; cudarc panics when it is used without.
        if !unsafe { sys::is_culib_present() } {
            return 0;
        }
        let mut count = 0;
        // SAFETY: the driver is there; `count` is writable.
        let counted = unsafe { sys::cuInit(0) == CUresult::CUDA_SUCCESS }
            // SAFETY: as above.
            && unsafe { sys::cuDeviceGetCount(&mut count) == CUresult::CUDA_SUCCESS };
        if counted { count } else { 0 }
    })
}

/// Whether a result leaves the context unusable for good.
fn is_sticky(result: CUresult) -> bool {
    use CUresult::*;
    matches!(
        result,
        CUDA_ERROR_ILLEGAL_ADDRESS
            | CUDA_ERROR_LAUNCH_TIMEOUT
            | CUDA_ERROR_ASSERT
            | CUDA_ERROR_HARDWARE_STACK_ERROR
            | CUDA_ERROR_ILLEGAL_INSTRUCTION
            | CUDA_ERROR_MISALIGNED_ADDRESS
            | CUDA_ERROR_INVALID_ADDRESS_SPACE
            | CUDA_ERROR_INVALID_PC
            | CUDA_ERROR_LAUNCH_FAILED
            | CUDA_ERROR_ECC_UNCORRECTABLE
            | CUDA_ERROR_NVLINK_UNCORRECTABLE
            | CUDA_ERROR_CONTAINED
            | CUDA_ERROR_EXTERNAL_DEVICE
            | CUDA_ERROR_MPS_CLIENT_TERMINATED
    )
}

fn error(call: &str, result: CUresult) -> Error {
    let number = result as u32;
    if is_sticky(result) {
        return Error::new(
            Code::UnhandledCuda,
            Extent::Process,
            format!("{call}: the CUDA context is unusable (error {number}); this process must restart"),
        );
    }
    Error::new(Code::UnhandledCuda, Extent::Operation, format!("{call} failed with CUDA error {number}"))
}

fn check(call: &str, result: CUresult) -> Result<()> {
    if result == CUresult::CUDA_SUCCESS { Ok(()) } else { Err(error(call, result)) }
}

fn present() -> Result<()> {
    if is_usable() {
        return Ok(());
    }
    Err(Error::new(
        Code::UnhandledCuda,
        Extent::Operation,
        "no CUDA device: the driver is missing or has none",
    ))
}

/// The device that is current on this thread; 0 when none has been chosen.
pub fn current_device() -> Result<i32> {
    present()?;
    let mut device: c_int = 0;
    // SAFETY: the driver is initialised; `device` is writable.
    match unsafe { sys::cuCtxGetDevice(&mut device) } {
        CUresult::CUDA_SUCCESS => Ok(device),
        CUresult::CUDA_ERROR_INVALID_CONTEXT | CUresult::CUDA_ERROR_NOT_INITIALIZED => Ok(0),
        e => Err(error("cuCtxGetDevice", e)),
    }
}

/// Makes a device current on this thread, as cudaSetDevice does.
pub fn bind(device: i32) -> Result<()> {
    let context = context(device)?;
    // SAFETY: a context that is never released.
    check("cuCtxSetCurrent", unsafe { sys::cuCtxSetCurrent(context) })
}

/// The primary context of a device, which the runtime uses, too.
fn context(device: i32) -> Result<CUcontext> {
    /// Addresses of the primary contexts that this process keeps.
    static CONTEXTS: OnceLock<Mutex<HashMap<i32, usize>>> = OnceLock::new();
    present()?;
    let mut contexts = CONTEXTS.get_or_init(Mutex::default).lock();
    let context = match contexts.get(&device) {
        Some(context) => *context,
        None => {
            let mut handle = 0;
            let mut context: CUcontext = core::ptr::null_mut();
            // SAFETY: the driver is initialised; `handle` is writable.
            check("cuDeviceGet", unsafe { sys::cuDeviceGet(&mut handle, device) })?;
            // SAFETY: a device of the driver; `context` is writable. Kept for ever.
            check("cuDevicePrimaryCtxRetain", unsafe {
                sys::cuDevicePrimaryCtxRetain(&mut context, handle)
            })?;
            contexts.insert(device, context as usize);
            context as usize
        }
    };
    Ok(context as CUcontext)
}

/// Whether the context of a device still works; the error of one that does not reaches the whole process.
pub fn health(device: i32) -> Result<()> {
    on(device, || {
        // SAFETY: the legacy stream of the current context. It answers an error that the context is stuck with.
        match relaxed(|| unsafe { sys::cuStreamQuery(core::ptr::null_mut()) })? {
            CUresult::CUDA_SUCCESS | CUresult::CUDA_ERROR_NOT_READY => Ok(()),
            e => Err(error("cuStreamQuery", e)),
        }
    })
}

/// Runs `body` with a device current, and puts back what was current before.
pub fn on<R>(device: i32, body: impl FnOnce() -> Result<R>) -> Result<R> {
    let mut before: CUcontext = core::ptr::null_mut();
    present()?;
    // SAFETY: the driver is initialised; `before` is writable.
    check("cuCtxGetCurrent", unsafe { sys::cuCtxGetCurrent(&mut before) })?;
    let context = context(device)?;
    if context == before {
        return body();
    }
    // SAFETY: a context that is never released.
    check("cuCtxSetCurrent", unsafe { sys::cuCtxSetCurrent(context) })?;
    let answer = body();
    // SAFETY: the context that was current a moment ago, or none.
    check("cuCtxSetCurrent", unsafe { sys::cuCtxSetCurrent(before) })?;
    answer
}

/// Whether work on this stream is being captured into a graph.
pub fn is_capturing(stream: Stream) -> Result<bool> {
    let mut status = sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE;
    // SAFETY: the application's stream; `status` is writable.
    match unsafe { sys::cuStreamIsCapturing(stream as CUstream, &mut status) } {
        CUresult::CUDA_SUCCESS => Ok(status != sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE),
        // The legacy stream cannot be asked while another one captures, and is never captured itself.
        CUresult::CUDA_ERROR_STREAM_CAPTURE_IMPLICIT => Ok(false),
        e => Err(error("cuStreamIsCapturing", e)),
    }
}

/// Runs a call that would spoil a capture which another thread has under way.
fn relaxed(body: impl FnOnce() -> CUresult) -> Result<CUresult> {
    let mut mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
    // SAFETY: `mode` is writable; it gets this thread's own mode.
    check("cuThreadExchangeStreamCaptureMode", unsafe { sys::cuThreadExchangeStreamCaptureMode(&mut mode) })?;
    let result = body();
    // SAFETY: the mode from before.
    check("cuThreadExchangeStreamCaptureMode", unsafe { sys::cuThreadExchangeStreamCaptureMode(&mut mode) })?;
    Ok(result)
}

/// A point in a stream's work.
#[derive(Debug)]
pub struct Mark(CUevent);

// SAFETY: events may be used from any thread.
unsafe impl Send for Mark {}
// SAFETY: as above.
unsafe impl Sync for Mark {}

impl Mark {
    /// A mark that has not been set yet. The stream's device must be current.
    pub fn new() -> Result<Mark> {
        let mut event: CUevent = core::ptr::null_mut();
        let flags = sys::CUevent_flags::CU_EVENT_DISABLE_TIMING as u32;
        // SAFETY: `event` is writable; a context is current or the call says that none is.
        check("cuEventCreate", unsafe { sys::cuEventCreate(&mut event, flags) })?;
        Ok(Mark(event))
    }

    /// Sets it behind everything that the stream has been given so far.
    pub fn set(&self, stream: Stream) -> Result<()> {
        // SAFETY: our event, the application's stream.
        check("cuEventRecord", unsafe { sys::cuEventRecord(self.0, stream as CUstream) })
    }

    /// Whether the work before it is done.
    pub fn is_reached(&self) -> Result<bool> {
        // SAFETY: our event.
        match relaxed(|| unsafe { sys::cuEventQuery(self.0) })? {
            CUresult::CUDA_SUCCESS => Ok(true),
            CUresult::CUDA_ERROR_NOT_READY => Ok(false),
            e => Err(error("cuEventQuery", e)),
        }
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        // SAFETY: our event, destroyed once; work that still refers to it is not disturbed.
        if let Err(e) = check("cuEventDestroy", unsafe { sys::cuEventDestroy_v2(self.0) }) {
            tracing::debug!("{e}");
        }
    }
}

/// Four zeroed bytes on a device (of host memory where there is no CUDA) for whoever needs some to reduce. One for all
/// and never freed: freeing waits for everything that runs on the device.
pub fn token(device: Option<i32>) -> Result<*mut c_void> {
    static HOST: AtomicU64 = AtomicU64::new(0);
    static TOKENS: OnceLock<Mutex<HashMap<i32, u64>>> = OnceLock::new();
    let Some(device) = device else { return Ok(HOST.as_ptr().cast()) };
    let mut tokens = TOKENS.get_or_init(Mutex::default).lock();
    if let Some(address) = tokens.get(&device) {
        return Ok(*address as *mut c_void);
    }
    let address = on(device, || {
        let mut address = 0;
        // SAFETY: a context is current; `address` is writable.
        check("cuMemAlloc", relaxed(|| unsafe { sys::cuMemAlloc_v2(&mut address, 4) })?)?;
        // SAFETY: memory of that size.
        check("cuMemsetD8", relaxed(|| unsafe { sys::cuMemsetD8_v2(address, 0, 4) })?)?;
        Ok(address)
    })?;
    tokens.insert(device, address);
    Ok(address as *mut c_void)
}

//! What the tests use of CUDA, declared as C sees it, and short ways to call it.
#![allow(dead_code, reason = "every test file uses a part")]

// Only for its symbols.
use mwdouble_cuda as _;
use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_ulonglong, c_void};
use std::ptr::null_mut;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

pub type HostFunction = unsafe extern "C" fn(*mut c_void);

#[repr(C)]
#[derive(Default, Debug, PartialEq, Eq)]
pub struct Attributes {
    pub kind: c_int,
    pub device: c_int,
    pub device_address: usize,
    pub host_address: usize,
}

unsafe extern "C" {
    pub safe fn cudaSetDevice(ordinal: c_int) -> c_int;
    pub fn cudaGetDevice(ordinal: *mut c_int) -> c_int;
    pub fn cudaGetDeviceCount(count: *mut c_int) -> c_int;
    pub safe fn cudaDeviceSynchronize() -> c_int;
    pub safe fn cudaDeviceReset() -> c_int;
    pub fn cudaMemGetInfo(free: *mut usize, total: *mut usize) -> c_int;
    pub fn cudaMalloc(address: *mut usize, bytes: usize) -> c_int;
    pub fn cudaMallocHost(address: *mut usize, bytes: usize) -> c_int;
    pub fn cudaMallocManaged(address: *mut usize, bytes: usize, flags: c_uint) -> c_int;
    pub fn cudaMallocAsync(address: *mut usize, bytes: usize, stream: usize) -> c_int;
    pub fn cudaFree(address: usize) -> c_int;
    pub fn cudaFreeHost(address: usize) -> c_int;
    pub fn cudaFreeAsync(address: usize, stream: usize) -> c_int;
    pub fn cudaHostRegister(address: usize, bytes: usize, flags: c_uint) -> c_int;
    pub fn cudaHostUnregister(address: usize) -> c_int;
    pub fn cudaPointerGetAttributes(attributes: *mut Attributes, address: usize) -> c_int;
    pub fn cudaMemcpy(to: usize, from: usize, bytes: usize, kind: c_int) -> c_int;
    pub fn cudaMemcpyAsync(to: usize, from: usize, bytes: usize, kind: c_int, stream: usize) -> c_int;
    pub fn cudaMemset(at: usize, value: c_int, bytes: usize) -> c_int;
    pub fn cudaMemsetAsync(at: usize, value: c_int, bytes: usize, stream: usize) -> c_int;
    pub fn cudaStreamCreateWithFlags(stream: *mut usize, flags: c_uint) -> c_int;
    pub safe fn cudaStreamDestroy(stream: usize) -> c_int;
    pub safe fn cudaStreamSynchronize(stream: usize) -> c_int;
    pub safe fn cudaStreamQuery(stream: usize) -> c_int;
    pub safe fn cudaStreamWaitEvent(stream: usize, event: usize, flags: c_uint) -> c_int;
    pub fn cudaLaunchHostFunc(stream: usize, function: Option<HostFunction>, data: *mut c_void) -> c_int;
    pub fn cudaStreamAddCallback(
        stream: usize,
        function: Option<unsafe extern "C" fn(usize, c_int, *mut c_void)>,
        data: *mut c_void,
        flags: c_uint,
    ) -> c_int;
    pub safe fn cudaStreamBeginCapture(stream: usize, mode: c_int) -> c_int;
    pub fn cudaStreamEndCapture(stream: usize, graph: *mut usize) -> c_int;
    pub fn cudaStreamIsCapturing(stream: usize, status: *mut c_int) -> c_int;
    pub fn cudaStreamGetCaptureInfo_v2(
        stream: usize,
        status: *mut c_int,
        id: *mut c_ulonglong,
        graph: *mut usize,
        nodes: *mut *const usize,
        count: *mut usize,
    ) -> c_int;
    pub fn cudaThreadExchangeStreamCaptureMode(mode: *mut c_int) -> c_int;
    pub fn cudaEventCreateWithFlags(event: *mut usize, flags: c_uint) -> c_int;
    pub safe fn cudaEventRecord(event: usize, stream: usize) -> c_int;
    pub safe fn cudaEventRecordWithFlags(event: usize, stream: usize, flags: c_uint) -> c_int;
    pub safe fn cudaEventQuery(event: usize) -> c_int;
    pub safe fn cudaEventSynchronize(event: usize) -> c_int;
    pub fn cudaEventElapsedTime(milliseconds: *mut f32, start: usize, end: usize) -> c_int;
    pub safe fn cudaEventDestroy(event: usize) -> c_int;
    pub fn cudaGraphInstantiate(executable: *mut usize, graph: usize, flags: c_ulonglong) -> c_int;
    pub safe fn cudaGraphLaunch(executable: usize, stream: usize) -> c_int;
    pub safe fn cudaGraphExecDestroy(executable: usize) -> c_int;
    pub safe fn cudaGraphDestroy(graph: usize) -> c_int;
    pub fn cudaUserObjectCreate(
        object: *mut usize,
        data: *mut c_void,
        destructor: Option<HostFunction>,
        references: c_uint,
        flags: c_uint,
    ) -> c_int;
    pub safe fn cudaUserObjectRelease(object: usize, count: c_uint) -> c_int;
    pub safe fn cudaGraphRetainUserObject(graph: usize, object: usize, count: c_uint, flags: c_uint)
    -> c_int;
    pub safe fn cudaGetLastError() -> c_int;
    pub safe fn cudaPeekAtLastError() -> c_int;
    pub safe fn cudaGetErrorName(code: c_int) -> *const c_char;
    pub fn cudaRuntimeGetVersion(version: *mut c_int) -> c_int;
    pub fn cudaGetDriverEntryPoint(
        symbol: *const c_char,
        address: *mut usize,
        flags: c_ulonglong,
        status: *mut c_int,
    ) -> c_int;

    pub safe fn cuInit(flags: c_uint) -> c_int;
    pub fn cuDeviceGetCount(count: *mut c_int) -> c_int;
    pub fn cuDevicePrimaryCtxRetain(context: *mut usize, ordinal: c_int) -> c_int;
    pub safe fn cuDevicePrimaryCtxRelease_v2(ordinal: c_int) -> c_int;
    pub fn cuDevicePrimaryCtxGetState(ordinal: c_int, flags: *mut c_uint, active: *mut c_int) -> c_int;
    pub fn cuCtxGetCurrent(context: *mut usize) -> c_int;
    pub safe fn cuCtxSetCurrent(context: usize) -> c_int;
    pub safe fn cuCtxPushCurrent_v2(context: usize) -> c_int;
    pub fn cuCtxPopCurrent_v2(context: *mut usize) -> c_int;
    pub fn cuCtxGetDevice(ordinal: *mut c_int) -> c_int;
    pub fn cuStreamCreate(stream: *mut usize, flags: c_uint) -> c_int;
    pub fn cuStreamGetCtx(stream: usize, context: *mut usize) -> c_int;
    pub safe fn cuStreamSynchronize(stream: usize) -> c_int;
    pub safe fn cuStreamDestroy_v2(stream: usize) -> c_int;
    pub fn cuMemAlloc_v2(address: *mut usize, bytes: usize) -> c_int;
    pub fn cuMemFree_v2(address: usize) -> c_int;
    pub fn cuMemsetD8_v2(at: usize, value: u8, bytes: usize) -> c_int;
    pub fn cuMemcpyDtoH_v2(to: usize, from: usize, bytes: usize) -> c_int;
    pub fn cuPointerGetAttribute(data: *mut c_void, number: c_int, address: usize) -> c_int;
    pub fn cuGetProcAddress_v2(
        name: *const c_char,
        address: *mut usize,
        version: c_int,
        flags: c_ulonglong,
        status: *mut c_int,
    ) -> c_int;
    pub fn cuGetErrorName(code: c_int, text: *mut *const c_char) -> c_int;

    pub safe fn mwDoubleCudaPoison(ordinal: c_int, error: c_int) -> c_int;
    pub safe fn mwDoubleCudaHeal(ordinal: c_int) -> c_int;
    pub fn mwDoubleCudaCalls(name: *const c_char) -> u64;
    pub safe fn mwDoubleCudaPark(stream: usize) -> c_int;
    pub safe fn mwDoubleCudaUnpark(stream: usize) -> c_int;
}

/// cudaStreamNonBlocking
pub const NON_BLOCKING: c_uint = 1;

pub const INVALID_VALUE: c_int = 1;
pub const OUT_OF_MEMORY: c_int = 2;
pub const NO_DEVICE: c_int = 100;
pub const INVALID_DEVICE: c_int = 101;
pub const INVALID_CONTEXT: c_int = 201;
pub const INVALID_HANDLE: c_int = 400;
pub const NOT_READY: c_int = 600;
pub const ILLEGAL_ADDRESS: c_int = 700;
pub const NOT_PERMITTED: c_int = 800;

/// Far more than anything here takes.
pub const LONG: Duration = Duration::from_secs(30);
/// For what must not happen.
pub const SHORT: Duration = Duration::from_millis(30);

#[track_caller]
pub fn ok(code: c_int) {
    assert_eq!(code, 0);
}

/// For functions that give one value.
#[track_caller]
pub fn made<T: Default>(call: impl FnOnce(*mut T) -> c_int) -> T {
    let mut value = T::default();
    ok(call(&raw mut value));
    value
}

pub fn stream(flags: c_uint) -> usize {
    // SAFETY: the result has a place.
    made(|out| unsafe { cudaStreamCreateWithFlags(out, flags) })
}

pub fn event() -> usize {
    // SAFETY: the result has a place.
    made(|out| unsafe { cudaEventCreateWithFlags(out, 0) })
}

pub fn device_memory(bytes: usize) -> usize {
    // SAFETY: the result has a place.
    made(|out| unsafe { cudaMalloc(out, bytes) })
}

pub fn calls(name: &str) -> u64 {
    let name = CString::new(name).expect("a name");
    // SAFETY: a string.
    unsafe { mwDoubleCudaCalls(name.as_ptr()) }
}

pub fn error_name(code: c_int) -> &'static str {
    // SAFETY: names live as long as the process.
    unsafe { CStr::from_ptr(cudaGetErrorName(code)) }.to_str().expect("a name")
}

unsafe extern "C" fn run(data: *mut c_void) {
    // SAFETY: only `launch` gives this function, with a box that is meant to be taken once.
    let work = unsafe { Box::from_raw(data.cast::<Box<dyn FnOnce() + Send>>()) };
    work();
}

/// Runs a closure as a host function. One that is never run is leaked.
pub fn launch(stream: usize, work: impl FnOnce() + Send + 'static) -> c_int {
    let work: Box<Box<dyn FnOnce() + Send>> = Box::new(Box::new(work));
    // SAFETY: `run` takes such a box.
    unsafe { cudaLaunchHostFunc(stream, Some(run), Box::into_raw(work).cast()) }
}

/// Work that says when it begins and ends when it is told to.
pub struct Gate {
    begun: Receiver<()>,
    go: Sender<()>,
}

impl Gate {
    pub fn launch(stream: usize) -> Gate {
        let (begin, begun) = channel();
        let (go, wait) = channel();
        ok(launch(stream, move || {
            // The test may have ended without asking.
            let _unasked = begin.send(());
            // Its end opens the gate, too.
            let _ended = wait.recv_timeout(LONG);
        }));
        Gate { begun, go }
    }

    pub fn has_begun(&self, within: Duration) -> bool {
        self.begun.recv_timeout(within).is_ok()
    }

    pub fn open(self) {
        // An error says that its stream lost it.
        let _lost = self.go.send(());
    }
}

/// No data for a callback that uses none.
pub fn null() -> *mut c_void {
    null_mut()
}

//! The C interface as a Rust program calls it: result codes become [`Failure`]s with the library's sentence.
//!
//! Calls go through pointers that the compiler cannot see through, so they cost what they cost a C program and
//! nothing of the library is inlined into a measuring loop.

use multiworld::capi::*;
use std::ffi::{CStr, CString, c_int};
use std::fmt;
use std::hint::black_box;
use std::mem::size_of;
use std::ptr::{self, NonNull};

/// Why a command failed, in one line.
#[derive(Debug)]
pub struct Failure(String);

impl Failure {
    pub fn new(text: impl Into<String>) -> Failure {
        Failure(text.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<multiworld::error::Error> for Failure {
    fn from(error: multiworld::error::Error) -> Failure {
        Failure(error.to_string())
    }
}

pub type Result<T> = std::result::Result<T, Failure>;

/// Settings of a world; what is not given comes from the environment.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    pub transport: Option<CString>,
    pub backend: Option<CString>,
    pub device: Option<c_int>,
}

impl Settings {
    fn config(&self) -> mwConfig_t {
        let text = |text: &Option<CString>| text.as_ref().map_or(ptr::null(), |text| text.as_ptr());
        mwConfig_t {
            size: size_of::<mwConfig_t>(),
            magic: MW_CONFIG_MAGIC,
            version: MW_VERSION_CODE.unsigned_abs(),
            store: ptr::null(),
            transport: text(&self.transport),
            ifname: ptr::null(),
            secret: ptr::null(),
            timeoutMs: c_int::MIN,
            joinTimeoutMs: c_int::MIN,
            heartbeatIntervalMs: c_int::MIN,
            heartbeatTimeoutMs: c_int::MIN,
            device: self.device.unwrap_or(c_int::MIN),
            backend: text(&self.backend),
            reformWaitMs: c_int::MIN,
        }
    }
}

/// A world of this process. Copies name the same one; whoever destroys it is the last to use it.
#[derive(Clone, Copy, Debug)]
pub struct World(mwWorld_t);

/// Where the elements of an operation are, how many there are and of what type.
#[derive(Clone, Copy, Debug)]
pub struct Elements {
    pub send: *const u8,
    pub recv: *mut u8,
    pub count: usize,
    pub datatype: c_int,
}

#[cold]
fn failure(call: &str, result: mwResult_t, world: mwWorld_t) -> Failure {
    // SAFETY: both are C strings that are never NULL and stay until this thread's next call.
    let (sentence, words) = unsafe {
        let words = CStr::from_ptr(mwGetErrorString(result as c_int)).to_string_lossy().into_owned();
        (CStr::from_ptr(mwGetLastError(world)).to_string_lossy().into_owned(), words)
    };
    Failure(if sentence.is_empty() {
        format!("{call}: {words}")
    } else {
        format!("{call}: {words}: {sentence}")
    })
}

#[inline]
fn check(call: &str, result: mwResult_t, world: mwWorld_t) -> Result<()> {
    if result == mwResult_t::mwSuccess { Ok(()) } else { Err(failure(call, result, world)) }
}

/// Memory from mwMemAlloc.
pub fn allocate(len: usize) -> Result<NonNull<u8>> {
    let mut start = ptr::null_mut();
    // SAFETY: `start` is writable.
    let result = unsafe { mwMemAlloc(&mut start, len) };
    check("mwMemAlloc", result, ptr::null_mut())?;
    NonNull::new(start.cast()).ok_or_else(|| Failure::new("mwMemAlloc gave nothing"))
}

/// Gives it back.
///
/// # Safety
/// From [`allocate`], not given back yet, and no operation uses it any more.
pub unsafe fn release(start: NonNull<u8>) {
    // SAFETY: by this function's contract.
    let result = unsafe { mwMemFree(start.as_ptr().cast()) };
    if let Err(why) = check("mwMemFree", result, ptr::null_mut()) {
        eprintln!("mw: {why}");
    }
}

impl World {
    /// Joins `name` with the rank and number of ranks of the environment.
    pub fn join(name: &str, settings: &Settings) -> Result<World> {
        let name = CString::new(name).map_err(|_| Failure::new("the name of a world has no NUL in it"))?;
        let (config, mut world) = (settings.config(), ptr::null_mut());
        // SAFETY: `world` is writable; name and configuration are whole, with strings that outlive the call.
        let result = unsafe { mwWorldInit(&mut world, name.as_ptr(), -1, -1, &config) };
        check("mwWorldInit", result, ptr::null_mut()).map(|()| World(world))
    }

    pub fn rank(self) -> Result<usize> {
        let mut rank = 0;
        // SAFETY: `rank` is writable.
        check("mwWorldUserRank", unsafe { mwWorldUserRank(self.0, &mut rank) }, self.0)?;
        usize::try_from(rank).map_err(|_| Failure::new("mwWorldUserRank: a negative rank"))
    }

    pub fn count(self) -> Result<usize> {
        let mut count = 0;
        // SAFETY: `count` is writable.
        check("mwWorldCount", unsafe { mwWorldCount(self.0, &mut count) }, self.0)?;
        usize::try_from(count).map_err(|_| Failure::new("mwWorldCount: a negative number"))
    }

    /// Its CUDA device, if it has one.
    pub fn device(self) -> Result<Option<i32>> {
        let mut device = -1;
        // SAFETY: `device` is writable.
        check("mwWorldDevice", unsafe { mwWorldDevice(self.0, &mut device) }, self.0)?;
        Ok((device >= 0).then_some(device))
    }

    /// Ranks reached through shared memory, and through TCP.
    pub fn peers(self) -> Result<(usize, usize)> {
        let mut stats = mwWorldStats_t {
            size: size_of::<mwWorldStats_t>(),
            operations: 0,
            bytesSent: 0,
            bytesReceived: 0,
            shmPeers: 0,
            tcpPeers: 0,
            memoryBytes: 0,
        };
        // SAFETY: `stats` is writable and says how large it is.
        check("mwWorldGetStats", unsafe { mwWorldGetStats(self.0, &mut stats) }, self.0)?;
        Ok((stats.shmPeers.unsigned_abs() as usize, stats.tcpPeers.unsigned_abs() as usize))
    }

    /// Leaves in good order.
    pub fn destroy(self) -> Result<()> {
        check("mwWorldDestroy", mwWorldDestroy(self.0), self.0)
    }

    /// Leaves at once, whatever is going on.
    pub fn abort(self) -> Result<()> {
        check("mwWorldAbort", mwWorldAbort(self.0), ptr::null_mut())
    }

    pub fn barrier(self, stream: mwStream_t) -> Result<()> {
        let call: extern "C" fn(mwWorld_t, mwStream_t) -> mwResult_t = black_box(mwBarrier);
        check("mwBarrier", call(self.0, stream), self.0)
    }
}

/// Makes the methods for the operations. Each posts its operation, with `count` elements in the sense of the
/// function of that name.
macro_rules! operations {
    ($($name:ident = $function:ident($($element:ident),*; $($extra:ident),*) as $type:ty;)*) => {
        impl World {$(
            /// # Safety
            /// The buffers hold what the C function of this name asks for until it is done: outside a group on the
            /// host backend on return, else when the group or the stream's work is.
            #[inline]
            pub unsafe fn $name(self, e: &Elements, $($extra: c_int,)* stream: mwStream_t) -> Result<()> {
                let call: $type = black_box($function);
                let Elements { count, datatype, .. } = *e;
                // SAFETY: by this function's contract.
                let result = unsafe { call($(e.$element.cast(),)* count, datatype, $($extra,)* self.0, stream) };
                check(stringify!($function), result, self.0)
            }
        )*}
    };
}

type In = *const std::ffi::c_void;
type Out = *mut std::ffi::c_void;
type S = mwStream_t;
type W = mwWorld_t;
type R = mwResult_t;

operations! {
    send = mwSend(send; peer) as unsafe extern "C" fn(In, usize, c_int, c_int, W, S) -> R;
    recv = mwRecv(recv; peer) as unsafe extern "C" fn(Out, usize, c_int, c_int, W, S) -> R;
    broadcast = mwBroadcast(send, recv; root) as unsafe extern "C" fn(In, Out, usize, c_int, c_int, W, S) -> R;
    reduce = mwReduce(send, recv; op, root)
        as unsafe extern "C" fn(In, Out, usize, c_int, c_int, c_int, W, S) -> R;
    all_reduce = mwAllReduce(send, recv; op) as unsafe extern "C" fn(In, Out, usize, c_int, c_int, W, S) -> R;
    all_gather = mwAllGather(send, recv;) as unsafe extern "C" fn(In, Out, usize, c_int, W, S) -> R;
    reduce_scatter = mwReduceScatter(send, recv; op)
        as unsafe extern "C" fn(In, Out, usize, c_int, c_int, W, S) -> R;
    all_to_all = mwAllToAll(send, recv;) as unsafe extern "C" fn(In, Out, usize, c_int, W, S) -> R;
    gather = mwGather(send, recv; root) as unsafe extern "C" fn(In, Out, usize, c_int, c_int, W, S) -> R;
    scatter = mwScatter(send, recv; root) as unsafe extern "C" fn(In, Out, usize, c_int, c_int, W, S) -> R;
}

/// Opens a group of this thread.
#[inline]
pub fn group_start() -> Result<()> {
    let call: extern "C" fn() -> mwResult_t = black_box(mwGroupStart);
    check("mwGroupStart", call(), ptr::null_mut())
}

/// Closes it and waits, on the host backend, until everything in it is done.
#[inline]
pub fn group_end() -> Result<()> {
    let call: extern "C" fn() -> mwResult_t = black_box(mwGroupEnd);
    check("mwGroupEnd", call(), ptr::null_mut())
}

/// Closes it by mwGroupSubmit, waits for the request and frees it.
#[inline]
pub fn group_submit_and_wait() -> Result<()> {
    let submit: unsafe extern "C" fn(*mut mwRequest_t) -> mwResult_t = black_box(mwGroupSubmit);
    let wait: extern "C" fn(mwRequest_t, c_int) -> mwResult_t = black_box(mwRequestWait);
    let free: extern "C" fn(mwRequest_t) -> mwResult_t = black_box(mwRequestFree);
    let mut request = ptr::null_mut();
    // SAFETY: `request` is writable.
    check("mwGroupSubmit", unsafe { submit(&mut request) }, ptr::null_mut())?;
    let waited = check("mwRequestWait", wait(request, -1), ptr::null_mut());
    waited.and(check("mwRequestFree", free(request), ptr::null_mut()))
}

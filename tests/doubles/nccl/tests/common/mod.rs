//! The double's functions as a C program sees them, and ranks as threads.
#![allow(dead_code, missing_docs, reason = "every test binary uses a part of this")]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

// Its exported functions are what is tested.
use mwdouble_nccl as _;

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Id(pub [u8; 128]);

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Config {
    pub size: usize,
    pub magic: u32,
    pub version: u32,
    pub blocking: c_int,
    pub unset: [c_int; 3],
    pub net: *const c_char,
    pub split_share: c_int,
    pub traffic_class: c_int,
    pub name: *const c_char,
    pub rest: [c_int; 15],
}

pub const UNDEFINED: c_int = c_int::MIN;

pub fn config(blocking: bool) -> Config {
    Config {
        size: size_of::<Config>(),
        magic: 0xcafe_beef,
        version: 23203,
        blocking: blocking.into(),
        unset: [UNDEFINED; 3],
        net: std::ptr::null(),
        split_share: UNDEFINED,
        traffic_class: UNDEFINED,
        name: std::ptr::null(),
        rest: [UNDEFINED; 15],
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct Comm(pub *mut c_void);

// SAFETY: a handle is a number to its holder.
unsafe impl Send for Comm {}
// SAFETY: as above.
unsafe impl Sync for Comm {}

pub const NULL: Comm = Comm(std::ptr::null_mut());
pub type Ptr = *const c_void;
pub type Mut = *mut c_void;

unsafe extern "C" {
    pub safe fn ncclGetVersion(version: &mut c_int) -> c_int;
    pub safe fn ncclGetUniqueId(id: &mut Id) -> c_int;
    pub safe fn ncclGetLastError(comm: Comm) -> *const c_char;
    pub safe fn ncclCommInitRank(comm: &mut Comm, ranks: c_int, id: Id, rank: c_int) -> c_int;
    pub fn ncclCommInitRankConfig(
        c: *mut Comm,
        ranks: c_int,
        id: Id,
        rank: c_int,
        config: *const Config,
    ) -> c_int;
    pub fn ncclCommInitAll(comms: *mut Comm, count: c_int, devices: *const c_int) -> c_int;
    pub safe fn ncclCommFinalize(comm: Comm) -> c_int;
    pub safe fn ncclCommDestroy(comm: Comm) -> c_int;
    pub safe fn ncclCommAbort(comm: Comm) -> c_int;
    pub safe fn ncclCommRevoke(comm: Comm, flags: c_int) -> c_int;
    pub safe fn ncclCommGetAsyncError(comm: Comm, error: &mut c_int) -> c_int;
    pub safe fn ncclCommCount(comm: Comm, count: &mut c_int) -> c_int;
    pub safe fn ncclCommUserRank(comm: Comm, rank: &mut c_int) -> c_int;
    pub fn ncclCommSplit(
        comm: Comm,
        color: c_int,
        key: c_int,
        new: *mut Comm,
        config: *const Config,
    ) -> c_int;
    pub fn ncclCommShrink(
        comm: Comm,
        excluded: *mut c_int,
        count: c_int,
        new: *mut Comm,
        config: *const Config,
        flags: c_int,
    ) -> c_int;
    pub safe fn ncclCommGetUniqueId(comm: Comm, id: &mut Id) -> c_int;
    pub fn ncclCommGrow(
        comm: Comm,
        ranks: c_int,
        id: *const Id,
        rank: c_int,
        new: *mut Comm,
        config: *const Config,
    ) -> c_int;
    pub fn ncclCommQueryProperties(comm: Comm, properties: Mut) -> c_int;
    pub fn ncclMemAlloc(place: *mut Mut, size: usize) -> c_int;
    pub fn ncclMemFree(pointer: Mut) -> c_int;
    pub safe fn ncclGroupStart() -> c_int;
    pub safe fn ncclGroupEnd() -> c_int;
    pub fn ncclRedOpCreatePreMulSum(
        op: *mut c_int,
        scalar: Mut,
        t: c_int,
        residence: c_int,
        comm: Comm,
    ) -> c_int;
    pub safe fn ncclRedOpDestroy(op: c_int, comm: Comm) -> c_int;
    pub fn ncclSend(send: Ptr, count: usize, t: c_int, peer: c_int, comm: Comm, stream: Mut) -> c_int;
    pub fn ncclRecv(receive: Mut, count: usize, t: c_int, peer: c_int, comm: Comm, stream: Mut) -> c_int;
    pub fn ncclAllReduce(s: Ptr, r: Mut, count: usize, t: c_int, op: c_int, comm: Comm, stream: Mut)
    -> c_int;
    pub fn ncclBroadcast(
        s: Ptr,
        r: Mut,
        count: usize,
        t: c_int,
        root: c_int,
        comm: Comm,
        stream: Mut,
    ) -> c_int;
    pub fn ncclBcast(buffer: Mut, count: usize, t: c_int, root: c_int, comm: Comm, stream: Mut) -> c_int;
    pub fn ncclReduce(
        s: Ptr,
        r: Mut,
        count: usize,
        t: c_int,
        op: c_int,
        root: c_int,
        comm: Comm,
        stream: Mut,
    ) -> c_int;
    pub fn ncclAllGather(s: Ptr, r: Mut, count: usize, t: c_int, comm: Comm, stream: Mut) -> c_int;
    pub fn ncclReduceScatter(
        s: Ptr,
        r: Mut,
        count: usize,
        t: c_int,
        op: c_int,
        comm: Comm,
        stream: Mut,
    ) -> c_int;
    pub fn ncclAlltoAll(s: Ptr, r: Mut, count: usize, t: c_int, comm: Comm, stream: Mut) -> c_int;
    pub fn ncclGather(s: Ptr, r: Mut, count: usize, t: c_int, root: c_int, comm: Comm, stream: Mut) -> c_int;
    pub fn ncclScatter(s: Ptr, r: Mut, count: usize, t: c_int, root: c_int, comm: Comm, stream: Mut)
    -> c_int;
    fn mwDoubleNcclScript(script: *const c_char) -> c_int;
    fn mwDoubleNcclCalls(name: *const c_char) -> u64;
    fn mwDoubleNcclViolations(buffer: *mut c_char, size: usize) -> c_int;
    fn mwDoubleNcclLog(buffer: *mut c_char, size: usize) -> usize;
    safe fn mwDoubleNcclReset();
}

pub const STREAM: Mut = std::ptr::null_mut();
pub const INT: c_int = 2;
pub const FLOAT: c_int = 7;

/// The script and the records are the process's, so its tests take turns.
static TURN: Mutex<()> = Mutex::new(());

pub struct Turn(#[allow(dead_code, reason = "held")] MutexGuard<'static, ()>);

pub fn turn(text: &str) -> Turn {
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    mwDoubleNcclReset();
    assert_eq!(script(text), 0);
    Turn(turn)
}

impl Drop for Turn {
    fn drop(&mut self) {
        script("");
    }
}

pub fn script(text: &str) -> c_int {
    let text = CString::new(text).expect("no NUL");
    // SAFETY: a C string.
    unsafe { mwDoubleNcclScript(text.as_ptr()) }
}

pub fn calls(name: &str) -> u64 {
    let name = CString::new(name).expect("no NUL");
    // SAFETY: a C string.
    unsafe { mwDoubleNcclCalls(name.as_ptr()) }
}

pub fn violations() -> (c_int, String) {
    let mut buffer = vec![0u8; 1 << 16];
    // SAFETY: a buffer of that size.
    let count = unsafe { mwDoubleNcclViolations(buffer.as_mut_ptr().cast(), buffer.len()) };
    (count, CStr::from_bytes_until_nul(&buffer).expect("a NUL").to_string_lossy().into_owned())
}

pub fn assert_clean() {
    let (count, text) = violations();
    assert_eq!(count, 0, "{text}");
}

pub fn log() -> String {
    let mut buffer = vec![0u8; 1 << 16];
    // SAFETY: a buffer of that size.
    unsafe { mwDoubleNcclLog(buffer.as_mut_ptr().cast(), buffer.len()) };
    CStr::from_bytes_until_nul(&buffer).expect("a NUL").to_string_lossy().into_owned()
}

pub fn last_error() -> String {
    // SAFETY: the answer is a C string until this thread asks again.
    unsafe { CStr::from_ptr(ncclGetLastError(NULL)) }.to_string_lossy().into_owned()
}

pub fn new_id() -> Id {
    let mut id = Id([0; 128]);
    assert_eq!(ncclGetUniqueId(&mut id), 0);
    id
}

/// Polls until the communicator is no longer in progress.
pub fn settled(comm: Comm) -> c_int {
    let start = Instant::now();
    loop {
        let mut error = -1;
        assert_eq!(ncclCommGetAsyncError(comm, &mut error), 0);
        if error != 7 {
            return error;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "in progress for ever");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The result of a call once it is complete.
pub fn done(comm: Comm, code: c_int) -> c_int {
    if code == 7 { settled(comm) } else { code }
}

pub fn join(ranks: usize, rank: usize, id: Id, blocking: bool) -> Comm {
    let (mut comm, config) = (NULL, config(blocking));
    // SAFETY: places and a configuration that live through the call.
    let code = unsafe { ncclCommInitRankConfig(&mut comm, ranks as c_int, id, rank as c_int, &config) };
    assert_eq!(done(comm, code), 0, "{}", last_error());
    comm
}

/// Runs a communicator whose ranks are threads.
pub fn world(ranks: usize, blocking: bool, body: impl Fn(usize, Comm) + Sync) {
    let id = new_id();
    std::thread::scope(|scope| {
        for rank in 0..ranks {
            let body = &body;
            scope.spawn(move || body(rank, join(ranks, rank, id, blocking)));
        }
    });
}

/// Waits, with a generous limit, for something that is to happen soon.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what} did not happen");
        std::thread::sleep(Duration::from_millis(1));
    }
}

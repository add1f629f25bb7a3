//! NCCL itself, without a world around it: what others are compared with.

use multiworld::nccl::types::*;
use multiworld::nccl::{Functions, config};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A communicator, by whichever library these functions belong to.
pub struct Raw {
    functions: Functions,
    comm: ncclComm_t,
}

fn check(what: &str, result: ncclResult_t) {
    assert_eq!(result, ncclSuccess, "{what}");
}

/// Waits until what a call on a non-blocking communicator has begun is done.
fn settle(f: &Functions, comm: ncclComm_t, what: &str, mut result: ncclResult_t) {
    let poll = f.ncclCommGetAsyncError.expect("ncclCommGetAsyncError");
    while result == ncclInProgress {
        // SAFETY: a live communicator, used by this thread only; `result` is writable.
        check("ncclCommGetAsyncError", unsafe { poll(comm, &mut result) });
    }
    check(what, result);
}

/// Hands an id from rank 0 to rank 1 through a file.
fn share(f: &Functions, file: &Path, me: usize) -> ncclUniqueId {
    let mut id = ncclUniqueId { internal: [0; 128] };
    if me == 0 {
        let get = f.ncclGetUniqueId.expect("ncclGetUniqueId");
        // SAFETY: `id` is writable.
        check("ncclGetUniqueId", unsafe { get(&mut id) });
        let partial = file.with_extension("partial");
        std::fs::write(&partial, id.internal.map(|b| b as u8)).expect("writing an id");
        std::fs::rename(&partial, file).expect("publishing an id");
        return id;
    }
    let until = Instant::now() + Duration::from_secs(60);
    let bytes = loop {
        match std::fs::read(file) {
            Ok(bytes) => break bytes,
            Err(e) => assert!(Instant::now() < until, "no id from rank 0: {e}"),
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    std::fs::remove_file(file).expect("taking an id");
    assert_eq!(bytes.len(), id.internal.len());
    id.internal.iter_mut().zip(bytes).for_each(|(to, from)| *to = from as _);
    id
}

impl Raw {
    /// One of two ranks, with as many thread blocks as a world of two has.
    pub fn join(functions: Functions, folder: &Path, name: &str, me: usize, blocking: bool) -> Raw {
        let id = share(&functions, &folder.join(name), me);
        let mut config = config();
        (config.blocking, config.maxCTAs) = (blocking.into(), 4);
        let mut comm: ncclComm_t = std::ptr::null_mut();
        let init = functions.ncclCommInitRankConfig.expect("ncclCommInitRankConfig");
        // SAFETY: `comm` and `config` are writable for the call.
        let result = unsafe { init(&mut comm, 2, id, me as i32, &mut config) };
        settle(&functions, comm, "ncclCommInitRankConfig", result);
        Raw { functions, comm }
    }

    /// Enqueues a sum of floats.
    pub fn all_reduce(&self, from: *const u8, to: *mut u8, floats: usize, stream: *mut std::ffi::c_void) {
        let f = self.functions.ncclAllReduce.expect("ncclAllReduce");
        // SAFETY: a live communicator, used by this thread only; buffers hold so many floats.
        let result = unsafe { f(from.cast(), to.cast(), floats, ncclFloat32, ncclSum, self.comm, stream) };
        self.settle("ncclAllReduce", result);
    }

    /// Enqueues a message of floats to the other rank.
    pub fn send(&self, from: *const u8, floats: usize, peer: i32, stream: *mut std::ffi::c_void) {
        let f = self.functions.ncclSend.expect("ncclSend");
        // SAFETY: as above.
        self.settle("ncclSend", unsafe { f(from.cast(), floats, ncclFloat32, peer, self.comm, stream) });
    }

    /// Enqueues its receive.
    pub fn recv(&self, to: *mut u8, floats: usize, peer: i32, stream: *mut std::ffi::c_void) {
        let f = self.functions.ncclRecv.expect("ncclRecv");
        // SAFETY: as above.
        self.settle("ncclRecv", unsafe { f(to.cast(), floats, ncclFloat32, peer, self.comm, stream) });
    }

    fn settle(&self, what: &str, result: ncclResult_t) {
        settle(&self.functions, self.comm, what, result);
    }

    /// Leaves.
    pub fn destroy(self) {
        let f = self.functions.ncclCommFinalize.expect("ncclCommFinalize");
        // SAFETY: a live communicator.
        self.settle("ncclCommFinalize", unsafe { f(self.comm) });
        let f = self.functions.ncclCommDestroy.expect("ncclCommDestroy");
        // SAFETY: a live communicator, given up here.
        check("ncclCommDestroy", unsafe { f(self.comm) });
    }
}

/// A new folder for what ranks tell each other.
pub fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("multiworld-gpu-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    folder
}

//! Memory that operations reach without a copy: on the host it is shared with the peers of the machine, on the nccl
//! backend it is NCCL's.

use crate::config::{BackendChoice, Config, Facilities};
use crate::error::{Code, Error, Extent, Result};
use crate::nccl::{loader, types};
use crate::sync::Mutex;
use crate::sys::process;
use crate::transport::shm::region;
use std::collections::BTreeSet;
use std::ffi::c_void;
use std::ptr::NonNull;

/// Addresses of what NCCL has given out.
static FROM_NCCL: Mutex<BTreeSet<usize>> = Mutex::new(BTreeSet::new());

fn refuse_forked() -> Result<()> {
    if process::is_forked() {
        return Err(Error::usage("memory: it belongs to the process that this one was forked from"));
    }
    Ok(())
}

/// At least `size` bytes, on the backend that the environment chooses.
pub fn allocate(size: usize) -> Result<NonNull<u8>> {
    refuse_forked()?;
    match Config::from_env()?.backend {
        BackendChoice::Nccl => allocate_on_device(size),
        BackendChoice::Host | BackendChoice::Watch => {
            process::watch_forks();
            region::allocate(size, Facilities::get().memfd)
        }
    }
}

fn allocate_on_device(size: usize) -> Result<NonNull<u8>> {
    let library = loader::get()?;
    let function = library.functions.ncclMemAlloc.ok_or_else(|| library.missing("mwMemAlloc"))?;
    let mut address: *mut c_void = std::ptr::null_mut();
    // SAFETY: `address` is writable; NCCL takes any size.
    let result = unsafe { function(&mut address, size.max(1)) };
    check("ncclMemAlloc", result)?;
    let address = NonNull::new(address.cast::<u8>());
    let address = address.ok_or_else(|| Error::internal("ncclMemAlloc succeeded and gave nothing"))?;
    FROM_NCCL.lock().insert(address.addr().get());
    Ok(address)
}

/// Gives memory from [`allocate`] back.
pub fn release(address: NonNull<u8>) -> Result<()> {
    refuse_forked()?;
    if region::release(address.as_ptr()) {
        return Ok(());
    }
    if !FROM_NCCL.lock().remove(&address.addr().get()) {
        let text = format!("ptr: {address:p} is not from mwMemAlloc, or has been freed");
        return Err(Error::argument(text));
    }
    let library = loader::get()?;
    let function = library.functions.ncclMemFree.ok_or_else(|| library.missing("mwMemFree"))?;
    // SAFETY: NCCL gave it out and has not got it back: the entry that was just removed said so.
    check("ncclMemFree", unsafe { function(address.as_ptr().cast()) })
}

fn check(call: &str, result: types::ncclResult_t) -> Result<()> {
    let code = match result {
        types::ncclSuccess => return Ok(()),
        types::ncclUnhandledCudaError => Code::UnhandledCuda,
        types::ncclInvalidArgument => Code::InvalidArgument,
        _ => Code::System,
    };
    Err(Error::new(code, Extent::Operation, format!("{call} failed with result {result}")))
}

//! Memory that peers on the machine reach without a copy.

use super::arg::Out;
use super::boundary::guard;
use super::config;
use super::result::mwResult_t;
use crate::backend::memory;
use std::ffi::c_void;
use std::ptr::NonNull;

/// Allocates memory from which messages go the shortest way. Ranks on one machine map each
/// other's: a message of 1 KiB or more is then copied, or reduced, once, straight from the sender's buffer,
/// without a system call; its mwSend returns when it has been received. Everything works on it as on any
/// other memory, over every transport, and any part of it can be a buffer.
///
/// `ptr`: where the address is written, which begins a page. `size`: bytes; 0 counts as 1. The memory is
/// zeroed and belongs to the caller, who gives it back with mwMemFree. It belongs to the process, not to a
/// world, and may be allocated before there is one. Each takes whole pages and a file descriptor, so
/// allocate a few large pieces rather than many small ones; without descriptors left it is memory like any
/// other, which is logged once. Peers that receive from it can read all of it. A fork of the
/// process does not have it: to touch it there is a segmentation fault.
///
/// Where MW_BACKEND is nccl this is ncclMemAlloc, on the calling thread's current device.
///
/// mwInvalidArgument: `ptr` is NULL, or `size` more than an address space. mwSystemError: there is no memory.
/// mwInvalidUsage: this process was forked from one that uses the library. On an error `*ptr` is NULL, if it
/// can be. May be called by any thread at any time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mwMemAlloc(ptr: *mut *mut c_void, size: usize) -> mwResult_t {
    guard(|| {
        // SAFETY: writable by the contract of every output argument.
        let out = unsafe { Out::new(ptr, "ptr") }?;
        out.set(std::ptr::null_mut());
        config::start_log()?;
        out.set(memory::allocate(size)?.as_ptr().cast());
        Ok(())
    })
}

/// Gives memory from mwMemAlloc back; `ptr` is what that wrote, and NULL does nothing. No operation that is
/// not over may use it. Worlds may live, and those that used it need not end before: an operation of a world
/// that was aborted, or that has broken, is over when its call or its request has returned, whatever its
/// peers are doing.
///
/// mwInvalidArgument: `ptr` is not the beginning of memory from mwMemAlloc, or was freed before.
/// mwInvalidUsage: this process is a fork of the one that it belongs to. May be called by any thread at any
/// time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mwMemFree(ptr: *mut c_void) -> mwResult_t {
    guard(|| NonNull::new(ptr.cast()).map_or(Ok(()), memory::release))
}

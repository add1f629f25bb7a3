//! Memory for programs, and buffers that they register.
//!
//! On host memory every buffer is reached alike, so registering one changes nothing: what is given out is a
//! token that knows its buffer.

use crate::arg::Out;
use crate::comm::Comm;
use crate::genuine::forward;
use crate::handle;
use crate::host::Host;
use crate::mode::{self, Mode};
use core::ffi::{c_int, c_void};
use multiworld::error::{Code, Error, Extent, Result};
use multiworld::nccl::types::*;
use multiworld::sync::Mutex;
use std::alloc::{self, Layout};
use std::collections::BTreeMap;
use std::ptr;

const PAGE: usize = NCCL_WIN_REQUIRED_ALIGNMENT as usize;

/// What was allocated, by address.
static ALLOCATED: Mutex<BTreeMap<usize, Layout>> = Mutex::new(BTreeMap::new());

/// A registered buffer, or a window.
pub struct Registration {
    /// Handle of the communicator.
    comm: usize,
    /// The buffer, which is the application's.
    address: usize,
    window: bool,
}

/// # Safety
/// As NCCL's function.
pub unsafe fn ncclMemAlloc(ptr: *mut *mut c_void, size: usize) -> Result<ncclResult_t> {
    if let Mode::Genuine(library) = mode::get()? {
        // SAFETY: this function's contract is that of the forwarded one.
        return unsafe { forward::ncclMemAlloc(library, ptr, size) };
    }
    // SAFETY: writable by NCCL's contract.
    let out = unsafe { Out::new(ptr, "ptr") }?;
    let layout = size.max(1).checked_next_multiple_of(PAGE).map(|s| Layout::from_size_align(s, PAGE));
    let Some(Ok(layout)) = layout else {
        return Err(Error::argument(format!("size: {size} bytes are more than an address space holds")));
    };
    // SAFETY: the size is not 0.
    let memory = unsafe { alloc::alloc(layout) };
    if memory.is_null() {
        let text = format!("ncclMemAlloc: there are no {size} bytes");
        return Err(Error::new(Code::System, Extent::Operation, text));
    }
    ALLOCATED.lock().insert(memory.addr(), layout);
    out.set(memory.cast());
    Ok(ncclSuccess)
}

/// # Safety
/// As NCCL's function.
pub unsafe fn ncclMemFree(ptr: *mut c_void) -> Result<ncclResult_t> {
    if let Mode::Genuine(library) = mode::get()? {
        // SAFETY: this function's contract is that of the forwarded one.
        return unsafe { forward::ncclMemFree(library, ptr) };
    }
    if ptr.is_null() {
        return Ok(ncclSuccess);
    }
    let layout = ALLOCATED.lock().remove(&ptr.addr());
    let layout = layout.ok_or_else(|| Error::argument(format!("ptr: {ptr:p} is not from ncclMemAlloc")))?;
    // SAFETY: allocated with this layout, and taken out of the list, so freed once.
    unsafe { alloc::dealloc(ptr.cast(), layout) };
    Ok(ncclSuccess)
}

/// A token for a buffer of a communicator on host memory.
fn register(host: &Host, comm: ncclComm_t, buff: *mut c_void, size: usize, window: bool) -> Result<usize> {
    if buff.is_null() && size > 0 {
        return Err(Error::argument(format!("buff: NULL for {size} bytes")));
    }
    host.world()?;
    let address = buff.expose_provenance();
    let token = handle::issue_registration(Registration { comm: comm.addr(), address, window })?;
    host.registered.lock().insert(token);
    Ok(token)
}

fn deregister(host: &Host, comm: ncclComm_t, token: usize, argument: &str, window: bool) -> Result<()> {
    {
        let registration = handle::registration(token, argument)?;
        check_owner(comm, &registration, argument, window)?;
    }
    host.registered.lock().remove(&token);
    handle::remove_registration(token, argument).map(drop)
}

/// Forgets what was registered with a communicator that is gone.
pub fn forget(host: &Host) {
    for token in std::mem::take(&mut *host.registered.lock()) {
        // Somebody may just be doing it.
        let _ = handle::remove_registration(token, "handle");
    }
}

fn check_owner(comm: ncclComm_t, registration: &Registration, argument: &str, window: bool) -> Result<()> {
    if registration.comm != comm.addr() {
        return Err(Error::argument(format!("{argument}: it belongs to another communicator")));
    }
    if registration.window != window {
        let (is, not) = if window { ("buffer", "window") } else { ("window", "buffer") };
        return Err(Error::argument(format!("{argument}: it is a {is}, not a {not}")));
    }
    Ok(())
}

/// # Safety
/// As NCCL's function.
pub unsafe fn ncclCommRegister(
    comm: ncclComm_t,
    buff: *mut c_void,
    size: usize,
    handle: *mut *mut c_void,
) -> Result<ncclResult_t> {
    match &**handle::comm(comm)? {
        Comm::Host(host) => {
            // SAFETY: writable by NCCL's contract.
            let out = unsafe { Out::new(handle, "handle") }?;
            out.set(ptr::without_provenance_mut(register(host, comm, buff, size, false)?));
            Ok(ncclSuccess)
        }
        // SAFETY: this function's contract is that of the forwarded one.
        Comm::Genuine(g) => unsafe {
            g.call("ncclCommRegister", |l, real| forward::ncclCommRegister(l, real, buff, size, handle))
        },
    }
}

/// # Safety
/// As NCCL's function.
pub unsafe fn ncclCommDeregister(comm: ncclComm_t, handle: *mut c_void) -> Result<ncclResult_t> {
    match &**handle::comm(comm)? {
        Comm::Host(host) => deregister(host, comm, handle.addr(), "handle", false).map(|()| ncclSuccess),
        // SAFETY: this function's contract is that of the forwarded one.
        Comm::Genuine(g) => unsafe {
            g.call("ncclCommDeregister", |l, real| forward::ncclCommDeregister(l, real, handle))
        },
    }
}

/// # Safety
/// As NCCL's function.
pub unsafe fn ncclCommWindowRegister(
    comm: ncclComm_t,
    buff: *mut c_void,
    size: usize,
    win: *mut ncclWindow_t,
    winFlags: c_int,
) -> Result<ncclResult_t> {
    match &**handle::comm(comm)? {
        Comm::Host(host) => {
            // SAFETY: writable by NCCL's contract.
            let out = unsafe { Out::new(win, "win") }?;
            let known =
                NCCL_WIN_COLL_SYMMETRIC | NCCL_WIN_STRICT_ORDERING | NCCL_WIN_GIN_ONLY | NCCL_WIN_CFT_COUNTED;
            if winFlags.cast_unsigned() & !known != 0 {
                return Err(Error::argument(format!("winFlags: {winFlags:#x} has unknown flags")));
            }
            out.set(ptr::without_provenance_mut(register(host, comm, buff, size, true)?));
            Ok(ncclSuccess)
        }
        // SAFETY: this function's contract is that of the forwarded one.
        Comm::Genuine(g) => unsafe {
            g.call("ncclCommWindowRegister", |l, real| {
                forward::ncclCommWindowRegister(l, real, buff, size, win, winFlags)
            })
        },
    }
}

/// # Safety
/// As NCCL's function.
pub unsafe fn ncclCommWindowDeregister(comm: ncclComm_t, win: ncclWindow_t) -> Result<ncclResult_t> {
    match &**handle::comm(comm)? {
        // What programs get from an NCCL that does without windows, and give back.
        Comm::Host(_) if win.is_null() => Ok(ncclSuccess),
        Comm::Host(host) => deregister(host, comm, win.addr(), "win", true).map(|()| ncclSuccess),
        // SAFETY: this function's contract is that of the forwarded one.
        Comm::Genuine(g) => unsafe {
            g.call("ncclCommWindowDeregister", |l, real| forward::ncclCommWindowDeregister(l, real, win))
        },
    }
}

/// # Safety
/// As NCCL's function.
pub unsafe fn ncclWinGetUserPtr(
    comm: ncclComm_t,
    win: ncclWindow_t,
    outUserPtr: *mut *mut c_void,
) -> Result<ncclResult_t> {
    match &**handle::comm(comm)? {
        Comm::Host(_) => {
            // SAFETY: writable by NCCL's contract.
            let out = unsafe { Out::new(outUserPtr, "outUserPtr") }?;
            let registration = handle::registration(win.addr(), "win")?;
            check_owner(comm, &registration, "win", true)?;
            out.set(ptr::with_exposed_provenance_mut(registration.address));
            Ok(ncclSuccess)
        }
        // SAFETY: this function's contract is that of the forwarded one.
        Comm::Genuine(g) => unsafe {
            g.call("ncclWinGetUserPtr", |l, real| forward::ncclWinGetUserPtr(l, real, win, outUserPtr))
        },
    }
}

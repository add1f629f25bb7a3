//! Memory, registrations and windows. Handles are opaque numbers, since nothing is gained by registering.

use crate::abi::{Code, SUCCESS, SYSTEM_ERROR, UNHANDLED_CUDA_ERROR};
use crate::cuda::Cuda;
use crate::entry::Call;
use crate::record::{lock, set_last_error};
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What `ncclMemAlloc` gave out without CUDA: address and layout.
static ALLOCATED: Mutex<Option<HashMap<usize, Layout>>> = Mutex::new(None);
static NEXT_HANDLE: AtomicUsize = AtomicUsize::new(1);

/// The granularity of `ncclMemAlloc`.
const GRANULARITY: usize = 4096;

/// `ncclMemAlloc`: device memory where there is CUDA, host memory elsewhere.
///
/// # Safety
/// `place` is NULL or writable.
pub unsafe fn allocate(call: &Call, place: *mut *mut c_void, size: usize) -> Code {
    if place.is_null() || size == 0 {
        return call.invalid("ptr is NULL or size zero");
    }
    let pointer = match Cuda::get().map(|cuda| cuda.allocate(size)) {
        Some(Ok(pointer)) => pointer,
        Some(Err(error)) => {
            set_last_error(&format!("{}: CUDA error {}", call.function.name(), error.0));
            return UNHANDLED_CUDA_ERROR;
        }
        None => match on_host(size) {
            Some(pointer) => pointer,
            None => {
                set_last_error("out of memory");
                return SYSTEM_ERROR;
            }
        },
    };
    // SAFETY: not NULL, and the caller's promise.
    unsafe { place.write(pointer) };
    SUCCESS
}

fn on_host(size: usize) -> Option<*mut c_void> {
    let layout = Layout::from_size_align(size.checked_next_multiple_of(GRANULARITY)?, GRANULARITY).ok()?;
    // SAFETY: the size is not zero.
    let pointer = unsafe { alloc_zeroed(layout) };
    if pointer.is_null() {
        return None;
    }
    lock(&ALLOCATED).get_or_insert_default().insert(pointer.addr(), layout);
    Some(pointer.cast())
}

/// `ncclMemFree`.
pub fn free(call: &Call, pointer: *mut c_void) -> Code {
    if pointer.is_null() {
        return SUCCESS;
    }
    let layout = lock(&ALLOCATED).get_or_insert_default().remove(&pointer.addr());
    match (layout, Cuda::get()) {
        (Some(layout), _) => {
            // SAFETY: allocated here with this layout, and just taken out of the table.
            unsafe { dealloc(pointer.cast(), layout) };
            SUCCESS
        }
        (None, Some(cuda)) if cuda.free(pointer).is_ok() => SUCCESS,
        (None, Some(_)) => UNHANDLED_CUDA_ERROR,
        (None, None) => call.invalid("not from ncclMemAlloc"),
    }
}

/// `ncclCommRegister` and `ncclCommWindowRegister`.
///
/// # Safety
/// `handle` is NULL or writable.
pub unsafe fn register(call: &Call, buffer: *mut c_void, size: usize, handle: *mut *mut c_void) -> Code {
    let comm = match call.comm() {
        Ok(comm) => comm,
        Err(code) => return code,
    };
    if handle.is_null() || buffer.is_null() {
        return call.invalid("buffer or handle is NULL");
    }
    match comm.ensure_ready(call.function.name()) {
        SUCCESS => {}
        code => return call.fail(code),
    }
    let number = NEXT_HANDLE.fetch_add(1, Ordering::Relaxed) << 4;
    lock(&comm.registrations).push((number, buffer.expose_provenance(), size));
    // SAFETY: not NULL, and the caller's promise.
    unsafe { handle.write(std::ptr::without_provenance_mut(number)) };
    SUCCESS
}

/// `ncclCommDeregister` and `ncclCommWindowDeregister`.
pub fn deregister(call: &Call, handle: *mut c_void) -> Code {
    let comm = match call.comm() {
        Ok(comm) => comm,
        Err(code) => return code,
    };
    if handle.is_null() {
        return SUCCESS;
    }
    let mut registrations = lock(&comm.registrations);
    let before = registrations.len();
    registrations.retain(|(number, _, _)| *number != handle.addr());
    if registrations.len() == before { call.invalid("no such registration") } else { SUCCESS }
}

/// `ncclWinGetUserPtr`.
///
/// # Safety
/// `place` is NULL or writable.
#[cfg(not(nccl_old))]
pub unsafe fn window_pointer(call: &Call, window: *mut c_void, place: *mut *mut c_void) -> Code {
    let comm = match call.comm() {
        Ok(comm) => comm,
        Err(code) => return code,
    };
    let registrations = lock(&comm.registrations);
    let found = registrations.iter().find(|(number, _, _)| *number == window.addr());
    match found {
        Some((_, buffer, _)) if !place.is_null() => {
            // SAFETY: not NULL, and the caller's promise.
            unsafe { place.write(std::ptr::with_exposed_provenance_mut(*buffer)) };
            SUCCESS
        }
        _ => call.invalid("no such window, or no place for its pointer"),
    }
}

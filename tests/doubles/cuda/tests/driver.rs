//! The driver, alone and beside the runtime.

mod api;

use api::*;
use std::ffi::{CStr, c_int};

fn current() -> usize {
    // SAFETY: the result has a place.
    made(|out| unsafe { cuCtxGetCurrent(out) })
}

/// In one, because the first part is about a process that has initialised nothing.
#[test]
fn contexts_are_the_devices() {
    let mut count = 0;
    // SAFETY: the result has a place.
    assert_eq!(unsafe { cuDeviceGetCount(&raw mut count) }, 3, "not initialised");
    assert_eq!(cuInit(1), INVALID_VALUE);
    ok(cuInit(0));
    // SAFETY: the results have a place.
    let (count, first, second) = unsafe {
        let first = made(|out| cuDevicePrimaryCtxRetain(out, 0));
        (made(|out| cuDeviceGetCount(out)), first, made(|out| cuDevicePrimaryCtxRetain(out, 1)))
    };
    assert_eq!(count, 2);
    assert_eq!(current(), 0);
    // SAFETY: the result has a place.
    assert_eq!(unsafe { cuMemAlloc_v2(&raw mut *Box::leak(Box::new(0)), 4) }, INVALID_CONTEXT);
    assert_eq!(cuCtxSetCurrent(first + 1), INVALID_CONTEXT);

    // A stack of contexts, whose top is the runtime's device.
    ok(cuCtxSetCurrent(first));
    ok(cuCtxPushCurrent_v2(second));
    // SAFETY: the results have a place.
    unsafe {
        assert_eq!(made(|out| cuCtxGetDevice(out)), 1);
        assert_eq!(made(|out| cudaGetDevice(out)), 1);
        assert_eq!(made(|out| cuCtxPopCurrent_v2(out)), second);
    }
    assert_eq!(current(), first);
    ok(cudaSetDevice(1));
    assert_eq!(current(), second);

    // One set of objects.
    // SAFETY: the results have a place, and nothing is used after it was freed.
    unsafe {
        let stream = made(|out| cuStreamCreate(out, NON_BLOCKING));
        assert_eq!(made(|out| cuStreamGetCtx(stream, out)), second);
        ok(cudaStreamSynchronize(stream));
        ok(cuStreamDestroy_v2(stream));
        assert_eq!(cudaStreamSynchronize(stream), INVALID_HANDLE);

        let memory = made(|out| cuMemAlloc_v2(out, 16));
        ok(cuMemsetD8_v2(memory, 7, 16));
        let mut bytes = [0u8; 16];
        ok(cuMemcpyDtoH_v2(bytes.as_mut_ptr() as usize, memory, 16));
        assert_eq!(bytes, [7; 16]);
        let attribute =
            |number| made(|out: *mut usize| cuPointerGetAttribute(out.cast(), number, memory + 3));
        assert_eq!((attribute(1), attribute(11), attribute(12)), (second, memory, 16));
        assert_eq!((attribute(2) as u32, attribute(9) as c_int), (2, 1));
        ok(cudaFree(memory));
        assert_eq!(cuMemFree_v2(memory), INVALID_VALUE);
        let mut kind = 0u32;
        assert_eq!(cuPointerGetAttribute((&raw mut kind).cast(), 2, memory), INVALID_VALUE);
    }

    let state = || {
        let (mut flags, mut active) = (0, 0);
        // SAFETY: the results have a place.
        ok(unsafe { cuDevicePrimaryCtxGetState(1, &raw mut flags, &raw mut active) });
        active
    };
    assert_eq!(state(), 1);
    ok(cuDevicePrimaryCtxRelease_v2(1));
    assert_eq!(state(), 0);
    assert_eq!(cuDevicePrimaryCtxRelease_v2(1), INVALID_CONTEXT);
    ok(cuDevicePrimaryCtxRelease_v2(0));
}

#[test]
fn functions_are_found_by_name_and_version() {
    let find = |name: &CStr, version: c_int| {
        let (mut address, mut status) = (1, 9);
        // SAFETY: the results have a place.
        let code =
            unsafe { cuGetProcAddress_v2(name.as_ptr(), &raw mut address, version, 0, &raw mut status) };
        (code, address, status)
    };
    let (code, older, status) = find(c"cuStreamGetCaptureInfo", 12000);
    assert_eq!((code, status), (0, 0));
    assert!(older != 0 && find(c"cuStreamGetCaptureInfo", 13000).1 != older);
    assert_eq!(find(c"cuStreamGetCaptureInfo", 10000), (500, 0, 2));
    assert_eq!(find(c"cuNoSuchThing", 13000), (500, 0, 1));
    assert_eq!(find(c"cuMemAlloc", 13000).1, cuMemAlloc_v2 as *const () as usize);

    let (mut address, mut status) = (1, 9);
    // SAFETY: the results have a place.
    unsafe {
        ok(cudaGetDriverEntryPoint(c"cuMemFree".as_ptr(), &raw mut address, 0, &raw mut status));
        assert_eq!((address, status), (cuMemFree_v2 as *const () as usize, 0));
        ok(cudaGetDriverEntryPoint(c"cuNoSuchThing".as_ptr(), &raw mut address, 0, &raw mut status));
        assert_eq!((address, status), (0, 1));
    }
}

#[test]
fn errors_have_the_drivers_names() {
    let mut text = std::ptr::null();
    // SAFETY: the result has a place, and names live as long as the process.
    unsafe {
        ok(cuGetErrorName(700, &raw mut text));
        assert_eq!(CStr::from_ptr(text), c"CUDA_ERROR_ILLEGAL_ADDRESS");
        assert_eq!(cuGetErrorName(12345, &raw mut text), INVALID_VALUE);
    }
    assert!(text.is_null());
}

//! Calls that must be refused, made as C makes them.

use super::*;
use std::ffi::{CStr, c_int};
use std::ptr;

fn last() -> String {
    // SAFETY: a C string that this thread was just given.
    unsafe { CStr::from_ptr(mwGetLastError(ptr::null_mut())) }.to_str().unwrap().to_owned()
}

#[track_caller]
fn refused(result: mwResult_t, text: &str) {
    assert_eq!((result, last().as_str()), (mwResult_t::mwInvalidArgument, text));
}

#[track_caller]
fn misused(result: mwResult_t, text: &str) {
    assert_eq!((result, last().as_str()), (mwResult_t::mwInvalidUsage, text));
}

const STRANGE: mwWorld_t = ptr::without_provenance_mut(0x1000);
const NOT_A_WORLD: &str = "world: 0x1000 is no handle of this library, not a world";

#[test]
fn what_is_no_world_is_refused_by_every_function() {
    let mut int = 0;
    let mut byte = 0;
    // SAFETY: every pointer is NULL or valid; the handle is never followed.
    unsafe {
        refused(mwWorldCount(ptr::null_mut(), &raw mut int), "world: NULL");
        refused(mwWorldUserRank(STRANGE, &raw mut int), NOT_A_WORLD);
        refused(mwWorldDevice(STRANGE, &raw mut int), NOT_A_WORLD);
        refused(mwWorldName(STRANGE, (&raw mut byte).cast(), 1), NOT_A_WORLD);
        refused(mwWorldGetFailedRanks(STRANGE, ptr::null_mut(), &raw mut int), NOT_A_WORLD);
        refused(mwSend(ptr::null(), 0, 0, 0, STRANGE, ptr::null_mut()), NOT_A_WORLD);
        let mut world = STRANGE;
        refused(mwWorldSplit(STRANGE, 0, 0, &raw mut world, ptr::null()), NOT_A_WORLD);
        assert!(world.is_null());
        let scalar = 1.0f32;
        refused(mwRedOpCreatePreMulSum(&raw mut int, (&raw const scalar).cast(), 7, 1, STRANGE), NOT_A_WORLD);
    }
    refused(mwBarrier(ptr::null_mut(), ptr::null_mut()), "world: NULL");
    refused(mwWorldAbort(STRANGE), NOT_A_WORLD);
    refused(mwWorldDestroy(STRANGE), NOT_A_WORLD);
    refused(mwWorldFinalize(STRANGE), NOT_A_WORLD);
    refused(mwWorldRevoke(STRANGE), NOT_A_WORLD);
    refused(mwWorldSetCallback(STRANGE, None, ptr::null_mut()), NOT_A_WORLD);
    refused(mwRedOpDestroy(7, STRANGE), NOT_A_WORLD);
    // SAFETY: a C string.
    let text = unsafe { CStr::from_ptr(mwGetLastError(STRANGE)) };
    assert_eq!(text.to_str(), Ok(NOT_A_WORLD));
}

#[test]
fn what_is_no_request_is_refused() {
    let mut int = 0;
    let strange: mwRequest_t = ptr::without_provenance_mut(3);
    let entries = [ptr::null_mut(), strange];
    // SAFETY: every pointer is NULL or valid; the handle is never followed.
    unsafe {
        refused(mwRequestTest(ptr::null_mut(), &raw mut int), "request: NULL");
        refused(mwRequestTest(strange, ptr::null_mut()), "done: NULL");
        let mut any = |count, entries: *const mwRequest_t| mwRequestWaitAny(count, entries, &raw mut int, 0);
        refused(any(0, entries.as_ptr()), "count: 0 is no number of requests");
        refused(any(1, entries.as_ptr()), "requests: all 1 are NULL");
        refused(any(1, ptr::null()), "requests: NULL or not aligned for its type");
        let text = "requests[1]: 0x3 is no handle of this library, not a request";
        refused(any(2, entries.as_ptr()), text);
    }
    refused(mwRequestWait(ptr::null_mut(), 0), "request: NULL");
    refused(mwRequestFree(strange), "request: 0x3 is no handle of this library, not a request");
}

#[test]
fn results_need_a_place() {
    // SAFETY: every pointer is NULL.
    unsafe {
        refused(mwGetVersion(ptr::null_mut()), "version: NULL");
        refused(mwGetUniqueId(ptr::null_mut()), "id: NULL");
        refused(mwWorldInit(ptr::null_mut(), c"w".as_ptr(), 1, 0, ptr::null()), "world: NULL");
        refused(mwWorldInitAll(ptr::null_mut(), 1, ptr::null()), "worlds: NULL");
        refused(mwWorldCount(STRANGE, ptr::null_mut()), "count: NULL");
        refused(mwWorldGetStats(STRANGE, ptr::null_mut()), "stats: NULL");
        refused(mwEventFd(ptr::null_mut()), "fd: NULL");
        refused(mwEventNext(ptr::null_mut(), 0), "event: NULL");
        refused(mwGroupSubmit(ptr::null_mut()), "request: NULL");
    }
}

#[test]
fn a_world_needs_a_name_and_a_configuration() {
    let mut world = STRANGE;
    // SAFETY: every pointer is NULL or valid.
    unsafe {
        let mut init = |name| mwWorldInit(&raw mut world, name, 1, 0, ptr::null());
        refused(init(ptr::null()), "name: NULL");
        refused(init(c"".as_ptr()), "name: 0 bytes, not 1 to 63");
        refused(init(c"\xff".as_ptr()), "name: not valid UTF-8");
        assert!(world.is_null());
        let config = [0u64; 16];
        let config = config.as_ptr().cast();
        world = STRANGE;
        refused(
            mwWorldInit(&raw mut world, c"w".as_ptr(), 1, 0, config),
            "config: magic is 0x0, not 0x6d77636f; start from MW_CONFIG_INITIALIZER",
        );
        assert!(world.is_null());
        refused(mwWorldInitAll(&raw mut world, 0, ptr::null()), "nranks: 0 is no number of ranks");
    }
}

#[test]
fn an_error_in_a_group_is_told_twice_and_ends_there() {
    let text = "world: NULL";
    assert_eq!(mwGroupStart(), mwResult_t::mwSuccess);
    assert_eq!(mwGroupStart(), mwResult_t::mwSuccess);
    refused(mwBarrier(ptr::null_mut(), ptr::null_mut()), text);
    refused(mwBarrier(STRANGE, ptr::null_mut()), NOT_A_WORLD);
    assert_eq!(mwGroupEnd(), mwResult_t::mwSuccess);
    refused(mwGroupEnd(), text);
    assert_eq!((mwGroupStart(), mwGroupEnd()), (mwResult_t::mwSuccess, mwResult_t::mwSuccess));
    misused(mwGroupEnd(), "mwGroupEnd: no group is open in this thread");
    let mut request = ptr::null_mut();
    // SAFETY: a valid place.
    let submitted = unsafe { mwGroupSubmit(&raw mut request) };
    misused(submitted, "mwGroupSubmit: no group is open in this thread");
}

#[test]
fn a_group_is_no_place_to_make_or_end_worlds() {
    let mut world = STRANGE;
    assert_eq!(mwGroupStart(), mwResult_t::mwSuccess);
    let refusal = |function| format!("{function}: not allowed between mwGroupStart and mwGroupEnd");
    // SAFETY: every pointer is NULL or valid.
    unsafe {
        let made = mwWorldInit(&raw mut world, c"w".as_ptr(), 1, 0, ptr::null());
        misused(made, &refusal("mwWorldInit"));
        misused(mwWorldInitAll(&raw mut world, 1, ptr::null()), &refusal("mwWorldInitAll"));
        misused(mwWorldSplit(STRANGE, 0, 0, &raw mut world, ptr::null()), &refusal("mwWorldSplit"));
    }
    misused(mwWorldDestroy(STRANGE), &refusal("mwWorldDestroy"));
    misused(mwWorldFinalize(STRANGE), &refusal("mwWorldFinalize"));
    refused(mwWorldAbort(STRANGE), NOT_A_WORLD);
    assert_eq!(mwGroupEnd(), mwResult_t::mwSuccess);
}

#[test]
fn every_result_has_a_text() {
    let text = |raw: c_int| {
        // SAFETY: a C string.
        unsafe { CStr::from_ptr(mwGetErrorString(raw)) }.to_str().unwrap()
    };
    assert_eq!(text(mwResult_t::mwSuccess as c_int), "no error");
    assert_eq!(text(mwResult_t::mwUnauthorized as c_int), "wrong secret");
    assert_eq!(text(-5), "unknown result code");
    assert_eq!(text(9), "unknown result code");
}

#[test]
fn memory_is_checked_before_it_is_touched() {
    let mut memory = ptr::without_provenance_mut(8);
    // SAFETY: every pointer is NULL or valid, or refused.
    unsafe {
        refused(mwMemAlloc(ptr::null_mut(), 8), "ptr: NULL");
        let text = format!("size: {} bytes are more than an address space holds", usize::MAX);
        refused(mwMemAlloc(&raw mut memory, usize::MAX), &text);
        assert!(memory.is_null());
        assert_eq!(mwMemFree(ptr::null_mut()), mwResult_t::mwSuccess);
        for size in [0, 1, 100_000] {
            assert_eq!(mwMemAlloc(&raw mut memory, size), mwResult_t::mwSuccess);
            assert!(memory.addr().is_multiple_of(4096) && !memory.is_null());
            memory.cast::<u8>().write_bytes(1, size);
            let inside = memory.cast::<u8>().wrapping_add(4096).cast();
            let not_ours = |at| format!("ptr: {at:p} is not from mwMemAlloc, or has been freed");
            refused(mwMemFree(inside), &not_ours(inside));
            assert_eq!(mwMemFree(memory), mwResult_t::mwSuccess);
        }
        let mut on_the_stack = 0u64;
        let at = (&raw mut on_the_stack).cast();
        refused(mwMemFree(at), &format!("ptr: {at:p} is not from mwMemAlloc, or has been freed"));
    }
}

//! `mwRequest_t`.

use super::arg::{Out, deadline, timeout};
use super::boundary::{guard, guard_result};
use super::handle::{self, mwRequest_t};
use super::result::mwResult_t;
use crate::error::{Error, Result};
use crate::sync::Arc;
use crate::sync::slab::Guard;
use crate::world::Request;
use std::ffi::c_int;

/// Asks whether a request is done, without waiting: `*done` becomes 1 or 0. Returns mwSuccess while it is
/// not, and once it is, what its operations came to: mwSuccess or the first error.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mwRequestTest(request: mwRequest_t, done: *mut c_int) -> mwResult_t {
    guard(|| {
        // SAFETY: writable by the contract of every output argument.
        let out = unsafe { Out::new(done, "done") }?;
        let result = handle::request(request)?.test();
        out.set(c_int::from(result.is_some()));
        result.unwrap_or(Ok(()))
    })
}

/// Waits for a request: mwInProgress when it is not done within `timeoutMs`, else what its operations came
/// to, as often as it is asked. 0 does not wait at all; a negative time waits until the request is done,
/// which the deadlines of its operations bound.
#[unsafe(no_mangle)]
pub extern "C" fn mwRequestWait(request: mwRequest_t, timeoutMs: c_int) -> mwResult_t {
    guard_result(|| {
        let request = handle::request(request)?;
        let result = if timeoutMs == 0 { request.test() } else { request.wait(deadline(timeoutMs)) };
        result.map_or(Ok(mwResult_t::mwInProgress), |result| result.map(|()| mwResult_t::mwSuccess))
    })
}

/// Waits until one of `count` requests is done, writes its index and returns what its operations came to.
/// mwInProgress and index -1 when the time is up; `timeoutMs` as for mwRequestWait. Entries that are NULL are
/// skipped; if all are, that is an error. The done one stays a valid request: free it and set its entry to
/// NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mwRequestWaitAny(
    count: c_int,
    requests: *const mwRequest_t,
    index: *mut c_int,
    timeoutMs: c_int,
) -> mwResult_t {
    guard_result(|| {
        // SAFETY: writable by the contract of every output argument.
        let out = unsafe { Out::new(index, "index") }?;
        // SAFETY: `count` handles may be read, which is this function's contract.
        let guards = unsafe { entries(count, requests) }?;
        let list: Vec<Arc<Request>> = guards.iter().map(|(_, request)| Arc::clone(request)).collect();
        let done = Request::wait_any(&list, timeout(timeoutMs)).and_then(|i| guards.get(i));
        let Some((at, request)) = done else {
            out.set(-1);
            return Ok(mwResult_t::mwInProgress);
        };
        out.set(*at);
        let result = request.test().ok_or_else(|| Error::internal("a request that was done is not"))?;
        result.map(|()| mwResult_t::mwSuccess)
    })
}

/// The entries that are not NULL, with their places.
///
/// # Safety
/// `requests` is NULL or points to `count` handles.
unsafe fn entries(
    count: c_int,
    requests: *const mwRequest_t,
) -> Result<Vec<(c_int, Guard<'static, Request>)>> {
    if count <= 0 {
        return Err(Error::argument(format!("count: {count} is no number of requests")));
    }
    if requests.is_null() || !requests.is_aligned() {
        return Err(Error::argument("requests: NULL or not aligned for its type"));
    }
    let mut found = Vec::new();
    for at in 0..count {
        // SAFETY: below `count`, by this function's contract.
        let entry = unsafe { *requests.add(at as usize) };
        if !entry.is_null() {
            found.push((at, handle::request_at(entry, at as usize)?));
        }
    }
    if found.is_empty() {
        return Err(Error::argument(format!("requests: all {count} are NULL")));
    }
    Ok(found)
}

/// Frees a request. One that is not done goes on to its end unwatched: its buffers must stay valid until
/// then, and only a later operation of the same world or the end of the world tells when that is.
#[unsafe(no_mangle)]
pub extern "C" fn mwRequestFree(request: mwRequest_t) -> mwResult_t {
    guard(|| handle::remove_request(request).map(drop))
}

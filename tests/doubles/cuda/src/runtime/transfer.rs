//! Copies and fills.

use super::{Code, current, enter};
use crate::model::calls::call;
use crate::model::capture::refuse_unsafe;
use crate::model::device::device;
use crate::model::error::Result;
use crate::model::order::resolve;
use crate::model::transfer::{Direction, copy, copy_now, fill};
use std::ffi::{c_int, c_void};

/// The stream of functions that have no parameter for one.
const LEGACY: usize = 1;

/// The addresses say whose memory it is; the devices only have to exist and work.
fn touch_both(to: c_int, from: c_int) -> Result<()> {
    device(to)?.touch()?;
    device(from)?.touch()
}

#[unsafe(no_mangle)]
extern "C" fn cudaMemcpy(to: *mut c_void, from: *const c_void, bytes: usize, kind: c_int) -> Code {
    enter(call!("cudaMemcpy"), || {
        let direction = Direction::try_from(kind)?;
        let stream = resolve(LEGACY, current)?;
        refuse_unsafe()?;
        copy_now(&stream, to, from, bytes, direction)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cudaMemcpyAsync(
    to: *mut c_void,
    from: *const c_void,
    bytes: usize,
    kind: c_int,
    stream: usize,
) -> Code {
    enter(call!("cudaMemcpyAsync"), || {
        let direction = Direction::try_from(kind)?;
        copy(&resolve(stream, current)?, to, from, bytes, direction)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cudaMemcpyPeer(
    to: *mut c_void,
    to_device: c_int,
    from: *const c_void,
    from_device: c_int,
    bytes: usize,
) -> Code {
    enter(call!("cudaMemcpyPeer"), || {
        touch_both(to_device, from_device)?;
        let stream = resolve(LEGACY, current)?;
        refuse_unsafe()?;
        copy_now(&stream, to, from, bytes, Direction::DeviceToDevice)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cudaMemcpyPeerAsync(
    to: *mut c_void,
    to_device: c_int,
    from: *const c_void,
    from_device: c_int,
    bytes: usize,
    stream: usize,
) -> Code {
    enter(call!("cudaMemcpyPeerAsync"), || {
        touch_both(to_device, from_device)?;
        copy(&resolve(stream, current)?, to, from, bytes, Direction::DeviceToDevice)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cudaMemset(at: *mut c_void, value: c_int, bytes: usize) -> Code {
    enter(call!("cudaMemset"), || {
        let stream = resolve(LEGACY, current)?;
        refuse_unsafe()?;
        fill(&stream, at, value, bytes)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cudaMemsetAsync(at: *mut c_void, value: c_int, bytes: usize, stream: usize) -> Code {
    enter(call!("cudaMemsetAsync"), || fill(&resolve(stream, current)?, at, value, bytes))
}

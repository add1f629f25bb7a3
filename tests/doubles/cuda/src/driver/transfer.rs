//! Copies and fills.

use super::context::find;
use super::{Code, current, enter};
use crate::model::calls::{Call, call};
use crate::model::capture::refuse_unsafe;
use crate::model::error::Error;
use crate::model::order::resolve;
use crate::model::transfer::{Direction, copy, copy_now, fill};
use std::ffi::{c_uchar, c_void};

/// The stream of functions that have no parameter for one.
const LEGACY: usize = 1;

fn now(
    call: &'static Call,
    to: *mut c_void,
    from: *const c_void,
    bytes: usize,
    direction: Direction,
) -> Code {
    enter(call, || {
        let stream = resolve(LEGACY, current)?;
        refuse_unsafe()?;
        copy_now(&stream, to, from, bytes, direction)
    })
}

fn ordered(
    call: &'static Call,
    to: *mut c_void,
    from: *const c_void,
    bytes: usize,
    direction: Direction,
    stream: usize,
) -> Code {
    enter(call, || copy(&resolve(stream, current)?, to, from, bytes, direction))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemcpy(to: *mut c_void, from: *const c_void, bytes: usize) -> Code {
    now(call!("cuMemcpy"), to, from, bytes, Direction::Any)
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemcpyAsync(to: *mut c_void, from: *const c_void, bytes: usize, stream: usize) -> Code {
    ordered(call!("cuMemcpyAsync"), to, from, bytes, Direction::Any, stream)
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemcpyHtoD_v2(to: *mut c_void, from: *const c_void, bytes: usize) -> Code {
    now(call!("cuMemcpyHtoD_v2"), to, from, bytes, Direction::HostToDevice)
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemcpyHtoDAsync_v2(
    to: *mut c_void,
    from: *const c_void,
    bytes: usize,
    stream: usize,
) -> Code {
    ordered(call!("cuMemcpyHtoDAsync_v2"), to, from, bytes, Direction::HostToDevice, stream)
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemcpyDtoH_v2(to: *mut c_void, from: *const c_void, bytes: usize) -> Code {
    now(call!("cuMemcpyDtoH_v2"), to, from, bytes, Direction::DeviceToHost)
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemcpyDtoHAsync_v2(
    to: *mut c_void,
    from: *const c_void,
    bytes: usize,
    stream: usize,
) -> Code {
    ordered(call!("cuMemcpyDtoHAsync_v2"), to, from, bytes, Direction::DeviceToHost, stream)
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemcpyDtoD_v2(to: *mut c_void, from: *const c_void, bytes: usize) -> Code {
    now(call!("cuMemcpyDtoD_v2"), to, from, bytes, Direction::DeviceToDevice)
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemcpyDtoDAsync_v2(
    to: *mut c_void,
    from: *const c_void,
    bytes: usize,
    stream: usize,
) -> Code {
    ordered(call!("cuMemcpyDtoDAsync_v2"), to, from, bytes, Direction::DeviceToDevice, stream)
}

/// The addresses say whose memory it is; the contexts only have to exist and work.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemcpyPeerAsync(
    to: *mut c_void,
    to_context: usize,
    from: *const c_void,
    from_context: usize,
    bytes: usize,
    stream: usize,
) -> Code {
    enter(call!("cuMemcpyPeerAsync"), || {
        for context in [to_context, from_context] {
            find(context)?.ok_or(Error::INVALID_CONTEXT)?.touch()?;
        }
        copy(&resolve(stream, current)?, to, from, bytes, Direction::DeviceToDevice)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemsetD8_v2(at: *mut c_void, value: c_uchar, bytes: usize) -> Code {
    enter(call!("cuMemsetD8_v2"), || {
        let stream = resolve(LEGACY, current)?;
        refuse_unsafe()?;
        fill(&stream, at, value.into(), bytes)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemsetD8Async(at: *mut c_void, value: c_uchar, bytes: usize, stream: usize) -> Code {
    enter(call!("cuMemsetD8Async"), || fill(&resolve(stream, current)?, at, value.into(), bytes))
}

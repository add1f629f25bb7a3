//! Copies and fills.

use crate::model::error::{Error, Result};
use crate::model::memory::{self, Kind};
use crate::model::order::{refuse_capture, submit};
use crate::model::stream::Stream;
use crate::model::work::{Address, Source, Task};
use std::ffi::c_void;
use std::sync::Arc;

/// What a copy says about its ends: `cudaMemcpyKind`, or a driver function that has it in its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    HostToHost,
    HostToDevice,
    DeviceToHost,
    DeviceToDevice,
    /// The addresses tell.
    Any,
}

impl TryFrom<i32> for Direction {
    type Error = Error;

    fn try_from(kind: i32) -> Result<Direction> {
        match kind {
            0 => Ok(Direction::HostToHost),
            1 => Ok(Direction::HostToDevice),
            2 => Ok(Direction::DeviceToHost),
            3 => Ok(Direction::DeviceToDevice),
            4 => Ok(Direction::Any),
            _ => Err(Error::INVALID_COPY_DIRECTION),
        }
    }
}

/// One end of a copy.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Pageable,
    /// Host memory that devices reach.
    Pinned,
    /// Managed memory, too.
    Device,
}

/// Checks that a range inside memory of the double stays inside, and that its end can be what the caller
/// says.
fn end(address: usize, bytes: usize, must_be_known: bool) -> Result<End> {
    if address == 0 {
        return Err(Error::INVALID_VALUE);
    }
    let Some(block) = memory::find(address) else {
        return if must_be_known { Err(Error::INVALID_VALUE) } else { Ok(End::Pageable) };
    };
    block.device.touch()?;
    if block.bytes - (address - block.base) < bytes {
        return Err(Error::INVALID_VALUE);
    }
    Ok(match block.kind {
        Kind::Device | Kind::Managed => End::Device,
        Kind::Pinned | Kind::Registered => End::Pinned,
    })
}

/// A copy that is complete when this returns.
pub fn copy_now(
    stream: &Arc<Stream>,
    to: *mut c_void,
    from: *const c_void,
    bytes: usize,
    direction: Direction,
) -> Result<()> {
    refuse_capture(stream)?;
    copy(stream, to, from, bytes, direction)?;
    stream.synchronize()
}

/// A copy in stream order.
pub fn copy(
    stream: &Arc<Stream>,
    to: *mut c_void,
    from: *const c_void,
    bytes: usize,
    direction: Direction,
) -> Result<()> {
    if bytes == 0 {
        return Ok(());
    }
    let to_device = matches!(direction, Direction::HostToDevice | Direction::DeviceToDevice);
    let from_device = matches!(direction, Direction::DeviceToHost | Direction::DeviceToDevice);
    let target = end(to as usize, bytes, to_device)?;
    let origin = end(from as usize, bytes, from_device)?;
    let capturing = stream.capture.member()?.is_some();
    let from = if origin == End::Pageable && !capturing {
        // SAFETY: the program asked for these bytes to be read, and may change them when the call has
        // returned.
        Source::Staged(unsafe { std::slice::from_raw_parts(from.cast::<u8>(), bytes) }.into())
    } else {
        Source::At(Address(from.cast_mut()))
    };
    submit(stream, Task::Copy { to: Address(to), from, bytes })?;
    if !capturing && (target == End::Pageable || (target == End::Pinned && origin != End::Device)) {
        stream.synchronize()?;
    }
    Ok(())
}

/// Sets bytes in stream order.
pub fn fill(stream: &Arc<Stream>, at: *mut c_void, value: i32, bytes: usize) -> Result<()> {
    if bytes == 0 {
        return Ok(());
    }
    end(at as usize, bytes, true)?;
    // As memset: the low byte counts.
    submit(stream, Task::Fill { at: Address(at), value: value as u8, bytes })
}

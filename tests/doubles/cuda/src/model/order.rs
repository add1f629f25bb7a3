//! Submission to a stream, with capture and with the rules of the legacy default stream.

use crate::model::capture;
use crate::model::device::Device;
use crate::model::error::{Error, Result};
use crate::model::record::Record;
use crate::model::stream::{Kind, STREAMS, Stream};
use crate::model::thread;
use crate::model::work::{Op, Task};
use std::sync::Arc;

/// Finds a stream by what C calls it; default streams are those of the given device.
pub fn resolve(handle: usize, device: impl FnOnce() -> Result<&'static Device>) -> Result<Arc<Stream>> {
    let stream = match handle {
        0 | 1 => device()?.legacy().clone(),
        2 => thread::default_stream(device()?)?,
        _ => STREAMS.get(handle)?,
    };
    stream.device.touch()?;
    Ok(stream)
}

/// Runs in stream order, or becomes part of the graph that the stream captures.
pub fn submit(stream: &Arc<Stream>, task: Task) -> Result<()> {
    match stream.capture.member()? {
        Some(member) => member.add(task),
        None => enqueue(stream, [Op::Task(task)]),
    }
}

/// For work that no graph can hold.
pub fn refuse_capture(stream: &Stream) -> Result<()> {
    match stream.capture.member()? {
        Some(member) => {
            member.capture.invalidate();
            Err(Error::CAPTURE_UNSUPPORTED)
        }
        None => Ok(()),
    }
}

/// Appends after what the stream must wait for.
pub fn enqueue<const N: usize>(stream: &Arc<Stream>, ops: [Op; N]) -> Result<()> {
    order(stream)?;
    stream.push(ops)
}

/// As `enqueue`, for any number.
pub fn enqueue_all(stream: &Arc<Stream>, ops: Vec<Op>) -> Result<()> {
    order(stream)?;
    stream.push(ops)
}

/// Lets the legacy stream wait for blocking streams, and these for it. No cycle can come of it, however
/// threads interleave: a wait is only ever appended after the mark it waits for.
fn order(stream: &Arc<Stream>) -> Result<()> {
    if stream.kind == Kind::Legacy {
        capture::refuse_legacy(stream.device)?;
        for other in stream.device.streams() {
            if other.is_blocking() && !other.is_idle() {
                wait_for(stream, &other)?;
            }
        }
    } else if stream.is_blocking()
        && let Some(legacy) = stream.device.existing_legacy()
        && !legacy.is_idle()
    {
        wait_for(stream, legacy)?;
    }
    Ok(())
}

fn wait_for(stream: &Arc<Stream>, other: &Arc<Stream>) -> Result<()> {
    let record = Record::new();
    match other.push([Op::mark(&record)]) {
        Ok(()) => stream.push([Op::Wait(record)]),
        // It was destroyed meanwhile, and its last work is not ordered after that.
        Err(Error::INVALID_HANDLE) => Ok(()),
        Err(error) => Err(error),
    }
}

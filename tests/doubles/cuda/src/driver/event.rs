//! Events.

use super::{Code, current, enter};
use crate::face::Out;
use crate::model::calls::call;
use crate::model::capture::refuse_unsafe;
use crate::model::error::{Error, Result};
use crate::model::event::{EVENTS, Event};
use crate::model::order::resolve;
use std::ffi::c_uint;

#[unsafe(no_mangle)]
pub extern "C" fn cuEventCreate(event: Out<usize>, flags: c_uint) -> Code {
    enter(call!("cuEventCreate"), || {
        let event = event.required()?;
        event.set(Event::create(current()?, flags)?)
    })
}

fn record(event: usize, stream: usize, flags: c_uint) -> Result<()> {
    let stream = resolve(stream, current)?;
    // CU_EVENT_RECORD_EXTERNAL
    if flags > 1 {
        return Err(Error::INVALID_VALUE);
    }
    Event::get(event)?.record(&stream, flags == 1)
}

#[unsafe(no_mangle)]
pub extern "C" fn cuEventRecord(event: usize, stream: usize) -> Code {
    enter(call!("cuEventRecord"), || record(event, stream, 0))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuEventRecordWithFlags(event: usize, stream: usize, flags: c_uint) -> Code {
    enter(call!("cuEventRecordWithFlags"), || record(event, stream, flags))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuEventQuery(event: usize) -> Code {
    enter(call!("cuEventQuery"), || {
        let event = Event::get(event)?;
        refuse_unsafe()?;
        event.query()
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuEventSynchronize(event: usize) -> Code {
    enter(call!("cuEventSynchronize"), || {
        let event = Event::get(event)?;
        refuse_unsafe()?;
        event.synchronize()
    })
}

fn elapsed(milliseconds: Out<f32>, start: usize, end: usize) -> Result<()> {
    let milliseconds = milliseconds.required()?;
    milliseconds.set(Event::get(start)?.elapsed(&*Event::get(end)?)?)
}

#[unsafe(no_mangle)]
pub extern "C" fn cuEventElapsedTime(milliseconds: Out<f32>, start: usize, end: usize) -> Code {
    enter(call!("cuEventElapsedTime"), || elapsed(milliseconds, start, end))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuEventElapsedTime_v2(milliseconds: Out<f32>, start: usize, end: usize) -> Code {
    enter(call!("cuEventElapsedTime_v2"), || elapsed(milliseconds, start, end))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuEventDestroy_v2(event: usize) -> Code {
    enter(call!("cuEventDestroy_v2"), || EVENTS.remove(event)?.device.touch())
}

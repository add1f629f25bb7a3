//! Events.

use super::{Code, current, enter};
use crate::face::Out;
use crate::model::calls::call;
use crate::model::capture::refuse_unsafe;
use crate::model::error::{Error, Result};
use crate::model::event::{EVENTS, Event};
use crate::model::order::resolve;
use std::ffi::c_uint;

fn create(event: Out<usize>, flags: c_uint) -> Result<()> {
    let event = event.required()?;
    event.set(Event::create(current()?, flags)?)
}

#[unsafe(no_mangle)]
extern "C" fn cudaEventCreate(event: Out<usize>) -> Code {
    enter(call!("cudaEventCreate"), || create(event, 0))
}

#[unsafe(no_mangle)]
extern "C" fn cudaEventCreateWithFlags(event: Out<usize>, flags: c_uint) -> Code {
    enter(call!("cudaEventCreateWithFlags"), || create(event, flags))
}

#[unsafe(no_mangle)]
extern "C" fn cudaEventRecord(event: usize, stream: usize) -> Code {
    enter(call!("cudaEventRecord"), || record(event, stream, 0))
}

#[unsafe(no_mangle)]
extern "C" fn cudaEventRecordWithFlags(event: usize, stream: usize, flags: c_uint) -> Code {
    enter(call!("cudaEventRecordWithFlags"), || record(event, stream, flags))
}

fn record(event: usize, stream: usize, flags: c_uint) -> Result<()> {
    let stream = resolve(stream, current)?;
    // cudaEventRecordExternal
    if flags > 1 {
        return Err(Error::INVALID_VALUE);
    }
    Event::get(event)?.record(&stream, flags == 1)
}

#[unsafe(no_mangle)]
extern "C" fn cudaEventQuery(event: usize) -> Code {
    enter(call!("cudaEventQuery"), || {
        let event = Event::get(event)?;
        refuse_unsafe()?;
        event.query()
    })
}

#[unsafe(no_mangle)]
extern "C" fn cudaEventSynchronize(event: usize) -> Code {
    enter(call!("cudaEventSynchronize"), || {
        let event = Event::get(event)?;
        refuse_unsafe()?;
        event.synchronize()
    })
}

#[unsafe(no_mangle)]
extern "C" fn cudaEventElapsedTime(milliseconds: Out<f32>, start: usize, end: usize) -> Code {
    enter(call!("cudaEventElapsedTime"), || {
        let milliseconds = milliseconds.required()?;
        milliseconds.set(Event::get(start)?.elapsed(&*Event::get(end)?)?)
    })
}

/// Some headers of 12 offer it under this name as well.
#[unsafe(no_mangle)]
extern "C" fn cudaEventElapsedTime_v2(milliseconds: Out<f32>, start: usize, end: usize) -> Code {
    enter(call!("cudaEventElapsedTime_v2"), || {
        let milliseconds = milliseconds.required()?;
        milliseconds.set(Event::get(start)?.elapsed(&*Event::get(end)?)?)
    })
}

/// Who waits for the event goes on waiting.
#[unsafe(no_mangle)]
extern "C" fn cudaEventDestroy(event: usize) -> Code {
    enter(call!("cudaEventDestroy"), || EVENTS.remove(event)?.device.touch())
}

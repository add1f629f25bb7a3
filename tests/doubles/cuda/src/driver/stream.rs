//! Streams, and host functions in them.

use super::{Code, context, current, enter};
use crate::face::Out;
use crate::model::calls::call;
use crate::model::capture::refuse_unsafe;
use crate::model::error::{Error, Result};
use crate::model::event::Event;
use crate::model::order::{refuse_capture, resolve, submit};
use crate::model::stream::{self, LEAST_PRIORITY};
use crate::model::work::{Address, HostFunction, Task};
use std::ffi::{c_int, c_uint, c_ulonglong, c_void};

fn create(handle: Out<usize>, flags: c_uint, priority: c_int) -> Result<()> {
    let handle = handle.required()?;
    handle.set(stream::create(current()?, flags, priority)?)
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamCreate(stream: Out<usize>, flags: c_uint) -> Code {
    enter(call!("cuStreamCreate"), || create(stream, flags, LEAST_PRIORITY))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamCreateWithPriority(stream: Out<usize>, flags: c_uint, priority: c_int) -> Code {
    enter(call!("cuStreamCreateWithPriority"), || create(stream, flags, priority))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamDestroy_v2(stream: usize) -> Code {
    enter(call!("cuStreamDestroy_v2"), || stream::destroy(stream))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamQuery(stream: usize) -> Code {
    enter(call!("cuStreamQuery"), || {
        let stream = resolve(stream, current)?;
        refuse_capture(&stream)?;
        refuse_unsafe()?;
        if stream.is_idle() { Ok(()) } else { Err(Error::NOT_READY) }
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamSynchronize(stream: usize) -> Code {
    enter(call!("cuStreamSynchronize"), || {
        let stream = resolve(stream, current)?;
        refuse_capture(&stream)?;
        refuse_unsafe()?;
        stream.synchronize()
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamWaitEvent(stream: usize, event: usize, flags: c_uint) -> Code {
    enter(call!("cuStreamWaitEvent"), || {
        let stream = resolve(stream, current)?;
        // CU_EVENT_WAIT_EXTERNAL
        if flags > 1 {
            return Err(Error::INVALID_VALUE);
        }
        Event::get(event)?.hold(&stream, flags == 1)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamGetCtx(stream: usize, handle: Out<usize>) -> Code {
    enter(call!("cuStreamGetCtx"), || handle.set(context::handle(Some(resolve(stream, current)?.device))))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamGetFlags(stream: usize, flags: Out<c_uint>) -> Code {
    enter(call!("cuStreamGetFlags"), || flags.set(resolve(stream, current)?.flags()))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamGetPriority(stream: usize, priority: Out<c_int>) -> Code {
    enter(call!("cuStreamGetPriority"), || priority.set(resolve(stream, current)?.priority))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamGetId(stream: usize, id: Out<c_ulonglong>) -> Code {
    enter(call!("cuStreamGetId"), || id.set(resolve(stream, current)?.handle as c_ulonglong))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuLaunchHostFunc(stream: usize, function: Option<HostFunction>, data: *mut c_void) -> Code {
    enter(call!("cuLaunchHostFunc"), || {
        let function = function.ok_or(Error::INVALID_VALUE)?;
        submit(&resolve(stream, current)?, Task::Host { function, data: Address(data) })
    })
}

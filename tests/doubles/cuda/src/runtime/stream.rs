//! Streams, and host functions in them.

use super::{Code, current, enter};
use crate::face::Out;
use crate::model::calls::call;
use crate::model::capture::refuse_unsafe;
use crate::model::error::{Error, Result};
use crate::model::event::Event;
use crate::model::order::{enqueue, refuse_capture, resolve, submit};
use crate::model::stream::{self, LEAST_PRIORITY};
use crate::model::work::{Address, HostFunction, Op, StreamCallback, Task};
use std::ffi::{c_int, c_uint, c_ulonglong, c_void};

fn create(handle: Out<usize>, flags: c_uint, priority: c_int) -> Result<()> {
    let handle = handle.required()?;
    handle.set(stream::create(current()?, flags, priority)?)
}

#[unsafe(no_mangle)]
extern "C" fn cudaStreamCreate(stream: Out<usize>) -> Code {
    enter(call!("cudaStreamCreate"), || create(stream, 0, LEAST_PRIORITY))
}

#[unsafe(no_mangle)]
extern "C" fn cudaStreamCreateWithFlags(stream: Out<usize>, flags: c_uint) -> Code {
    enter(call!("cudaStreamCreateWithFlags"), || create(stream, flags, LEAST_PRIORITY))
}

#[unsafe(no_mangle)]
extern "C" fn cudaStreamCreateWithPriority(stream: Out<usize>, flags: c_uint, priority: c_int) -> Code {
    enter(call!("cudaStreamCreateWithPriority"), || create(stream, flags, priority))
}

#[unsafe(no_mangle)]
extern "C" fn cudaStreamDestroy(stream: usize) -> Code {
    enter(call!("cudaStreamDestroy"), || stream::destroy(stream))
}

#[unsafe(no_mangle)]
extern "C" fn cudaStreamSynchronize(stream: usize) -> Code {
    enter(call!("cudaStreamSynchronize"), || {
        let stream = resolve(stream, current)?;
        refuse_capture(&stream)?;
        refuse_unsafe()?;
        stream.synchronize()
    })
}

#[unsafe(no_mangle)]
extern "C" fn cudaStreamQuery(stream: usize) -> Code {
    enter(call!("cudaStreamQuery"), || {
        let stream = resolve(stream, current)?;
        refuse_capture(&stream)?;
        refuse_unsafe()?;
        if stream.is_idle() { Ok(()) } else { Err(Error::NOT_READY) }
    })
}

#[unsafe(no_mangle)]
extern "C" fn cudaStreamWaitEvent(stream: usize, event: usize, flags: c_uint) -> Code {
    enter(call!("cudaStreamWaitEvent"), || {
        let stream = resolve(stream, current)?;
        // cudaEventWaitExternal
        if flags > 1 {
            return Err(Error::INVALID_VALUE);
        }
        Event::get(event)?.hold(&stream, flags == 1)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cudaLaunchHostFunc(stream: usize, function: Option<HostFunction>, data: *mut c_void) -> Code {
    enter(call!("cudaLaunchHostFunc"), || {
        let function = function.ok_or(Error::INVALID_VALUE)?;
        submit(&resolve(stream, current)?, Task::Host { function, data: Address(data) })
    })
}

/// Not run when the device broke before, while genuine ones are called with the error.
#[unsafe(no_mangle)]
extern "C" fn cudaStreamAddCallback(
    stream: usize,
    function: Option<StreamCallback>,
    data: *mut c_void,
    flags: c_uint,
) -> Code {
    enter(call!("cudaStreamAddCallback"), || {
        let function = function.filter(|_| flags == 0).ok_or(Error::INVALID_VALUE)?;
        let found = resolve(stream, current)?;
        refuse_capture(&found)?;
        enqueue(&found, [Op::Callback { function, stream, data: Address(data) }])
    })
}

#[unsafe(no_mangle)]
extern "C" fn cudaStreamGetPriority(stream: usize, priority: Out<c_int>) -> Code {
    enter(call!("cudaStreamGetPriority"), || priority.set(resolve(stream, current)?.priority))
}

#[unsafe(no_mangle)]
extern "C" fn cudaStreamGetFlags(stream: usize, flags: Out<c_uint>) -> Code {
    enter(call!("cudaStreamGetFlags"), || flags.set(resolve(stream, current)?.flags()))
}

#[unsafe(no_mangle)]
extern "C" fn cudaStreamGetId(stream: usize, id: Out<c_ulonglong>) -> Code {
    enter(call!("cudaStreamGetId"), || id.set(resolve(stream, current)?.handle as c_ulonglong))
}

#[unsafe(no_mangle)]
extern "C" fn cudaStreamGetDevice(stream: usize, ordinal: Out<c_int>) -> Code {
    enter(call!("cudaStreamGetDevice"), || ordinal.set(resolve(stream, current)?.device.ordinal))
}

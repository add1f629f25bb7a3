//! Contexts. Each device has one, its primary context, which is there whether it is held or not: releasing it
//! destroys nothing.

use super::{Code, current, enter};
use crate::face::Out;
use crate::model::calls::call;
use crate::model::capture::refuse_device;
use crate::model::device::{Device, device};
use crate::model::error::{Error, Result};
use crate::model::{stream, thread};
use std::ffi::{c_int, c_uint};
use std::sync::atomic::Ordering;

/// Contexts look like pointers into a page that nobody maps, in the order of their devices.
const FIRST: usize = 0x00cd_a0ff_0000_0000;
const APART: usize = 0x100;

pub fn handle(device: Option<&'static Device>) -> usize {
    device.map_or(0, |device| FIRST + device.ordinal as usize * APART)
}

/// None for NULL.
pub fn find(context: usize) -> Result<Option<&'static Device>> {
    if context == 0 {
        return Ok(None);
    }
    let offset = context.checked_sub(FIRST).filter(|offset| offset % APART == 0);
    let ordinal = offset.and_then(|offset| c_int::try_from(offset / APART).ok());
    let found = ordinal.and_then(|ordinal| device(ordinal).ok());
    found.map(Some).ok_or(Error::INVALID_CONTEXT)
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDevicePrimaryCtxRetain(context: Out<usize>, ordinal: c_int) -> Code {
    enter(call!("cuDevicePrimaryCtxRetain"), || {
        let context = context.required()?;
        let device = device(ordinal)?;
        device.touch()?;
        device.retains.fetch_add(1, Ordering::Relaxed);
        context.set(handle(Some(device)))
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDevicePrimaryCtxRelease_v2(ordinal: c_int) -> Code {
    enter(call!("cuDevicePrimaryCtxRelease_v2"), || {
        let retains = &device(ordinal)?.retains;
        let less = |held: u64| held.checked_sub(1);
        let released = retains.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        released.map(drop).map_err(|_| Error::INVALID_CONTEXT)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDevicePrimaryCtxGetState(ordinal: c_int, flags: Out<c_uint>, active: Out<c_int>) -> Code {
    enter(call!("cuDevicePrimaryCtxGetState"), || {
        let device = device(ordinal)?;
        flags.set_if_wanted(0);
        active.set_if_wanted(c_int::from(device.retains.load(Ordering::Relaxed) > 0));
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuCtxGetCurrent(context: Out<usize>) -> Code {
    enter(call!("cuCtxGetCurrent"), || context.set(handle(thread::current())))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuCtxSetCurrent(context: usize) -> Code {
    enter(call!("cuCtxSetCurrent"), || {
        let device = find(context)?;
        // A broken one becomes current, too, so that who ignores the error meets it again.
        thread::set_current(device);
        device.map_or(Ok(()), Device::touch)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuCtxPushCurrent_v2(context: usize) -> Code {
    enter(call!("cuCtxPushCurrent_v2"), || {
        let device = find(context)?.ok_or(Error::INVALID_CONTEXT)?;
        thread::push(Some(device))?;
        device.touch()
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuCtxPopCurrent_v2(context: Out<usize>) -> Code {
    enter(call!("cuCtxPopCurrent_v2"), || {
        let popped = thread::pop()?;
        context.set_if_wanted(handle(Some(popped)));
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuCtxGetDevice(ordinal: Out<c_int>) -> Code {
    enter(call!("cuCtxGetDevice"), || ordinal.set(thread::current_context()?.ordinal))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuCtxSynchronize() -> Code {
    enter(call!("cuCtxSynchronize"), || {
        let device = current()?;
        refuse_device(device)?;
        device.synchronize()
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuCtxGetStreamPriorityRange(least: Out<c_int>, greatest: Out<c_int>) -> Code {
    enter(call!("cuCtxGetStreamPriorityRange"), || {
        current()?;
        least.set_if_wanted(stream::LEAST_PRIORITY);
        greatest.set_if_wanted(stream::GREATEST_PRIORITY);
        Ok(())
    })
}

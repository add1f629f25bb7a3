//! The driver's face. Contexts are the devices' primary ones; every object is the runtime's, too.
#![allow(non_snake_case)]

mod capture;
mod context;
mod device;
pub mod entries;
mod error;
mod event;
mod graph;
mod memory;
mod stream;
mod transfer;

use crate::model::calls::{Call, guarded, plain};
use crate::model::device::{Device, is_initialized};
use crate::model::error::{Error, Result};
use crate::model::thread;
use std::ffi::c_int;

/// What every function returns: `CUresult`.
type Code = c_int;

/// A function that needs cuInit to have succeeded, which needs a device in the machine.
fn enter(call: &'static Call, body: impl FnOnce() -> Result<()>) -> Code {
    let initialized = || if is_initialized() { body() } else { Err(Error::NOT_INITIALIZED) };
    report(guarded(call, initialized))
}

/// A function that does not.
fn enter_plain(call: &'static Call, body: impl FnOnce() -> Result<()>) -> Code {
    report(plain(call, body))
}

fn report(result: Result<()>) -> Code {
    match result {
        Ok(()) => 0,
        // The driver has no code for this one.
        Err(Error::INVALID_COPY_DIRECTION) => Error::INVALID_VALUE.0,
        Err(Error(code)) => code,
    }
}

/// The current context's device, which a call without any other uses.
fn current() -> Result<&'static Device> {
    let device = thread::current_context()?;
    device.touch()?;
    Ok(device)
}

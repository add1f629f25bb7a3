//! The runtime's face. Signatures are those of the runtime's headers 12 and 13; handles are addresses to C
//! and numbers here, enumerations are integers.
#![allow(non_snake_case)]

mod capture;
mod device;
mod error;
mod event;
mod graph;
mod memory;
mod properties;
mod stream;
mod transfer;

use crate::model::calls::{Call, guarded, plain};
use crate::model::device::{Device, mark_initialized};
use crate::model::error::{Error, Result};
use crate::model::thread;
use std::ffi::c_int;

/// What every function returns: `cudaError_t`.
type Code = c_int;

/// A function that needs a device in the machine.
fn enter(call: &'static Call, body: impl FnOnce() -> Result<()>) -> Code {
    let initialized = || {
        mark_initialized();
        body()
    };
    report(guarded(call, initialized))
}

/// A function that does not, and that callbacks may use.
fn enter_plain(call: &'static Call, body: impl FnOnce() -> Result<()>) -> Code {
    report(plain(call, body))
}

fn report(result: Result<()>) -> Code {
    match result {
        Ok(()) => 0,
        Err(Error(code)) => {
            thread::set_last_error(code);
            code
        }
    }
}

/// The device that a call without any other uses.
fn current() -> Result<&'static Device> {
    let device = thread::current_or_first()?;
    device.touch()?;
    Ok(device)
}

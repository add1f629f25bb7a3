//! Errors.

use super::Code;
use crate::model::calls::{call, plain};
use crate::model::error::{Error, describe};
use crate::model::thread;
use std::ffi::{CStr, c_char};

/// The thread's last error. A sticky one of its current device is always the last.
fn last() -> Code {
    let sticky = thread::current().and_then(|device| device.sticky());
    sticky.map_or_else(thread::last_error, |Error(code)| code)
}

/// These two do not leave an error behind by themselves.
#[unsafe(no_mangle)]
extern "C" fn cudaGetLastError() -> Code {
    let mut code = 0;
    let asked = plain(call!("cudaGetLastError"), || {
        code = last();
        thread::set_last_error(0);
        Ok(())
    });
    asked.map_or_else(|Error(fault)| fault, |()| code)
}

#[unsafe(no_mangle)]
extern "C" fn cudaPeekAtLastError() -> Code {
    let mut code = 0;
    let asked = plain(call!("cudaPeekAtLastError"), || {
        code = last();
        Ok(())
    });
    asked.map_or_else(|Error(fault)| fault, |()| code)
}

/// The names live as long as the library.
#[unsafe(no_mangle)]
extern "C" fn cudaGetErrorName(code: Code) -> *const c_char {
    describe(code).map_or(c"unrecognized error code", |known| known.runtime).as_ptr()
}

#[unsafe(no_mangle)]
extern "C" fn cudaGetErrorString(code: Code) -> *const c_char {
    let text: &'static CStr = describe(code).map_or(c"unrecognized error code", |known| known.text);
    text.as_ptr()
}

//! Names of errors.

use super::{Code, enter_plain};
use crate::face::Out;
use crate::model::calls::call;
use crate::model::error::{Description, Error, describe};
use std::ffi::{CStr, c_char};

/// NULL for a code that does not exist.
fn tell(code: Code, text: Out<*const c_char>, part: fn(&Description) -> &'static CStr) -> Result<(), Error> {
    let known = describe(code);
    text.set(known.map_or(std::ptr::null(), |known| part(known).as_ptr()))?;
    known.map(drop).ok_or(Error::INVALID_VALUE)
}

#[unsafe(no_mangle)]
pub extern "C" fn cuGetErrorName(code: Code, text: Out<*const c_char>) -> Code {
    enter_plain(call!("cuGetErrorName"), || tell(code, text, |known| known.driver))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuGetErrorString(code: Code, text: Out<*const c_char>) -> Code {
    enter_plain(call!("cuGetErrorString"), || tell(code, text, |known| known.text))
}

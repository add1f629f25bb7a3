//! Parameters as C passes them. Only C makes these values, so its contract comes with them: a pointer is NULL
//! or points to what its type says for as long as the call lasts.

pub mod capture_info;

use crate::model::error::{Error, Result};
use std::ffi::{CStr, c_char};

/// Where a result goes.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct Out<T>(*mut T);

impl<T> Out<T> {
    /// Refuses NULL before the call has any effect.
    pub fn required(self) -> Result<Self> {
        if self.0.is_null() { Err(Error::INVALID_VALUE) } else { Ok(self) }
    }

    pub fn set(self, value: T) -> Result<()> {
        self.required()?.set_if_wanted(value);
        Ok(())
    }

    pub fn set_if_wanted(self, value: T) {
        if !self.0.is_null() {
            // SAFETY: C's contract. The old value is C's, which needs no dropping.
            unsafe { self.0.write(value) }
        }
    }

    pub fn address(self) -> *mut T {
        self.0
    }

    /// For results whose type another parameter tells.
    pub fn cast<U>(self) -> Out<U> {
        Out(self.0.cast())
    }
}

impl<T: Copy> Out<T> {
    /// For parameters that go both ways.
    pub fn get(self) -> Result<T> {
        self.required()?;
        // SAFETY: C's contract.
        Ok(unsafe { self.0.read() })
    }
}

/// A string.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct Text(*const c_char);

impl Text {
    /// Names of functions are ASCII; others name nothing.
    pub fn get(&self) -> Result<&str> {
        if self.0.is_null() {
            return Err(Error::INVALID_VALUE);
        }
        // SAFETY: C's contract.
        unsafe { CStr::from_ptr(self.0) }.to_str().map_err(|_| Error::INVALID_VALUE)
    }
}

/// Writes a string and its end into C's array, cut to its length.
pub fn write_text(at: Out<c_char>, length: i32, text: &[u8]) -> Result<()> {
    let length = usize::try_from(length).ok().filter(|&length| length > 0).ok_or(Error::INVALID_VALUE)?;
    let at = at.required()?.address();
    let kept = text.len().min(length - 1);
    // SAFETY: C's contract: the array has this length, which is more than what is kept and its end.
    unsafe {
        std::ptr::copy_nonoverlapping(text.as_ptr().cast::<c_char>(), at, kept);
        at.add(kept).write(0);
    }
    Ok(())
}

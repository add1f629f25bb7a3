//! Checks of arguments. Every error names the argument as the header does.

use core::ffi::{CStr, c_char};
use multiworld::error::{Error, Result};
use multiworld::nccl::types::ncclDataType_t;
use multiworld::types::DataType;
use std::ptr::NonNull;

/// Where a result goes.
#[derive(Clone, Copy)]
pub struct Out<T>(NonNull<T>);

// SAFETY: the caller keeps the place writable while the function, or the group that it is part of, runs;
// whoever holds this writes at most once at a time. What is written are numbers, handles among them.
unsafe impl<T: Copy> Send for Out<T> {}

impl<T> Out<T> {
    /// # Safety
    /// `ptr` is NULL, misaligned (both are errors) or may be written for as long as the result is used.
    pub unsafe fn new(ptr: *mut T, name: &str) -> Result<Out<T>> {
        match NonNull::new(ptr) {
            Some(ptr) if ptr.is_aligned() => Ok(Out(ptr)),
            _ => Err(unusable(ptr.addr(), name)),
        }
    }

    /// Writes it.
    pub fn set(&self, value: T) {
        // SAFETY: not null and aligned by `new`, writable by its contract. What was there may be
        // uninitialised.
        unsafe { self.0.write(value) };
    }
}

#[cold]
fn unusable(address: usize, name: &str) -> Error {
    match address {
        0 => Error::argument(format!("{name}: NULL")),
        _ => Error::argument(format!("{name}: {address:#x} is not aligned for its type")),
    }
}

/// A string argument.
///
/// # Safety
/// `ptr` is NULL or a C string that stays as it is while the result is used.
pub unsafe fn text<'a>(ptr: *const c_char, name: &str) -> Result<&'a str> {
    if ptr.is_null() {
        return Err(Error::argument(format!("{name}: NULL")));
    }
    // SAFETY: a C string by this function's contract.
    let text = unsafe { CStr::from_ptr(ptr) };
    text.to_str().map_err(|_| Error::argument(format!("{name}: not valid UTF-8")))
}

/// A data type argument.
#[inline]
pub fn datatype(raw: ncclDataType_t) -> Result<DataType> {
    i32::try_from(raw)
        .ok()
        .and_then(DataType::from_raw)
        .ok_or_else(|| Error::argument(format!("datatype: {raw} is no ncclDataType_t")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_need_a_place() {
        let mut place = [0u32; 2];
        // SAFETY: writable, or refused.
        unsafe {
            let null = Out::<u32>::new(std::ptr::null_mut(), "count").err().map(|e| e.to_string());
            assert_eq!(null.as_deref(), Some("count: NULL"));
            let odd = place.as_mut_ptr().cast::<u8>().add(1).cast::<u32>();
            assert!(Out::new(odd, "count").is_err());
            Out::new(&raw mut place[1], "count").unwrap().set(7);
        }
        assert_eq!(place, [0, 7]);
        assert_eq!(datatype(12).unwrap_err().to_string(), "datatype: 12 is no ncclDataType_t");
        assert!(datatype(u32::MAX).is_err());
    }
}

//! Checks and conversions of arguments. Every error names the argument as the header does.

use crate::error::{Error, Result};
use std::ffi::{CStr, c_char, c_int};
use std::ptr::NonNull;
use std::time::{Duration, Instant};

/// Where a result goes.
pub(super) struct Out<T>(NonNull<T>);

impl<T> Out<T> {
    /// # Safety
    /// `ptr` is NULL, misaligned (both are errors) or may be written for as long as the result is used.
    pub(super) unsafe fn new(ptr: *mut T, name: &str) -> Result<Out<T>> {
        match NonNull::new(ptr) {
            None => Err(Error::argument(format!("{name}: NULL"))),
            Some(ptr) if !ptr.is_aligned() => {
                Err(Error::argument(format!("{name}: {ptr:p} is not aligned for its type")))
            }
            Some(ptr) => Ok(Out(ptr)),
        }
    }

    pub(super) fn set(&self, value: T) {
        // SAFETY: not null and aligned by `new`, writable by its contract. What was there may be
        // uninitialised.
        unsafe { self.0.write(value) };
    }
}

impl<T: Copy> Out<T> {
    /// What the caller put there, for arguments that go both ways.
    ///
    /// # Safety
    /// The caller's contract says that it is initialised.
    pub(super) unsafe fn get(&self) -> T {
        // SAFETY: as for `set`, and initialised by this function's contract.
        unsafe { self.0.read() }
    }
}

/// A string argument.
///
/// # Safety
/// `ptr` is NULL or a C string that stays as it is while the result is used.
pub(super) unsafe fn text<'a>(ptr: *const c_char, name: &str) -> Result<&'a str> {
    if ptr.is_null() {
        return Err(Error::argument(format!("{name}: NULL")));
    }
    // SAFETY: a C string by this function's contract.
    let text = unsafe { CStr::from_ptr(ptr) };
    text.to_str().map_err(|_| Error::argument(format!("{name}: not valid UTF-8")))
}

/// The end of a wait; `None` for one without end.
pub(super) fn deadline(timeout_ms: c_int) -> Option<Instant> {
    timeout(timeout_ms).map(|timeout| Instant::now() + timeout)
}

/// The length of a wait; `None` for one without end.
pub(super) fn timeout(timeout_ms: c_int) -> Option<Duration> {
    u64::try_from(timeout_ms).ok().map(Duration::from_millis)
}

/// `text` in a field of fixed size, cut between two characters if need be, filled up with NUL.
pub(super) fn field<const N: usize>(text: &str) -> [c_char; N] {
    let mut field = [0; N];
    let mut cut = text.len().min(N - 1);
    while !text.is_char_boundary(cut) {
        cut -= 1;
    }
    for (to, from) in field.iter_mut().zip(text.bytes().take(cut)) {
        *to = from.cast_signed() as c_char;
    }
    field
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_need_a_place() {
        let mut place = [0u32; 2];
        // SAFETY: writable, or refused.
        unsafe {
            assert_eq!(
                Out::<u32>::new(std::ptr::null_mut(), "count").err().unwrap().to_string(),
                "count: NULL"
            );
            let odd = place.as_mut_ptr().cast::<u8>().add(1).cast::<u32>();
            assert!(Out::new(odd, "count").err().unwrap().to_string().starts_with("count: 0x"));
            Out::new(&raw mut place[1], "count").unwrap().set(7);
        }
        assert_eq!(place, [0, 7]);
    }

    #[test]
    fn fields_are_cut_between_characters() {
        assert_eq!(field::<4>("abcdef"), [97, 98, 99, 0]);
        assert_eq!(field::<4>("ab\u{fc}"), [97, 98, 0, 0]);
        assert_eq!(field::<4>(""), [0; 4]);
    }
}

//! Calls of the genuine library, by name: an error where this version has no such function, else whatever it
//! answers.

use crate::boundary;
use core::ffi::{c_char, c_int, c_uint, c_void};
use multiworld::error::Result;
use multiworld::nccl::Library;
use multiworld::nccl::types::*;

/// What the library answered, on its way to the caller.
trait Answered: Sized {
    /// Whether the library has an error to tell about.
    fn has_failed(&self) -> bool {
        false
    }
}

impl Answered for ncclResult_t {
    fn has_failed(&self) -> bool {
        !matches!(*self, ncclSuccess | ncclInProgress)
    }
}

impl Answered for () {}
impl Answered for *const c_char {}
impl Answered for c_int {}
impl Answered for ncclTeam_t {}

#[inline]
fn pass_on<T: Answered>(answer: T) -> T {
    if answer.has_failed() {
        // ncclGetLastError asks the library, then.
        boundary::forget_last();
    }
    answer
}

macro_rules! forward {
    ($(fn $name:ident($($arg:ident: $type:ty),*) $(-> $ret:ty)?;)*) => {
        $(
            /// # Safety
            /// As the library's function; communicators are its own.
            #[allow(dead_code, unused_parens)]
            #[inline(always)]
            pub unsafe fn $name(library: &Library, $($arg: $type),*) -> Result<($($ret)?)> {
                let function = library.functions.$name.ok_or_else(|| library.missing(stringify!($name)))?;
                // SAFETY: by this function's contract.
                Ok(pass_on(unsafe { function($($arg),*) }))
            }
        )*
    };
}
multiworld::nccl_functions!(forward);

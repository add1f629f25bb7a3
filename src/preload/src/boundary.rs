//! The boundary: errors become results, panics stay on this side, and each thread's last error is kept.

use crate::result;
use core::ffi::{CStr, c_char, c_int};
use multiworld::error::{Error, Result};
use multiworld::nccl::types::{ncclInternalError, ncclResult_t, ncclSuccess, ncclTeam_t};
use multiworld::world::World;
use std::any::Any;
use std::cell::RefCell;
use std::ffi::CString;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    /// The text of this thread's last error. A call that succeeds leaves it alone.
    static LAST_ERROR: RefCell<String> = const { RefCell::new(String::new()) };
    /// What was given out, kept until it is asked for again.
    static GIVEN_OUT: RefCell<CString> = RefCell::new(CString::default());
}

/// What a function's body comes to, as C gets it.
pub trait Answer<R> {
    /// The value for C.
    fn answer(self) -> R;
    /// The value for C after a panic.
    fn panicked() -> R;
}

impl Answer<ncclResult_t> for Result<()> {
    #[inline]
    fn answer(self) -> ncclResult_t {
        match self {
            Ok(()) => ncclSuccess,
            Err(e) => keep(&e),
        }
    }

    fn panicked() -> ncclResult_t {
        ncclInternalError
    }
}

/// For functions that have more than one way to go well.
impl Answer<ncclResult_t> for Result<ncclResult_t> {
    fn answer(self) -> ncclResult_t {
        self.unwrap_or_else(|e| keep(&e))
    }

    fn panicked() -> ncclResult_t {
        ncclInternalError
    }
}

macro_rules! plain {
    ($($type:ty = $panicked:expr),*) => {$(
        impl Answer<$type> for $type {
            fn answer(self) -> $type {
                self
            }

            fn panicked() -> $type {
                $panicked
            }
        }
    )*};
}
plain!(() = (), ncclResult_t = ncclInternalError, *const c_char = c"".as_ptr(), c_int = -1, ncclTeam_t = ALONE);

/// A team of the caller alone.
pub const ALONE: ncclTeam_t = ncclTeam_t { nRanks: 1, rank: 0, stride: 1 };

/// Runs the body of an exported function.
#[inline]
pub fn call<A: Answer<R>, R>(body: impl FnOnce() -> A) -> R {
    // Answered inside: what is carried out of the guard goes through memory, and a number is quicker there than an error.
    match catch_unwind(AssertUnwindSafe(|| body().answer())) {
        Ok(answer) => answer,
        Err(payload) => {
            keep(&caught(payload));
            A::panicked()
        }
    }
}

/// Runs what touches the insides of a world: a panic there ends the world and becomes an error.
#[inline]
pub fn within<T>(world: &World, body: impl FnOnce(&World) -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(|| body(world))).unwrap_or_else(|payload| {
        let error = caught(payload);
        if let Err(second) = catch_unwind(AssertUnwindSafe(|| world.abort())) {
            caught(second);
        }
        Err(error)
    })
}

/// The error that a panic is.
#[cold]
pub fn caught(payload: Box<dyn Any + Send>) -> Error {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default();
    // Dropping a payload of a foreign type could panic again, outside of any guard.
    std::mem::forget(payload);
    Error::internal(format!("a bug in multiworld: {text}"))
}

/// Keeps the text for ncclGetLastError; answers the result.
#[cold]
pub fn keep(error: &Error) -> ncclResult_t {
    // A thread that is going away has no place for the text any more; the code still tells.
    let _ = LAST_ERROR.try_with(|last| {
        if let Ok(mut last) = last.try_borrow_mut() {
            last.clear();
            last.push_str(&error.text);
        }
    });
    result::code(error.code)
}

/// Forgets this thread's last error: the genuine library has a newer one.
#[cold]
pub fn forget_last() {
    let _ = LAST_ERROR.try_with(|last| {
        if let Ok(mut last) = last.try_borrow_mut() {
            last.clear();
        }
    });
}

/// This thread's last error.
pub fn last_text() -> String {
    LAST_ERROR.try_with(|last| last.borrow().clone()).unwrap_or_default()
}

/// A text as C wants it: valid until this thread asks for the next.
pub fn give_out(text: &str) -> *const c_char {
    const NO_TEXT: &CStr = c"";
    let given = GIVEN_OUT.try_with(|given| {
        let mut given = given.borrow_mut();
        // Texts may quote what came from outside.
        *given = CString::new(text.replace('\0', "?")).unwrap_or_default();
        given.as_ptr()
    });
    given.unwrap_or(NO_TEXT.as_ptr())
}

#[cfg(test)]
mod tests {
    use super::*;
    use multiworld::nccl::types::{ncclInProgress, ncclInvalidArgument};

    fn result(body: impl FnOnce() -> Result<()>) -> ncclResult_t {
        call(body)
    }

    #[test]
    fn errors_and_panics_become_results_with_a_text() {
        assert_eq!(result(|| Err(Error::argument("count: a\0b"))), ncclInvalidArgument);
        assert_eq!(result(|| Ok(())), ncclSuccess);
        // SAFETY: a C string that this thread was just given.
        let given = unsafe { CStr::from_ptr(give_out(&last_text())) };
        assert_eq!(given, c"count: a?b");
        assert_eq!(result(|| panic!("on {}", "purpose")), ncclInternalError);
        assert_eq!(last_text(), "a bug in multiworld: on purpose");
        let ways: ncclResult_t = call(|| -> Result<ncclResult_t> { Ok(ncclInProgress) });
        assert_eq!(ways, ncclInProgress);
        let team: ncclTeam_t = call(|| -> ncclTeam_t { panic!() });
        assert_eq!((team.nRanks, team.rank), (1, 0));
    }
}

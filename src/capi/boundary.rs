//! The boundary itself: errors become codes, panics stay on this side, and this thread's last error is kept.

use super::result::mwResult_t;
use crate::error::{Error, Result};
use crate::sync::Arc;
use crate::world::World;
use std::any::Any;
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    /// The text of this thread's last error. A call that succeeds leaves it alone.
    static LAST_ERROR: RefCell<String> = const { RefCell::new(String::new()) };
    /// What [`last_error`] gave out, kept until it is asked again.
    static GIVEN_OUT: RefCell<CString> = RefCell::new(CString::default());
}

/// Runs the body of an exported function.
pub(super) fn guard(body: impl FnOnce() -> Result<()>) -> mwResult_t {
    guard_result(|| body().map(|()| mwResult_t::mwSuccess))
}

/// Runs the body of an exported function that has more than one way to go well.
pub(super) fn guard_result(body: impl FnOnce() -> Result<mwResult_t>) -> mwResult_t {
    let err = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(result)) => return result,
        Ok(Err(err)) => err,
        Err(payload) => caught(payload),
    };
    // A thread that is going away has no place for the text any more; the code still tells.
    let _ = LAST_ERROR.try_with(|last| {
        if let Ok(mut last) = last.try_borrow_mut() {
            last.clear();
            last.push_str(&err.text);
        }
    });
    err.code.into()
}

/// Runs what touches the insides of a world. A panic there leaves them in a state that nobody has thought of,
/// so the world is aborted and the panic becomes an error.
pub(super) fn within<T>(world: &Arc<World>, body: impl FnOnce(&Arc<World>) -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(|| body(world))).unwrap_or_else(|payload| {
        let err = caught(payload);
        if let Err(second) = catch_unwind(AssertUnwindSafe(|| world.abort())) {
            caught(second);
        }
        Err(err)
    })
}

/// The error that a panic is.
fn caught(payload: Box<dyn Any + Send>) -> Error {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default();
    // Dropping a payload of a foreign type could panic again, outside of any guard.
    std::mem::forget(payload);
    tracing::error!(text, "a panic was caught at the C boundary");
    Error::internal(format!("a bug in multiworld: {text}"))
}

/// `text`, or without it this thread's last error, as C wants it: valid until the thread asks again.
pub(super) fn last_error(text: Option<&str>) -> *const c_char {
    const NO_TEXT: &CStr = c"";
    let given = GIVEN_OUT.try_with(|given| {
        let text = match text {
            Some(text) => text.to_owned(),
            None => LAST_ERROR.try_with(|last| last.borrow().clone()).unwrap_or_default(),
        };
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

    fn last() -> String {
        // SAFETY: a C string that this thread was just given.
        unsafe { CStr::from_ptr(last_error(None)) }.to_str().unwrap().to_owned()
    }

    #[test]
    fn errors_are_kept_and_successes_leave_them() {
        assert_eq!(last(), "");
        assert_eq!(guard(|| Err(Error::argument("count: a\0b"))), mwResult_t::mwInvalidArgument);
        assert_eq!(guard(|| Ok(())), mwResult_t::mwSuccess);
        assert_eq!(last(), "count: a?b");
        std::thread::spawn(|| assert_eq!(last(), "")).join().unwrap();
    }

    #[test]
    fn a_panic_is_an_internal_error() {
        assert_eq!(guard(|| panic!("on {}", "purpose")), mwResult_t::mwInternalError);
        assert_eq!(last(), "a bug in multiworld: on purpose");
    }
}

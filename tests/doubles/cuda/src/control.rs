//! What tests use to break and hold the double, under names that CUDA does not have.

use crate::face::Text;
use crate::model::calls;
use crate::model::device::device;
use crate::model::error::{Error, Result};
use crate::model::order::resolve;
use crate::model::thread::current_or_first;
use std::ffi::c_int;
use std::panic::{AssertUnwindSafe, catch_unwind};

fn control(body: impl FnOnce() -> Result<()>) -> c_int {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => 0,
        Ok(Err(Error(code))) => code,
        Err(_) => Error::UNKNOWN.0,
    }
}

/// Breaks a device: from now on every call that touches it returns this error, its streams drop their work (a
/// host function that is running ends on its own), and everybody who waits for them gets the error. Returns 0
/// or why not.
#[unsafe(no_mangle)]
pub extern "C" fn mwDoubleCudaPoison(ordinal: c_int, error: c_int) -> c_int {
    control(|| {
        if error <= 0 {
            return Err(Error::INVALID_VALUE);
        }
        device(ordinal)?.poison(error);
        Ok(())
    })
}

/// Makes a broken device work again, which CUDA cannot. What was dropped stays dropped.
#[unsafe(no_mangle)]
pub extern "C" fn mwDoubleCudaHeal(ordinal: c_int) -> c_int {
    control(|| {
        device(ordinal)?.heal();
        Ok(())
    })
}

/// How often the program called the function with this name, in this process; 0 for a name that does not
/// exist.
#[unsafe(no_mangle)]
pub extern "C" fn mwDoubleCudaCalls(name: Text) -> u64 {
    let count = || name.get().map(calls::calls).unwrap_or(0);
    catch_unwind(AssertUnwindSafe(count)).unwrap_or(0)
}

/// Holds a stream: it takes up no work after that which it is at. The default streams are those of the
/// current device and thread.
#[unsafe(no_mangle)]
pub extern "C" fn mwDoubleCudaPark(stream: usize) -> c_int {
    park(stream, true)
}

/// Lets a held stream go on. Destroying it does, too.
#[unsafe(no_mangle)]
pub extern "C" fn mwDoubleCudaUnpark(stream: usize) -> c_int {
    park(stream, false)
}

fn park(stream: usize, parked: bool) -> c_int {
    control(|| {
        resolve(stream, current_or_first)?.park(parked);
        Ok(())
    })
}

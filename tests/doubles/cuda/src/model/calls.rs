//! What every exported function goes through: it is counted, may set off a fault, and cannot panic.

use crate::model::device::devices;
use crate::model::error::{Error, Result};
use crate::model::settings::settings;
use crate::model::{lock, thread};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};

/// A function's name and how often it was called.
pub struct Call {
    name: &'static str,
    count: AtomicU64,
    listed: AtomicBool,
    triggers: OnceLock<Vec<(u64, i32)>>,
}

/// Functions enter it with their first call.
static LISTED: Mutex<Vec<&'static Call>> = Mutex::new(Vec::new());

/// The counter of the function that this stands in.
macro_rules! call {
    ($name:literal) => {{
        static CALL: $crate::model::calls::Call = $crate::model::calls::Call::new($name);
        &CALL
    }};
}
pub(crate) use call;

impl Call {
    pub const fn new(name: &'static str) -> Call {
        Call { name, count: AtomicU64::new(0), listed: AtomicBool::new(false), triggers: OnceLock::new() }
    }

    fn count(&'static self) {
        // Relaxed: counts are compared by tests after they have synchronised by other means.
        if !self.listed.load(Ordering::Relaxed) && !self.listed.swap(true, Ordering::Relaxed) {
            lock(&LISTED).push(self);
        }
        let nth = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        let triggers = self.triggers.get_or_init(|| self.configured());
        if let Some(&(_, error)) = triggers.iter().find(|&&(when, _)| when == nth) {
            thread::arm(error);
        }
    }

    fn configured(&self) -> Vec<(u64, i32)> {
        let triggers = settings().map(|settings| settings.triggers.as_slice()).unwrap_or_default();
        let mine = triggers.iter().filter(|trigger| trigger.function == self.name);
        mine.map(|trigger| (trigger.nth, trigger.error)).collect()
    }
}

/// How often the function of this name was called in this process.
pub fn calls(name: &str) -> u64 {
    let listed = lock(&LISTED);
    listed.iter().filter(|call| call.name == name).map(|call| call.count.load(Ordering::Relaxed)).sum()
}

/// A function that needs a device in the machine.
pub fn guarded(call: &'static Call, body: impl FnOnce() -> Result<()>) -> Result<()> {
    plain(call, || {
        if thread::inside_callback() {
            return Err(Error::NOT_PERMITTED);
        }
        devices()?;
        body()
    })
}

/// A function that works without any device, and from inside callbacks.
pub fn plain(call: &'static Call, body: impl FnOnce() -> Result<()>) -> Result<()> {
    let called = || {
        call.count();
        let result = body();
        match thread::disarm() {
            None => result,
            // The call touched no device of its own, so the fault is the current one's.
            Some(error) => {
                let device = thread::current_or_first()?;
                device.poison(error);
                Err(Error(error))
            }
        }
    };
    catch_unwind(AssertUnwindSafe(called)).unwrap_or(Err(Error::UNKNOWN))
}

//! The script in force, the counters, and the `mwDouble...` functions by which a test steers and asks.

use crate::abi::{Code, INVALID_ARGUMENT, SUCCESS};
use crate::exports::Function;
use crate::record;
use crate::script::{Fault, Script};
use std::ffi::{CStr, c_char, c_int};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Once, PoisonError, RwLock};
use std::time::Duration;

static SCRIPT: RwLock<Option<Arc<Script>>> = RwLock::new(None);
static FROM_ENVIRONMENT: Once = Once::new();
static GENERATION: AtomicU64 = AtomicU64::new(0);
static MODE: AtomicU32 = AtomicU32::new(0);
static BUSY: AtomicU64 = AtomicU64::new(0);
static CALLS: [AtomicU64; Function::ALL.len()] = [const { AtomicU64::new(0) }; Function::ALL.len()];

/// What a call must look at, in one word so that looking is cheap.
#[derive(Clone, Copy)]
pub struct Mode(u32);

impl Mode {
    const READY: u32 = 1;
    const RULES: u32 = 2;
    const NULL: u32 = 4;
    const BUSY: u32 = 8;
    const BROKEN: u32 = 16;

    /// The mode in force. The first caller reads the environment.
    pub fn get() -> Mode {
        let mode = MODE.load(Ordering::Relaxed);
        if mode & Mode::READY != 0 {
            return Mode(mode);
        }
        FROM_ENVIRONMENT.call_once(|| {
            if MODE.load(Ordering::Relaxed) == 0 {
                install(Script::parse(&std::env::var("MW_DOUBLE_NCCL").unwrap_or_default()));
            }
        });
        Mode(MODE.load(Ordering::Relaxed))
    }

    /// Whether some rule may concern a call.
    pub fn has_rules(self) -> bool {
        self.0 & Mode::RULES != 0
    }

    /// Whether operations do nothing.
    pub fn is_null(self) -> bool {
        self.0 & (Mode::NULL | Mode::BUSY) != 0
    }

    /// Whether the script could not be read.
    pub fn is_broken(self) -> bool {
        self.0 & Mode::BROKEN != 0
    }

    /// What an operation that does nothing takes.
    pub fn busy_time(self) -> Option<Duration> {
        (self.0 & Mode::BUSY != 0).then(|| Duration::from_nanos(BUSY.load(Ordering::Relaxed)))
    }
}

fn install(script: Script) {
    if let Some(mistake) = &script.mistake {
        eprintln!("mwdouble nccl: mistake in the fault script: {mistake}");
        record::set_last_error(&format!("mistake in the fault script: {mistake}"));
    }
    let mut mode = Mode::READY;
    let mut set = |bit, on| mode |= if on { bit } else { 0 };
    set(Mode::RULES, !script.rules.is_empty());
    set(Mode::NULL, script.null_ops);
    set(Mode::BUSY, script.busy_ops.is_some());
    set(Mode::BROKEN, script.mistake.is_some());
    BUSY.store(script.busy_ops.unwrap_or_default().as_nanos() as u64, Ordering::Relaxed);
    *SCRIPT.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(script));
    MODE.store(mode, Ordering::Relaxed);
    GENERATION.fetch_add(1, Ordering::Relaxed);
}

/// The script in force.
pub fn script() -> Arc<Script> {
    Mode::get();
    SCRIPT.read().unwrap_or_else(PoisonError::into_inner).clone().unwrap_or_default()
}

/// Counts a call.
pub fn count(function: Function) {
    if let Some(calls) = CALLS.get(function as usize) {
        calls.fetch_add(1, Ordering::Relaxed);
    }
}

/// Holds the caller as the fault says: for a time, or until another script is set.
pub fn hold(fault: &Fault) {
    if let Some(time) = fault.block {
        std::thread::sleep(time);
    }
    if fault.hang {
        let generation = GENERATION.load(Ordering::Relaxed);
        while GENERATION.load(Ordering::Relaxed) == generation {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// SAFETY contract of the C strings below: NULL or NUL-terminated.
unsafe fn text<'a>(given: *const c_char) -> Option<&'a str> {
    if given.is_null() {
        return None;
    }
    // SAFETY: not NULL, and the caller vouches for the NUL.
    unsafe { CStr::from_ptr(given) }.to_str().ok()
}

/// Sets the script; NULL or an empty one has no faults. Calls that hang by the old one go on.
/// `ncclInvalidArgument` for a script with a mistake, after which every call fails.
///
/// # Safety
/// `given` is NULL or a NUL-terminated string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mwDoubleNcclScript(given: *const c_char) -> c_int {
    // SAFETY: the caller's promise is the same.
    let script = Script::parse(unsafe { text(given) }.unwrap_or_default());
    let answer: Code = if script.mistake.is_some() { INVALID_ARGUMENT } else { SUCCESS };
    install(script);
    answer
}

/// How often a function, named without the `nccl`, has been called in this process; `u64::MAX` for no
/// function.
///
/// # Safety
/// `name` is NULL or a NUL-terminated string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mwDoubleNcclCalls(name: *const c_char) -> u64 {
    // SAFETY: the caller's promise is the same.
    let name = unsafe { text(name) }.unwrap_or_default();
    let position = Function::ALL.iter().position(|function| function.name() == name);
    position.and_then(|at| CALLS.get(at)).map_or(u64::MAX, |calls| calls.load(Ordering::Relaxed))
}

/// The number of violations of NCCL's rules so far; their text, one per line, is copied as far as it fits.
///
/// # Safety
/// `buffer` is NULL or has room for `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mwDoubleNcclViolations(buffer: *mut c_char, size: usize) -> c_int {
    let (total, text) = record::violations();
    // SAFETY: the caller's promise is the same.
    unsafe { record::copy_out(&text, buffer, size) };
    c_int::try_from(total).unwrap_or(c_int::MAX)
}

/// Copies the log of the last calls as far as it fits, one `NAME COMM RANK` per line, and returns its length.
///
/// # Safety
/// `buffer` is NULL or has room for `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mwDoubleNcclLog(buffer: *mut c_char, size: usize) -> usize {
    // SAFETY: the caller's promise is the same.
    unsafe { record::copy_out(&record::log(), buffer, size) }
}

/// Forgets violations, log and counts, for the next test in the same process.
#[unsafe(no_mangle)]
pub extern "C" fn mwDoubleNcclReset() {
    record::forget();
    CALLS.iter().for_each(|calls| calls.store(0, Ordering::Relaxed));
}

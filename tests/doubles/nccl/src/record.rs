//! What the double remembers for the test: violations of NCCL's rules, the order of calls, the last error.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ffi::{CString, c_char};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How many calls and violations are kept.
const KEPT: usize = 4096;

static VIOLATIONS: Mutex<Record> = Mutex::new(Record::new());
static LOG: Mutex<Record> = Mutex::new(Record::new());
static LAST_ERROR: Mutex<String> = Mutex::new(String::new());

struct Record {
    lines: VecDeque<String>,
    total: u64,
}

impl Record {
    const fn new() -> Record {
        Record { lines: VecDeque::new(), total: 0 }
    }

    fn add(&mut self, line: String) {
        if self.lines.len() == KEPT {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
        self.total += 1;
    }

    fn text(&self) -> String {
        self.lines.iter().fold(String::new(), |text, line| text + line + "\n")
    }
}

/// A lock that a panic elsewhere does not take away.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Notes that the program under test broke a rule of NCCL, which the genuine library need not notice.
pub fn violation(sentence: &str) {
    eprintln!("mwdouble nccl: violation: {sentence}");
    lock(&VIOLATIONS).add(sentence.to_owned());
}

/// The number of violations and their text, one per line.
pub fn violations() -> (u64, String) {
    let record = lock(&VIOLATIONS);
    (record.total, record.text())
}

/// Notes a call: the function, the communicator's number in this process and its rank (both -1 for none).
pub fn log_call(name: &str, comm: i64, rank: i64) {
    lock(&LOG).add(format!("{name} {comm} {rank}"));
}

/// The last calls, one per line, oldest first.
pub fn log() -> String {
    lock(&LOG).text()
}

/// Forgets violations and calls.
pub fn forget() {
    *lock(&VIOLATIONS) = Record::new();
    *lock(&LOG) = Record::new();
    lock(&LAST_ERROR).clear();
}

/// What `ncclGetLastError` answers from now on, on every thread, as in NCCL.
pub fn set_last_error(sentence: &str) {
    sentence.clone_into(&mut lock(&LAST_ERROR));
}

thread_local! {
    static ANSWER: RefCell<CString> = RefCell::new(CString::default());
}

/// The last error as a C string that stays valid until this thread asks again.
pub fn last_error() -> *const c_char {
    let sentence = lock(&LAST_ERROR).replace('\0', " ");
    ANSWER.with_borrow_mut(|answer| {
        *answer = CString::new(sentence).unwrap_or_default();
        answer.as_ptr()
    })
}

/// Copies as much of the text as fits, and a NUL; the full length is returned.
///
/// # Safety
/// `buffer` has room for `size` bytes, or is NULL.
pub unsafe fn copy_out(text: &str, buffer: *mut c_char, size: usize) -> usize {
    if !buffer.is_null() && size > 0 {
        let copied = text.len().min(size - 1);
        // SAFETY: the caller's buffer has room for `size` bytes, and fewer than that are written.
        unsafe {
            std::ptr::copy_nonoverlapping(text.as_ptr(), buffer.cast(), copied);
            buffer.cast::<u8>().add(copied).write(0);
        }
    }
    text.len()
}

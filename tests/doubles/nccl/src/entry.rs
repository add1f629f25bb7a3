//! What every exported function passes through: counting, the script, the log, the panic boundary.

use crate::abi::{
    Code, CommPointer, IN_PROGRESS, INTERNAL_ERROR, INVALID_ARGUMENT, INVALID_USAGE, SUCCESS, describe,
};
use crate::comm::Comm;
use crate::control::{self, Mode};
use crate::exports::{Class, Function};
use crate::group;
use crate::handle::{self, Inside, Shell};
use crate::record::{log_call, set_last_error, violation};
use crate::script::Fault;
use std::ffi::{c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

/// What a call is about, as its arguments say.
#[derive(Clone, Copy)]
pub enum Subject {
    Nothing,
    Comm(CommPointer),
    Rank(c_int),
}

/// A call on its way through the double.
pub struct Call {
    pub function: Function,
    pub fault: Fault,
    subject: Subject,
    shell: Option<&'static Shell>,
}

/// What a function answers when the double cannot even begin.
pub trait Answer {
    fn from_code(code: Code) -> Self;
    fn code(&self) -> Code;
}

impl Answer for Code {
    fn from_code(code: Code) -> Code {
        code
    }
    fn code(&self) -> Code {
        *self
    }
}

impl Answer for () {
    fn from_code(_: Code) {}
    fn code(&self) -> Code {
        SUCCESS
    }
}

impl Answer for *const c_char {
    fn from_code(code: Code) -> *const c_char {
        describe(code).as_ptr()
    }
    fn code(&self) -> Code {
        SUCCESS
    }
}

#[cfg(not(nccl_old))]
impl Answer for crate::abi::Team {
    fn from_code(_: Code) -> Self {
        crate::abi::Team { ranks: 0, rank: 0, stride: 0 }
    }
    fn code(&self) -> Code {
        SUCCESS
    }
}

/// Runs one exported function.
pub fn enter<R: Answer>(function: Function, subject: Subject, body: impl FnOnce(&Call) -> R) -> R {
    control::count(function);
    let mode = Mode::get();
    if mode.is_null() && (function.class() == Class::Operation) {
        return R::from_code(do_nothing(function, subject, mode));
    }
    // A panic is a mistake of the double; the program under test gets an error instead of an unwinding.
    catch_unwind(AssertUnwindSafe(|| carry_out(function, subject, mode, body))).unwrap_or_else(|_| {
        violation(&format!("{}: the double panicked", function.name()));
        R::from_code(INTERNAL_ERROR)
    })
}

/// An operation under `null-ops` or `busy-ops`: the handle is looked at, and nothing else happens.
fn do_nothing(function: Function, subject: Subject, mode: Mode) -> Code {
    let Subject::Comm(pointer) = subject else { return INVALID_ARGUMENT };
    let Some(shell) = handle::find(pointer).filter(|shell| shell.is_live()) else { return INVALID_ARGUMENT };
    let _inside = Inside::enter(shell, function.name());
    if let Some(time) = mode.busy_time() {
        let start = Instant::now();
        while start.elapsed() < time {
            std::hint::spin_loop();
        }
    }
    SUCCESS
}

fn carry_out<R: Answer>(
    function: Function,
    subject: Subject,
    mode: Mode,
    body: impl FnOnce(&Call) -> R,
) -> R {
    let shell = match subject {
        Subject::Comm(pointer) => handle::find(pointer),
        _ => None,
    };
    let _inside = shell.map(|shell| Inside::enter(shell, function.name()));
    let comm = shell.and_then(Shell::comm);
    let rank = match subject {
        Subject::Rank(rank) => Some(i64::from(rank)),
        _ => comm.as_ref().map(|comm| comm.rank as i64),
    };
    if !mode.is_null() && function != Function::CommGetAsyncError {
        log_call(function.name(), shell.map_or(-1, Shell::number), rank.unwrap_or(-1));
    }
    // Why everything fails can still be asked.
    if mode.is_broken() && function != Function::GetLastError {
        return R::from_code(INTERNAL_ERROR);
    }
    let fault = if mode.has_rules() { control::script().fault(function, rank) } else { Fault::default() };
    let call = Call { function, fault, subject, shell };
    let class = function.class();
    if function == Function::CommGetAsyncError {
        call.strike_later(comm.as_ref());
    }
    // Where the body knows better when to be held or how to fail, it is left to the body.
    control::hold(&Fault {
        block: fault.block.filter(|_| class != Class::Abort),
        hang: fault.hang && matches!(class, Class::Plain | Class::Query | Class::End),
        ..fault
    });
    if let Some(code) = fault.error.filter(|_| !matches!(class, Class::Init | Class::End)) {
        set_last_error(&format!("{}: the script says {code}", function.name()));
        return R::from_code(call.fail(code));
    }
    let answer = body(&call);
    let strikes = class == Class::Operation || class == Class::Plain;
    if strikes && matches!(answer.code(), SUCCESS | IN_PROGRESS) {
        call.strike_later(comm.as_ref());
    }
    answer
}

impl Call {
    /// The communicator that the call is about, if there is one to work with.
    pub fn comm(&self) -> Result<Arc<Comm>, Code> {
        let name = self.function.name();
        let pointer = match self.subject {
            Subject::Comm(pointer) => pointer,
            _ => std::ptr::null_mut(),
        };
        if pointer.is_null() {
            set_last_error(&format!("{name}: comm is NULL"));
            return Err(INVALID_ARGUMENT);
        }
        let Some(shell) = self.shell else {
            violation(&format!("{name}: {pointer:p} is no communicator"));
            return Err(INVALID_ARGUMENT);
        };
        match shell.comm() {
            Some(comm) if shell.is_live() => Ok(comm),
            _ => {
                violation(&format!("{name}: communicator {} was destroyed or aborted", shell.number()));
                Err(INVALID_ARGUMENT)
            }
        }
    }

    /// Whether the communicator argument is NULL.
    pub fn is_null(&self) -> bool {
        matches!(self.subject, Subject::Comm(pointer) if pointer.is_null())
    }

    /// The handle of the communicator.
    pub fn shell(&self) -> Option<&'static Shell> {
        self.shell
    }

    /// Notes what an error does to a surrounding group and to the communicator.
    pub fn fail(&self, code: Code) -> Code {
        if self.function.class() == Class::Query {
            return code;
        }
        group::note_error(code);
        // Every error but this one is fatal to the communicator.
        if let Some(comm) = self.shell.filter(|_| code != INVALID_ARGUMENT).and_then(Shell::comm) {
            comm.condemn(&format!("{} returned {code}", self.function.name()));
        }
        code
    }

    /// `ncclInvalidArgument` with a sentence.
    pub fn invalid(&self, sentence: &str) -> Code {
        set_last_error(&format!("{}: {sentence}", self.function.name()));
        INVALID_ARGUMENT
    }

    /// `ncclInvalidUsage` with a sentence.
    pub fn misused(&self, sentence: &str) -> Code {
        set_last_error(&format!("{}: {sentence}", self.function.name()));
        INVALID_USAGE
    }

    fn strike_later(&self, comm: Option<&Arc<Comm>>) {
        if let (Some(code), Some(comm)) = (self.fault.later, comm) {
            comm.strike(code);
        }
    }
}

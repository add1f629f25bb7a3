//! The one error type: what broke, how far it reaches, who caused it, and a sentence.

use std::fmt;
use std::sync::Arc;

/// Result codes. The values up to 8 are NCCL's; our own start at 100. Append-only.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// A CUDA call failed.
    UnhandledCuda = 1,
    /// A system call failed.
    System = 2,
    /// A bug in multiworld.
    Internal = 3,
    /// An argument is out of range; the call had no effect.
    InvalidArgument = 4,
    /// The call is not allowed here or now, or the ranks called different operations.
    InvalidUsage = 5,
    /// Another member failed, left or was cut off.
    Remote = 6,
    /// Not done yet.
    InProgress = 7,
    /// A deadline passed.
    Timeout = 8,
    /// The world was revoked by one of its members.
    Revoked = 100,
    /// This member aborted the world.
    Aborted = 101,
    /// The secret of the store or of the world is wrong.
    Unauthorized = 102,
}

/// How far the damage reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Nothing happened: an argument was wrong.
    Argument,
    /// This operation only.
    Operation,
    /// The world takes no further operations.
    World,
    /// The process cannot use the library any more.
    Process,
}

/// An error of any layer. Cheap to clone: every pending operation of a broken world gets a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The result the C API returns.
    pub code: Code,
    /// How far it reaches.
    pub extent: Extent,
    /// The rank that caused it, where one did.
    pub culprit: Option<u32>,
    /// One sentence for a person.
    pub text: Arc<str>,
}

/// Result of everything fallible in the crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of the given code and extent.
    pub fn new(code: Code, extent: Extent, text: impl Into<Arc<str>>) -> Error {
        Error { code, extent, culprit: None, text: text.into() }
    }

    /// A wrong argument; the text begins with the argument's name.
    pub fn argument(text: impl Into<Arc<str>>) -> Error {
        Error::new(Code::InvalidArgument, Extent::Argument, text)
    }

    /// A call that is not allowed here or now and had no effect.
    pub fn usage(text: impl Into<Arc<str>>) -> Error {
        Error::new(Code::InvalidUsage, Extent::Argument, text)
    }

    /// A failed system call: `what` names it, `err` says why.
    pub fn system(what: &str, err: &std::io::Error) -> Error {
        Error::new(Code::System, Extent::Operation, format!("{what}: {err}"))
    }

    /// A bug in multiworld itself.
    pub fn internal(text: impl Into<Arc<str>>) -> Error {
        Error::new(Code::Internal, Extent::World, text)
    }

    /// A deadline that passed while doing `what`.
    pub fn timeout(text: impl Into<Arc<str>>) -> Error {
        Error::new(Code::Timeout, Extent::Operation, text)
    }

    /// The same error with the rank that caused it.
    pub fn by(mut self, rank: u32) -> Error {
        self.culprit = Some(rank);
        self
    }

    /// The same error reaching as far as `extent`.
    pub fn extent(mut self, extent: Extent) -> Error {
        self.extent = extent;
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Error {}

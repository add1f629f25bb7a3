//! The genuine NCCL, found and loaded at run time.
//!
//! | module | does |
//! |---|---|
//! | `types`, `functions` | NCCL's C interface, made from its headers by `make bindings` |
//! | `loader` | where the library may be |
//! | `library` | the library that was found: a table of its functions |
//!
//! Nothing here is linked against NCCL. What an older version lacks is `None` in the table.

pub mod functions;
mod library;
pub mod loader;
pub mod types;

pub use library::{Functions, Library};

use core::ffi::c_int;

/// "Not set" in `ncclConfig_t`.
pub const CONFIG_UNDEF_INT: c_int = c_int::MIN;

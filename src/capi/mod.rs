//! The C API: translation only, one file per C type. `include/multiworld.h` is generated from these files.
//!
//! Every exported function checks its arguments, converts them, makes one call into the layers below and
//! converts the answer back, all inside `boundary::guard`, which turns errors into result codes and keeps
//! panics on this side. Enumerators arrive as plain integers (the `Raw...` aliases, which the header shows
//! under the enum's name) because an integer that C passes need not be an enumerator.
//!
//! | file | C type |
//! |---|---|
//! | `result` | `mwResult_t`, versions and error texts |
//! | `unique_id` | `mwUniqueId` |
//! | `config` | `mwConfig_t` |
//! | `world` | `mwWorld_t`: creation and end |
//! | `reshape` | `mwWorld_t`: shrink, grow, reform |
//! | `world_query` | `mwWorld_t`: everything there is to ask |
//! | `datatype` | `mwDataType_t` |
//! | `redop` | `mwRedOp_t`, `mwScalarResidence_t` |
//! | `operation` | the operations, `mwStream_t` |
//! | `group` | groups |
//! | `request` | `mwRequest_t` |
//! | `memory` | memory for buffers |
//! | `event` | `mwEvent_t` |
//! | `boundary`, `arg`, `handle` | what all of them share: the panic guard, argument checks, the handle tables |

// The contract of each function is the comment that goes into the header, and it covers what `# Safety` would
// say.
#![allow(clippy::missing_safety_doc)]
// Names are C's.
#![allow(non_snake_case)]

mod arg;
mod boundary;
mod config;
mod datatype;
mod event;
mod group;
mod handle;
mod memory;
mod operation;
mod redop;
mod request;
mod reshape;
mod result;
mod unique_id;
mod world;
mod world_query;

pub use config::*;
pub use datatype::*;
pub use event::*;
pub use group::*;
pub use handle::{mwRequest, mwRequest_t, mwWorld, mwWorld_t};
pub use memory::*;
pub use operation::*;
pub use redop::*;
pub use request::*;
pub use reshape::*;
pub use result::*;
pub use unique_id::*;
pub use world::*;
pub use world_query::*;

#[cfg(test)]
mod tests;

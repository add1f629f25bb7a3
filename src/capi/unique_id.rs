//! `mwUniqueId`.

use super::arg::Out;
use super::boundary::guard;
use super::config;
use super::result::mwResult_t;
use crate::config::Config;
use crate::world::{UniqueId, World};
use std::ffi::c_char;

/// Bytes of a unique id.
pub const MW_UNIQUE_ID_BYTES: usize = 128;

/// Names a world that is about to be created. Holds where its first member can be reached and the world's
/// secret: whoever has it can join. Copy it to the other ranks by any means, as bytes.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mwUniqueId {
    /// Meaningful to the library only.
    pub internal: [c_char; MW_UNIQUE_ID_BYTES],
}

impl mwUniqueId {
    pub(super) fn from_bytes(bytes: UniqueId) -> mwUniqueId {
        mwUniqueId { internal: bytes.map(|byte| byte.cast_signed() as c_char) }
    }

    pub(super) fn to_bytes(self) -> UniqueId {
        self.internal.map(|byte| byte as u8)
    }
}

/// Makes the id of a new world. One process does this, gives the id to all ranks, and every rank (this
/// process, too, if it is one of them) calls mwWorldInitRank with it. The process has to live until all have
/// joined.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mwGetUniqueId(id: *mut mwUniqueId) -> mwResult_t {
    guard(|| {
        // SAFETY: writable by the contract of every output argument.
        let out = unsafe { Out::new(id, "id") }?;
        config::start_log()?;
        out.set(mwUniqueId::from_bytes(World::unique_id(&Config::from_env()?)?));
        Ok(())
    })
}

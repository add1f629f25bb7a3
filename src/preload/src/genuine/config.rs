//! A caller's `ncclConfig_t`, made non-blocking on its way to the genuine library.

use crate::config::header;
use core::mem::offset_of;
use multiworld::error::{Error, Result};
use multiworld::nccl::types::*;
use multiworld::nccl::{CONFIG_UNDEF_INT, config};

/// A copy: as long as the caller's if that has fields which this version does not know.
pub struct ConfigCopy {
    words: Vec<u64>,
    /// What the caller asked for.
    pub blocking: bool,
}

impl ConfigCopy {
    /// The configuration of a child of a communicator that blocks or not, if the caller passes none.
    pub fn inherited(blocking: bool) -> ConfigCopy {
        ConfigCopy { words: words(&config()), blocking }
    }

    /// What the caller passed, NULL for none.
    ///
    /// # Safety
    /// `from` is NULL or an `ncclConfig_t` of any version.
    pub unsafe fn of(from: *const ncclConfig_t, inherited: bool) -> Result<ConfigCopy> {
        if from.is_null() {
            return Ok(ConfigCopy::inherited(inherited));
        }
        // SAFETY: by this function's contract.
        let size = unsafe { header(from, NCCL_API_MAGIC, "config") }?.size;
        let mut copy = ConfigCopy::inherited(inherited);
        let shorter = size.min(size_of::<ncclConfig_t>());
        let longer = size.max(size_of::<ncclConfig_t>());
        copy.words.resize(longer.div_ceil(8), 0);
        let to = copy.words.as_mut_ptr().cast::<u8>();
        // SAFETY: `size` bytes are there by this function's contract, and so much room is here.
        unsafe { core::ptr::copy_nonoverlapping(from.cast::<u8>(), to, size) };
        // SAFETY: at least a whole configuration, aligned for its largest field; integers and pointers have no invalid
        // bytes. What the caller's version does not have is what `inherited` says.
        let known = unsafe { &mut *copy.words.as_mut_ptr().cast::<ncclConfig_t>() };
        known.size = longer;
        let has = |at: usize| at + 4 <= shorter;
        copy.blocking = match known.blocking {
            _ if !has(offset_of!(ncclConfig_t, blocking)) => inherited,
            CONFIG_UNDEF_INT => inherited,
            0 => false,
            1 => true,
            other => {
                return Err(Error::argument(format!(
                    "config: blocking is {other}, which is neither 0 nor 1"
                )));
            }
        };
        known.blocking = 0;
        // Communicators that share resources are aborted together.
        known.splitShare = 0;
        known.shrinkShare = 0;
        Ok(copy)
    }

    /// For the library.
    pub fn as_ptr(&mut self) -> *mut ncclConfig_t {
        self.words.as_mut_ptr().cast()
    }
}

fn words(config: &ncclConfig_t) -> Vec<u64> {
    let mut words = vec![0u64; size_of::<ncclConfig_t>().div_ceil(8)];
    // SAFETY: as many bytes as the configuration has; padding is copied, never read as a value.
    unsafe {
        let from = core::ptr::from_ref(config).cast::<u8>();
        core::ptr::copy_nonoverlapping(from, words.as_mut_ptr().cast(), size_of::<ncclConfig_t>());
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copied(from: &ncclConfig_t) -> (ncclConfig_t, bool) {
        // SAFETY: a whole configuration, or as much of it as its size says.
        let mut copy = unsafe { ConfigCopy::of(from, true) }.unwrap();
        // SAFETY: a copy is at least a whole configuration.
        (unsafe { copy.as_ptr().read() }, copy.blocking)
    }

    #[test]
    fn fields_of_older_and_newer_versions_arrive() {
        let mine = ncclConfig_t { blocking: CONFIG_UNDEF_INT, maxCTAs: 7, splitShare: 1, ..config() };
        let (got, blocking) = copied(&mine);
        assert!(blocking && got.blocking == 0 && got.splitShare == 0 && got.maxCTAs == 7);
        let older = ncclConfig_t { size: 24, blocking: 0, maxCTAs: 7, ..config() };
        let (got, blocking) = copied(&older);
        assert!(!blocking && got.maxCTAs == CONFIG_UNDEF_INT && got.size == size_of::<ncclConfig_t>());
        let newer = [ncclConfig_t { size: 240, minCTAs: 3, ..config() }; 2];
        let (got, _) = copied(&newer[0]);
        assert_eq!((got.size, got.minCTAs), (240, 3));
        // SAFETY: a whole configuration.
        assert!(unsafe { ConfigCopy::of(&ncclConfig_t { blocking: 2, ..config() }, true) }.is_err());
        // SAFETY: NULL is allowed.
        assert!(!unsafe { ConfigCopy::of(core::ptr::null(), false) }.unwrap().blocking);
    }
}

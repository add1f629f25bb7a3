//! `ncclConfig_t` and `ncclCollConfig_t`: read by the size that the caller states, as NCCL does, so that a
//! program built against an older header is understood.

use crate::abi::{API_MAGIC, Code, Header, INVALID_ARGUMENT, UNDEFINED, VERSION};
use crate::record::set_last_error;
use std::ffi::{c_char, c_int, c_uint};

/// `ncclConfig_t` of the version that is exported.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Config {
    header: Header,
    blocking: c_int,
    cga_cluster_size: c_int,
    min_ctas: c_int,
    max_ctas: c_int,
    net_name: *const c_char,
    split_share: c_int,
    #[cfg(not(nccl_old))]
    traffic_class: c_int,
    #[cfg(not(nccl_old))]
    comm_name: *const c_char,
    #[cfg(not(nccl_old))]
    collnet_enable: c_int,
    #[cfg(not(nccl_old))]
    cta_policy: c_int,
    #[cfg(not(nccl_old))]
    shrink_share: c_int,
    /// nvlsCTAs to nvlsHostMode, none of which means anything here.
    #[cfg(not(nccl_old))]
    rest: [c_int; 12],
}

#[cfg(not(nccl_old))]
const _: () = assert!(size_of::<Config>() == 120);
#[cfg(nccl_old)]
const _: () = assert!(size_of::<Config>() == 48);

/// What a communicator keeps of its configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    pub blocking: bool,
    pub split_share: bool,
    pub shrink_share: bool,
}

impl Settings {
    /// What a communicator without configuration has.
    pub const DEFAULT: Settings = Settings { blocking: true, split_share: false, shrink_share: false };
}

impl Config {
    fn new() -> Config {
        let undefined = Header { size: 0, magic: 0, version: VERSION as c_uint };
        Config {
            header: undefined,
            blocking: UNDEFINED,
            cga_cluster_size: UNDEFINED,
            min_ctas: UNDEFINED,
            max_ctas: UNDEFINED,
            net_name: std::ptr::null(),
            split_share: UNDEFINED,
            #[cfg(not(nccl_old))]
            traffic_class: UNDEFINED,
            #[cfg(not(nccl_old))]
            comm_name: std::ptr::null(),
            #[cfg(not(nccl_old))]
            collnet_enable: UNDEFINED,
            #[cfg(not(nccl_old))]
            cta_policy: UNDEFINED,
            #[cfg(not(nccl_old))]
            shrink_share: UNDEFINED,
            #[cfg(not(nccl_old))]
            rest: [UNDEFINED; 12],
        }
    }

    /// Takes over as many bytes as the caller's structure has. NULL is every default.
    ///
    /// # Safety
    /// `given` is NULL or points to a structure of the size that its first word states.
    pub unsafe fn read(given: *const Config) -> Result<Settings, Code> {
        if given.is_null() {
            return Ok(Settings::DEFAULT);
        }
        let mut config = Config::new();
        // SAFETY: the caller vouches for the stated size, of which no more than our structure has is copied;
        // every bit pattern is valid for its fields.
        unsafe {
            let stated = given.cast::<usize>().read_unaligned();
            let copied = stated.min(size_of::<Config>());
            std::ptr::copy_nonoverlapping(given.cast::<u8>(), (&raw mut config).cast::<u8>(), copied);
        }
        config.check()
    }

    fn check(&self) -> Result<Settings, Code> {
        if self.header.magic != API_MAGIC {
            return Err(refuse("ncclConfig_t was not initialized by NCCL_CONFIG_INITIALIZER"));
        }
        let positive = |value: c_int| value == UNDEFINED || value > 0;
        if self.cga_cluster_size != UNDEFINED && self.cga_cluster_size < 0 {
            return Err(refuse("ncclConfig_t: cgaClusterSize is negative"));
        }
        if !positive(self.min_ctas) || !positive(self.max_ctas) || self.min_ctas > self.max_ctas {
            return Err(refuse("ncclConfig_t: minCTAs and maxCTAs are no range"));
        }
        // Before 2.14 there was no blocking field; what such a caller has there is not ours to read.
        let blocking = if self.header.version < 21400 { UNDEFINED } else { self.blocking };
        #[cfg(not(nccl_old))]
        let shrink_share = self.shrink_share;
        #[cfg(nccl_old)]
        let shrink_share = UNDEFINED;
        Ok(Settings {
            blocking: switch(blocking, true, "blocking")?,
            split_share: switch(self.split_share, false, "splitShare")?,
            shrink_share: switch(shrink_share, false, "shrinkShare")?,
        })
    }
}

fn switch(value: c_int, default: bool, name: &str) -> Result<bool, Code> {
    match value {
        UNDEFINED => Ok(default),
        0 => Ok(false),
        1 => Ok(true),
        other => Err(refuse(&format!("ncclConfig_t: {name} is {other}"))),
    }
}

fn refuse(sentence: &str) -> Code {
    set_last_error(sentence);
    INVALID_ARGUMENT
}

/// Checks an `ncclCollConfig_t`, which changes nothing here. NULL is the plain call.
///
/// # Safety
/// `given` is NULL or points to a structure that begins with [`Header`].
#[cfg(not(nccl_old))]
pub unsafe fn check_collective(given: *const Header) -> Result<(), Code> {
    if given.is_null() {
        return Ok(());
    }
    // SAFETY: the caller vouches for a readable header.
    let header = unsafe { given.read_unaligned() };
    if header.size < size_of::<Header>() || header.magic != API_MAGIC {
        return Err(refuse("ncclCollConfig_t was not initialized by NCCL_COLLCONFIG_INITIALIZER"));
    }
    Ok(())
}

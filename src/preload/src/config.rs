//! Structs that begin with their size, because programs are compiled with older and newer headers than ours.

use multiworld::config::{Config, Overrides};
use multiworld::error::{Error, Result};
use multiworld::nccl::CONFIG_UNDEF_INT;
use multiworld::nccl::types::*;
use std::ffi::c_uint;
use std::mem::{align_of, size_of};
use std::ptr;

/// `magic` of an initialised ncclSimInfo_t.
const SIM_INFO_MAGIC: c_uint = 0x7468_5283;

/// Ranks of NCCL programs load their models first, and come minutes apart.
const JOIN_TIMEOUT_MS: i32 = 600_000;

/// What all of them begin with.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Header {
    /// Bytes that the caller's version of the struct has.
    pub size: usize,
    /// Says that it was initialised.
    pub magic: c_uint,
    /// The caller's NCCL.
    pub version: c_uint,
}

/// The header of a struct that a caller passed under the name `argument`, checked.
///
/// # Safety
/// `at` is NULL or a struct that begins with a [`Header`].
pub unsafe fn header<T>(at: *const T, magic: c_uint, argument: &str) -> Result<Header> {
    if at.is_null() {
        return Err(Error::argument(format!("{argument}: NULL")));
    }
    if !at.cast::<Header>().is_aligned() {
        return Err(Error::argument(format!("{argument}: {at:p} is not aligned for its type")));
    }
    // SAFETY: a header is there by this function's contract, and aligned.
    let header = unsafe { at.cast::<Header>().read() };
    if header.magic != magic {
        let found = header.magic;
        return Err(Error::argument(format!(
            "{argument}: magic is {found:#x}, not {magic:#x}; start from its initializer"
        )));
    }
    if header.size < size_of::<Header>() || !header.size.is_multiple_of(align_of::<Header>()) {
        let size = header.size;
        return Err(Error::argument(format!("{argument}: size is {size}, which no version of it has")));
    }
    Ok(header)
}

/// The part of a caller's struct that this version knows; the rest is `defaults`.
///
/// # Safety
/// As for [`header`]; if magic and size are right, that many bytes are there, and any bytes are a valid `T`.
unsafe fn known<T: Copy>(at: *const T, magic: c_uint, argument: &str, defaults: T) -> Result<T> {
    // SAFETY: by this function's contract.
    let header = unsafe { header(at, magic, argument) }?;
    let mut known = defaults;
    let len = header.size.min(size_of::<T>());
    // SAFETY: `len` bytes are there by this function's contract, and fit. All fields of the copy are whole:
    // versions end at a multiple of the largest field.
    unsafe { ptr::copy_nonoverlapping(at.cast::<u8>(), (&raw mut known).cast(), len) };
    Ok(known)
}

/// A communicator's configuration, as far as it matters on host memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommConfig {
    /// Functions wait until they are done.
    pub blocking: bool,
}

impl CommConfig {
    /// Without a configuration.
    pub const DEFAULT: CommConfig = CommConfig { blocking: true };
}

const UNSET: ncclConfig_t = ncclConfig_t {
    size: size_of::<ncclConfig_t>(),
    magic: NCCL_API_MAGIC,
    version: NCCL_VERSION_CODE,
    blocking: CONFIG_UNDEF_INT,
    cgaClusterSize: CONFIG_UNDEF_INT,
    minCTAs: CONFIG_UNDEF_INT,
    maxCTAs: CONFIG_UNDEF_INT,
    netName: ptr::null(),
    splitShare: CONFIG_UNDEF_INT,
    trafficClass: CONFIG_UNDEF_INT,
    commName: ptr::null(),
    collnetEnable: CONFIG_UNDEF_INT,
    CTAPolicy: CONFIG_UNDEF_INT,
    shrinkShare: CONFIG_UNDEF_INT,
    nvlsCTAs: CONFIG_UNDEF_INT,
    nChannelsPerNetPeer: CONFIG_UNDEF_INT,
    nvlinkCentricSched: CONFIG_UNDEF_INT,
    graphUsageMode: CONFIG_UNDEF_INT,
    numRmaCtx: CONFIG_UNDEF_INT,
    maxP2pPeers: CONFIG_UNDEF_INT,
    graphStreamOrdering: CONFIG_UNDEF_INT,
    launchOrderImplicit: CONFIG_UNDEF_INT,
    numRmaSig: CONFIG_UNDEF_INT,
    rmaEagerInit: CONFIG_UNDEF_INT,
    hostCftMode: CONFIG_UNDEF_INT,
    nvlsHostMode: CONFIG_UNDEF_INT,
};

/// The configuration that a caller passed; `inherited` where it passed none or left it open.
///
/// # Safety
/// `config` is NULL or an `ncclConfig_t` of any version.
pub unsafe fn comm_config(config: *const ncclConfig_t, inherited: CommConfig) -> Result<CommConfig> {
    if config.is_null() {
        return Ok(inherited);
    }
    // SAFETY: by this function's contract; integers and pointers have no invalid bytes.
    let config = unsafe { known(config, NCCL_API_MAGIC, "config", UNSET) }?;
    let blocking = match config.blocking {
        CONFIG_UNDEF_INT => inherited.blocking,
        0 => false,
        1 => true,
        other => {
            return Err(Error::argument(format!("config: blocking is {other}, which is neither 0 nor 1")));
        }
    };
    Ok(CommConfig { blocking })
}

/// Checks the configuration of one operation. All that is in it are hints to the GPU's kernels.
///
/// # Safety
/// `config` is NULL or an `ncclCollConfig_t` of any version.
pub unsafe fn check_coll_config(config: *const ncclCollConfig_t) -> Result<()> {
    if config.is_null() {
        return Ok(());
    }
    // SAFETY: by this function's contract.
    unsafe { header(config, NCCL_API_MAGIC, "config") }.map(drop)
}

/// Checks where the result of a simulation goes.
///
/// # Safety
/// `info` is NULL or an `ncclSimInfo_t` of any version.
pub unsafe fn check_sim_info(info: *const ncclSimInfo_t) -> Result<()> {
    if info.is_null() {
        return Ok(());
    }
    // SAFETY: by this function's contract.
    let header = unsafe { header(info, SIM_INFO_MAGIC, "simInfo") }?;
    if header.size < size_of::<ncclSimInfo_t>() {
        return Err(Error::argument(format!("simInfo: size is {}, which is too small", header.size)));
    }
    Ok(())
}

/// Settings of the worlds behind communicators. What the environment says to NCCL about interfaces holds
/// here, too.
pub fn world_config() -> Result<Config> {
    let is_set = |name| std::env::var_os(name).is_some_and(|v| !v.is_empty());
    let theirs = std::env::var("NCCL_SOCKET_IFNAME").ok().filter(|v| !v.is_empty());
    Config::load(&Overrides {
        ifname: theirs.filter(|_| !is_set("MW_IFNAME")),
        join_timeout_ms: (!is_set("MW_JOIN_TIMEOUT_MS")).then_some(JOIN_TIMEOUT_MS),
        ..Overrides::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(config: &ncclConfig_t) -> Result<CommConfig> {
        // SAFETY: a whole configuration.
        unsafe { comm_config(config, CommConfig::DEFAULT) }
    }

    #[test]
    fn sizes_of_other_versions_are_honoured() {
        assert_eq!(read(&UNSET), Ok(CommConfig { blocking: true }));
        assert_eq!(read(&ncclConfig_t { blocking: 0, ..UNSET }), Ok(CommConfig { blocking: false }));
        assert_eq!(
            read(&ncclConfig_t { size: 96, blocking: 0, ..UNSET }),
            Ok(CommConfig { blocking: false })
        );
        // Too short to hold it.
        assert_eq!(read(&ncclConfig_t { size: 16, blocking: 0, ..UNSET }), Ok(CommConfig { blocking: true }));
        let newer = [ncclConfig_t { size: 240, blocking: 0, ..UNSET }; 2];
        assert_eq!(read(&newer[0]), Ok(CommConfig { blocking: false }));
    }

    #[test]
    fn what_is_no_configuration_is_refused() {
        let refusal = |config: &ncclConfig_t| read(config).unwrap_err().to_string();
        assert!(refusal(&ncclConfig_t { magic: 1, ..UNSET }).starts_with("config: magic is 0x1"));
        assert_eq!(
            refusal(&ncclConfig_t { size: 9, ..UNSET }),
            "config: size is 9, which no version of it has"
        );
        assert!(refusal(&ncclConfig_t { blocking: 2, ..UNSET }).starts_with("config: blocking is 2"));
        // SAFETY: NULL is allowed.
        let inherited = unsafe { comm_config(ptr::null(), CommConfig { blocking: false }) };
        assert_eq!(inherited, Ok(CommConfig { blocking: false }));
    }
}

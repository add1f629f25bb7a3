//! `mwConfig_t`.

use super::arg;
use super::result::MW_MAJOR;
use crate::config::{Config, Overrides, log_level};
use crate::error::{Error, Result};
use crate::observe::log;
use crate::sync::OnceLock;
use crate::types::Secret;
use std::ffi::{CStr, c_char, c_int, c_uint};
use std::mem::{offset_of, size_of};
use std::ptr;

/// What `magic` of an initialised mwConfig_t is.
pub const MW_CONFIG_MAGIC: c_uint = 0x6d77_636f;

/// An integer that has not been set: `MW_CONFIG_UNDEF_INT` in the header.
const UNDEF_INT: c_int = c_int::MIN;

/// Settings of a world. Start from MW_CONFIG_INITIALIZER. A setting that is not made (a pointer that is NULL,
/// an int that is MW_CONFIG_UNDEF_INT) comes from the environment variable that is named with it, and if that
/// is not set or empty, from the default. The strings are copied; they need to live for the call only.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mwConfig_t {
    /// sizeof(mwConfig_t).
    pub size: usize,
    /// MW_CONFIG_MAGIC.
    pub magic: c_uint,
    /// MW_VERSION_CODE.
    pub version: c_uint,
    /// MW_STORE: where named worlds meet. "tcp://host:port" is the built-in store, which rank 0 runs if nobody listens
    /// there; "file:///directory" a directory, for the processes of one user on one machine;
    /// "etcd://host:port,host:port..." an etcd cluster, with user:password@ in front of the hosts if it asks for them,
    /// and with "etcds" through TLS, for which MW_ETCD_CACERT, MW_ETCD_CERT and MW_ETCD_KEY name files.
    pub store: *const c_char,
    /// MW_TRANSPORT: "auto" (default), "shm" (shared memory only) or "tcp".
    pub transport: *const c_char,
    /// MW_IFNAME: which interfaces to use, in the syntax of NCCL_SOCKET_IFNAME. Of these a process uses the one that
    /// leads to the store, else the first.
    pub ifname: *const c_char,
    /// MW_SECRET, or the content of the file MW_SECRET_FILE: what members of named worlds share, at least 16
    /// bytes. Without one, a named world has to stay on this machine (its store on loopback or in a directory), unless
    /// MW_INSECURE=1 lets everybody in who reaches the store.
    pub secret: *const c_char,
    /// MW_TIMEOUT_MS: deadline of every operation, default 600000.
    pub timeoutMs: c_int,
    /// MW_JOIN_TIMEOUT_MS: deadline of joining and of reforming, default 60000.
    pub joinTimeoutMs: c_int,
    /// MW_HEARTBEAT_INTERVAL_MS: how often a sign of life is given, default 200.
    pub heartbeatIntervalMs: c_int,
    /// MW_HEARTBEAT_TIMEOUT_MS: silence after which a member counts as failed, default 1000, at least two
    /// intervals.
    pub heartbeatTimeoutMs: c_int,
    /// CUDA device of the nccl backend, default the one that is current in the calling thread; -1 (default) on the host
    /// backend.
    pub device: c_int,
    /// MW_BACKEND: "host" (default) for host memory, "nccl" for device memory, through NCCL.
    pub backend: *const c_char,
    /// MW_REFORM_WAIT_MS: how long mwWorldReform waits for more members when there are `minRanks`, default 500.
    pub reformWaitMs: c_int,
}

impl mwConfig_t {
    const UNSET: mwConfig_t = mwConfig_t {
        size: size_of::<mwConfig_t>(),
        magic: MW_CONFIG_MAGIC,
        version: 0,
        store: ptr::null(),
        transport: ptr::null(),
        ifname: ptr::null(),
        secret: ptr::null(),
        timeoutMs: UNDEF_INT,
        joinTimeoutMs: UNDEF_INT,
        heartbeatIntervalMs: UNDEF_INT,
        heartbeatTimeoutMs: UNDEF_INT,
        device: UNDEF_INT,
        backend: ptr::null(),
        reformWaitMs: UNDEF_INT,
    };
}

/// What every configuration of every version begins with.
#[repr(C)]
#[derive(Clone, Copy)]
struct Header {
    size: usize,
    magic: c_uint,
    version: c_uint,
}

const _: () = assert!(offset_of!(mwConfig_t, store) == size_of::<Header>());

/// The settings that a caller's configuration, which may be NULL, comes to.
///
/// # Safety `config` is NULL or begins with a `Header`; if magic and size are right, that many bytes follow,
/// and its strings are NULL or C strings.
pub(super) unsafe fn load(config: *const mwConfig_t) -> Result<Config> {
    start_log()?;
    if config.is_null() {
        return Config::from_env();
    }
    // SAFETY: by this function's contract.
    let overrides = unsafe { overrides(&known(config)?) }?;
    Config::load(&overrides)
}

/// Prints log lines from now on if `MW_DEBUG` says so.
pub(super) fn start_log() -> Result<()> {
    static STARTED: OnceLock<Result<()>> = OnceLock::new();
    STARTED.get_or_init(|| log_level().map(|level| level.into_iter().for_each(log::init))).clone()
}

/// The part of the caller's configuration that this version knows: programs compiled with an older header
/// have a shorter one, those compiled with a newer one a longer one.
///
/// # Safety
/// As for [`load`], and not NULL.
unsafe fn known(config: *const mwConfig_t) -> Result<mwConfig_t> {
    if !config.is_aligned() {
        return Err(Error::argument(format!("config: {config:p} is not aligned for its type")));
    }
    // SAFETY: a header is there by this function's contract, and aligned.
    let Header { size, magic, version } = unsafe { config.cast::<Header>().read() };
    if magic != MW_CONFIG_MAGIC {
        return Err(Error::argument(format!(
            "config: magic is {magic:#x}, not {MW_CONFIG_MAGIC:#x}; start from MW_CONFIG_INITIALIZER"
        )));
    }
    if size < size_of::<Header>() || !size.is_multiple_of(align_of::<mwConfig_t>()) {
        return Err(Error::argument(format!("config: size is {size}, which is no mwConfig_t's")));
    }
    if version / 10000 > MW_MAJOR.cast_unsigned() {
        return Err(Error::argument(format!("config: version {version} is newer than this library")));
    }
    let mut known = mwConfig_t::UNSET;
    let len = size.min(size_of::<mwConfig_t>());
    // SAFETY: `len` bytes are there by this function's contract and fit; every field of the copy is whole,
    // because sizes end at a multiple of the largest field. (A field added later must not move into today's
    // padding.)
    unsafe { ptr::copy_nonoverlapping(config.cast::<u8>(), (&raw mut known).cast(), len) };
    Ok(known)
}

/// # Safety
/// The strings are NULL or C strings.
unsafe fn overrides(config: &mwConfig_t) -> Result<Overrides> {
    let number = |value| (value != UNDEF_INT).then_some(value);
    // SAFETY: by this function's contract.
    unsafe {
        let string = |ptr: *const c_char, name| {
            if ptr.is_null() { Ok(None) } else { arg::text(ptr, name).map(|text| Some(text.to_owned())) }
        };
        Ok(Overrides {
            store: string(config.store, "config.store")?,
            backend: string(config.backend, "config.backend")?,
            device: number(config.device),
            transport: string(config.transport, "config.transport")?,
            ifname: string(config.ifname, "config.ifname")?,
            secret: (!config.secret.is_null())
                .then(|| Secret(CStr::from_ptr(config.secret).to_bytes().to_vec())),
            timeout_ms: number(config.timeoutMs),
            join_timeout_ms: number(config.joinTimeoutMs),
            heartbeat_interval_ms: number(config.heartbeatIntervalMs),
            heartbeat_timeout_ms: number(config.heartbeatTimeoutMs),
            reform_wait_ms: number(config.reformWaitMs),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn initialised() -> mwConfig_t {
        mwConfig_t { version: 100, ..mwConfig_t::UNSET }
    }

    fn read(config: &mwConfig_t) -> Result<Overrides> {
        // SAFETY: a whole configuration with valid strings.
        unsafe { overrides(&known(config)?) }
    }

    fn refusal(config: &mwConfig_t) -> String {
        read(config).unwrap_err().to_string()
    }

    #[test]
    fn what_is_set_is_taken() {
        let config = mwConfig_t {
            store: c"tcp://h:1".as_ptr(),
            secret: c"0123456789abcdef".as_ptr(),
            timeoutMs: 5,
            heartbeatTimeoutMs: -1,
            device: -1,
            ..initialised()
        };
        let over = read(&config).unwrap();
        assert_eq!(over.store.as_deref(), Some("tcp://h:1"));
        assert_eq!(over.secret, Some(Secret(b"0123456789abcdef".to_vec())));
        assert_eq!((over.timeout_ms, over.join_timeout_ms), (Some(5), None));
        assert_eq!((over.heartbeat_interval_ms, over.heartbeat_timeout_ms), (None, Some(-1)));
        assert_eq!((over.transport, over.ifname), (None, None));
    }

    #[test]
    fn what_is_no_configuration_is_refused() {
        let magic = mwConfig_t { magic: 1, ..initialised() };
        assert_eq!(refusal(&magic), "config: magic is 0x1, not 0x6d77636f; start from MW_CONFIG_INITIALIZER");
        for size in [0, 8, 20] {
            let config = mwConfig_t { size, ..initialised() };
            assert_eq!(refusal(&config), format!("config: size is {size}, which is no mwConfig_t's"));
        }
        let newer = mwConfig_t { version: 10000, ..initialised() };
        assert_eq!(refusal(&newer), "config: version 10000 is newer than this library");
        let device = read(&mwConfig_t { device: 0, ..initialised() }).unwrap();
        let refused = Config::load(&device).unwrap_err().to_string();
        assert_eq!(refused, "config.device: 0 is not -1, the host backend's");
        let odd = mwConfig_t { store: c"\xff".as_ptr(), ..initialised() };
        assert_eq!(refusal(&odd), "config.store: not valid UTF-8");
    }

    #[test]
    fn older_and_newer_configurations_are_understood() {
        let size = offset_of!(mwConfig_t, timeoutMs);
        let older = mwConfig_t { size, store: c"s".as_ptr(), timeoutMs: 5, ..initialised() };
        let over = read(&older).unwrap();
        assert_eq!((over.store.as_deref(), over.timeout_ms), (Some("s"), None));
        let newer = [mwConfig_t { size: 2 * size_of::<mwConfig_t>(), timeoutMs: 5, ..initialised() }; 2];
        assert_eq!(read(&newer[0]).unwrap().timeout_ms, Some(5));
    }
}

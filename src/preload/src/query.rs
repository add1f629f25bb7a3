//! Everything there is to ask about a communicator.

use crate::arg::Out;
use crate::comm::Comm;
use crate::config;
use crate::genuine::forward;
use crate::handle;
use crate::host::Host;
use crate::result;
use core::ffi::{c_int, c_void};
use multiworld::error::{Error, Result};
use multiworld::nccl::types::*;
use std::mem::{offset_of, size_of};

fn int(value: u32) -> Result<c_int> {
    c_int::try_from(value).map_err(|_| Error::internal(format!("{value} does not fit an int")))
}

/// # Safety
/// As NCCL's function.
pub unsafe fn ncclCommCount(comm: ncclComm_t, count: *mut c_int) -> Result<ncclResult_t> {
    match &**handle::comm(comm)? {
        Comm::Host(host) => {
            // SAFETY: writable by NCCL's contract.
            unsafe { Out::new(count, "count") }?.set(int(host.world()?.nranks())?);
            Ok(ncclSuccess)
        }
        Comm::Genuine(g) => {
            // SAFETY: writable by NCCL's contract.
            unsafe { Out::new(count, "count") }?.set(g.place()?.1);
            Ok(ncclSuccess)
        }
    }
}

/// # Safety
/// As NCCL's function.
pub unsafe fn ncclCommUserRank(comm: ncclComm_t, rank: *mut c_int) -> Result<ncclResult_t> {
    match &**handle::comm(comm)? {
        Comm::Host(host) => {
            // SAFETY: writable by NCCL's contract.
            unsafe { Out::new(rank, "rank") }?.set(int(host.world()?.rank())?);
            Ok(ncclSuccess)
        }
        Comm::Genuine(g) => {
            // SAFETY: writable by NCCL's contract.
            unsafe { Out::new(rank, "rank") }?.set(g.place()?.0);
            Ok(ncclSuccess)
        }
    }
}

/// # Safety
/// As NCCL's function.
pub unsafe fn ncclCommCuDevice(comm: ncclComm_t, device: *mut c_int) -> Result<ncclResult_t> {
    match &**handle::comm(comm)? {
        Comm::Host(host) => {
            host.world()?;
            // SAFETY: writable by NCCL's contract.
            unsafe { Out::new(device, "device") }?.set(host.device);
            Ok(ncclSuccess)
        }
        Comm::Genuine(g) => {
            // SAFETY: writable by NCCL's contract.
            unsafe { Out::new(device, "device") }?;
            // SAFETY: this function's contract is that of the forwarded one.
            g.call("ncclCommCuDevice", |l, real| unsafe { forward::ncclCommCuDevice(l, real, device) })
        }
    }
}

/// # Safety
/// As NCCL's function.
pub unsafe fn ncclCommGetAsyncError(comm: ncclComm_t, asyncError: *mut ncclResult_t) -> Result<ncclResult_t> {
    match &**handle::comm(comm)? {
        Comm::Host(host) => {
            // SAFETY: writable by NCCL's contract.
            let out = unsafe { Out::new(asyncError, "asyncError") }?;
            out.set(host.async_error().map_or_else(|e| result::code(e.code), |()| ncclSuccess));
            Ok(ncclSuccess)
        }
        Comm::Genuine(g) => {
            // SAFETY: writable by NCCL's contract.
            let out = unsafe { Out::new(asyncError, "asyncError") }?;
            out.set(g.async_error().map_or_else(|e| result::code(e.code), |()| ncclSuccess));
            Ok(ncclSuccess)
        }
    }
}

/// # Safety
/// As NCCL's function.
pub unsafe fn ncclCommMemStats(
    comm: ncclComm_t,
    stat: ncclCommMemStat_t,
    value: *mut u64,
) -> Result<ncclResult_t> {
    match &**handle::comm(comm)? {
        Comm::Host(host) => {
            // SAFETY: writable by NCCL's contract.
            let out = unsafe { Out::new(value, "value") }?;
            let bytes = host.world()?.stats().memory_bytes;
            out.set(match stat {
                ncclStatGpuMemSuspend => 0,
                ncclStatGpuMemSuspended => u64::from(host.is_suspended()),
                ncclStatGpuMemPersist | ncclStatGpuMemTotal => bytes,
                _ => return Err(Error::argument(format!("stat: {stat} is no ncclCommMemStat_t"))),
            });
            Ok(ncclSuccess)
        }
        Comm::Genuine(g) => {
            // SAFETY: writable by NCCL's contract.
            unsafe { Out::new(value, "value") }?;
            // SAFETY: this function's contract is that of the forwarded one.
            g.call("ncclCommMemStats", |l, real| unsafe { forward::ncclCommMemStats(l, real, stat, value) })
        }
    }
}

/// `ncclCommProperties_t` of nccl_device.h. Booleans are bytes.
#[repr(C)]
#[derive(Clone, Copy)]
struct Properties {
    header: config::Header,
    rank: c_int,
    nRanks: c_int,
    cudaDev: c_int,
    nvmlDev: c_int,
    deviceApiSupport: u8,
    multimemSupport: u8,
    ginType: u32,
    nLsaTeams: c_int,
    hostRmaSupport: u8,
    railedGinType: u32,
    commHash: u64,
    ginMinStride: c_int,
    ginConnectionType: u32,
    ginSupport: [u8; 64],
    devCommRuntimeVersionSize: usize,
    cftSupport: u8,
    cftMulticastSupport: u8,
    cftCountedSupport: u8,
}

const _: () = {
    assert!(offset_of!(Properties, rank) == 16 && offset_of!(Properties, ginType) == 36);
    assert!(offset_of!(Properties, railedGinType) == 48 && offset_of!(Properties, commHash) == 56);
    assert!(offset_of!(Properties, ginSupport) == 72 && offset_of!(Properties, cftSupport) == 144);
};

/// # Safety
/// As NCCL's function.
pub unsafe fn ncclCommQueryProperties(comm: ncclComm_t, props: *mut c_void) -> Result<ncclResult_t> {
    match &**handle::comm(comm)? {
        // SAFETY: begins with its size by NCCL's contract.
        Comm::Host(host) => unsafe { properties(host, props) }.map(|()| ncclSuccess),
        // SAFETY: this function's contract is that of the forwarded one.
        Comm::Genuine(g) => unsafe {
            g.call("ncclCommQueryProperties", |l, real| forward::ncclCommQueryProperties(l, real, props))
        },
    }
}

/// # Safety
/// `props` is NULL or an `ncclCommProperties_t` of any version.
unsafe fn properties(host: &Host, props: *mut c_void) -> Result<()> {
    let at = props.cast::<Properties>();
    // SAFETY: by this function's contract.
    let header = unsafe { config::header(at, NCCL_API_MAGIC, "props") }?;
    let world = host.world()?;
    let all = Properties {
        header,
        rank: int(world.rank())?,
        nRanks: int(world.nranks())?,
        cudaDev: host.device,
        nvmlDev: host.device,
        // Kernels on a device cannot reach any of it.
        deviceApiSupport: 0,
        multimemSupport: 0,
        ginType: 0,
        // Each rank is alone, as `ncclTeamLsa` says.
        nLsaTeams: int(world.nranks())?,
        hostRmaSupport: 0,
        railedGinType: 0,
        commHash: hash(world.name(), world.epoch()),
        ginMinStride: 0,
        ginConnectionType: 0,
        ginSupport: [0; 64],
        devCommRuntimeVersionSize: 0,
        cftSupport: 0,
        cftMulticastSupport: 0,
        cftCountedSupport: 0,
    };
    let len = header.size.min(size_of::<Properties>());
    // SAFETY: `len` bytes are there by this function's contract. Bytewise, because between fields of the copy
    // there is padding, which must not be read as values; the copy's bytes are only moved.
    unsafe { std::ptr::copy_nonoverlapping((&raw const all).cast::<u8>(), props.cast::<u8>(), len) };
    Ok(())
}

/// The same on all ranks, and most likely different for other communicators: FNV-1a.
fn hash(name: &str, epoch: u64) -> u64 {
    let bytes = name.bytes().chain(epoch.to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3))
}

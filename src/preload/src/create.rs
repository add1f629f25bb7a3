//! Making communicators from nothing but an id.

use crate::arg::Out;
use crate::comm::Comm;
use crate::config::{self, CommConfig};
use crate::cuda;
use crate::genuine::{self, forward};
use crate::handle;
use crate::host::Host;
use crate::host::join::Task;
use crate::id::{self, Parts};
use crate::mode::{self, Mode};
use core::ffi::c_int;
use multiworld::error::{Error, Result};
use multiworld::nccl::types::*;
use multiworld::world::World;
use std::ptr;

/// # Safety
/// As NCCL's function.
pub unsafe fn ncclGetUniqueId(uniqueId: *mut ncclUniqueId) -> Result<ncclResult_t> {
    if let Mode::Genuine(library) = mode::get()? {
        // SAFETY: this function's contract is that of the forwarded one.
        return unsafe { forward::ncclGetUniqueId(library, uniqueId) };
    }
    // SAFETY: writable by NCCL's contract.
    let out = unsafe { Out::new(uniqueId, "uniqueId") }?;
    let world = World::unique_id(&config::world_config()?)?;
    out.set(id::encode(&Parts { head: [0; id::HEAD], world }));
    Ok(ncclSuccess)
}

/// # Safety
/// As NCCL's function.
pub unsafe fn ncclCommInitRank(
    comm: *mut ncclComm_t,
    nranks: c_int,
    commId: ncclUniqueId,
    rank: c_int,
) -> Result<ncclResult_t> {
    if let Mode::Genuine(library) = mode::get()? {
        // SAFETY: this function's contract is that of the forwarded one.
        return unsafe {
            genuine::create(library, comm, |out| {
                forward::ncclCommInitRank(library, out, nranks, commId, rank)
            })
        };
    }
    // SAFETY: writable by NCCL's contract.
    let out = unsafe { Out::new(comm, "comm") };
    poisoning(|| init_rank(out?, nranks, &commId, "commId", rank, CommConfig::DEFAULT))
}

/// # Safety
/// As NCCL's function.
pub unsafe fn ncclCommInitRankConfig(
    comm: *mut ncclComm_t,
    nranks: c_int,
    commId: ncclUniqueId,
    rank: c_int,
    config: *mut ncclConfig_t,
) -> Result<ncclResult_t> {
    if let Mode::Genuine(library) = mode::get()? {
        // SAFETY: this function's contract is that of the forwarded one.
        return unsafe {
            genuine::create(library, comm, |out| {
                forward::ncclCommInitRankConfig(library, out, nranks, commId, rank, config)
            })
        };
    }
    // SAFETY: writable, and a configuration or NULL, by NCCL's contract.
    let (out, config) = unsafe { (Out::new(comm, "comm"), config::comm_config(config, CommConfig::DEFAULT)) };
    poisoning(|| init_rank(out?, nranks, &commId, "commId", rank, config?))
}

/// All ids are ours, and one is enough to meet.
///
/// # Safety
/// As NCCL's function.
pub unsafe fn ncclCommInitRankScalable(
    newcomm: *mut ncclComm_t,
    nranks: c_int,
    myrank: c_int,
    nId: c_int,
    commIds: *mut ncclUniqueId,
    config: *mut ncclConfig_t,
) -> Result<ncclResult_t> {
    if let Mode::Genuine(library) = mode::get()? {
        // SAFETY: this function's contract is that of the forwarded one.
        return unsafe {
            genuine::create(library, newcomm, |out| {
                forward::ncclCommInitRankScalable(library, out, nranks, myrank, nId, commIds, config)
            })
        };
    }
    // SAFETY: writable, and a configuration or NULL, by NCCL's contract.
    let (out, config) =
        unsafe { (Out::new(newcomm, "newcomm"), config::comm_config(config, CommConfig::DEFAULT)) };
    poisoning(|| {
        let (out, config) = (out?, config?);
        if nId < 1 || nId > nranks {
            return Err(Error::argument(format!("nId: {nId} is not between 1 and the {nranks} ranks")));
        }
        if commIds.is_null() {
            return Err(Error::argument("commIds: NULL"));
        }
        // SAFETY: at least one, as was checked, by NCCL's contract.
        let first = unsafe { commIds.read() };
        init_rank(out, nranks, &first, "commIds", myrank, config)
    })
}

/// In a group, an error is the group's, too.
fn poisoning(body: impl FnOnce() -> Result<ncclResult_t>) -> Result<ncclResult_t> {
    body().map_err(crate::group::poison)
}

fn init_rank(
    out: Out<ncclComm_t>,
    nranks: c_int,
    id: &ncclUniqueId,
    argument: &str,
    rank: c_int,
    comm_config: CommConfig,
) -> Result<ncclResult_t> {
    out.set(ptr::null_mut());
    check_ranks(nranks, rank)?;
    let id = id::of_host(id, argument)?;
    let config = config::world_config()?;
    let host = Host::new(comm_config, None);
    let join = move || World::init_rank(&id, nranks, rank, &config).map(Some);
    Task::new(None, comm_config.blocking, Some(host), out, join).start()
}

/// What a background task would find out too late.
pub fn check_ranks(nranks: c_int, rank: c_int) -> Result<()> {
    if nranks < 1 {
        return Err(Error::argument(format!("nranks: {nranks} is less than 1")));
    }
    if !(0..nranks).contains(&rank) {
        return Err(Error::argument(format!("rank: {rank} is not between 0 and {}", nranks - 1)));
    }
    Ok(())
}

/// # Safety
/// As NCCL's function.
pub unsafe fn ncclCommInitAll(
    comm: *mut ncclComm_t,
    ndev: c_int,
    devlist: *const c_int,
) -> Result<ncclResult_t> {
    if let Mode::Genuine(library) = mode::get()? {
        // SAFETY: this function's contract is that of the forwarded one.
        return unsafe { genuine_init_all(library, comm, ndev, devlist) };
    }
    // SAFETY: at least one may be written by NCCL's contract.
    let first = unsafe { Out::new(comm, "comm") };
    poisoning(|| {
        first?;
        check_ranks(ndev, 0)?;
        let n = ndev as usize;
        // SAFETY: NULL or that many by NCCL's contract.
        let devices = unsafe { devices(devlist, n) }?;
        let worlds = World::init_all(ndev, &config::world_config()?)?;
        let hosts: Vec<_> = devices.into_iter().map(|d| Host::new(CommConfig::DEFAULT, Some(d))).collect();
        let mut handles = Vec::with_capacity(n);
        for (host, world) in hosts.iter().zip(&worlds) {
            match handle::issue_comm(Comm::Host(host.clone())) {
                Ok(handle) => {
                    handles.push(handle);
                    host.join_at_once(handle.addr(), world.clone());
                }
                Err(e) => {
                    worlds.iter().for_each(|w| w.abort());
                    // They were issued a moment ago, and nobody knows them yet.
                    handles.into_iter().for_each(|h| drop(handle::remove_comm(h)));
                    return Err(e);
                }
            }
        }
        for (at, handle) in handles.into_iter().enumerate() {
            // SAFETY: `ndev` of them may be written by NCCL's contract.
            unsafe { comm.add(at).write(handle) };
        }
        Ok(ncclSuccess)
    })
}

/// # Safety
/// `devlist` is NULL or has `n` elements.
unsafe fn devices(devlist: *const c_int, n: usize) -> Result<Vec<c_int>> {
    // SAFETY: by this function's contract.
    let device = |at: usize| if devlist.is_null() { at as c_int } else { unsafe { devlist.add(at).read() } };
    let devices: Vec<c_int> = (0..n).map(device).collect();
    let there = cuda::runtime().and_then(|r| r.devices());
    for d in &devices {
        if *d < 0 || there.is_some_and(|there| *d >= there) {
            return Err(Error::argument(format!("devlist: {d} is not the number of a device")));
        }
    }
    Ok(devices)
}

/// # Safety
/// As `ncclCommInitAll`.
unsafe fn genuine_init_all(
    library: &'static multiworld::nccl::Library,
    comm: *mut ncclComm_t,
    ndev: c_int,
    devlist: *const c_int,
) -> Result<ncclResult_t> {
    check_ranks(ndev, 0)?;
    let mut real = vec![ptr::null_mut(); ndev as usize];
    // SAFETY: by this function's contract, with room of our own for the communicators.
    let result = unsafe { forward::ncclCommInitAll(library, real.as_mut_ptr(), ndev, devlist) }?;
    for (at, real) in real.into_iter().enumerate() {
        // SAFETY: `ndev` of them may be written by this function's contract; each is written what was made.
        unsafe {
            genuine::create(library, comm.add(at), |out| {
                *out = real;
                Ok(result)
            })
        }?;
    }
    Ok(result)
}

//! Making communicators from nothing but an id.

use crate::arg::Out;
use crate::comm::Comm;
use crate::config::{self, CommConfig};
use crate::cuda;
use crate::genuine;
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
        // SAFETY: writable by NCCL's contract.
        let out = unsafe { Out::new(uniqueId, "uniqueId") }?;
        out.set(genuine::join::unique_id_with_world(library)?);
        return Ok(ncclSuccess);
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
        // SAFETY: writable by NCCL's contract; no configuration.
        return poisoning(|| unsafe {
            genuine::join::init_rank(library, Out::new(comm, "comm")?, nranks, commId, rank, ptr::null())
        });
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
        // SAFETY: writable, and a configuration or NULL, by NCCL's contract.
        return poisoning(|| unsafe {
            genuine::join::init_rank(library, Out::new(comm, "comm")?, nranks, commId, rank, config)
        });
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
        // SAFETY: writable, as many ids as stated, and a configuration or NULL, by NCCL's contract.
        return poisoning(|| unsafe {
            let out = Out::new(newcomm, "newcomm")?;
            check_ids(nranks, nId, commIds)?;
            let ids = (0..nId as usize).map(|at| commIds.add(at).read()).collect();
            genuine::join::init_rank_scalable(library, out, nranks, myrank, ids, config)
        });
    }
    // SAFETY: writable, and a configuration or NULL, by NCCL's contract.
    let (out, config) =
        unsafe { (Out::new(newcomm, "newcomm"), config::comm_config(config, CommConfig::DEFAULT)) };
    poisoning(|| {
        let (out, config) = (out?, config?);
        check_ids(nranks, nId, commIds)?;
        // SAFETY: at least one, as was checked, by NCCL's contract.
        let first = unsafe { commIds.read() };
        init_rank(out, nranks, &first, "commIds", myrank, config)
    })
}

fn check_ids(nranks: c_int, nId: c_int, commIds: *const ncclUniqueId) -> Result<()> {
    if nId < 1 || nId > nranks {
        return Err(Error::argument(format!("nId: {nId} is not between 1 and the {nranks} ranks")));
    }
    if commIds.is_null() {
        return Err(Error::argument("commIds: NULL"));
    }
    Ok(())
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
        return poisoning(|| {
            // SAFETY: at least one may be written by NCCL's contract.
            unsafe { Out::new(comm, "comm") }?;
            check_ranks(ndev, 0)?;
            // SAFETY: NULL or that many by NCCL's contract.
            let devices = unsafe { devices(devlist, ndev as usize) }?;
            // SAFETY: that many may be written by NCCL's contract.
            unsafe { genuine::join::init_all(library, comm, &devices) }
        });
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

//! Communicators from communicators: split, shrink, grow.

use crate::arg::Out;
use crate::comm::Comm;
use crate::config::{self, CommConfig};
use crate::create::check_ranks;
use crate::genuine::{self, forward};
use crate::host::Host;
use crate::host::join::Task;
use crate::id::{self, Parts};
use crate::mode::{self, Mode};
use crate::{group, handle};
use core::ffi::c_int;
use multiworld::error::{Error, Result};
use multiworld::nccl::types::*;
use multiworld::sync::Arc;
use multiworld::world::{Ranking, World};

/// # Safety
/// As NCCL's function.
pub unsafe fn ncclCommSplit(
    comm: ncclComm_t,
    color: c_int,
    key: c_int,
    newcomm: *mut ncclComm_t,
    config: *mut ncclConfig_t,
) -> Result<ncclResult_t> {
    let body = || {
        let parent = handle::comm(comm)?;
        let parent = match &**parent {
            Comm::Host(host) => host,
            // SAFETY: writable, and a configuration or NULL, by NCCL's contract.
            Comm::Genuine(g) => unsafe {
                return genuine::join::split(g, color, key, Out::new(newcomm, "newcomm")?, config);
            },
        };
        // SAFETY: writable, and a configuration or NULL, by NCCL's contract.
        let (out, config) =
            unsafe { (Out::new(newcomm, "newcomm")?, config::comm_config(config, parent.config)?) };
        if color < NCCL_SPLIT_NOCOLOR {
            return Err(Error::argument(format!("color: {color} is neither a color nor NCCL_SPLIT_NOCOLOR")));
        }
        let host = (color >= 0).then(|| Host::new(config, Some(parent.device)));
        child(parent, config, host, out, move |world| world.split(color, key, None))
    };
    body().map_err(group::poison)
}

/// # Safety
/// As NCCL's function.
pub unsafe fn ncclCommShrink(
    comm: ncclComm_t,
    excludeRanksList: *mut c_int,
    excludeRanksCount: c_int,
    newcomm: *mut ncclComm_t,
    config: *mut ncclConfig_t,
    shrinkFlags: c_int,
) -> Result<ncclResult_t> {
    let body = || {
        let parent = handle::comm(comm)?;
        let parent = match &**parent {
            Comm::Host(host) => host,
            // SAFETY: writable, a list as long as stated, and a configuration or NULL, by NCCL's contract.
            Comm::Genuine(g) => unsafe {
                let out = Out::new(newcomm, "newcomm")?;
                let n = usize::try_from(excludeRanksCount).unwrap_or_default();
                if excludeRanksList.is_null() || n == 0 {
                    return Err(Error::argument("excludeRanksList: no ranks in it"));
                }
                let list = (0..n).map(|at| excludeRanksList.add(at).read()).collect();
                return genuine::join::shrink(g, list, out, config, shrinkFlags);
            },
        };
        // SAFETY: writable, and a configuration or NULL, by NCCL's contract.
        let (out, config) =
            unsafe { (Out::new(newcomm, "newcomm")?, config::comm_config(config, parent.config)?) };
        let abort = match shrinkFlags.cast_unsigned() {
            NCCL_SHRINK_DEFAULT => false,
            NCCL_SHRINK_ABORT => true,
            _ => return Err(Error::argument(format!("shrinkFlags: {shrinkFlags} is no flag of it"))),
        };
        // SAFETY: that many may be read by NCCL's contract.
        let excluded = unsafe { excluded(excludeRanksList, excludeRanksCount, parent.world()?) }?;
        if abort {
            // Ends what is under way there; `revoke` refuses a second time only.
            let _ = parent.revoke();
        }
        let host = Host::new(config, Some(parent.device));
        child(parent, config, Some(host), out, move |world| {
            world.shrink(&excluded, Ranking::InOrder, None).map(Some)
        })
    };
    body().map_err(group::poison)
}

/// # Safety
/// `list` is NULL or has `count` elements.
unsafe fn excluded(list: *const c_int, count: c_int, parent: &World) -> Result<Vec<u32>> {
    if list.is_null() {
        return Err(Error::argument("excludeRanksList: NULL"));
    }
    if count < 1 {
        return Err(Error::argument(format!("excludeRanksCount: {count} is less than 1")));
    }
    // SAFETY: by this function's contract.
    let list = (0..count as usize).map(|at| unsafe { list.add(at).read() });
    let ranks = list.map(|r| match u32::try_from(r) {
        Ok(rank) if rank == parent.rank() => {
            Err(Error::argument(format!("excludeRanksList: {r} is the calling rank itself")))
        }
        Ok(rank) if rank < parent.nranks() => Ok(rank),
        _ => Err(Error::argument(format!("excludeRanksList: {r} is not a rank of the communicator"))),
    });
    ranks.collect()
}

/// # Safety
/// As NCCL's function.
pub unsafe fn ncclCommGetUniqueId(comm: ncclComm_t, uniqueId: *mut ncclUniqueId) -> Result<ncclResult_t> {
    match &**handle::comm(comm)? {
        Comm::Host(host) => {
            host.ready()?;
            // SAFETY: writable by NCCL's contract.
            let out = unsafe { Out::new(uniqueId, "uniqueId") }?;
            let world = World::unique_id(&config::world_config()?)?;
            out.set(id::encode(&Parts { head: [0; id::HEAD], world }));
            Ok(ncclSuccess)
        }
        Comm::Genuine(g) => {
            // SAFETY: writable by NCCL's contract.
            let out = unsafe { Out::new(uniqueId, "uniqueId") }?;
            let mut genuine = ncclUniqueId { internal: [0; 128] };
            let answer = g.call("ncclCommGetUniqueId", |l, real| {
                // SAFETY: a live handle, entered; the id is writable.
                unsafe { forward::ncclCommGetUniqueId(l, real, &mut genuine) }
            })?;
            out.set(genuine::join::with_world(&id::bytes(&genuine))?);
            Ok(answer)
        }
    }
}

/// Members of `comm` keep their ranks, and one of them brings the id; newcomers have no `comm`, and an id and
/// a rank.
///
/// # Safety
/// As NCCL's function.
pub unsafe fn ncclCommGrow(
    comm: ncclComm_t,
    nRanks: c_int,
    uniqueId: *const ncclUniqueId,
    rank: c_int,
    newcomm: *mut ncclComm_t,
    config: *mut ncclConfig_t,
) -> Result<ncclResult_t> {
    let parent = if comm.is_null() { None } else { Some(handle::comm(comm).map_err(group::poison)?) };
    let theirs = match parent.as_ref().map(|p| &***p) {
        Some(Comm::Genuine(g)) => Some((g.comm()?.library().clone(), Some(g))),
        Some(Comm::Host(_)) => None,
        None => match mode::get()? {
            Mode::Genuine(library) => Some((library.clone(), None)),
            Mode::Host => None,
        },
    };
    if let Some((library, parent)) = theirs {
        let body = || {
            // SAFETY: writable, an id or NULL, and a configuration or NULL, by NCCL's contract.
            unsafe {
                let (out, id) = (Out::new(newcomm, "newcomm")?, uniqueId.as_ref().copied());
                genuine::join::grow(&library, parent, nRanks, id, rank, out, config)
            }
        };
        return body().map_err(group::poison);
    }
    let host = match parent.as_ref().map(|p| &***p) {
        Some(Comm::Host(host)) => Some(host),
        _ => None,
    };
    // SAFETY: this function's contract.
    unsafe { grow(host, nRanks, uniqueId, rank, newcomm, config) }.map_err(group::poison)
}

/// # Safety
/// As `ncclCommGrow`.
unsafe fn grow(
    parent: Option<&Arc<Host>>,
    nranks: c_int,
    id: *const ncclUniqueId,
    rank: c_int,
    newcomm: *mut ncclComm_t,
    config: *mut ncclConfig_t,
) -> Result<ncclResult_t> {
    let inherited = parent.map_or(CommConfig::DEFAULT, |p| p.config);
    // SAFETY: writable, and a configuration or NULL, by NCCL's contract.
    let (out, comm_config) =
        unsafe { (Out::new(newcomm, "newcomm")?, config::comm_config(config, inherited)?) };
    // SAFETY: NULL or readable by NCCL's contract.
    let id = unsafe { id.as_ref() }.map(|id| id::of_host(id, "uniqueId")).transpose()?;
    let host = Host::new(comm_config, parent.map(|p| p.device));
    let Some(parent) = parent else {
        let id = id.ok_or_else(|| Error::argument("uniqueId: NULL, but a new rank needs it"))?;
        check_ranks(nranks, rank)?;
        let config = config::world_config()?;
        let join = move || World::init_rank(&id, nranks, rank, &config).map(Some);
        return Task::new(None, comm_config.blocking, Some(host), out, join).start();
    };
    if rank != -1 {
        return Err(Error::argument(format!("rank: {rank}, but a member keeps its rank and passes -1")));
    }
    let now = parent.world()?.nranks();
    if u32::try_from(nranks).is_ok_and(|n| n <= now) || nranks < 1 {
        return Err(Error::argument(format!("nRanks: {nranks} is not more than the {now} there are")));
    }
    child(parent, comm_config, Some(host), out, move |world| world.grow(nranks, id.as_ref(), None).map(Some))
}

/// A task that needs the parent's world: after what was posted there before.
fn child(
    parent: &Arc<Host>,
    config: CommConfig,
    host: Option<Arc<Host>>,
    out: Out<ncclComm_t>,
    join: impl FnOnce(&Arc<World>) -> Result<Option<Arc<World>>> + Send + 'static,
) -> Result<ncclResult_t> {
    parent.ready()?;
    let of = parent.clone();
    let join = move || {
        of.drain()?;
        join(of.world()?)
    };
    Task::new(Some(parent), config.blocking, host, out, join).start()
}

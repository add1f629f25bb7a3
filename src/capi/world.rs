//! `mwWorld_t`: how worlds begin and end.

use super::arg::{self, Out};
use super::boundary::{guard, within};
use super::config::{self, mwConfig_t};
use super::handle::{self, mwWorld_t};
use super::result::mwResult_t;
use super::unique_id::mwUniqueId;
use super::{group, redop};
use crate::config::ranks_from_env;
use crate::error::{Error, Result};
use crate::observe::callbacks;
use crate::sync::Arc;
use crate::world::World;
use std::ffi::{c_char, c_int};
use std::ptr;

/// Bytes of the longest world name, with its NUL.
pub const MW_WORLD_NAME_BYTES: usize = 64;

/// A color for mwWorldSplit: this rank takes part in the call and gets no new world.
pub const MW_SPLIT_NOCOLOR: c_int = -1;

/// Joins the world `name` (1 to 63 bytes of UTF-8) as `rank` of `nranks` and waits until all are there. The
/// ranks meet in the store (`store` of the configuration, MW_STORE); at a tcp:// address rank 0 starts one if
/// nobody listens there yet. With -1 for both numbers they come from MW_NRANKS and MW_RANK, or else from torchrun,
/// Open MPI or Slurm. `config` NULL means environment and defaults. On an error, `*world` is NULL; mwTimeout
/// when not all came in time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mwWorldInit(
    world: *mut mwWorld_t,
    name: *const c_char,
    nranks: c_int,
    rank: c_int,
    config: *const mwConfig_t,
) -> mwResult_t {
    // SAFETY: each pointer by this function's contract.
    create("mwWorldInit", unsafe { Out::new(world, "world") }, || {
        // SAFETY: as above.
        let (name, config) = unsafe { (arg::text(name, "name")?, config::load(config)?) };
        if !(1..MW_WORLD_NAME_BYTES).contains(&name.len()) {
            return Err(Error::argument(format!("name: {} bytes, not 1 to 63", name.len())));
        }
        let (nranks, rank) = ranks(nranks, rank)?;
        World::init_named(name, nranks, rank, &config).map(Some)
    })
}

/// Joins the world of a unique id (see mwGetUniqueId) as `rank` of `nranks` and waits until all are there.
/// Needs no store and no secret of its own. Otherwise as mwWorldInit.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mwWorldInitRank(
    world: *mut mwWorld_t,
    nranks: c_int,
    id: mwUniqueId,
    rank: c_int,
    config: *const mwConfig_t,
) -> mwResult_t {
    // SAFETY: each pointer by this function's contract.
    create("mwWorldInitRank", unsafe { Out::new(world, "world") }, || {
        // SAFETY: as above.
        let config = unsafe { config::load(config) }?;
        let (nranks, rank) = ranks(nranks, rank)?;
        World::init_rank(&id.to_bytes(), nranks, rank, &config).map(Some)
    })
}

/// Makes one world with all its ranks in this process: `worlds[i]` becomes rank i of `nranks`, for a thread
/// each. On an error all are NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mwWorldInitAll(
    worlds: *mut mwWorld_t,
    nranks: c_int,
    config: *const mwConfig_t,
) -> mwResult_t {
    guard(|| {
        if nranks <= 0 {
            return Err(Error::argument(format!("nranks: {nranks} is no number of ranks")));
        }
        // SAFETY: room for `nranks` handles is this function's contract.
        unsafe { Out::new(worlds, "worlds") }?;
        // SAFETY: as above.
        let set = |at: usize, world| unsafe { worlds.add(at).write(world) };
        (0..nranks as usize).for_each(|at| set(at, ptr::null_mut()));
        group::refuse("mwWorldInitAll")?;
        // SAFETY: NULL or valid by this function's contract.
        let made = World::init_all(nranks, &unsafe { config::load(config) }?)?;
        let handles = issue_all(&made, nranks as usize)?;
        handles.into_iter().enumerate().for_each(|(at, world)| set(at, world));
        Ok(())
    })
}

/// Splits a world: every member calls this, those that pass the same `color` (0 or more) get a new world
/// together, ranked by `key` and then by their old rank; those with MW_SPLIT_NOCOLOR get NULL. The old world
/// goes on. `config` NULL means the old world's settings. On an error, `*newworld` is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mwWorldSplit(
    world: mwWorld_t,
    color: c_int,
    key: c_int,
    newworld: *mut mwWorld_t,
    config: *const mwConfig_t,
) -> mwResult_t {
    // SAFETY: each pointer by this function's contract.
    create("mwWorldSplit", unsafe { Out::new(newworld, "newworld") }, || {
        let world = handle::world(world)?;
        // SAFETY: as above.
        let config = if config.is_null() { None } else { Some(unsafe { config::load(config) }?) };
        if color < MW_SPLIT_NOCOLOR {
            return Err(Error::argument(format!("color: {color} is neither a color nor MW_SPLIT_NOCOLOR")));
        }
        within(&world, |world| world.split(color, key, config.as_ref()))
    })
}

/// Ends the world for all of its members: pending and later operations return mwRevoked, on every rank. Meant
/// for a member that has seen an error which the others cannot see. Does not wait for anybody; destroy is
/// still needed.
#[unsafe(no_mangle)]
pub extern "C" fn mwWorldRevoke(world: mwWorld_t) -> mwResult_t {
    guard(|| within(&*handle::world(world)?, |world| world.revoke()))
}

/// Leaves a world at once, whatever it is doing, and frees it: operations that other threads wait for return
/// mwAborted, the other members see this rank as failed. Never waits for another rank. The handle is gone
/// afterwards; there is nothing left to destroy. Allowed at any time, also inside a group.
#[unsafe(no_mangle)]
pub extern "C" fn mwWorldAbort(world: mwWorld_t) -> mwResult_t {
    guard(|| {
        let gone = handle::remove_world(world)?;
        let aborted = within(&gone, |gone| {
            gone.abort();
            Ok(())
        });
        aborted.and(release(world))
    })
}

/// Finishes what this rank has posted in the world and tells the others that it leaves in good order.
/// Afterwards only queries are allowed; destroy is still needed.
#[unsafe(no_mangle)]
pub extern "C" fn mwWorldFinalize(world: mwWorld_t) -> mwResult_t {
    guard(|| {
        group::refuse("mwWorldFinalize")?;
        within(&*handle::world(world)?, |world| world.finalize())
    })
}

/// Finalizes a world, if that has not been done and the world is active, and frees it. The handle is gone
/// afterwards, whatever is returned: an error tells that finalizing failed. The operators and the callback of
/// the world are gone, too; requests of it stay until they are freed.
#[unsafe(no_mangle)]
pub extern "C" fn mwWorldDestroy(world: mwWorld_t) -> mwResult_t {
    guard(|| {
        group::refuse("mwWorldDestroy")?;
        let gone = handle::remove_world(world)?;
        let destroyed = within(&gone, |gone| gone.destroy());
        destroyed.and(release(world))
    })
}

/// What the functions that make one world have in common; `make` answers `None` where this rank gets none.
pub(super) fn create(
    function: &str,
    out: Result<Out<mwWorld_t>>,
    make: impl FnOnce() -> Result<Option<Arc<World>>>,
) -> mwResult_t {
    guard(|| {
        let out = out?;
        out.set(ptr::null_mut());
        group::refuse(function)?;
        if let Some(world) = make()? {
            out.set(handle::issue_world(world)?);
        }
        Ok(())
    })
}

/// -1 for both is what the environment says.
fn ranks(nranks: c_int, rank: c_int) -> Result<(c_int, c_int)> {
    if (nranks, rank) == (-1, -1) { ranks_from_env() } else { Ok((nranks, rank)) }
}

/// Handles for all, or none and no world left.
fn issue_all(made: &[Arc<World>], expected: usize) -> Result<Vec<mwWorld_t>> {
    let mut handles = Vec::with_capacity(made.len());
    let mut issue = || {
        if made.len() != expected {
            let count = made.len();
            return Err(Error::internal(format!("{count} worlds were made in place of {expected}")));
        }
        made.iter().try_for_each(|world| {
            handles.push(handle::issue_world(Arc::clone(world))?);
            Ok(())
        })
    };
    if let Err(err) = issue() {
        for handle in handles {
            handle::remove_world(handle)?;
        }
        made.iter().for_each(|world| world.abort());
        return Err(err);
    }
    Ok(handles)
}

/// Lets go of what belongs to a world whose handle is gone.
pub(super) fn release(world: mwWorld_t) -> Result<()> {
    redop::forget(world);
    callbacks::set_callback(world.addr(), None)
}

//! `mwWorld_t`: worlds from worlds whose membership changes.

use super::arg::{self, Out};
use super::boundary::{guard, within};
use super::config::{self, mwConfig_t};
use super::group;
use super::handle::{self, mwWorld_t};
use super::result::mwResult_t;
use super::unique_id::mwUniqueId;
use super::world::{create, release};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::observe::callbacks;
use crate::sync::Arc;
use crate::world::{Ranking, Size, World};
use std::ffi::{c_char, c_int};

/// For mwWorldShrink: survivors move up, so that their order stays.
pub const MW_SHRINK_DEFAULT: c_int = 0;

/// For mwWorldShrink: every survivor keeps its rank, apart from those whose rank is not below the new size: these
/// take the places of the excluded ones, in their order.
pub const MW_SHRINK_KEEP_RANKS: c_int = 1;

/// For mwWorldReform: a newcomer leaves the number of members to the survivors.
pub const MW_REFORM_ANY: c_int = 0;

/// Makes a world of the members of `world` that are not in `excludeRanks` (`excludeCount` ranks of it). All of those
/// call this, with the same list; mwWorldGetFailedRanks has it after a failure. `world` may have broken or been
/// revoked; it stays as it is and is still to be destroyed or aborted. `flags` is MW_SHRINK_DEFAULT or
/// MW_SHRINK_KEEP_RANKS, `config` NULL means the settings of `world`. On an error, `*newworld` is NULL: mwRemoteError
/// when another survivor has failed meanwhile (mwWorldGetFailedRanks has it then), mwTimeout when one did not come.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mwWorldShrink(
    world: mwWorld_t,
    excludeRanks: *const c_int,
    excludeCount: c_int,
    flags: c_int,
    newworld: *mut mwWorld_t,
    config: *const mwConfig_t,
) -> mwResult_t {
    // SAFETY: each pointer by this function's contract.
    create("mwWorldShrink", unsafe { Out::new(newworld, "newworld") }, || {
        let world = handle::world(world)?;
        // SAFETY: as above.
        let (config, excluded) = unsafe { (given(config)?, ranks(excludeRanks, excludeCount)?) };
        let ranking = match flags {
            MW_SHRINK_DEFAULT => Ranking::InOrder,
            MW_SHRINK_KEEP_RANKS => Ranking::Stable,
            _ => return Err(Error::argument(format!("flags: {flags} is no flag of mwWorldShrink"))),
        };
        within(&world, |world| world.shrink(&excluded, ranking, config.as_ref()).map(Some))
    })
}

/// Makes a world of `nranks` members of those of `world`, which keep their ranks, and of newcomers, which call
/// mwWorldInitRank with a new unique id, `nranks` and the ranks behind. All members of `world` call this, one of them
/// with the id, the others with `id` NULL. `world` stays as it is and goes on. `config` NULL means the settings of
/// `world`. On an error, `*newworld` is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mwWorldGrow(
    world: mwWorld_t,
    nranks: c_int,
    id: *const mwUniqueId,
    newworld: *mut mwWorld_t,
    config: *const mwConfig_t,
) -> mwResult_t {
    // SAFETY: each pointer by this function's contract.
    create("mwWorldGrow", unsafe { Out::new(newworld, "newworld") }, || {
        let world = handle::world(world)?;
        // SAFETY: as above.
        let (config, id) = unsafe { (given(config)?, id.as_ref().map(|id| id.to_bytes())) };
        within(&world, |world| world.grow(nranks, id.as_ref(), config.as_ref()).map(Some))
    })
}

/// Goes on with the next epoch of a world that was made by name (mwWorldInit): members of it pass their handle in
/// `*world`, whether it has broken, was revoked or is active, and newcomers, among them spares that have waited here
/// since before it was needed, pass NULL and the `name`. All meet in the store. Survivors keep their ranks and newcomers
/// take the places of those who have failed or left, the lowest first; without enough newcomers the last ones move up.
///
/// It begins when all members of the old epoch have called this or are gone and there are `maxRanks`, or `minRanks` and
/// nobody more has come for reformWaitMs. Members that are alive and do not call this are waited for half of
/// joinTimeoutMs and then left out. All callers pass the same numbers, newcomers may pass MW_REFORM_ANY for both. A
/// newcomer that there is no place for waits for the epoch after.
///
/// On success `*world` is the new epoch's handle; the old one is gone, with what was under way in it and its operators,
/// and its callback is the new one's. All who come out have the same members. On an error `*world` is as it was, and
/// nobody else is disturbed: mwTimeout when too few came, mwInvalidArgument when others have said other numbers,
/// mwRemoteError when the others went on without this one. `name` may be NULL with a handle, `config` NULL then means
/// the settings of `*world`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mwWorldReform(
    world: *mut mwWorld_t,
    name: *const c_char,
    minRanks: c_int,
    maxRanks: c_int,
    config: *const mwConfig_t,
) -> mwResult_t {
    guard(|| {
        // SAFETY: each pointer by this function's contract.
        let out = unsafe { Out::new(world, "world") }?;
        group::refuse("mwWorldReform")?;
        let size = match (minRanks, maxRanks) {
            (MW_REFORM_ANY, MW_REFORM_ANY) => Size::Theirs,
            (min, max) => Size::Between(min, max),
        };
        // SAFETY: as above; the handle is the caller's and initialised.
        let (old, config) = unsafe { (out.get(), given(config)?) };
        // SAFETY: as above.
        let name = if name.is_null() { None } else { Some(unsafe { arg::text(name, "name") }?) };
        if old.is_null() {
            let name = name.ok_or_else(|| Error::argument("name: NULL, and *world is, too"))?;
            let config = config.map_or_else(Config::from_env, Ok)?;
            let new = World::reform(None, name, size, &config)?;
            out.set(handle::issue_world(new)?);
            return Ok(());
        }
        // Not held meanwhile: another thread may abort the world.
        let mine = Arc::clone(&*handle::world(old)?);
        if let Some(name) = name.filter(|name| *name != mine.name()) {
            return Err(Error::argument(format!(
                "name: '{name}' is not the name of *world, '{}'",
                mine.name()
            )));
        }
        let config = config.unwrap_or_else(|| mine.config().clone());
        let new = within(&mine, |old| World::reform(Some(old), old.name(), size, &config))?;
        out.set(handle::issue_world_with(new, |new| callbacks::pass_on(old.addr(), new.addr()))?);
        // Unless another thread has aborted it just now.
        if handle::remove_world(old).is_ok() {
            release(old)?;
        }
        Ok(())
    })
}

/// The caller's configuration, unless it is NULL.
///
/// # Safety
/// As for [`config::load`].
unsafe fn given(config: *const mwConfig_t) -> Result<Option<Config>> {
    // SAFETY: by this function's contract.
    if config.is_null() { Ok(None) } else { unsafe { config::load(config) }.map(Some) }
}

/// A list of ranks, none of them negative.
///
/// # Safety
/// `list` is NULL or has `count` elements.
unsafe fn ranks(list: *const c_int, count: c_int) -> Result<Vec<u32>> {
    let Ok(count) = usize::try_from(count) else {
        return Err(Error::argument(format!("excludeCount: {count} is negative")));
    };
    if count == 0 {
        return Ok(Vec::new());
    }
    if list.is_null() {
        return Err(Error::argument(format!("excludeRanks: NULL with an excludeCount of {count}")));
    }
    // SAFETY: by this function's contract.
    let list = unsafe { std::slice::from_raw_parts(list, count) };
    let wrong = |rank| Error::argument(format!("excludeRanks: {rank} is no rank"));
    list.iter().map(|rank| u32::try_from(*rank).map_err(|_| wrong(rank))).collect()
}

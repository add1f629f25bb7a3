//! `mwWorld_t`: everything there is to ask about a world.

use super::arg::Out;
use super::boundary::guard;
use super::handle::{self, mwWorld_t};
use super::result::mwResult_t;
use crate::error::{Error, Result};
use crate::sync::Arc;
use crate::world::{State, Stats, World};
use std::ffi::{c_char, c_int};
use std::mem::{offset_of, size_of};
use std::ptr;

/// What a world is in the course of its life. Values are only ever added.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum mwWorldState_t {
    /// It takes operations.
    mwWorldActive = 0,
    /// A member failed or a deadline passed.
    mwWorldBroken = 1,
    /// A member revoked it.
    mwWorldRevoked = 2,
    /// This member aborted it.
    mwWorldAborted = 3,
    /// This member finalized it.
    mwWorldFinalized = 4,
}

impl From<State> for mwWorldState_t {
    fn from(state: State) -> mwWorldState_t {
        match state {
            State::Active => mwWorldState_t::mwWorldActive,
            State::Broken => mwWorldState_t::mwWorldBroken,
            State::Revoked => mwWorldState_t::mwWorldRevoked,
            State::Aborted => mwWorldState_t::mwWorldAborted,
            State::Finalized => mwWorldState_t::mwWorldFinalized,
        }
    }
}

/// Counters of this member of a world, since it joined.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct mwWorldStats_t {
    /// Set by the caller to sizeof(mwWorldStats_t).
    pub size: usize,
    /// Operations that were done.
    pub operations: u64,
    /// Bytes sent to other ranks.
    pub bytesSent: u64,
    /// Bytes received from other ranks.
    pub bytesReceived: u64,
    /// Ranks reached through shared memory.
    pub shmPeers: c_int,
    /// Ranks reached through TCP.
    pub tcpPeers: c_int,
    /// Memory that the world holds, shared memory included.
    pub memoryBytes: u64,
}

/// Asks a world one thing and writes the answer.
///
/// # Safety
/// `ptr` is NULL, misaligned (both are errors) or may be written.
unsafe fn answer<T>(
    world: mwWorld_t,
    ptr: *mut T,
    name: &str,
    ask: impl FnOnce(&Arc<World>) -> Result<T>,
) -> mwResult_t {
    guard(|| {
        // SAFETY: by this function's contract.
        let out = unsafe { Out::new(ptr, name) }?;
        out.set(ask(&*handle::world(world)?)?);
        Ok(())
    })
}

fn int(value: u32) -> Result<c_int> {
    c_int::try_from(value).map_err(|_| Error::internal(format!("{value} does not fit an int")))
}

/// Writes the number of ranks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mwWorldCount(world: mwWorld_t, count: *mut c_int) -> mwResult_t {
    // SAFETY: writable by the contract of every output argument.
    unsafe { answer(world, count, "count", |world| int(world.nranks())) }
}

/// Writes the caller's rank.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mwWorldUserRank(world: mwWorld_t, rank: *mut c_int) -> mwResult_t {
    // SAFETY: writable by the contract of every output argument.
    unsafe { answer(world, rank, "rank", |world| int(world.rank())) }
}

/// Writes the CUDA device of the world; -1 on the host backend.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mwWorldDevice(world: mwWorld_t, device: *mut c_int) -> mwResult_t {
    // SAFETY: writable by the contract of every output argument.
    unsafe { answer(world, device, "device", |world| Ok(world.device())) }
}

/// Writes the world's name and a NUL into `size` bytes; MW_WORLD_NAME_BYTES are always enough.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mwWorldName(world: mwWorld_t, name: *mut c_char, size: usize) -> mwResult_t {
    guard(|| {
        if name.is_null() {
            return Err(Error::argument("name: NULL"));
        }
        let world = handle::world(world)?;
        let text = world.name().as_bytes();
        if size <= text.len() {
            return Err(Error::argument(format!("size: {size} bytes cannot hold {} and a NUL", text.len())));
        }
        // SAFETY: `size` bytes may be written, which is this function's contract, and the text is shorter.
        unsafe {
            ptr::copy_nonoverlapping(text.as_ptr(), name.cast(), text.len());
            name.add(text.len()).write(0);
        }
        Ok(())
    })
}

/// Writes the world's epoch: which of the memberships that had this name it is.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mwWorldEpoch(world: mwWorld_t, epoch: *mut u64) -> mwResult_t {
    // SAFETY: writable by the contract of every output argument.
    unsafe { answer(world, epoch, "epoch", |world| Ok(world.epoch())) }
}

/// Writes what the world is at the moment.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mwWorldGetState(world: mwWorld_t, state: *mut mwWorldState_t) -> mwResult_t {
    // SAFETY: writable by the contract of every output argument.
    unsafe { answer(world, state, "state", |world| Ok(world.state().into())) }
}

/// Writes what broke the world, mwSuccess while nothing did. mwGetLastError(world) has the sentence to it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mwWorldGetAsyncError(world: mwWorld_t, asyncError: *mut mwResult_t) -> mwResult_t {
    let code = |world: &Arc<World>| world.error().map_or(mwResult_t::mwSuccess, |err| err.code.into());
    // SAFETY: writable by the contract of every output argument.
    unsafe { answer(world, asyncError, "asyncError", |world| Ok(code(world))) }
}

/// Writes the ranks that failed, in ascending order, as many as fit: `*count` is the room in `ranks` before
/// and the number of failed ranks afterwards, which may be greater. With a room of 0, `ranks` may be NULL.
/// All surviving members get the same.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mwWorldGetFailedRanks(
    world: mwWorld_t,
    ranks: *mut c_int,
    count: *mut c_int,
) -> mwResult_t {
    guard(|| {
        // SAFETY: readable and writable, which is this function's contract.
        let (out, room) = unsafe {
            let out = Out::new(count, "count")?;
            let room = out.get();
            (out, room)
        };
        let room = usize::try_from(room)
            .map_err(|_| Error::argument(format!("count: {room} is no room for ranks")))?;
        if room > 0 && (ranks.is_null() || !ranks.is_aligned()) {
            return Err(Error::argument("ranks: NULL or not aligned for its type"));
        }
        let mut failed = handle::world(world)?.failed_ranks();
        failed.sort_unstable();
        for (at, &rank) in failed.iter().take(room).enumerate() {
            // SAFETY: below `room`, by this function's contract.
            unsafe { ranks.add(at).write(int(rank)?) };
        }
        out.set(int(u32::try_from(failed.len()).unwrap_or(u32::MAX))?);
        Ok(())
    })
}

/// Writes the counters of the world. `stats->size` says how much there is room for, so set it before the
/// call; fields that only a newer library knows are left alone.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mwWorldGetStats(world: mwWorld_t, stats: *mut mwWorldStats_t) -> mwResult_t {
    guard(|| {
        // SAFETY: begins with its size, which is this function's contract.
        unsafe { Out::new(stats, "stats") }?;
        // SAFETY: as above, and aligned.
        let size = unsafe { stats.cast::<usize>().read() };
        if size <= size_of::<usize>() {
            return Err(Error::argument(format!("stats: size is {size}; set it to sizeof(mwWorldStats_t)")));
        }
        let counters = counters(handle::world(world)?.stats(), size)?;
        // SAFETY: `size` bytes may be written by this function's contract, and no more than exist are copied.
        unsafe {
            ptr::copy_nonoverlapping(
                (&raw const counters).cast(),
                stats.cast::<u8>(),
                size.min(size_of_val(&counters)),
            );
        }
        Ok(())
    })
}

fn counters(stats: Stats, size: usize) -> Result<mwWorldStats_t> {
    const { assert!(offset_of!(mwWorldStats_t, memoryBytes) + 8 == size_of::<mwWorldStats_t>(), "no padding") };
    Ok(mwWorldStats_t {
        size,
        operations: stats.operations,
        bytesSent: stats.bytes_sent,
        bytesReceived: stats.bytes_received,
        shmPeers: int(stats.shm_peers)?,
        tcpPeers: int(stats.tcp_peers)?,
        memoryBytes: stats.memory_bytes,
    })
}

//! The device interface: what kernels on a GPU need. On host memory a rank is alone with its memory, and most
//! of this has no meaning.

use crate::boundary::ALONE;
use crate::comm::Comm;
use crate::genuine::{forward, run};
use crate::handle;
use crate::mode::{self, Mode};
use core::ffi::{c_int, c_uint, c_void};
use multiworld::error::{Error, Result};
use multiworld::nccl::types::*;

#[cold]
fn meaningless(function: &str) -> Error {
    Error::usage(format!("{function}: it has no meaning for communicators on host memory"))
}

/// One-sided operations, which only the genuine NCCL has; they may be part of a group.
macro_rules! one_sided {
    ($(fn $name:ident($($arg:ident: $type:ty),*);)*) => {$(
        /// # Safety
        /// As NCCL's function.
        #[allow(clippy::too_many_arguments)]
        pub unsafe fn $name(
            $($arg: $type,)* comm: ncclComm_t, stream: *mut c_void
        ) -> Result<ncclResult_t> {
            let body = || match &**handle::comm(comm)? {
                Comm::Host(_) => Err(meaningless(stringify!($name))),
                Comm::Genuine(g) => run::post_other(g, stringify!($name), stream, move |l, real| {
                    // SAFETY: a live handle, entered; otherwise this function's contract.
                    unsafe { forward::$name(l, $($arg,)* real, stream) }
                }),
            };
            body().map_err(crate::group::poison)
        }
    )*};
}
one_sided! {
    fn ncclPutSignal(
        localbuff: *const c_void, count: usize, datatype: ncclDataType_t, peer: c_int, peerWin: ncclWindow_t,
        peerWinOffset: usize, sigIdx: c_int, ctx: c_int, flags: c_uint
    );
    fn ncclSignal(peer: c_int, sigIdx: c_int, ctx: c_int, flags: c_uint);
}

/// # Safety
/// As NCCL's function.
pub unsafe fn ncclWaitSignal(
    nDesc: c_int,
    signalDescs: *mut ncclWaitSignalDesc_t,
    comm: ncclComm_t,
    stream: *mut c_void,
) -> Result<ncclResult_t> {
    let body = || match &**handle::comm(comm)? {
        Comm::Host(_) => Err(meaningless("ncclWaitSignal")),
        Comm::Genuine(g) => {
            if signalDescs.is_null() && nDesc > 0 {
                return Err(Error::argument("signalDescs: NULL"));
            }
            let n = usize::try_from(nDesc).unwrap_or_default();
            // SAFETY: as many as stated by NCCL's contract. Copied, for they are there for the call only.
            let mut all: Vec<_> = (0..n).map(|at| unsafe { signalDescs.add(at).read() }).collect();
            run::post_other(g, "ncclWaitSignal", stream, move |l, real| {
                // SAFETY: a live handle, entered, and as many descriptions as stated.
                unsafe { forward::ncclWaitSignal(l, nDesc, all.as_mut_ptr(), real, stream) }
            })
        }
    };
    body().map_err(crate::group::poison)
}

/// Functions of a communicator that only the genuine NCCL has.
macro_rules! of_communicators {
    ($(fn $name:ident($($before:ident: $before_type:ty,)* [comm] $(, $arg:ident: $type:ty)*);)*) => {$(
        /// # Safety
        /// As NCCL's function.
        pub unsafe fn $name(
            $($before: $before_type,)* comm: ncclComm_t $(, $arg: $type)*
        ) -> Result<ncclResult_t> {
            match &**handle::comm(comm).map_err(crate::group::poison)? {
                Comm::Host(_) => Err(crate::group::poison(meaningless(stringify!($name)))),
                // SAFETY: this function's contract is that of the forwarded one.
                Comm::Genuine(g) => unsafe { g.call(stringify!($name), |l, real| forward::$name(l, $($before,)* real $(, $arg)*)) },
            }
        }
    )*};
}
of_communicators! {
    fn ncclDevCommCreate([comm], reqs: *const c_void, outDevComm: *mut c_void);
    fn ncclDevCommDestroy([comm], devComm: *const c_void);
    fn ncclGinBarrierCreateRequirement(
        [comm], team: ncclTeam_t, nBarriers: c_int, outHandle: *mut c_void, outReq: *mut c_void
    );
}

/// Functions without a communicator that only the genuine NCCL has.
macro_rules! of_the_library {
    ($(fn $name:ident($($arg:ident: $type:ty),*);)*) => {$(
        /// # Safety
        /// As NCCL's function.
        pub unsafe fn $name($($arg: $type),*) -> Result<ncclResult_t> {
            match mode::get()? {
                Mode::Host => Err(meaningless(stringify!($name))),
                // SAFETY: this function's contract is that of the forwarded one.
                Mode::Genuine(library) => unsafe { forward::$name(library, $($arg),*) },
            }
        }
    )*};
}
of_the_library! {
    fn ncclGetLsaMultimemDevicePointer(window: ncclWindow_t, offset: usize, outPtr: *mut *mut c_void);
    fn ncclGetMultimemDevicePointer(
        window: ncclWindow_t, offset: usize, multimem: ncclMultimemHandle_t, outPtr: *mut *mut c_void
    );
    fn ncclGetLsaDevicePointer(
        window: ncclWindow_t, offset: usize, lsaRank: c_int, outPtr: *mut *mut c_void
    );
    fn ncclGetPeerDevicePointer(window: ncclWindow_t, offset: usize, peer: c_int, outPtr: *mut *mut c_void);
    fn ncclGetMultimemDeviceLeInfo(
        window: ncclWindow_t, offset: usize, leId: *mut u32, leOffset: *mut usize
    );
    fn ncclGetCftDeviceLeInfo(
        window: ncclWindow_t, offset: usize, peerCft: c_int, cftTeam: ncclTeam_t, leId: *mut u32,
        leOffset: *mut usize
    );
    fn ncclGetPeerDeviceLeInfo(
        window: ncclWindow_t, offset: usize, peerWorld: c_int, leId: *mut u32, leOffset: *mut usize
    );
    fn ncclLsaBarrierCreateRequirement(
        team: ncclTeam_t, nBarriers: c_int, outHandle: *mut c_void, outReq: *mut c_void
    );
    fn ncclLLA2ACreateRequirement(
        nBlocks: c_int, nSlots: c_int, outHandle: *mut c_void, outReq: *mut c_void
    );
    fn ncclGinOutboxCreateRequirement(
        nBlocks: c_int, size_log2: c_int, outHandle: *mut c_void, outReq: *mut c_void
    );
    fn ncclGinInboxA2ACreateRequirement(
        peers: ncclTeam_t, nBlocks: c_int, size_log2: c_int, outHandle: *mut c_void, outReq: *mut c_void
    );
}

/// The answer of a function that cannot return an error: what it has instead, and the error for
/// ncclGetLastError.
fn or<T>(otherwise: T, answer: Result<T>) -> T {
    answer.unwrap_or_else(|e| {
        crate::boundary::keep(&e);
        otherwise
    })
}

/// # Safety
/// As NCCL's function.
pub unsafe fn ncclLLA2ACalcSlots(maxElts: c_int, maxEltSize: c_int) -> c_int {
    or(
        0,
        match mode::get() {
            // SAFETY: numbers only.
            Ok(Mode::Genuine(library)) => unsafe {
                forward::ncclLLA2ACalcSlots(library, maxElts, maxEltSize)
            },
            Ok(Mode::Host) => Err(meaningless("ncclLLA2ACalcSlots")),
            Err(e) => Err(e),
        },
    )
}

/// Everybody, ranked as in the communicator.
///
/// # Safety
/// As NCCL's function.
pub unsafe fn ncclTeamWorld(comm: ncclComm_t) -> ncclTeam_t {
    let team = || match &**handle::comm(comm)? {
        Comm::Host(host) => {
            let world = host.world()?;
            let int = |n: u32| c_int::try_from(n).unwrap_or(c_int::MAX);
            Ok(ncclTeam_t { nRanks: int(world.nranks()), rank: int(world.rank()), stride: 1 })
        }
        // SAFETY: this function's contract is that of the forwarded one.
        Comm::Genuine(g) => unsafe { g.with(|l, real| forward::ncclTeamWorld(l, real)) },
    };
    or(ALONE, team())
}

/// Teams of those who reach each other's memory: on host memory, each rank alone.
macro_rules! teams {
    ($($name:ident($($arg:ident: $type:ty)?);)*) => {$(
        /// # Safety
        /// As NCCL's function.
        pub unsafe fn $name(comm: ncclComm_t $(, $arg: $type)?) -> ncclTeam_t {
            let team = || match &**handle::comm(comm)? {
                Comm::Host(_) => Ok(ALONE),
                // SAFETY: this function's contract is that of the forwarded one.
                Comm::Genuine(g) => unsafe { g.with(|l, real| forward::$name(l, real $(, $arg)?)) },
            };
            or(ALONE, team())
        }
    )*};
}
teams! {
    ncclTeamLsa();
    ncclTeamCft(mode: c_uint);
    ncclTeamCftMultimem();
    ncclTeamRail();
}

/// Where a rank of a team that the caller is in is, counted from the caller's own place.
fn distance(team: &ncclTeam_t, rank: c_int) -> c_int {
    rank.wrapping_sub(team.rank).wrapping_mul(team.stride)
}

/// # Safety
/// As NCCL's function.
pub unsafe fn ncclTeamRankToWorld(comm: ncclComm_t, team: ncclTeam_t, rank: c_int) -> c_int {
    let found = || match &**handle::comm(comm)? {
        Comm::Host(host) => {
            let mine = c_int::try_from(host.world()?.rank()).unwrap_or(c_int::MAX);
            Ok(mine.wrapping_add(distance(&team, rank)))
        }
        // SAFETY: this function's contract is that of the forwarded one.
        Comm::Genuine(g) => unsafe { g.with(|l, real| forward::ncclTeamRankToWorld(l, real, team, rank)) },
    };
    or(-1, found())
}

/// # Safety
/// As NCCL's function.
pub unsafe fn ncclTeamRankToLsa(comm: ncclComm_t, team: ncclTeam_t, rank: c_int) -> c_int {
    let found = || match &**handle::comm(comm)? {
        Comm::Host(_) => Ok(distance(&team, rank)),
        // SAFETY: this function's contract is that of the forwarded one.
        Comm::Genuine(g) => unsafe { g.with(|l, real| forward::ncclTeamRankToLsa(l, real, team, rank)) },
    };
    or(-1, found())
}

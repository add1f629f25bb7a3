//! The exported functions, written once: each line names a function, its two symbols, its arguments, what it
//! is about, how faults reach it, and what it does.
//!
//! SAFETY, for all of them: the arguments are what `nccl.h` asks for.

use crate::abi::{Code, CommPointer, Stream, UniqueId};
use crate::api::operations::{Request, submit};
use crate::api::{groups, init, memory, operations, query, reshape, teardown};
use crate::config::Config;
use crate::entry::{Subject, enter};
use crate::operation::Kind;
use std::ffi::{c_char, c_int, c_void};

#[cfg(not(nccl_old))]
use crate::abi::{CommProperties, EncryptionConfig, Header, SimInfo, Team};
#[cfg(not(nccl_old))]
use crate::api::operations::submit_configured;
#[cfg(not(nccl_old))]
use crate::api::{device, params};

/// How the script reaches a function.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// A send, receive or collective: faults go to its kernel.
    Operation,
    /// Creates communicators: faults go to its job, errors clear its result.
    Init,
    /// Leaves a job: faults go there.
    Job,
    /// Ends a group: an error drops the group.
    End,
    /// Is held after its kernels have left.
    Abort,
    /// Asks; its errors say nothing about the communicator.
    Query,
    Plain,
}

macro_rules! exports {
    ($($(#[$meta:meta])* $class:ident $name:ident($symbol:ident, $twin:ident)
        ($($argument:ident: $type:ty),*) -> $answer:ty, $subject:expr => |$call:ident| $body:expr;)*) => {
        /// Every function that is exported, by its name without `nccl`.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Function { $($(#[$meta])* $name,)* }

        impl Function {
            /// All of them.
            pub const ALL: &[Function] = &[$($(#[$meta])* Function::$name,)*];

            /// The name without `nccl`.
            pub fn name(self) -> &'static str {
                match self { $($(#[$meta])* Function::$name => stringify!($name),)* }
            }

            /// How the script reaches it.
            pub fn class(self) -> Class {
                match self { $($(#[$meta])* Function::$name => Class::$class,)* }
            }
        }

        $(
            $(#[$meta])*
            #[unsafe(no_mangle)]
            #[allow(non_snake_case, unused_unsafe, reason = "the names are NCCL's; some bodies are safe")]
            pub unsafe extern "C" fn $symbol($($argument: $type),*) -> $answer {
                // SAFETY: the caller keeps what nccl.h asks for, which is what the bodies need.
                enter(Function::$name, $subject, |$call| unsafe { $body })
            }

            $(#[$meta])*
            #[unsafe(no_mangle)]
            #[allow(non_snake_case, unused_unsafe, reason = "the names are NCCL's; some bodies are safe")]
            pub unsafe extern "C" fn $twin($($argument: $type),*) -> $answer {
                // SAFETY: the caller keeps what nccl.h asks for, which is what the bodies need.
                enter(Function::$name, $subject, |$call| unsafe { $body })
            }
        )*
    };
}

fn request(
    kind: Kind,
    buffers: (*const c_void, *mut c_void),
    count: usize,
    datatype: c_int,
    stream: Stream,
) -> Request {
    let (send, receive) = buffers;
    Request { kind, send, receive, count, datatype, reduction: 0, peer: 0, stream }
}

exports! {
    Query GetVersion(ncclGetVersion, pncclGetVersion)(version: *mut c_int) -> Code,
        Subject::Nothing => |call| query::version(call, version);
    Plain GetUniqueId(ncclGetUniqueId, pncclGetUniqueId)(id: *mut UniqueId) -> Code,
        Subject::Nothing => |call| init::get_unique_id(call, id);
    Query GetErrorString(ncclGetErrorString, pncclGetErrorString)(code: Code) -> *const c_char,
        Subject::Nothing => |call| query::error_string(call, code);
    Query GetLastError(ncclGetLastError, pncclGetLastError)(_comm: CommPointer) -> *const c_char,
        Subject::Nothing => |call| query::last_error(call);
    #[cfg(not(nccl_old))]
    Query ResetDebugInit(ncclResetDebugInit, pncclResetDebugInit)() -> (),
        Subject::Nothing => |call| query::reset_debug(call);
    Init CommInitRank(ncclCommInitRank, pncclCommInitRank)(
        newcomm: *mut CommPointer, ranks: c_int, id: UniqueId, rank: c_int
    ) -> Code,
        Subject::Rank(rank) => |call| init::init_rank(call, newcomm, ranks, rank, &id, 1, std::ptr::null());
    Init CommInitRankConfig(ncclCommInitRankConfig, pncclCommInitRankConfig)(
        newcomm: *mut CommPointer, ranks: c_int, id: UniqueId, rank: c_int, config: *mut Config
    ) -> Code,
        Subject::Rank(rank) => |call| init::init_rank(call, newcomm, ranks, rank, &id, 1, config);
    #[cfg(not(nccl_old))]
    Init CommInitRankScalable(ncclCommInitRankScalable, pncclCommInitRankScalable)(
        newcomm: *mut CommPointer, ranks: c_int, rank: c_int, count: c_int, ids: *mut UniqueId,
        config: *mut Config
    ) -> Code,
        Subject::Rank(rank) => |call| init::init_rank(call, newcomm, ranks, rank, ids, count, config);
    Init CommInitAll(ncclCommInitAll, pncclCommInitAll)(
        comms: *mut CommPointer, count: c_int, devices: *const c_int
    ) -> Code,
        Subject::Nothing => |call| init::init_all(call, comms, count, devices);
    Job CommFinalize(ncclCommFinalize, pncclCommFinalize)(comm: CommPointer) -> Code,
        Subject::Comm(comm) => |call| teardown::finalize(call);
    Job CommDestroy(ncclCommDestroy, pncclCommDestroy)(comm: CommPointer) -> Code,
        Subject::Comm(comm) => |call| teardown::destroy(call);
    Abort CommAbort(ncclCommAbort, pncclCommAbort)(comm: CommPointer) -> Code,
        Subject::Comm(comm) => |call| teardown::abort(call);
    #[cfg(not(nccl_old))]
    Job CommRevoke(ncclCommRevoke, pncclCommRevoke)(comm: CommPointer, flags: c_int) -> Code,
        Subject::Comm(comm) => |call| teardown::revoke(call, flags);
    Job CommSplit(ncclCommSplit, pncclCommSplit)(
        comm: CommPointer, color: c_int, key: c_int, newcomm: *mut CommPointer, config: *mut Config
    ) -> Code,
        Subject::Comm(comm) => |call| reshape::split(call, color, key, newcomm, config);
    #[cfg(not(nccl_old))]
    Job CommShrink(ncclCommShrink, pncclCommShrink)(
        comm: CommPointer, excluded: *mut c_int, count: c_int, newcomm: *mut CommPointer,
        config: *mut Config, flags: c_int
    ) -> Code,
        Subject::Comm(comm) => |call| reshape::shrink(call, excluded, count, newcomm, config, flags);
    #[cfg(not(nccl_old))]
    Plain CommGetUniqueId(ncclCommGetUniqueId, pncclCommGetUniqueId)(
        comm: CommPointer, id: *mut UniqueId
    ) -> Code,
        Subject::Comm(comm) => |call| reshape::get_grow_id(call, id);
    #[cfg(not(nccl_old))]
    Job CommGrow(ncclCommGrow, pncclCommGrow)(
        comm: CommPointer, ranks: c_int, id: *const UniqueId, rank: c_int, newcomm: *mut CommPointer,
        config: *mut Config
    ) -> Code,
        Subject::Comm(comm) => |call| reshape::grow(call, ranks, id, rank, newcomm, config);
    Query CommGetAsyncError(ncclCommGetAsyncError, pncclCommGetAsyncError)(
        comm: CommPointer, error: *mut Code
    ) -> Code,
        Subject::Comm(comm) => |call| query::async_error(call, error);
    Query CommCount(ncclCommCount, pncclCommCount)(comm: CommPointer, count: *mut c_int) -> Code,
        Subject::Comm(comm) => |call| query::count(call, count);
    Query CommCuDevice(ncclCommCuDevice, pncclCommCuDevice)(comm: CommPointer, device: *mut c_int) -> Code,
        Subject::Comm(comm) => |call| query::device(call, device);
    Query CommUserRank(ncclCommUserRank, pncclCommUserRank)(comm: CommPointer, rank: *mut c_int) -> Code,
        Subject::Comm(comm) => |call| query::user_rank(call, rank);
    Plain MemAlloc(ncclMemAlloc, pncclMemAlloc)(place: *mut *mut c_void, size: usize) -> Code,
        Subject::Nothing => |call| memory::allocate(call, place, size);
    Plain MemFree(ncclMemFree, pncclMemFree)(pointer: *mut c_void) -> Code,
        Subject::Nothing => |call| memory::free(call, pointer);
    Plain CommRegister(ncclCommRegister, pncclCommRegister)(
        comm: CommPointer, buffer: *mut c_void, size: usize, handle: *mut *mut c_void
    ) -> Code,
        Subject::Comm(comm) => |call| memory::register(call, buffer, size, handle);
    Plain CommDeregister(ncclCommDeregister, pncclCommDeregister)(
        comm: CommPointer, handle: *mut c_void
    ) -> Code,
        Subject::Comm(comm) => |call| memory::deregister(call, handle);
    #[cfg(not(nccl_old))]
    Plain CommWindowRegister(ncclCommWindowRegister, pncclCommWindowRegister)(
        comm: CommPointer, buffer: *mut c_void, size: usize, window: *mut *mut c_void, _flags: c_int
    ) -> Code,
        Subject::Comm(comm) => |call| memory::register(call, buffer, size, window);
    #[cfg(not(nccl_old))]
    Plain CommWindowDeregister(ncclCommWindowDeregister, pncclCommWindowDeregister)(
        comm: CommPointer, window: *mut c_void
    ) -> Code,
        Subject::Comm(comm) => |call| memory::deregister(call, window);
    #[cfg(not(nccl_old))]
    Query WinGetUserPtr(ncclWinGetUserPtr, pncclWinGetUserPtr)(
        comm: CommPointer, window: *mut c_void, place: *mut *mut c_void
    ) -> Code,
        Subject::Comm(comm) => |call| memory::window_pointer(call, window, place);
    #[cfg(not(nccl_old))]
    Plain CommSuspend(ncclCommSuspend, pncclCommSuspend)(comm: CommPointer, flags: c_int) -> Code,
        Subject::Comm(comm) => |call| query::suspend(call, flags);
    #[cfg(not(nccl_old))]
    Plain CommResume(ncclCommResume, pncclCommResume)(comm: CommPointer) -> Code,
        Subject::Comm(comm) => |call| query::resume(call);
    #[cfg(not(nccl_old))]
    Query CommMemStats(ncclCommMemStats, pncclCommMemStats)(
        comm: CommPointer, stat: c_int, value: *mut u64
    ) -> Code,
        Subject::Comm(comm) => |call| query::memory_stats(call, stat, value);
    #[cfg(not(nccl_old))]
    Query CommQueryProperties(ncclCommQueryProperties, pncclCommQueryProperties)(
        comm: CommPointer, properties: *mut CommProperties
    ) -> Code,
        Subject::Comm(comm) => |call| query::properties(call, properties);
    #[cfg(not(nccl_old))]
    Plain SetEncryption(ncclSetEncryption, pncclSetEncryption)(config: *const EncryptionConfig) -> Code,
        Subject::Nothing => |call| query::encryption(call, config);
    Plain RedOpCreatePreMulSum(ncclRedOpCreatePreMulSum, pncclRedOpCreatePreMulSum)(
        op: *mut c_int, scalar: *mut c_void, datatype: c_int, residence: c_int, comm: CommPointer
    ) -> Code,
        Subject::Comm(comm) => |call| operations::create_operator(call, op, scalar, datatype, residence);
    Plain RedOpDestroy(ncclRedOpDestroy, pncclRedOpDestroy)(op: c_int, comm: CommPointer) -> Code,
        Subject::Comm(comm) => |call| operations::destroy_operator(call, op);
    Plain GroupStart(ncclGroupStart, pncclGroupStart)() -> Code,
        Subject::Nothing => |call| groups::start(call);
    End GroupEnd(ncclGroupEnd, pncclGroupEnd)() -> Code, Subject::Nothing => |call| groups::end(call);
    #[cfg(not(nccl_old))]
    End GroupSimulateEnd(ncclGroupSimulateEnd, pncclGroupSimulateEnd)(info: *mut SimInfo) -> Code,
        Subject::Nothing => |call| groups::simulate_end(call, info);
    Operation Send(ncclSend, pncclSend)(
        send: *const c_void, count: usize, datatype: c_int, peer: c_int, comm: CommPointer, stream: Stream
    ) -> Code,
        Subject::Comm(comm) => |call|
        submit(
            call,
            Request { peer, ..request(Kind::Send, (send, std::ptr::null_mut()), count, datatype, stream) }
        );
    Operation Recv(ncclRecv, pncclRecv)(
        receive: *mut c_void, count: usize, datatype: c_int, peer: c_int, comm: CommPointer, stream: Stream
    ) -> Code,
        Subject::Comm(comm) => |call|
        submit(
            call,
            Request { peer, ..request(Kind::Receive, (std::ptr::null(), receive), count, datatype, stream) }
        );
    Operation AllReduce(ncclAllReduce, pncclAllReduce)(
        send: *const c_void, receive: *mut c_void, count: usize, datatype: c_int, reduction: c_int,
        comm: CommPointer, stream: Stream
    ) -> Code,
        Subject::Comm(comm) => |call|
        submit(
            call,
            Request { reduction, ..request(Kind::AllReduce, (send, receive), count, datatype, stream) }
        );
    #[cfg(not(nccl_old))]
    Operation AllReduceConfig(ncclAllReduceConfig, pncclAllReduceConfig)(
        send: *const c_void, receive: *mut c_void, count: usize, datatype: c_int, reduction: c_int,
        comm: CommPointer, stream: Stream, config: *const Header
    ) -> Code,
        Subject::Comm(comm) => |call|
        submit_configured(
            call,
            Request { reduction, ..request(Kind::AllReduce, (send, receive), count, datatype, stream) },
            config
        );
    Operation Broadcast(ncclBroadcast, pncclBroadcast)(
        send: *const c_void, receive: *mut c_void, count: usize, datatype: c_int, root: c_int,
        comm: CommPointer, stream: Stream
    ) -> Code,
        Subject::Comm(comm) => |call|
        submit(
            call,
            Request { peer: root, ..request(Kind::Broadcast, (send, receive), count, datatype, stream) }
        );
    #[cfg(not(nccl_old))]
    Operation BroadcastConfig(ncclBroadcastConfig, pncclBroadcastConfig)(
        send: *const c_void, receive: *mut c_void, count: usize, datatype: c_int, root: c_int,
        comm: CommPointer, stream: Stream, config: *const Header
    ) -> Code,
        Subject::Comm(comm) => |call|
        submit_configured(
            call,
            Request { peer: root, ..request(Kind::Broadcast, (send, receive), count, datatype, stream) },
            config
        );
    Operation Bcast(ncclBcast, pncclBcast)(
        buffer: *mut c_void, count: usize, datatype: c_int, root: c_int, comm: CommPointer, stream: Stream
    ) -> Code,
        Subject::Comm(comm) => |call|
        submit(
            call,
            Request { peer: root, ..request(Kind::Broadcast, (buffer, buffer), count, datatype, stream) }
        );
    Operation Reduce(ncclReduce, pncclReduce)(
        send: *const c_void, receive: *mut c_void, count: usize, datatype: c_int, reduction: c_int,
        root: c_int, comm: CommPointer, stream: Stream
    ) -> Code,
        Subject::Comm(comm) => |call|
        submit(
            call,
            Request {
                reduction,
                peer: root,
                ..request(Kind::Reduce, (send, receive), count, datatype, stream)
            }
        );
    #[cfg(not(nccl_old))]
    Operation ReduceConfig(ncclReduceConfig, pncclReduceConfig)(
        send: *const c_void, receive: *mut c_void, count: usize, datatype: c_int, reduction: c_int,
        root: c_int, comm: CommPointer, stream: Stream, config: *const Header
    ) -> Code,
        Subject::Comm(comm) => |call|
        submit_configured(
            call,
            Request {
                reduction,
                peer: root,
                ..request(Kind::Reduce, (send, receive), count, datatype, stream)
            },
            config
        );
    Operation AllGather(ncclAllGather, pncclAllGather)(
        send: *const c_void, receive: *mut c_void, count: usize, datatype: c_int, comm: CommPointer,
        stream: Stream
    ) -> Code,
        Subject::Comm(comm) => |call|
        submit(call, request(Kind::AllGather, (send, receive), count, datatype, stream));
    #[cfg(not(nccl_old))]
    Operation AllGatherConfig(ncclAllGatherConfig, pncclAllGatherConfig)(
        send: *const c_void, receive: *mut c_void, count: usize, datatype: c_int, comm: CommPointer,
        stream: Stream, config: *const Header
    ) -> Code,
        Subject::Comm(comm) => |call|
        submit_configured(call, request(Kind::AllGather, (send, receive), count, datatype, stream), config);
    Operation ReduceScatter(ncclReduceScatter, pncclReduceScatter)(
        send: *const c_void, receive: *mut c_void, count: usize, datatype: c_int, reduction: c_int,
        comm: CommPointer, stream: Stream
    ) -> Code,
        Subject::Comm(comm) => |call|
        submit(
            call,
            Request { reduction, ..request(Kind::ReduceScatter, (send, receive), count, datatype, stream) }
        );
    #[cfg(not(nccl_old))]
    Operation ReduceScatterConfig(ncclReduceScatterConfig, pncclReduceScatterConfig)(
        send: *const c_void, receive: *mut c_void, count: usize, datatype: c_int, reduction: c_int,
        comm: CommPointer, stream: Stream, config: *const Header
    ) -> Code,
        Subject::Comm(comm) => |call|
        submit_configured(
            call,
            Request { reduction, ..request(Kind::ReduceScatter, (send, receive), count, datatype, stream) },
            config
        );
    #[cfg(not(nccl_old))]
    Operation AlltoAll(ncclAlltoAll, pncclAlltoAll)(
        send: *const c_void, receive: *mut c_void, count: usize, datatype: c_int, comm: CommPointer,
        stream: Stream
    ) -> Code,
        Subject::Comm(comm) => |call|
        submit(call, request(Kind::AllToAll, (send, receive), count, datatype, stream));
    #[cfg(not(nccl_old))]
    Operation AlltoAllConfig(ncclAlltoAllConfig, pncclAlltoAllConfig)(
        send: *const c_void, receive: *mut c_void, count: usize, datatype: c_int, comm: CommPointer,
        stream: Stream, config: *const Header
    ) -> Code,
        Subject::Comm(comm) => |call|
        submit_configured(call, request(Kind::AllToAll, (send, receive), count, datatype, stream), config);
    #[cfg(not(nccl_old))]
    Operation Gather(ncclGather, pncclGather)(
        send: *const c_void, receive: *mut c_void, count: usize, datatype: c_int, root: c_int,
        comm: CommPointer, stream: Stream
    ) -> Code,
        Subject::Comm(comm) => |call|
        submit(
            call,
            Request { peer: root, ..request(Kind::Gather, (send, receive), count, datatype, stream) }
        );
    #[cfg(not(nccl_old))]
    Operation GatherConfig(ncclGatherConfig, pncclGatherConfig)(
        send: *const c_void, receive: *mut c_void, count: usize, datatype: c_int, root: c_int,
        comm: CommPointer, stream: Stream, config: *const Header
    ) -> Code,
        Subject::Comm(comm) => |call|
        submit_configured(
            call,
            Request { peer: root, ..request(Kind::Gather, (send, receive), count, datatype, stream) },
            config
        );
    #[cfg(not(nccl_old))]
    Operation Scatter(ncclScatter, pncclScatter)(
        send: *const c_void, receive: *mut c_void, count: usize, datatype: c_int, root: c_int,
        comm: CommPointer, stream: Stream
    ) -> Code,
        Subject::Comm(comm) => |call|
        submit(
            call,
            Request { peer: root, ..request(Kind::Scatter, (send, receive), count, datatype, stream) }
        );
    #[cfg(not(nccl_old))]
    Operation ScatterConfig(ncclScatterConfig, pncclScatterConfig)(
        send: *const c_void, receive: *mut c_void, count: usize, datatype: c_int, root: c_int,
        comm: CommPointer, stream: Stream, config: *const Header
    ) -> Code,
        Subject::Comm(comm) => |call|
        submit_configured(
            call,
            Request { peer: root, ..request(Kind::Scatter, (send, receive), count, datatype, stream) },
            config
        );
    #[cfg(not(nccl_old))]
    Plain PutSignal(ncclPutSignal, pncclPutSignal)(
        _local: *const c_void, _count: usize, _datatype: c_int, _peer: c_int, _window: *mut c_void,
        _offset: usize, _signal: c_int, _context: c_int, _flags: u32, comm: CommPointer, _stream: Stream
    ) -> Code,
        Subject::Comm(comm) => |call| device::unsupported(call);
    #[cfg(not(nccl_old))]
    Plain Signal(ncclSignal, pncclSignal)(
        _peer: c_int, _signal: c_int, _context: c_int, _flags: u32, comm: CommPointer, _stream: Stream
    ) -> Code,
        Subject::Comm(comm) => |call| device::unsupported(call);
    #[cfg(not(nccl_old))]
    Plain WaitSignal(ncclWaitSignal, pncclWaitSignal)(
        _count: c_int, _descriptors: *mut c_void, comm: CommPointer, _stream: Stream
    ) -> Code,
        Subject::Comm(comm) => |call| device::unsupported(call);
    #[cfg(not(nccl_old))]
    Plain DevCommCreate(ncclDevCommCreate, pncclDevCommCreate)(
        comm: CommPointer, _requirements: *const c_void, _out: *mut c_void
    ) -> Code,
        Subject::Comm(comm) => |call| device::unsupported(call);
    #[cfg(not(nccl_old))]
    Plain DevCommDestroy(ncclDevCommDestroy, pncclDevCommDestroy)(
        comm: CommPointer, _dev: *const c_void
    ) -> Code,
        Subject::Comm(comm) => |call| device::unsupported(call);
    #[cfg(not(nccl_old))]
    Query GetLsaMultimemDevicePointer(ncclGetLsaMultimemDevicePointer, pncclGetLsaMultimemDevicePointer)(
        _window: *mut c_void, _offset: usize, _out: *mut c_void
    ) -> Code,
        Subject::Nothing => |call| device::unsupported(call);
    #[cfg(not(nccl_old))]
    Query GetMultimemDevicePointer(ncclGetMultimemDevicePointer, pncclGetMultimemDevicePointer)(
        _window: *mut c_void, _offset: usize, _multimem: *mut c_void, _out: *mut c_void
    ) -> Code,
        Subject::Nothing => |call| device::unsupported(call);
    #[cfg(not(nccl_old))]
    Query GetLsaDevicePointer(ncclGetLsaDevicePointer, pncclGetLsaDevicePointer)(
        _window: *mut c_void, _offset: usize, _rank: c_int, _out: *mut c_void
    ) -> Code,
        Subject::Nothing => |call| device::unsupported(call);
    #[cfg(not(nccl_old))]
    Query GetPeerDevicePointer(ncclGetPeerDevicePointer, pncclGetPeerDevicePointer)(
        _window: *mut c_void, _offset: usize, _peer: c_int, _out: *mut c_void
    ) -> Code,
        Subject::Nothing => |call| device::unsupported(call);
    #[cfg(not(nccl_old))]
    Query GetMultimemDeviceLeInfo(ncclGetMultimemDeviceLeInfo, pncclGetMultimemDeviceLeInfo)(
        _window: *mut c_void, _offset: usize, _id: *mut c_void, _le_offset: *mut c_void
    ) -> Code,
        Subject::Nothing => |call| device::unsupported(call);
    #[cfg(not(nccl_old))]
    Query GetCftDeviceLeInfo(ncclGetCftDeviceLeInfo, pncclGetCftDeviceLeInfo)(
        _window: *mut c_void, _offset: usize, _peer: c_int, _team: Team, _id: *mut c_void,
        _le_offset: *mut c_void
    ) -> Code,
        Subject::Nothing => |call| device::unsupported(call);
    #[cfg(not(nccl_old))]
    Query GetPeerDeviceLeInfo(ncclGetPeerDeviceLeInfo, pncclGetPeerDeviceLeInfo)(
        _window: *mut c_void, _offset: usize, _peer: c_int, _id: *mut c_void, _le_offset: *mut c_void
    ) -> Code,
        Subject::Nothing => |call| device::unsupported(call);
    #[cfg(not(nccl_old))]
    Query TeamWorld(ncclTeamWorld, pncclTeamWorld)(comm: CommPointer) -> Team,
        Subject::Comm(comm) => |call| device::team_world(call);
    #[cfg(not(nccl_old))]
    Query TeamLsa(ncclTeamLsa, pncclTeamLsa)(comm: CommPointer) -> Team,
        Subject::Comm(comm) => |call| device::team_world(call);
    #[cfg(not(nccl_old))]
    Query TeamRail(ncclTeamRail, pncclTeamRail)(comm: CommPointer) -> Team,
        Subject::Comm(comm) => |call| device::team_self(call);
    #[cfg(not(nccl_old))]
    Query TeamCft(ncclTeamCft, pncclTeamCft)(comm: CommPointer, _mode: c_int) -> Team,
        Subject::Comm(comm) => |call| device::team_self(call);
    #[cfg(not(nccl_old))]
    Query TeamCftMultimem(ncclTeamCftMultimem, pncclTeamCftMultimem)(comm: CommPointer) -> Team,
        Subject::Comm(comm) => |call| device::team_self(call);
    #[cfg(not(nccl_old))]
    Query TeamRankToWorld(ncclTeamRankToWorld, pncclTeamRankToWorld)(
        comm: CommPointer, team: Team, rank: c_int
    ) -> c_int,
        Subject::Comm(comm) => |call| device::rank_to_world(call, team, rank);
    #[cfg(not(nccl_old))]
    Query TeamRankToLsa(ncclTeamRankToLsa, pncclTeamRankToLsa)(
        comm: CommPointer, team: Team, rank: c_int
    ) -> c_int,
        Subject::Comm(comm) => |call| device::rank_to_world(call, team, rank);
    #[cfg(not(nccl_old))]
    Query LsaBarrierCreateRequirement(ncclLsaBarrierCreateRequirement, pncclLsaBarrierCreateRequirement)(
        _team: Team, _count: c_int, _handle: *mut c_void, _requirement: *mut c_void
    ) -> Code,
        Subject::Nothing => |call| device::unsupported(call);
    #[cfg(not(nccl_old))]
    Query GinBarrierCreateRequirement(ncclGinBarrierCreateRequirement, pncclGinBarrierCreateRequirement)(
        comm: CommPointer, _team: Team, _count: c_int, _handle: *mut c_void, _requirement: *mut c_void
    ) -> Code,
        Subject::Comm(comm) => |call| device::unsupported(call);
    #[cfg(not(nccl_old))]
    Query GinOutboxCreateRequirement(ncclGinOutboxCreateRequirement, pncclGinOutboxCreateRequirement)(
        _blocks: c_int, _size: c_int, _handle: *mut c_void, _requirement: *mut c_void
    ) -> Code,
        Subject::Nothing => |call| device::unsupported(call);
    #[cfg(not(nccl_old))]
    Query GinInboxA2ACreateRequirement(ncclGinInboxA2ACreateRequirement, pncclGinInboxA2ACreateRequirement)(
        _peers: Team, _blocks: c_int, _size: c_int, _handle: *mut c_void, _requirement: *mut c_void
    ) -> Code,
        Subject::Nothing => |call| device::unsupported(call);
    #[cfg(not(nccl_old))]
    Query LLA2ACalcSlots(ncclLLA2ACalcSlots, pncclLLA2ACalcSlots)(elements: c_int, size: c_int) -> c_int,
        Subject::Nothing => |call| device::lla2a_slots(call, elements, size);
    #[cfg(not(nccl_old))]
    Query LLA2ACreateRequirement(ncclLLA2ACreateRequirement, pncclLLA2ACreateRequirement)(
        _blocks: c_int, _slots: c_int, _handle: *mut c_void, _requirement: *mut c_void
    ) -> Code,
        Subject::Nothing => |call| device::unsupported(call);
    #[cfg(not(nccl_old))]
    Query ParamBind(ncclParamBind, pncclParamBind)(out: *mut *const c_void, key: *const c_char) -> Code,
        Subject::Nothing => |call| params::bind(call, out, key);
    #[cfg(not(nccl_old))]
    Query ParamGetI8(ncclParamGetI8, pncclParamGetI8)(handle: *const c_void, out: *mut i8) -> Code,
        Subject::Nothing => |call| params::get_number(call, handle, out);
    #[cfg(not(nccl_old))]
    Query ParamGetI16(ncclParamGetI16, pncclParamGetI16)(handle: *const c_void, out: *mut i16) -> Code,
        Subject::Nothing => |call| params::get_number(call, handle, out);
    #[cfg(not(nccl_old))]
    Query ParamGetI32(ncclParamGetI32, pncclParamGetI32)(handle: *const c_void, out: *mut i32) -> Code,
        Subject::Nothing => |call| params::get_number(call, handle, out);
    #[cfg(not(nccl_old))]
    Query ParamGetI64(ncclParamGetI64, pncclParamGetI64)(handle: *const c_void, out: *mut i64) -> Code,
        Subject::Nothing => |call| params::get_number(call, handle, out);
    #[cfg(not(nccl_old))]
    Query ParamGetU8(ncclParamGetU8, pncclParamGetU8)(handle: *const c_void, out: *mut u8) -> Code,
        Subject::Nothing => |call| params::get_number(call, handle, out);
    #[cfg(not(nccl_old))]
    Query ParamGetU16(ncclParamGetU16, pncclParamGetU16)(handle: *const c_void, out: *mut u16) -> Code,
        Subject::Nothing => |call| params::get_number(call, handle, out);
    #[cfg(not(nccl_old))]
    Query ParamGetU32(ncclParamGetU32, pncclParamGetU32)(handle: *const c_void, out: *mut u32) -> Code,
        Subject::Nothing => |call| params::get_number(call, handle, out);
    #[cfg(not(nccl_old))]
    Query ParamGetU64(ncclParamGetU64, pncclParamGetU64)(handle: *const c_void, out: *mut u64) -> Code,
        Subject::Nothing => |call| params::get_number(call, handle, out);
    #[cfg(not(nccl_old))]
    Query ParamGetStr(ncclParamGetStr, pncclParamGetStr)(
        handle: *const c_void, out: *mut *const c_char
    ) -> Code,
        Subject::Nothing => |call| params::get_string(call, handle, out);
    #[cfg(not(nccl_old))]
    Query ParamGet(ncclParamGet, pncclParamGet)(
        handle: *const c_void, out: *mut c_void, room: c_int, length: *mut c_int
    ) -> Code,
        Subject::Nothing => |call| params::get_raw(call, handle, out, room, length);
    #[cfg(not(nccl_old))]
    Query ParamGetParameter(ncclParamGetParameter, pncclParamGetParameter)(
        key: *const c_char, out: *mut *const c_char, length: *mut c_int
    ) -> Code,
        Subject::Nothing => |call| params::get_by_name(call, key, out, length);
    #[cfg(not(nccl_old))]
    Query ParamGetAllParameterKeys(ncclParamGetAllParameterKeys, pncclParamGetAllParameterKeys)(
        table: *mut *mut *const c_char, length: *mut c_int
    ) -> Code,
        Subject::Nothing => |call| params::all_keys(call, table, length);
    #[cfg(not(nccl_old))]
    Query ParamDumpAll(ncclParamDumpAll, pncclParamDumpAll)() -> (),
        Subject::Nothing => |call| params::dump_all(call);
}

#[cfg(not(nccl_old))]
/// `ncclResetDebugInitInternal`, which has no twin.
#[unsafe(no_mangle)]
#[allow(non_snake_case)]
pub extern "C" fn ncclResetDebugInitInternal() {}

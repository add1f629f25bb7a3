//! The functions of NCCL's C interface, version 2.32.3: one list for whoever makes something of each of them.
// Made by src/nccl/bindings.sh from the headers of NCCL 2.32.3; not edited by hand.

/// Calls the macro `$use` with the declarations of all functions that the library exports.
#[macro_export]
macro_rules! nccl_functions {
    ($use:ident) => {
        $use! {
            fn ncclMemAlloc(ptr: *mut *mut c_void, size: usize) -> ncclResult_t;
            fn ncclMemFree(ptr: *mut c_void) -> ncclResult_t;
            fn ncclGetVersion(version: *mut c_int) -> ncclResult_t;
            fn ncclGetUniqueId(uniqueId: *mut ncclUniqueId) -> ncclResult_t;
            fn ncclCommInitRankConfig(comm: *mut ncclComm_t, nranks: c_int, commId: ncclUniqueId, rank: c_int, config: *mut ncclConfig_t) -> ncclResult_t;
            fn ncclCommInitRank(comm: *mut ncclComm_t, nranks: c_int, commId: ncclUniqueId, rank: c_int) -> ncclResult_t;
            fn ncclCommInitAll(comm: *mut ncclComm_t, ndev: c_int, devlist: *const c_int) -> ncclResult_t;
            fn ncclCommFinalize(comm: ncclComm_t) -> ncclResult_t;
            fn ncclCommDestroy(comm: ncclComm_t) -> ncclResult_t;
            fn ncclCommAbort(comm: ncclComm_t) -> ncclResult_t;
            fn ncclCommRevoke(comm: ncclComm_t, revokeFlags: c_int) -> ncclResult_t;
            fn ncclCommSplit(comm: ncclComm_t, color: c_int, key: c_int, newcomm: *mut ncclComm_t, config: *mut ncclConfig_t) -> ncclResult_t;
            fn ncclCommShrink(comm: ncclComm_t, excludeRanksList: *mut c_int, excludeRanksCount: c_int, newcomm: *mut ncclComm_t, config: *mut ncclConfig_t, shrinkFlags: c_int) -> ncclResult_t;
            fn ncclCommGetUniqueId(comm: ncclComm_t, uniqueId: *mut ncclUniqueId) -> ncclResult_t;
            fn ncclCommGrow(comm: ncclComm_t, nRanks: c_int, uniqueId: *const ncclUniqueId, rank: c_int, newcomm: *mut ncclComm_t, config: *mut ncclConfig_t) -> ncclResult_t;
            fn ncclCommInitRankScalable(newcomm: *mut ncclComm_t, nranks: c_int, myrank: c_int, nId: c_int, commIds: *mut ncclUniqueId, config: *mut ncclConfig_t) -> ncclResult_t;
            fn ncclGetErrorString(result: ncclResult_t) -> *const c_char;
            fn ncclGetLastError(comm: ncclComm_t) -> *const c_char;
            fn ncclResetDebugInit();
            fn ncclCommGetAsyncError(comm: ncclComm_t, asyncError: *mut ncclResult_t) -> ncclResult_t;
            fn ncclCommCount(comm: ncclComm_t, count: *mut c_int) -> ncclResult_t;
            fn ncclCommCuDevice(comm: ncclComm_t, device: *mut c_int) -> ncclResult_t;
            fn ncclCommUserRank(comm: ncclComm_t, rank: *mut c_int) -> ncclResult_t;
            fn ncclCommRegister(comm: ncclComm_t, buff: *mut c_void, size: usize, handle: *mut *mut c_void) -> ncclResult_t;
            fn ncclCommDeregister(comm: ncclComm_t, handle: *mut c_void) -> ncclResult_t;
            fn ncclCommSuspend(comm: ncclComm_t, flags: c_int) -> ncclResult_t;
            fn ncclCommResume(comm: ncclComm_t) -> ncclResult_t;
            fn ncclCommMemStats(comm: ncclComm_t, stat: ncclCommMemStat_t, value: *mut u64) -> ncclResult_t;
            fn ncclCommWindowRegister(comm: ncclComm_t, buff: *mut c_void, size: usize, win: *mut ncclWindow_t, winFlags: c_int) -> ncclResult_t;
            fn ncclCommWindowDeregister(comm: ncclComm_t, win: ncclWindow_t) -> ncclResult_t;
            fn ncclWinGetUserPtr(comm: ncclComm_t, win: ncclWindow_t, outUserPtr: *mut *mut c_void) -> ncclResult_t;
            fn ncclRedOpCreatePreMulSum(op: *mut ncclRedOp_t, scalar: *mut c_void, datatype: ncclDataType_t, residence: ncclScalarResidence_t, comm: ncclComm_t) -> ncclResult_t;
            fn ncclRedOpDestroy(op: ncclRedOp_t, comm: ncclComm_t) -> ncclResult_t;
            fn ncclReduce(sendbuff: *const c_void, recvbuff: *mut c_void, count: usize, datatype: ncclDataType_t, op: ncclRedOp_t, root: c_int, comm: ncclComm_t, stream: *mut c_void) -> ncclResult_t;
            fn ncclBcast(buff: *mut c_void, count: usize, datatype: ncclDataType_t, root: c_int, comm: ncclComm_t, stream: *mut c_void) -> ncclResult_t;
            fn ncclBroadcast(sendbuff: *const c_void, recvbuff: *mut c_void, count: usize, datatype: ncclDataType_t, root: c_int, comm: ncclComm_t, stream: *mut c_void) -> ncclResult_t;
            fn ncclAllReduce(sendbuff: *const c_void, recvbuff: *mut c_void, count: usize, datatype: ncclDataType_t, op: ncclRedOp_t, comm: ncclComm_t, stream: *mut c_void) -> ncclResult_t;
            fn ncclReduceScatter(sendbuff: *const c_void, recvbuff: *mut c_void, recvcount: usize, datatype: ncclDataType_t, op: ncclRedOp_t, comm: ncclComm_t, stream: *mut c_void) -> ncclResult_t;
            fn ncclAllGather(sendbuff: *const c_void, recvbuff: *mut c_void, sendcount: usize, datatype: ncclDataType_t, comm: ncclComm_t, stream: *mut c_void) -> ncclResult_t;
            fn ncclAlltoAll(sendbuff: *const c_void, recvbuff: *mut c_void, count: usize, datatype: ncclDataType_t, comm: ncclComm_t, stream: *mut c_void) -> ncclResult_t;
            fn ncclGather(sendbuff: *const c_void, recvbuff: *mut c_void, count: usize, datatype: ncclDataType_t, root: c_int, comm: ncclComm_t, stream: *mut c_void) -> ncclResult_t;
            fn ncclScatter(sendbuff: *const c_void, recvbuff: *mut c_void, count: usize, datatype: ncclDataType_t, root: c_int, comm: ncclComm_t, stream: *mut c_void) -> ncclResult_t;
            fn ncclAllReduceConfig(sendbuff: *const c_void, recvbuff: *mut c_void, count: usize, datatype: ncclDataType_t, op: ncclRedOp_t, comm: ncclComm_t, stream: *mut c_void, config: *const ncclCollConfig_t) -> ncclResult_t;
            fn ncclBroadcastConfig(sendbuff: *const c_void, recvbuff: *mut c_void, count: usize, datatype: ncclDataType_t, root: c_int, comm: ncclComm_t, stream: *mut c_void, config: *const ncclCollConfig_t) -> ncclResult_t;
            fn ncclReduceConfig(sendbuff: *const c_void, recvbuff: *mut c_void, count: usize, datatype: ncclDataType_t, op: ncclRedOp_t, root: c_int, comm: ncclComm_t, stream: *mut c_void, config: *const ncclCollConfig_t) -> ncclResult_t;
            fn ncclAllGatherConfig(sendbuff: *const c_void, recvbuff: *mut c_void, sendcount: usize, datatype: ncclDataType_t, comm: ncclComm_t, stream: *mut c_void, config: *const ncclCollConfig_t) -> ncclResult_t;
            fn ncclReduceScatterConfig(sendbuff: *const c_void, recvbuff: *mut c_void, recvcount: usize, datatype: ncclDataType_t, op: ncclRedOp_t, comm: ncclComm_t, stream: *mut c_void, config: *const ncclCollConfig_t) -> ncclResult_t;
            fn ncclAlltoAllConfig(sendbuff: *const c_void, recvbuff: *mut c_void, count: usize, datatype: ncclDataType_t, comm: ncclComm_t, stream: *mut c_void, config: *const ncclCollConfig_t) -> ncclResult_t;
            fn ncclGatherConfig(sendbuff: *const c_void, recvbuff: *mut c_void, count: usize, datatype: ncclDataType_t, root: c_int, comm: ncclComm_t, stream: *mut c_void, config: *const ncclCollConfig_t) -> ncclResult_t;
            fn ncclScatterConfig(sendbuff: *const c_void, recvbuff: *mut c_void, count: usize, datatype: ncclDataType_t, root: c_int, comm: ncclComm_t, stream: *mut c_void, config: *const ncclCollConfig_t) -> ncclResult_t;
            fn ncclSend(sendbuff: *const c_void, count: usize, datatype: ncclDataType_t, peer: c_int, comm: ncclComm_t, stream: *mut c_void) -> ncclResult_t;
            fn ncclRecv(recvbuff: *mut c_void, count: usize, datatype: ncclDataType_t, peer: c_int, comm: ncclComm_t, stream: *mut c_void) -> ncclResult_t;
            fn ncclPutSignal(localbuff: *const c_void, count: usize, datatype: ncclDataType_t, peer: c_int, peerWin: ncclWindow_t, peerWinOffset: usize, sigIdx: c_int, ctx: c_int, flags: c_uint, comm: ncclComm_t, stream: *mut c_void) -> ncclResult_t;
            fn ncclSignal(peer: c_int, sigIdx: c_int, ctx: c_int, flags: c_uint, comm: ncclComm_t, stream: *mut c_void) -> ncclResult_t;
            fn ncclWaitSignal(nDesc: c_int, signalDescs: *mut ncclWaitSignalDesc_t, comm: ncclComm_t, stream: *mut c_void) -> ncclResult_t;
            fn ncclGroupStart() -> ncclResult_t;
            fn ncclGroupEnd() -> ncclResult_t;
            fn ncclGroupSimulateEnd(simInfo: *mut ncclSimInfo_t) -> ncclResult_t;
            fn ncclSetEncryption(config: *const ncclEncryptionConfig_t) -> ncclResult_t;
            fn ncclParamBind(out: *mut ncclParamHandle_t, key: *const c_char) -> ncclResult_t;
            fn ncclParamGetI8(h: ncclParamHandle_t, out: *mut i8) -> ncclResult_t;
            fn ncclParamGetI16(h: ncclParamHandle_t, out: *mut i16) -> ncclResult_t;
            fn ncclParamGetI32(h: ncclParamHandle_t, out: *mut i32) -> ncclResult_t;
            fn ncclParamGetI64(h: ncclParamHandle_t, out: *mut i64) -> ncclResult_t;
            fn ncclParamGetU8(h: ncclParamHandle_t, out: *mut u8) -> ncclResult_t;
            fn ncclParamGetU16(h: ncclParamHandle_t, out: *mut u16) -> ncclResult_t;
            fn ncclParamGetU32(h: ncclParamHandle_t, out: *mut u32) -> ncclResult_t;
            fn ncclParamGetU64(h: ncclParamHandle_t, out: *mut u64) -> ncclResult_t;
            fn ncclParamGetStr(h: ncclParamHandle_t, out: *mut *const c_char) -> ncclResult_t;
            fn ncclParamGet(h: ncclParamHandle_t, out: *mut c_void, maxLen: c_int, len: *mut c_int) -> ncclResult_t;
            fn ncclParamGetParameter(key: *const c_char, value: *mut *const c_char, valueLen: *mut c_int) -> ncclResult_t;
            fn ncclParamGetAllParameterKeys(table: *mut *mut *const c_char, tableLen: *mut c_int) -> ncclResult_t;
            fn ncclParamDumpAll();
            fn ncclCommQueryProperties(comm: ncclComm_t, props: *mut c_void) -> ncclResult_t;
            fn ncclDevCommCreate(comm: ncclComm_t, reqs: *const c_void, outDevComm: *mut c_void) -> ncclResult_t;
            fn ncclDevCommDestroy(comm: ncclComm_t, devComm: *const c_void) -> ncclResult_t;
            fn ncclGetLsaMultimemDevicePointer(window: ncclWindow_t, offset: usize, outPtr: *mut *mut c_void) -> ncclResult_t;
            fn ncclGetMultimemDevicePointer(window: ncclWindow_t, offset: usize, multimem: ncclMultimemHandle_t, outPtr: *mut *mut c_void) -> ncclResult_t;
            fn ncclGetLsaDevicePointer(window: ncclWindow_t, offset: usize, lsaRank: c_int, outPtr: *mut *mut c_void) -> ncclResult_t;
            fn ncclGetPeerDevicePointer(window: ncclWindow_t, offset: usize, peer: c_int, outPtr: *mut *mut c_void) -> ncclResult_t;
            fn ncclGetMultimemDeviceLeInfo(window: ncclWindow_t, offset: usize, leId: *mut u32, leOffset: *mut usize) -> ncclResult_t;
            fn ncclGetCftDeviceLeInfo(window: ncclWindow_t, offset: usize, peerCft: c_int, cftTeam: ncclTeam_t, leId: *mut u32, leOffset: *mut usize) -> ncclResult_t;
            fn ncclGetPeerDeviceLeInfo(window: ncclWindow_t, offset: usize, peerWorld: c_int, leId: *mut u32, leOffset: *mut usize) -> ncclResult_t;
            fn ncclTeamWorld(comm: ncclComm_t) -> ncclTeam_t;
            fn ncclTeamLsa(comm: ncclComm_t) -> ncclTeam_t;
            fn ncclTeamCft(comm: ncclComm_t, mode: c_uint) -> ncclTeam_t;
            fn ncclTeamCftMultimem(comm: ncclComm_t) -> ncclTeam_t;
            fn ncclTeamRankToWorld(comm: ncclComm_t, team: ncclTeam_t, rank: c_int) -> c_int;
            fn ncclTeamRankToLsa(comm: ncclComm_t, team: ncclTeam_t, rank: c_int) -> c_int;
            fn ncclTeamRail(comm: ncclComm_t) -> ncclTeam_t;
            fn ncclLsaBarrierCreateRequirement(team: ncclTeam_t, nBarriers: c_int, outHandle: *mut c_void, outReq: *mut c_void) -> ncclResult_t;
            fn ncclGinBarrierCreateRequirement(comm: ncclComm_t, team: ncclTeam_t, nBarriers: c_int, outHandle: *mut c_void, outReq: *mut c_void) -> ncclResult_t;
            fn ncclLLA2ACalcSlots(maxElts: c_int, maxEltSize: c_int) -> c_int;
            fn ncclLLA2ACreateRequirement(nBlocks: c_int, nSlots: c_int, outHandle: *mut c_void, outReq: *mut c_void) -> ncclResult_t;
            fn ncclGinOutboxCreateRequirement(nBlocks: c_int, size_log2: c_int, outHandle: *mut c_void, outReq: *mut c_void) -> ncclResult_t;
            fn ncclGinInboxA2ACreateRequirement(peers: ncclTeam_t, nBlocks: c_int, size_log2: c_int, outHandle: *mut c_void, outReq: *mut c_void) -> ncclResult_t;
            fn ncclResetDebugInitInternal();
        }
    };
}

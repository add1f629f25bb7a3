//! The driver's functions by name, for programs that ask for them.

use super::capture::*;
use super::context::{
    cuCtxGetCurrent, cuCtxGetDevice, cuCtxGetStreamPriorityRange, cuCtxPopCurrent_v2, cuCtxPushCurrent_v2,
    cuCtxSetCurrent, cuCtxSynchronize, cuDevicePrimaryCtxGetState, cuDevicePrimaryCtxRelease_v2,
    cuDevicePrimaryCtxRetain,
};
use super::device::*;
use super::error::*;
use super::event::*;
use super::graph::*;
use super::memory::*;
use super::stream::*;
use super::transfer::*;
use super::{Code, enter_plain};
use crate::face::{Out, Text};
use crate::model::calls::call;
use crate::model::error::{Error, Result};
use std::ffi::{c_int, c_ulonglong};

/// `CUdriverProcAddressQueryResult`
const FOUND: c_int = 0;
const NOT_FOUND: c_int = 1;
const VERSION_TOO_LOW: c_int = 2;

/// A name without its suffix, the version that introduced this function under the name, and its address.
type Entry = (&'static str, c_int, usize);

macro_rules! entries {
    ($($name:literal $since:literal $function:ident)*) => {
        vec![$(($name, $since, $function as *const () as usize)),*]
    };
}

/// Where a name is in it twice, the newer one is later.
fn entries() -> Vec<Entry> {
    entries! {
        "cuInit" 2000 cuInit
        "cuDriverGetVersion" 2020 cuDriverGetVersion
        "cuGetErrorName" 6000 cuGetErrorName
        "cuGetErrorString" 6000 cuGetErrorString
        "cuGetProcAddress" 12000 cuGetProcAddress_v2
        "cuDeviceGetCount" 2000 cuDeviceGetCount
        "cuDeviceGet" 2000 cuDeviceGet
        "cuDeviceGetName" 2000 cuDeviceGetName
        "cuDeviceGetAttribute" 2000 cuDeviceGetAttribute
        "cuDeviceGetUuid" 9020 cuDeviceGetUuid
        "cuDeviceGetUuid" 11040 cuDeviceGetUuid_v2
        "cuDeviceTotalMem" 3020 cuDeviceTotalMem_v2
        "cuDeviceGetPCIBusId" 4010 cuDeviceGetPCIBusId
        "cuDeviceCanAccessPeer" 4000 cuDeviceCanAccessPeer
        "cuDevicePrimaryCtxRetain" 7000 cuDevicePrimaryCtxRetain
        "cuDevicePrimaryCtxRelease" 11000 cuDevicePrimaryCtxRelease_v2
        "cuDevicePrimaryCtxGetState" 7000 cuDevicePrimaryCtxGetState
        "cuCtxGetCurrent" 4000 cuCtxGetCurrent
        "cuCtxSetCurrent" 4000 cuCtxSetCurrent
        "cuCtxPushCurrent" 4000 cuCtxPushCurrent_v2
        "cuCtxPopCurrent" 4000 cuCtxPopCurrent_v2
        "cuCtxGetDevice" 2000 cuCtxGetDevice
        "cuCtxSynchronize" 2000 cuCtxSynchronize
        "cuCtxGetStreamPriorityRange" 5050 cuCtxGetStreamPriorityRange
        "cuStreamCreate" 2000 cuStreamCreate
        "cuStreamCreateWithPriority" 5050 cuStreamCreateWithPriority
        "cuStreamDestroy" 4000 cuStreamDestroy_v2
        "cuStreamQuery" 2000 cuStreamQuery
        "cuStreamSynchronize" 2000 cuStreamSynchronize
        "cuStreamWaitEvent" 3020 cuStreamWaitEvent
        "cuStreamGetCtx" 9020 cuStreamGetCtx
        "cuStreamGetFlags" 5050 cuStreamGetFlags
        "cuStreamGetPriority" 5050 cuStreamGetPriority
        "cuStreamGetId" 12000 cuStreamGetId
        "cuStreamBeginCapture" 10010 cuStreamBeginCapture_v2
        "cuStreamEndCapture" 10000 cuStreamEndCapture
        "cuStreamIsCapturing" 10000 cuStreamIsCapturing
        "cuStreamGetCaptureInfo" 11030 cuStreamGetCaptureInfo_v2
        "cuStreamGetCaptureInfo" 12030 cuStreamGetCaptureInfo_v3
        "cuThreadExchangeStreamCaptureMode" 10010 cuThreadExchangeStreamCaptureMode
        "cuLaunchHostFunc" 10000 cuLaunchHostFunc
        "cuEventCreate" 2000 cuEventCreate
        "cuEventRecord" 2000 cuEventRecord
        "cuEventRecordWithFlags" 11010 cuEventRecordWithFlags
        "cuEventQuery" 2000 cuEventQuery
        "cuEventSynchronize" 2000 cuEventSynchronize
        "cuEventElapsedTime" 2000 cuEventElapsedTime
        "cuEventElapsedTime" 12080 cuEventElapsedTime_v2
        "cuEventDestroy" 4000 cuEventDestroy_v2
        "cuMemAlloc" 3020 cuMemAlloc_v2
        "cuMemAllocManaged" 6000 cuMemAllocManaged
        "cuMemAllocHost" 3020 cuMemAllocHost_v2
        "cuMemHostAlloc" 2020 cuMemHostAlloc
        "cuMemFree" 3020 cuMemFree_v2
        "cuMemFreeHost" 2000 cuMemFreeHost
        "cuMemAllocAsync" 11020 cuMemAllocAsync
        "cuMemFreeAsync" 11020 cuMemFreeAsync
        "cuMemGetInfo" 3020 cuMemGetInfo_v2
        "cuMemGetAddressRange" 3020 cuMemGetAddressRange_v2
        "cuPointerGetAttribute" 4000 cuPointerGetAttribute
        "cuMemcpy" 4000 cuMemcpy
        "cuMemcpyAsync" 4000 cuMemcpyAsync
        "cuMemcpyHtoD" 3020 cuMemcpyHtoD_v2
        "cuMemcpyHtoDAsync" 3020 cuMemcpyHtoDAsync_v2
        "cuMemcpyDtoH" 3020 cuMemcpyDtoH_v2
        "cuMemcpyDtoHAsync" 3020 cuMemcpyDtoHAsync_v2
        "cuMemcpyDtoD" 3020 cuMemcpyDtoD_v2
        "cuMemcpyDtoDAsync" 3020 cuMemcpyDtoDAsync_v2
        "cuMemcpyPeerAsync" 4000 cuMemcpyPeerAsync
        "cuMemsetD8" 3020 cuMemsetD8_v2
        "cuMemsetD8Async" 3020 cuMemsetD8Async
        "cuGraphInstantiate" 12000 cuGraphInstantiateWithFlags
        "cuGraphInstantiateWithFlags" 11040 cuGraphInstantiateWithFlags
        "cuGraphUpload" 11010 cuGraphUpload
        "cuGraphLaunch" 10000 cuGraphLaunch
        "cuGraphExecDestroy" 10000 cuGraphExecDestroy
        "cuGraphDestroy" 10000 cuGraphDestroy
    }
}

/// The newest function of this name that a program for this version may use, or why there is none.
fn find(name: &str, version: c_int) -> std::result::Result<usize, c_int> {
    let named: Vec<Entry> = entries().into_iter().filter(|entry| entry.0 == name).collect();
    let usable = named.iter().rev().find(|entry| entry.1 <= version);
    usable.map(|entry| entry.2).ok_or(if named.is_empty() { NOT_FOUND } else { VERSION_TOO_LOW })
}

/// The runtime says in the status what is missing, and fails only without one.
pub fn find_for_runtime(name: Text, version: c_int, address: Out<usize>, status: Out<c_int>) -> Result<()> {
    let found = find(name.get()?, version);
    address.set(found.unwrap_or(0))?;
    status.set_if_wanted(found.err().unwrap_or(FOUND));
    if found.is_err() && status.address().is_null() { Err(Error::NOT_FOUND) } else { Ok(()) }
}

#[unsafe(no_mangle)]
extern "C" fn cuGetProcAddress_v2(
    name: Text,
    address: Out<usize>,
    version: c_int,
    _flags: c_ulonglong,
    status: Out<c_int>,
) -> Code {
    enter_plain(call!("cuGetProcAddress_v2"), || {
        let found = find(name.get()?, version);
        address.set(found.unwrap_or(0))?;
        status.set_if_wanted(found.err().unwrap_or(FOUND));
        if found.is_err() { Err(Error::NOT_FOUND) } else { Ok(()) }
    })
}

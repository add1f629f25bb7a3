//! Groups.

use crate::abi::{Code, SUCCESS};
use crate::entry::Call;
use crate::group;

/// `ncclGroupStart`.
pub fn start(_: &Call) -> Code {
    group::start();
    SUCCESS
}

/// `ncclGroupEnd`.
pub fn end(call: &Call) -> Code {
    group::end(call.fault.error, false)
}

/// `ncclGroupSimulateEnd`: the group is dropped.
///
/// # Safety
/// `info` is NULL or points to an `ncclSimInfo_t`.
#[cfg(not(nccl_old))]
pub unsafe fn simulate_end(call: &Call, info: *mut crate::abi::SimInfo) -> Code {
    const MAGIC: u32 = 0x7468_5283;
    // SAFETY: the caller's promise.
    let right = unsafe { info.as_ref() }.is_none_or(|info| info.header.magic == MAGIC);
    let forced = if right { call.fault.error } else { Some(call.invalid("not NCCL_SIM_INFO_INITIALIZER")) };
    let code = group::end(forced, true);
    if code == SUCCESS {
        // SAFETY: the caller's promise.
        if let Some(info) = unsafe { info.as_mut() } {
            info.estimated_time = 1.0;
        }
    }
    code
}

//! The short way for operations: outside of groups, and where nobody has to be waited for, a communicator is entered
//! by its handle alone. That costs a fifth of the other way, which takes a reference and looks at all that could stand
//! in the way; whoever cannot go the short way goes that one, and learns there why.

use super::{Communicator, run};
use crate::boundary::Answer;
use crate::comm::Comm;
use crate::cuda::Stream;
use crate::operation::Posted;
use crate::{group, handle};
use multiworld::nccl::Gate;
use multiworld::nccl::types::*;
use multiworld::sync::Arc;
use multiworld::sync::atomic::{AtomicPtr, Ordering};
use multiworld::sync::slab;
use std::ptr;

/// Handles of more communicators at a time go the other way.
const PLACES: usize = 1024;

/// The gate that a handle led to last, by the handle's place in its table. Whether it is still that handle's, the gate
/// says.
static GATES: [AtomicPtr<Gate>; PLACES] = [const { AtomicPtr::new(ptr::null_mut()) }; PLACES];

#[inline]
fn gate(comm: ncclComm_t) -> Option<&'static Gate> {
    let gate = GATES.get(slab::index_of(comm.addr()))?.load(Ordering::Acquire);
    // SAFETY: NULL, or what `offer` put there: gates are never freed.
    unsafe { gate.as_ref() }
}

/// Runs an operation if nothing stands in the way; `None` has done nothing.
///
/// # Safety
/// As NCCL's functions.
#[inline(always)]
pub unsafe fn post(comm: ncclComm_t, stream: Stream, posted: Posted) -> Option<ncclResult_t> {
    if group::is_open() || !posted.config.is_null() {
        return None;
    }
    let mut pass = gate(comm)?.enter(comm.addr())?;
    let library = pass.library()?;
    if posted.op.is_some_and(|op| op >= ncclNumOps) || posted.fault(pass.place()).is_some() {
        return None;
    }
    // SAFETY: a live handle, entered; otherwise this function's contract.
    let result = unsafe { run::issue(library, pass.real(), stream, &posted) }.ok()?;
    pass.leave(result);
    drop(pass);
    Some(if result == ncclSuccess { result } else { conclude(comm, result) })
}

/// What NCCL did not simply do.
#[cold]
fn conclude(comm: ncclComm_t, result: ncclResult_t) -> ncclResult_t {
    let concluded = handle::comm(comm).and_then(|owner| match &**owner {
        Comm::Genuine(g) => g.conclude("NCCL operation", result),
        Comm::Host(_) => Ok(result),
    });
    concluded.map_err(group::poison).answer()
}

/// Lets operations of a handle go the short way from now on.
pub fn offer(comm: ncclComm_t, g: &Arc<Communicator>) {
    let (Ok(ready), Ok(place)) = (g.ready(), g.place()) else { return };
    let (Some(at), Some(gate)) = (GATES.get(slab::index_of(comm.addr())), ready.offer(comm.addr(), place))
    else {
        return;
    };
    at.store(ptr::from_ref(gate).cast_mut(), Ordering::Release);
    // What was closed meanwhile may have been withdrawn before it was offered.
    if g.ready().is_err() || !handle::is_live(comm) {
        gate.withdraw(comm.addr());
    }
}

/// Operations of this handle go the other way from now on.
pub fn withdraw(comm: ncclComm_t) {
    if let Some(gate) = gate(comm) {
        gate.withdraw(comm.addr());
    }
}

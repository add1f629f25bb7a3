//! Operations on genuine communicators, alone and in groups.
//!
//! What is posted in a group is kept until its end, and then reaches NCCL as one group for each communicator (each
//! clique, when this process has several of its ranks): an error that NCCL answers at the end of a group condemns every
//! communicator in it, and those of other worlds must not be among them. All ranks go through the cliques in the same
//! order, because launches on one stream wait for each other.

use super::{Communicator, forward};
use crate::cuda::Stream;
use crate::operation::Posted;
use crate::{config, group};
use multiworld::error::{Error, Result};
use multiworld::nccl::types::*;
use multiworld::nccl::{Comm, Library, Outcome};
use multiworld::sync::Arc;
use multiworld::types::OpKind;

/// A call of another kind that may be part of a group.
type Body = Box<dyn FnOnce(&Library, ncclComm_t) -> Result<ncclResult_t>>;

/// What a group has posted.
pub struct Queued {
    owner: Arc<Communicator>,
    stream: Stream,
    what: What,
    /// The bytes of the operation's configuration: the caller's is there for the call only.
    _config: Vec<u64>,
}

enum What {
    Operation(Posted),
    Other(Body),
}

/// Runs an operation, or puts it into this thread's group.
///
/// # Safety
/// As NCCL's functions.
pub unsafe fn post(owner: &Arc<Communicator>, stream: Stream, posted: &Posted) -> Result<ncclResult_t> {
    let comm = owner.ready()?;
    check(owner, posted)?;
    if group::is_open() {
        let mut posted = *posted;
        let mut copy = Vec::new();
        if !posted.config.is_null() {
            // SAFETY: a configuration by NCCL's contract.
            let size = unsafe { config::header(posted.config, NCCL_API_MAGIC, "config") }?.size;
            copy.resize(size.div_ceil(8), 0u64);
            // SAFETY: `size` bytes are there by NCCL's contract, and so much room is here.
            unsafe {
                core::ptr::copy_nonoverlapping(posted.config.cast::<u8>(), copy.as_mut_ptr().cast(), size);
            }
            posted.config = copy.as_ptr().cast();
        }
        let what = What::Operation(posted);
        group::add_genuine(Queued { owner: owner.clone(), stream, what, _config: copy });
        return Ok(ncclSuccess);
    }
    let mut missing = None;
    let outcome = comm.launch("NCCL operation", |_, real| {
        // SAFETY: a live handle, entered; otherwise this function's contract.
        let result = unsafe { issue(comm.library(), real, stream, posted) };
        result.map_err(|e| missing = Some(e)).ok()
    });
    let answer = owner.finish(comm, missing.map_or(outcome, Err)?)?;
    comm.enqueued(stream)?;
    Ok(answer)
}

/// Finds wrong arguments before NCCL does.
fn check(owner: &Communicator, posted: &Posted) -> Result<()> {
    let place = owner.place()?;
    if let Some(fault) = posted.fault(place) {
        return Err(posted.explain(fault, place.1));
    }
    posted.op.map_or(Ok(()), |op| owner.check_operator(op, posted.datatype))
}

/// The same for a call that is no operation of ours.
pub fn post_other(
    owner: &Arc<Communicator>,
    what: &str,
    stream: Stream,
    body: impl FnOnce(&Library, ncclComm_t) -> Result<ncclResult_t> + 'static,
) -> Result<ncclResult_t> {
    owner.ready()?;
    if group::is_open() {
        let what = What::Other(Box::new(body));
        group::add_genuine(Queued { owner: owner.clone(), stream, what, _config: Vec::new() });
        return Ok(ncclSuccess);
    }
    let answer = owner.call(what, body)?;
    owner.comm()?.enqueued(stream)?;
    Ok(answer)
}

/// Runs what a group has posted.
pub fn run_group(queued: Vec<Queued>) -> Result<ncclResult_t> {
    let mut cliques: Vec<(u64, Vec<Queued>)> = Vec::new();
    for q in queued {
        match cliques.iter_mut().find(|(clique, _)| *clique == q.owner.clique) {
            Some((_, all)) => all.push(q),
            None => cliques.push((q.owner.clique, vec![q])),
        }
    }
    cliques.sort_by_key(|(clique, _)| *clique);
    let mut answer = Ok(ncclSuccess);
    for (_, all) in cliques {
        // Also after an error: the ranks of the other communicators do not know of it.
        let ran = run_clique(all);
        answer = match (answer, ran) {
            (Err(e), _) | (Ok(_), Err(e)) => Err(e),
            (Ok(a), Ok(b)) => Ok(if b == ncclInProgress { b } else { a }),
        };
    }
    answer
}

fn run_clique(queued: Vec<Queued>) -> Result<ncclResult_t> {
    let mut owners: Vec<Arc<Communicator>> = Vec::new();
    for q in &queued {
        if !owners.iter().any(|o| Arc::ptr_eq(o, &q.owner)) {
            owners.push(q.owner.clone());
        }
    }
    let comms: Vec<Arc<Comm>> = owners.iter().map(|o| o.ready().cloned()).collect::<Result<_>>()?;
    let place: Vec<usize> = queued
        .iter()
        .map(|q| owners.iter().position(|o| Arc::ptr_eq(o, &q.owner)).unwrap_or_default())
        .collect();
    let launched: Vec<(usize, Stream)> = place.iter().copied().zip(queued.iter().map(|q| q.stream)).collect();
    let mut missing: Option<Error> = None;
    let outcome = Comm::group(&comms, |handles| {
        for (at, q) in place.into_iter().zip(queued) {
            let (Some(real), Some(comm)) = (handles.get(at), comms.get(at)) else { continue };
            let result = match q.what {
                // SAFETY: a live handle, entered; NCCL's contract was the application's promise when it posted.
                What::Operation(posted) => unsafe { issue(comm.library(), *real, q.stream, &posted) },
                What::Other(body) => body(comm.library(), *real),
            };
            match result {
                Ok(ncclSuccess | ncclInProgress) => {}
                Ok(error) => return error,
                Err(e) => {
                    missing.get_or_insert(e);
                }
            }
        }
        ncclSuccess
    })?;
    for (at, stream) in launched {
        if let Some(comm) = comms.get(at) {
            comm.enqueued(stream)?;
        }
    }
    let mut answer = ncclSuccess;
    if outcome == Outcome::Pending {
        for (owner, comm) in owners.iter().zip(&comms) {
            if owner.finish(comm, outcome)? == ncclInProgress {
                answer = ncclInProgress;
            }
        }
    }
    match missing {
        Some(e) => Err(e),
        None => Ok(answer),
    }
}

/// Lets NCCL say how long what a group has posted would take. Nothing is run.
///
/// # Safety
/// `info` is NULL or an `ncclSimInfo_t`.
pub unsafe fn simulate(queued: Vec<Queued>, info: *mut ncclSimInfo_t) -> Result<ncclResult_t> {
    let Some(first) = queued.first() else { return Ok(ncclSuccess) };
    let comm = first.owner.ready()?.clone();
    if queued.iter().any(|q| !Arc::ptr_eq(&q.owner, &first.owner)) {
        return Err(Error::usage("ncclGroupSimulateEnd: only for the operations of one communicator"));
    }
    let library = comm.library();
    comm.with(|real| {
        // SAFETY: no arguments; the group is this thread's own.
        unsafe { forward::ncclGroupStart(library) }?;
        for q in queued {
            match q.what {
                // SAFETY: a live handle, entered; NCCL's contract was the application's promise.
                What::Operation(posted) => unsafe { issue(library, real, q.stream, &posted) }?,
                What::Other(body) => body(library, real)?,
            };
        }
        // SAFETY: by this function's contract.
        unsafe { forward::ncclGroupSimulateEnd(library, info) }
    })?
}

/// Calls the library's function for an operation.
///
/// # Safety
/// `c` is a live handle that this thread has entered; otherwise as NCCL's functions.
#[inline(always)]
pub unsafe fn issue(l: &Library, c: ncclComm_t, s: Stream, p: &Posted) -> Result<ncclResult_t> {
    let Posted { sendbuff: from, recvbuff: to, count: n, datatype: t, peer, config, .. } = *p;
    let op = p.op.unwrap_or(ncclSum);
    // SAFETY: by this function's contract.
    unsafe {
        match (p.kind, config.is_null()) {
            (OpKind::PointToPoint, _) if p.send => forward::ncclSend(l, from, n, t, peer, c, s),
            (OpKind::PointToPoint, _) => forward::ncclRecv(l, to, n, t, peer, c, s),
            (OpKind::Broadcast, true) => forward::ncclBroadcast(l, from, to, n, t, peer, c, s),
            (OpKind::Broadcast, false) => forward::ncclBroadcastConfig(l, from, to, n, t, peer, c, s, config),
            (OpKind::Reduce, true) => forward::ncclReduce(l, from, to, n, t, op, peer, c, s),
            (OpKind::Reduce, false) => forward::ncclReduceConfig(l, from, to, n, t, op, peer, c, s, config),
            (OpKind::AllReduce, true) => forward::ncclAllReduce(l, from, to, n, t, op, c, s),
            (OpKind::AllReduce, false) => forward::ncclAllReduceConfig(l, from, to, n, t, op, c, s, config),
            (OpKind::AllGather, true) => forward::ncclAllGather(l, from, to, n, t, c, s),
            (OpKind::AllGather, false) => forward::ncclAllGatherConfig(l, from, to, n, t, c, s, config),
            (OpKind::ReduceScatter, true) => forward::ncclReduceScatter(l, from, to, n, t, op, c, s),
            (OpKind::ReduceScatter, false) => {
                forward::ncclReduceScatterConfig(l, from, to, n, t, op, c, s, config)
            }
            (OpKind::AllToAll, true) => forward::ncclAlltoAll(l, from, to, n, t, c, s),
            (OpKind::AllToAll, false) => forward::ncclAlltoAllConfig(l, from, to, n, t, c, s, config),
            (OpKind::Gather, true) => forward::ncclGather(l, from, to, n, t, peer, c, s),
            (OpKind::Gather, false) => forward::ncclGatherConfig(l, from, to, n, t, peer, c, s, config),
            (OpKind::Scatter, true) => forward::ncclScatter(l, from, to, n, t, peer, c, s),
            (OpKind::Scatter, false) => forward::ncclScatterConfig(l, from, to, n, t, peer, c, s, config),
            (OpKind::Barrier, _) => Err(l.missing("a barrier")),
        }
    }
}

//! Device memory through the genuine NCCL.
#![allow(non_upper_case_globals)] // NCCL's constants keep their names.

use super::{Call, Device, DeviceStats};
use crate::error::{Error, Result};
use crate::nccl::cuda::{self, Mark, Stream};
use crate::nccl::types::*;
use crate::nccl::{Comm, Functions, Library, Options, config};
use crate::sync::Arc;
use crate::types::{DataType, OpKind, RedOp, Reduction};
use core::ffi::c_void;
use std::time::Instant;

/// Largest number of thread blocks of a world of two: pipelines have many of these on one device.
const PAIR_CTAS: i32 = 4;

/// One member of a communicator of NCCL's.
pub struct Nccl {
    comm: Arc<Comm>,
    rank: u32,
    nranks: u32,
}

/// An identity for a new communicator, from NCCL.
pub fn unique_id(library: &Library) -> Result<[u8; 128]> {
    let get = library.functions.ncclGetUniqueId.ok_or_else(|| library.missing("ncclGetUniqueId"))?;
    let mut id = ncclUniqueId { internal: [0; 128] };
    // SAFETY: `id` is writable.
    match unsafe { get(&mut id) } {
        ncclSuccess => Ok(id.internal.map(|b| b as u8)),
        result => Err(library.failure("ncclGetUniqueId", result)),
    }
}

/// What an operation comes to.
#[derive(Clone, Copy)]
enum Step {
    Send { from: *const u8, peer: i32 },
    Recv { to: *mut u8, peer: i32 },
}

impl Nccl {
    /// Begins to join; [`Comm::settle`] says when it is done. The device is the caller's current one.
    pub fn init(
        library: Arc<Library>,
        id: &[u8; 128],
        rank: u32,
        nranks: u32,
        options: Options,
    ) -> Result<Arc<Nccl>> {
        let mut config = config();
        if nranks == 2 {
            config.maxCTAs = PAIR_CTAS;
        }
        // Several worlds share the device: their launches need the same order everywhere.
        config.launchOrderImplicit = 1;
        let id = ncclUniqueId { internal: id.map(|b| b as core::ffi::c_char) };
        let comm = Comm::init(library, nranks as i32, id, rank as i32, &mut config, options)?;
        Ok(Arc::new(Nccl { comm, rank, nranks }))
    }

    /// The communicator.
    pub fn comm(&self) -> &Arc<Comm> {
        &self.comm
    }

    /// Sends and receives that an operation consists of where NCCL does not have it. Their own part ranks copy by
    /// sending to themselves, which NCCL allows in a group.
    fn steps(&self, call: &Call) -> Vec<Step> {
        let bytes = call.count * call.dtype.size();
        let ranks = 0..self.nranks;
        let send =
            |r: u32| Step::Send { from: call.sendbuf.wrapping_add(bytes * r as usize), peer: r as i32 };
        let recv = |r: u32| Step::Recv { to: call.recvbuf.wrapping_add(bytes * r as usize), peer: r as i32 };
        let root = call.peer;
        let at_root = root == self.rank as i32;
        match call.kind {
            OpKind::AllToAll => ranks.flat_map(|r| [send(r), recv(r)]).collect(),
            OpKind::Gather => {
                let mut all = vec![Step::Send { from: call.sendbuf, peer: root }];
                if at_root {
                    all.extend(ranks.map(recv));
                }
                all
            }
            OpKind::Scatter => {
                let mut all: Vec<Step> = if at_root { ranks.map(send).collect() } else { Vec::new() };
                all.push(Step::Recv { to: call.recvbuf, peer: root });
                all
            }
            _ => Vec::new(),
        }
    }

    /// Issues one call; `None` when this NCCL lacks a function for it.
    fn issue(
        &self,
        f: &Functions,
        real: ncclComm_t,
        call: &Call,
        op: ncclRedOp_t,
        token: *mut c_void,
    ) -> Option<ncclResult_t> {
        let (from, to) = (call.sendbuf.cast::<c_void>(), call.recvbuf.cast::<c_void>());
        let (n, t, root, s) = (call.count, call.dtype as ncclDataType_t, call.peer, call.stream);
        // SAFETY: a live handle whose lock is held; buffers and stream are the application's, who answers for them as
        // in NCCL.
        unsafe {
            Some(match call.kind {
                OpKind::PointToPoint if call.send => (f.ncclSend?)(from, n, t, root, real, s),
                OpKind::PointToPoint => (f.ncclRecv?)(to, n, t, root, real, s),
                OpKind::Broadcast => (f.ncclBroadcast?)(from, to, n, t, root, real, s),
                OpKind::Reduce => (f.ncclReduce?)(from, to, n, t, op, root, real, s),
                OpKind::AllReduce => (f.ncclAllReduce?)(from, to, n, t, op, real, s),
                OpKind::AllGather => (f.ncclAllGather?)(from, to, n, t, real, s),
                OpKind::ReduceScatter => (f.ncclReduceScatter?)(from, to, n, t, op, real, s),
                OpKind::Barrier => (f.ncclAllReduce?)(token, token, 1, ncclInt32, ncclSum, real, s),
                OpKind::AllToAll if let Some(f) = f.ncclAlltoAll => f(from, to, n, t, real, s),
                OpKind::Gather if let Some(f) = f.ncclGather => f(from, to, n, t, root, real, s),
                OpKind::Scatter if let Some(f) = f.ncclScatter => f(from, to, n, t, root, real, s),
                OpKind::AllToAll | OpKind::Gather | OpKind::Scatter => {
                    let mut first = ncclSuccess;
                    for step in self.steps(call) {
                        let result = match step {
                            Step::Send { from, peer } => (f.ncclSend?)(from.cast(), n, t, peer, real, s),
                            Step::Recv { to, peer } => (f.ncclRecv?)(to.cast(), n, t, peer, real, s),
                        };
                        if !matches!(result, ncclSuccess | ncclInProgress) {
                            first = result;
                            break;
                        }
                    }
                    first
                }
            })
        }
    }

    /// Whether a call becomes several of NCCL's.
    fn is_several(&self, call: &Call) -> bool {
        let f = &self.comm.library().functions;
        match call.kind {
            OpKind::AllToAll => f.ncclAlltoAll.is_none(),
            OpKind::Gather => f.ncclGather.is_none(),
            OpKind::Scatter => f.ncclScatter.is_none(),
            _ => false,
        }
    }

    /// NCCL's operators for the calls; those that were made must be destroyed after the launch.
    fn operators(&self, calls: &[Call]) -> Result<Vec<ncclRedOp_t>> {
        let mut all = Vec::with_capacity(calls.len());
        for call in calls {
            let made = match call.reduction {
                Reduction::Builtin(op) => Ok(operator(op)),
                Reduction::PreMulSum(address) if call.scalar_on_device => {
                    let address = usize::from_ne_bytes(address) as *mut c_void;
                    self.premulsum(call, address, ncclScalarDevice)
                }
                Reduction::PreMulSum(mut scalar) => {
                    self.premulsum(call, scalar.as_mut_ptr().cast(), ncclScalarHostImmediate)
                }
            };
            match made {
                Ok(op) => all.push(op),
                Err(e) => {
                    self.forget(&all);
                    return Err(e);
                }
            }
        }
        Ok(all)
    }

    fn premulsum(
        &self,
        call: &Call,
        scalar: *mut c_void,
        residence: ncclScalarResidence_t,
    ) -> Result<ncclRedOp_t> {
        let mut op = ncclSum;
        let dtype = call.dtype as ncclDataType_t;
        self.comm.call("ncclRedOpCreatePreMulSum", |f, real| {
            // SAFETY: a live handle whose lock is held; the scalar is read during the call, or lies in the device
            // memory that the application keeps for it.
            Some(unsafe { (f.ncclRedOpCreatePreMulSum?)(&mut op, scalar, dtype, residence, real) })
        })?;
        Ok(op)
    }

    fn forget(&self, operators: &[ncclRedOp_t]) {
        for op in operators.iter().filter(|op| **op >= ncclNumOps) {
            let forgotten = self.comm.call("ncclRedOpDestroy", |f, real| {
                // SAFETY: a live handle whose lock is held, and an operator made for it.
                Some(unsafe { (f.ncclRedOpDestroy?)(*op, real) })
            });
            if let Err(e) = forgotten {
                tracing::debug!("{e}");
            }
        }
    }
}

fn operator(op: RedOp) -> ncclRedOp_t {
    match op {
        RedOp::Sum => ncclSum,
        RedOp::Prod => ncclProd,
        RedOp::Max => ncclMax,
        RedOp::Min => ncclMin,
        RedOp::Avg => ncclAvg,
    }
}

/// Versions from this one on have floats of eight bits.
const EIGHT_BIT_FLOATS: u32 = 22400;

impl Nccl {
    /// Finds what this version does not have before NCCL does, which would count it as the communicator's failure.
    fn check(&self, call: &Call) -> Result<()> {
        let library = self.comm.library();
        let small = matches!(call.dtype, DataType::Float8e4m3 | DataType::Float8e5m2);
        if small && library.version < EIGHT_BIT_FLOATS {
            let version = library.version_text();
            return Err(Error::argument(format!("dtype: NCCL {version} has no floats of eight bits")));
        }
        Ok(())
    }
}

impl Device for Nccl {
    fn enqueue(&self, calls: &[Call], deadline: Instant) -> Result<()> {
        calls.iter().try_for_each(|c| self.check(c))?;
        let barrier = calls.iter().any(|c| c.kind == OpKind::Barrier);
        let token = if barrier { cuda::token(self.comm.device())? } else { core::ptr::null_mut() };
        let operators = self.operators(calls)?;
        let launched = match calls {
            [call] if !self.is_several(call) => {
                let op = operators.first().copied().unwrap_or(ncclSum);
                self.comm.launch("NCCL operation", |f, real| self.issue(f, real, call, op, token))
            }
            _ => {
                let comm = [self.comm.clone()];
                let mut missing = false;
                let f = &self.comm.library().functions;
                let launched = Comm::group(&comm, |handles| {
                    for (call, op) in calls.iter().zip(&operators) {
                        for real in handles {
                            match self.issue(f, *real, call, *op, token) {
                                Some(ncclSuccess | ncclInProgress) => {}
                                Some(error) => return error,
                                None => missing = true,
                            }
                        }
                    }
                    ncclSuccess
                });
                if missing { Err(self.comm.library().missing("a collective operation")) } else { launched }
            }
        };
        let done = launched.and_then(|outcome| self.comm.settle(outcome, deadline));
        self.forget(&operators);
        done?;
        for call in calls {
            self.comm.enqueued(call.stream)?;
        }
        Ok(())
    }

    fn mark(&self, stream: Stream) -> Result<Option<Mark>> {
        let Some(device) = self.comm.device() else { return Ok(None) };
        cuda::on(device, || {
            if cuda::is_capturing(stream)? {
                return Err(Error::usage("mwGroupSubmit: a stream is being captured; use mwGroupEnd"));
            }
            let mark = Mark::new()?;
            mark.set(stream)?;
            Ok(Some(mark))
        })
    }

    fn end(&self, error: &Error) {
        self.comm.end(error);
    }

    fn wait_over(&self) -> Result<()> {
        self.comm.wait_over()
    }

    fn finalize(&self, deadline: Instant) -> Result<()> {
        self.comm.destroy(deadline)
    }

    fn ordinal(&self) -> i32 {
        self.comm.device().unwrap_or(-1)
    }

    fn stats(&self) -> DeviceStats {
        DeviceStats {
            operations: self.comm.operations(),
            memory_bytes: self.comm.memory().unwrap_or_default(),
        }
    }
}

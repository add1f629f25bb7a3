//! The ends of a communicator: finalize, destroy, abort, and the half end that is revoke.

use crate::abi::{Code, INTERNAL_ERROR, INVALID_ARGUMENT, SUCCESS, UNHANDLED_CUDA_ERROR, VERSION};
use crate::api::init::{conclude, stage};
use crate::comm::Comm;
use crate::control;
use crate::entry::Call;
use crate::group;
use crate::record::{lock, set_last_error, violation};
use crate::script::Fault;
use crate::wireup;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The first version in which destroy waits for the other processes.
const DESTROY_WAITS: i32 = 23100;

/// `ncclCommFinalize`.
pub fn finalize(call: &Call) -> Code {
    if call.is_null() {
        return SUCCESS;
    }
    let comm = match call.comm() {
        Ok(comm) => comm,
        Err(code) => return call.fail(code),
    };
    let (answer, end) = group::scope(|| {
        comm.check_condemned(call.function.name());
        let ready = comm.ensure_ready(call.function.name());
        let refused = if ready != SUCCESS {
            ready
        } else if comm.flags.finalized.swap(true, Ordering::AcqRel) {
            call.invalid("finalized or revoked before")
        } else {
            let (job, fault) = (comm.clone(), call.fault);
            return group::add_job(&comm, false, Box::new(move || flush(&job, &fault)));
        };
        if !comm.settings.blocking {
            comm.strike(refused);
        }
        call.fail(refused)
    });
    conclude(Some(&comm), answer, end)
}

/// Waits until nothing of the communicator is on the device or in a graph.
fn flush(comm: &Comm, fault: &Fault) -> Code {
    if let Some(code) = stage(&[&comm.stop], fault) {
        return code;
    }
    let idle = comm.kernels.wait_idle(&comm.device);
    if idle.and_then(|()| comm.kernels.wait_graphs(&comm.device)).is_err() {
        set_last_error("CUDA has failed");
        return UNHANDLED_CUDA_ERROR;
    }
    SUCCESS
}

/// `ncclCommDestroy`.
pub fn destroy(call: &Call) -> Code {
    if call.is_null() {
        return SUCCESS;
    }
    let (comm, shell) = match (call.comm(), call.shell()) {
        (Ok(comm), Some(shell)) => (comm, shell),
        (Err(code), _) => return call.fail(code),
        (Ok(_), None) => return INTERNAL_ERROR,
    };
    comm.check_condemned(call.function.name());
    match comm.ensure_ready(call.function.name()) {
        SUCCESS => {}
        // The genuine one forgets to close its group when it refuses.
        code => {
            violation(&format!("{}: rank {} is not ready for it ({code})", call.function.name(), comm.rank));
            return call.fail(code);
        }
    }
    shell.doom();
    let (answer, end) = group::scope(|| {
        let (job, fault) = (comm.clone(), call.fault);
        group::add_job(&comm, true, Box::new(move || reclaim(&job, &fault)))
    });
    conclude(None, answer, end)
}

fn reclaim(comm: &Arc<Comm>, fault: &Fault) -> Code {
    let code = flush(comm, fault);
    if code != SUCCESS {
        return code;
    }
    let script = control::script();
    let waits = script.version.unwrap_or(VERSION) >= DESTROY_WAITS && !script.no_destroy_barrier;
    let wait = waits && !comm.is_revoked();
    if let Some(mut mesh) = lock(&comm.mesh).take() {
        wireup::part(comm.key, &mut mesh, comm.rank, comm.ranks, &comm.stop, wait);
    }
    if let Some(shell) = comm.shell() {
        shell.bury();
    }
    SUCCESS
}

/// `ncclCommAbort`.
pub fn abort(call: &Call) -> Code {
    if call.is_null() {
        return SUCCESS;
    }
    let (comm, shell) = match (call.comm(), call.shell()) {
        (Ok(comm), Some(shell)) => (comm, shell),
        (Err(code), _) => return code,
        (Ok(_), None) => return INTERNAL_ERROR,
    };
    // Only the first one gets here with a live handle.
    if !shell.doom() {
        violation(&format!("{}: rank {} is being aborted already", call.function.name(), comm.rank));
        return INVALID_ARGUMENT;
    }
    comm.stop.raise();
    comm.abort_job();
    // A revoke that was under way has lowered the flag at its end.
    comm.stop.raise();
    control::hold(&call.fault);
    let (answer, end) = group::scope(|| {
        let job = comm.clone();
        group::add_job(&comm, true, Box::new(move || release(&job)))
    });
    conclude(None, answer, end)
}

/// Waits for the kernels to leave, and for whatever else holds the genuine one up.
fn release(comm: &Arc<Comm>) -> Code {
    let synchronize = || match comm.device.cuda {
        Some(cuda) if control::script().abort_syncs_device => {
            comm.device.enter().and_then(|()| cuda.synchronize())
        }
        _ => Ok(()),
    };
    let idle = comm.kernels.wait_idle(&comm.device);
    let left = idle.and_then(|()| synchronize()).and_then(|()| comm.kernels.wait_graphs(&comm.device));
    // A broken device holds nothing up: the communicator goes, and the error is told.
    let answer = if left.is_ok() { SUCCESS } else { UNHANDLED_CUDA_ERROR };
    if lock(&comm.mesh).take().is_some() {
        wireup::leave(comm.key);
    }
    if let Some(shell) = comm.shell() {
        shell.bury();
    }
    answer
}

/// `ncclCommRevoke`.
#[cfg(not(nccl_old))]
pub fn revoke(call: &Call, flags: std::ffi::c_int) -> Code {
    if call.is_null() {
        return SUCCESS;
    }
    let (comm, shell) = match (call.comm(), call.shell()) {
        (Ok(comm), Some(shell)) => (comm, shell),
        (Err(code), _) => return code,
        (Ok(_), None) => return INTERNAL_ERROR,
    };
    if flags != 0 {
        return call.invalid("revokeFlags is not NCCL_REVOKE_DEFAULT");
    }
    if comm.flags.finalized.load(Ordering::Acquire) || comm.flags.revoked.swap(true, Ordering::AcqRel) {
        return call.invalid("finalized or revoked before");
    }
    comm.stop.raise();
    let (answer, end) = group::scope(|| {
        comm.abort_job();
        comm.stop.raise();
        comm.flags.finalized.store(true, Ordering::Release);
        let (job, fault) = (comm.clone(), call.fault);
        let quiesce = move || {
            if let Some(time) = fault.slow {
                std::thread::sleep(time);
            }
            // The abort flag is up, so a revoke that hangs looks out for an abort in another way.
            while fault.hang && shell.is_live() {
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
            let idle = job.kernels.wait_idle(&job.device);
            job.stop.lower();
            let result = if idle.is_ok() { SUCCESS } else { UNHANDLED_CUDA_ERROR };
            let result = fault.later.unwrap_or(result);
            // Whatever went wrong before, it is over: that is what revoke is for.
            job.strike(if job.settings.blocking { SUCCESS } else { crate::abi::IN_PROGRESS });
            result
        };
        group::add_job(&comm, false, Box::new(quiesce))
    });
    conclude(Some(&comm), answer, end)
}

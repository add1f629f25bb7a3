//! Sends, receives and collectives: NCCL's checks in NCCL's order, then the operation joins the group.

use crate::abi::{Code, IN_PROGRESS, INVALID_ARGUMENT, SUCCESS, Stream, size_of_type};
use crate::comm::{Comm, Operator};
use crate::entry::Call;
use crate::group;
use crate::operation::{Kind, Operation};
use crate::record::lock;
use std::ffi::{c_int, c_void};
use std::sync::Arc;

#[cfg(not(nccl_old))]
use crate::abi::Header;

/// The first number of an operator that the program made.
pub const FIRST_OPERATOR: c_int = 5;

/// The arguments that operations have, by whatever name and in whatever order.
#[derive(Clone, Copy)]
pub struct Request {
    pub kind: Kind,
    pub send: *const c_void,
    pub receive: *mut c_void,
    pub count: usize,
    pub datatype: c_int,
    /// The reduction, or 0.
    pub reduction: c_int,
    /// Root or peer, or 0.
    pub peer: c_int,
    pub stream: Stream,
}

/// Adds an operation to the group that is open, or carries it out as a group of its own.
pub fn submit(call: &Call, request: Request) -> Code {
    let comm = match call.comm() {
        Ok(comm) => comm,
        Err(code) => return call.fail(code),
    };
    if comm.is_revoked() {
        return call.fail(call.misused("the communicator was revoked"));
    }
    let (answer, end) = group::scope(|| match check(call, &comm, &request) {
        Ok(operation) => {
            comm.check_condemned(call.function.name());
            group::add_operation(&comm, operation);
            SUCCESS
        }
        Err(code) => {
            // As in NCCL this spoils a communicator that does not block, even for a bad argument.
            if !comm.settings.blocking {
                comm.strike(code);
            }
            code
        }
    });
    if answer != SUCCESS {
        call.fail(answer);
    }
    match end {
        SUCCESS | IN_PROGRESS if !comm.settings.blocking => comm.poll(),
        SUCCESS | IN_PROGRESS => answer,
        error => error,
    }
}

fn check(call: &Call, comm: &Arc<Comm>, request: &Request) -> Result<Operation, Code> {
    let ready = comm.ensure_ready(call.function.name());
    if ready != SUCCESS {
        return Err(ready);
    }
    if comm.flags.suspended.load(std::sync::atomic::Ordering::Acquire) {
        return Err(call.misused("the communicator is suspended"));
    }
    let peer = usize::try_from(request.peer).ok().filter(|peer| *peer < comm.ranks);
    let peer = peer.ok_or_else(|| call.invalid("root or peer is no rank"))?;
    let size = size_of_type(request.datatype).ok_or_else(|| call.invalid("no such data type"))?;
    if request.count.checked_mul(size).and_then(|bytes| bytes.checked_mul(comm.ranks)).is_none() {
        return Err(call.invalid("count is too large"));
    }
    let operator = operator(call, comm, request)?;
    let operation = Operation {
        kind: request.kind,
        send: request.send.expose_provenance(),
        receive: request.receive.expose_provenance(),
        count: request.count,
        datatype: request.datatype,
        reduction: request.reduction,
        peer: if request.kind.has_peer() { peer } else { 0 },
        stream: request.stream.expose_provenance(),
        hang: call.fault.hang,
        slow: call.fault.slow,
        multiplier: operator.map(|operator| operator.scalar),
    };
    let (rank, ranks) = (comm.rank, comm.ranks);
    if request.send.is_null() && operation.elements_read(rank, ranks) > 0 {
        return Err(call.invalid("sendbuff is NULL"));
    }
    if request.receive.is_null() && operation.elements_written(rank, ranks) > 0 {
        return Err(call.invalid("recvbuff is NULL"));
    }
    Ok(operation)
}

/// The program's own operator behind a reduction, if it is one.
fn operator(call: &Call, comm: &Comm, request: &Request) -> Result<Option<Operator>, Code> {
    if !request.kind.reduces() || (0..FIRST_OPERATOR).contains(&request.reduction) {
        return Ok(None);
    }
    let index = request.reduction.checked_sub(FIRST_OPERATOR).and_then(|index| usize::try_from(index).ok());
    let known = index.and_then(|index| lock(&comm.operators).get(index).copied().flatten());
    match known {
        Some(operator) if operator.datatype == request.datatype => Ok(Some(operator)),
        Some(_) => Err(call.invalid("the operator was made for another data type")),
        None => Err(call.invalid("no such reduction operator")),
    }
}

/// A form of [`submit`] with a per-call configuration, which is checked and changes nothing.
///
/// # Safety
/// `config` is NULL or points to an `ncclCollConfig_t`.
#[cfg(not(nccl_old))]
pub unsafe fn submit_configured(call: &Call, request: Request, config: *const Header) -> Code {
    // SAFETY: the caller's promise.
    match unsafe { crate::config::check_collective(config) } {
        Ok(()) => submit(call, request),
        Err(code) => call.fail(code),
    }
}

/// `ncclRedOpCreatePreMulSum`.
///
/// # Safety
/// `scalar` points to a value of the data type, and `op` to an operator.
pub unsafe fn create_operator(
    call: &Call,
    op: *mut c_int,
    scalar: *mut c_void,
    datatype: c_int,
    residence: c_int,
) -> Code {
    use crate::comm::Scalar;
    let comm = match call.comm() {
        Ok(comm) => comm,
        Err(code) => return code,
    };
    let ready = comm.ensure_ready(call.function.name());
    if ready != SUCCESS {
        return call.fail(ready);
    }
    let Some(size) = size_of_type(datatype) else { return call.invalid("no such data type") };
    if op.is_null() || scalar.is_null() {
        return call.invalid("op or scalar is NULL");
    }
    let scalar = match residence {
        0 => Scalar::Device(scalar.expose_provenance()),
        1 => {
            let mut bytes = [0; 8];
            // SAFETY: the caller promised a value of the type, which is at most eight bytes long.
            unsafe { std::ptr::copy_nonoverlapping(scalar.cast(), bytes.as_mut_ptr(), size) };
            Scalar::Immediate(bytes)
        }
        _ => return call.invalid("no such residence"),
    };
    let mut operators = lock(&comm.operators);
    let free = operators.iter().position(Option::is_none).unwrap_or(operators.len());
    if free == operators.len() {
        operators.push(None);
    }
    if let Some(slot) = operators.get_mut(free) {
        *slot = Some(Operator { datatype, scalar });
    }
    // SAFETY: not NULL, and the caller's promise.
    unsafe { op.write(FIRST_OPERATOR + free as c_int) };
    SUCCESS
}

/// `ncclRedOpDestroy`.
pub fn destroy_operator(call: &Call, op: c_int) -> Code {
    let comm = match call.comm() {
        Ok(comm) => comm,
        Err(code) => return code,
    };
    if (0..FIRST_OPERATOR).contains(&op) {
        return call.invalid("a built-in operator cannot be destroyed");
    }
    let index = op.checked_sub(FIRST_OPERATOR).and_then(|index| usize::try_from(index).ok());
    let mut operators = lock(&comm.operators);
    let slot = index.and_then(|index| operators.get_mut(index)).filter(|slot| slot.is_some());
    match slot {
        Some(slot) => {
            *slot = None;
            SUCCESS
        }
        None => {
            call.invalid("no such operator");
            INVALID_ARGUMENT
        }
    }
}

//! Launches: every communicator of a group gets one kernel. With CUDA it is a host function on the program's
//! stream, without CUDA it runs here.

use crate::abi::{Code, INVALID_USAGE, SUCCESS, UNHANDLED_CUDA_ERROR};
use crate::comm::Comm;
use crate::cuda::{Cuda, CudaError};
use crate::kernel;
use crate::operation::{Kind, Operation};
use crate::record::set_last_error;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// A kernel that has been issued.
struct Issued {
    comm: Arc<Comm>,
    operations: Vec<Operation>,
}

impl Issued {
    fn run(&self, ticket: u64) {
        let run = AssertUnwindSafe(|| {
            if self.comm.kernels.wait_turn(ticket, &self.comm.stop) {
                kernel::run(&self.comm, &self.operations);
            }
        });
        if catch_unwind(run).is_err() {
            crate::record::violation("the double panicked in a kernel");
        }
        self.comm.kernels.leave(ticket);
    }
}

/// Launches the kernels of a group.
pub fn launch(group: Vec<(Arc<Comm>, Vec<Operation>)>) -> Code {
    let mut here = Vec::new();
    for (comm, operations) in group {
        if let Some(peer) = unmatched_self(&comm, &operations) {
            set_last_error(&format!(
                "rank {peer} sends to or receives from itself without a match in the group"
            ));
            return INVALID_USAGE;
        }
        let operations: Vec<Operation> =
            operations.into_iter().filter(|one| one.count > 0 || one.hang).collect();
        if operations.is_empty() {
            continue;
        }
        match comm.device.cuda {
            None => here.push(Issued { comm, operations }),
            Some(cuda) => {
                if let Err(CudaError(code)) = enqueue(cuda, comm, operations) {
                    set_last_error(&format!("CUDA error {code} while launching"));
                    return UNHANDLED_CUDA_ERROR;
                }
            }
        }
    }
    run_here(here);
    SUCCESS
}

/// Runs the kernels side by side, since they may be ranks of one communicator.
fn run_here(kernels: Vec<Issued>) {
    let tickets: Vec<(Issued, u64)> = kernels
        .into_iter()
        .map(|kernel| {
            let ticket = kernel.comm.kernels.issue();
            (kernel, ticket)
        })
        .collect();
    match tickets.as_slice() {
        [] => {}
        [(kernel, ticket)] => kernel.run(*ticket),
        [others @ .., (last, last_ticket)] => std::thread::scope(|scope| {
            for (kernel, ticket) in others {
                scope.spawn(|| kernel.run(*ticket));
            }
            last.run(*last_ticket);
        }),
    }
}

/// A send to this rank itself needs its receive in the same group, and the other way round.
fn unmatched_self(comm: &Comm, operations: &[Operation]) -> Option<usize> {
    let own = |kind| operations.iter().filter(|one| one.kind == kind && one.peer == comm.rank).count();
    (own(Kind::Send) != own(Kind::Receive)).then_some(comm.rank)
}

/// Puts a kernel on the streams of its operations: it runs on the first, after what the others have, and what
/// comes on the others runs after it.
fn enqueue(cuda: &'static Cuda, comm: Arc<Comm>, operations: Vec<Operation>) -> Result<(), CudaError> {
    comm.device.enter()?;
    let mut streams: Vec<usize> = Vec::new();
    for operation in &operations {
        if !streams.contains(&operation.stream) {
            streams.push(operation.stream);
        }
    }
    let mut streams = streams.into_iter().map(std::ptr::with_exposed_provenance_mut::<c_void>);
    let Some(first) = streams.next() else { return Ok(()) };
    let others: Vec<*mut c_void> = streams.collect();
    for other in &others {
        cuda.join(first, *other)?;
    }
    match cuda.capturing(first)? {
        Some(graph) => capture(cuda, first, graph, Issued { comm, operations })?,
        None => issue(cuda, first, Issued { comm, operations })?,
    }
    for other in &others {
        cuda.join(*other, first)?;
    }
    Ok(())
}

fn issue(cuda: &Cuda, stream: *mut c_void, kernel: Issued) -> Result<(), CudaError> {
    let comm = kernel.comm.clone();
    let ticket = comm.kernels.issue();
    let data = Box::into_raw(Box::new((kernel, ticket)));
    // SAFETY: run_once takes the box that is passed, once.
    let launched = unsafe { cuda.launch_host(stream, run_once, data.cast()) };
    if launched.is_err() {
        // SAFETY: the function was not enqueued, so the box is still ours.
        drop(unsafe { Box::from_raw(data) });
        comm.kernels.leave(ticket);
    }
    launched
}

/// A captured kernel belongs to the graph, and its communicator cannot end before the graph does.
fn capture(cuda: &Cuda, stream: *mut c_void, graph: *mut c_void, kernel: Issued) -> Result<(), CudaError> {
    let comm = kernel.comm.clone();
    let data: *mut c_void = Box::into_raw(Box::new(kernel)).cast();
    comm.kernels.capture();
    // SAFETY: release takes the box that is passed, once.
    let given = unsafe { cuda.give_to_graph(graph, data, release) };
    if given.is_err() {
        // SAFETY: the graph has not got it, so the box is still ours.
        unsafe { release(data) };
        return given;
    }
    // SAFETY: run_again borrows the box, which the graph keeps as long as it can be launched.
    unsafe { cuda.launch_host(stream, run_again, data) }
}

/// # Safety
/// `data` comes from [`issue`] and is passed once.
unsafe extern "C" fn run_once(data: *mut c_void) {
    // SAFETY: the caller's promise.
    let data = unsafe { Box::from_raw(data.cast::<(Issued, u64)>()) };
    data.0.run(data.1);
}

/// # Safety
/// `data` comes from [`capture`] and has not been released.
unsafe extern "C" fn run_again(data: *mut c_void) {
    // SAFETY: the caller's promise.
    let kernel = unsafe { &*data.cast::<Issued>() };
    // A captured kernel takes its turn when it runs.
    kernel.run(kernel.comm.kernels.issue());
}

/// # Safety
/// `data` comes from [`capture`] and is passed once.
unsafe extern "C" fn release(data: *mut c_void) {
    // SAFETY: the caller's promise.
    let kernel = unsafe { Box::from_raw(data.cast::<Issued>()) };
    kernel.comm.kernels.release();
}

//! A kernel: the operations of one launch on one communicator, carried out together. It posts everything that
//! the peers need, waits for everything that it needs from them and for their word that they have what it
//! sent (so that nothing completes without its peer), and then writes the results.

use crate::comm::{Comm, Scalar};
use crate::key::Key;
use crate::mesh::{Mesh, Tag};
use crate::numeric;
use crate::operation::{Kind, Operation};
use crate::record::{lock, violation};
use crate::stop::Stop;
use std::collections::VecDeque;
use std::sync::Arc;

/// An operation under way.
struct Running<'a> {
    operation: &'a Operation,
    signature: u64,
    awaited: VecDeque<(usize, Tag)>,
    unconfirmed: Vec<(usize, Tag)>,
    /// What has come, by rank.
    parts: Vec<Option<Arc<[u8]>>>,
}

/// Carries the operations out. Returns when they are complete or the abort flag is raised.
pub fn run(comm: &Comm, operations: &[Operation]) {
    if operations.iter().any(|operation| operation.hang) {
        Stop::park(&[&comm.stop], None);
        return;
    }
    if let Some(time) = operations.iter().filter_map(|operation| operation.slow).max() {
        Stop::park(&[&comm.stop], Some(time));
    }
    let mut guard = lock(&comm.mesh);
    let Some(mesh) = guard.as_mut() else { return };
    let mut running: Vec<Running> =
        operations.iter().map(|operation| start(operation, comm.rank, comm.ranks, mesh)).collect();
    loop {
        if comm.stop.is_raised() {
            return;
        }
        let before: usize = running.iter().map(Running::left).sum();
        for one in &mut running {
            if !one.progress(mesh, comm.rank) {
                // NCCL would hang or corrupt; the double hangs.
                drop(guard);
                Stop::park(&[&comm.stop], None);
                return;
            }
        }
        if running.iter().all(Running::is_done) && mesh.is_flushed() {
            break;
        }
        // What a rank receives from itself confirms its own send, for which no bytes will come.
        if running.iter().map(Running::left).sum::<usize>() == before {
            mesh.step(&comm.stop, -1);
        }
    }
    running.iter().for_each(|one| one.write(comm.rank, comm.ranks));
}

/// Reads what the operation sends, posts it, and notes what it waits for.
fn start<'a>(operation: &'a Operation, rank: usize, ranks: usize, mesh: &mut Mesh) -> Running<'a> {
    let mut own = read(operation, rank, ranks);
    if let Some(multiplier) = operation.multiplier {
        numeric::scale(operation.datatype, &mut own, &scalar_bytes(operation.datatype, multiplier));
    }
    let own: Arc<[u8]> = own.into();
    let signature = signature(operation);
    let mut running = Running {
        operation,
        signature,
        awaited: VecDeque::new(),
        unconfirmed: Vec::new(),
        parts: vec![None; ranks],
    };
    match operation.kind {
        Kind::Send => {
            let tag = mesh.next_send(operation.peer);
            mesh.post(operation.peer, tag, signature, own);
            running.unconfirmed.push((operation.peer, tag));
        }
        Kind::Receive => {
            let tag = mesh.next_receive(operation.peer);
            running.awaited.push_back((operation.peer, tag));
        }
        _ => {
            let tag = mesh.next_collective();
            let chunked = matches!(operation.kind, Kind::ReduceScatter | Kind::AllToAll | Kind::Scatter);
            for peer in 0..ranks {
                if sends(operation, rank, peer) {
                    let payload = if chunked { chunk(&own, peer, ranks) } else { own.clone() };
                    mesh.post(peer, tag, signature, payload);
                    running.unconfirmed.push((peer, tag));
                }
                if sends(operation, peer, rank) {
                    running.awaited.push_back((peer, tag));
                }
            }
        }
    }
    running
}

/// Whether a collective has `from` send something to `to`. A rank sends to itself too.
fn sends(operation: &Operation, from: usize, to: usize) -> bool {
    match operation.kind {
        Kind::Broadcast | Kind::Scatter => from == operation.peer,
        Kind::Reduce | Kind::Gather => to == operation.peer,
        _ => true,
    }
}

fn chunk(bytes: &[u8], index: usize, count: usize) -> Arc<[u8]> {
    let size = bytes.len() / count.max(1);
    bytes.get(index * size..(index + 1) * size).unwrap_or_default().into()
}

/// What both sides must agree on.
fn signature(operation: &Operation) -> u64 {
    let kind = match operation.kind {
        Kind::Receive => Kind::Send,
        kind => kind,
    };
    let peer = if kind == Kind::Send { 0 } else { operation.peer };
    // Operators of the program's own are numbered by each rank for itself.
    let reduction = if kind.reduces() { operation.reduction.min(5) } else { 0 };
    let words =
        [kind as u64, operation.count as u64, operation.datatype as u64, reduction as u64, peer as u64];
    let parts = words.map(u64::to_le_bytes);
    let parts: Vec<&[u8]> = parts.iter().map(<[u8; 8]>::as_slice).collect();
    Key::of(&parts).low()
}

fn scalar_bytes(datatype: i32, scalar: Scalar) -> Vec<u8> {
    match scalar {
        Scalar::Immediate(bytes) => bytes.to_vec(),
        Scalar::Device(address) => {
            let size = crate::abi::size_of_type(datatype).unwrap_or(0);
            // SAFETY: the program promised a scalar of this type at this address until the operation is over.
            unsafe { copy_in(address, size) }
        }
    }
}

fn read(operation: &Operation, rank: usize, ranks: usize) -> Vec<u8> {
    let size = crate::abi::size_of_type(operation.datatype).unwrap_or(0);
    let length = operation.elements_read(rank, ranks).saturating_mul(size);
    // SAFETY: the program promised that many elements at this address until the operation is over.
    unsafe { copy_in(operation.send, length) }
}

/// # Safety
/// `length` readable bytes at `address`.
unsafe fn copy_in(address: usize, length: usize) -> Vec<u8> {
    let pointer = std::ptr::with_exposed_provenance::<u8>(address);
    if pointer.is_null() || length == 0 {
        return Vec::new();
    }
    let mut bytes = vec![0; length];
    // SAFETY: the source is the caller's promise, the target has just been made as large.
    unsafe { std::ptr::copy_nonoverlapping(pointer, bytes.as_mut_ptr(), length) };
    bytes
}

impl Running<'_> {
    fn left(&self) -> usize {
        self.awaited.len() + self.unconfirmed.len()
    }

    fn is_done(&self) -> bool {
        self.left() == 0
    }

    /// Takes what has come. False when a peer meant another operation.
    fn progress(&mut self, mesh: &mut Mesh, rank: usize) -> bool {
        let mut matched = true;
        self.awaited.retain(|(peer, tag)| {
            let Some(arrived) = mesh.peek(*peer, *tag) else { return true };
            if arrived.signature != self.signature {
                violation(&format!(
                    "{:?} of {} elements on rank {rank} met something else from rank {peer}",
                    self.operation.kind, self.operation.count
                ));
                matched = false;
                return true;
            }
            if let (Some(slot), Some(message)) = (self.parts.get_mut(*peer), mesh.take(*peer, *tag)) {
                *slot = Some(message.payload);
            }
            false
        });
        self.unconfirmed.retain(|(peer, tag)| !mesh.is_confirmed(*peer, *tag));
        matched
    }

    /// Puts the result where the program wants it.
    fn write(&self, rank: usize, ranks: usize) {
        let size = crate::abi::size_of_type(self.operation.datatype).unwrap_or(0);
        let length = self.operation.elements_written(rank, ranks).saturating_mul(size);
        let parts: Vec<&[u8]> = self.parts.iter().flatten().map(AsRef::as_ref).collect();
        let result = match self.operation.kind {
            _ if length == 0 => return,
            kind if kind.reduces() => {
                numeric::reduce(self.operation.datatype, self.operation.reduction, &parts)
            }
            _ => parts.concat(),
        };
        let pointer = std::ptr::with_exposed_provenance_mut::<u8>(self.operation.receive);
        if !pointer.is_null() {
            // SAFETY: the program promised room for that many elements until the operation is over.
            unsafe { std::ptr::copy(result.as_ptr(), pointer, result.len().min(length)) };
        }
    }
}

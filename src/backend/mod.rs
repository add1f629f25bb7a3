//! Who carries out the operations of a world.
//!
//! Host memory is served by the engine in `progress`, which the callers' own threads drive. Device memory is served by
//! a [`Device`]: operations are enqueued on a stream and carried out by hardware, so that a call returns before they
//! are done, and what can be learned about them later is whether a [`Mark`] has been reached.

pub mod memory;
pub mod nccl;

use crate::error::{Error, Result};
use crate::nccl::cuda::{Mark, Stream};
use crate::types::{DataType, OpKind, Reduction};
use std::time::Instant;

/// One call of an operation. Null pointers and enum ranges have been checked by whoever made it; ranks and sizes are
/// checked by the world.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// Operation; for point-to-point, `send` tells the direction.
    pub kind: OpKind,
    /// Point-to-point only: true for Send.
    pub send: bool,
    /// Send buffer, or null where the operation has none on this rank.
    pub sendbuf: *const u8,
    /// Receive buffer, likewise.
    pub recvbuf: *mut u8,
    /// Elements, as in the C call.
    pub count: usize,
    /// Element type.
    pub dtype: DataType,
    /// Reduction, else `Builtin(Sum)`.
    pub reduction: Reduction,
    /// The reduction's scalar is not the value but its address in device memory.
    pub scalar_on_device: bool,
    /// Peer of point-to-point, root of a rooted operation, else 0; as the caller gave it.
    pub peer: i32,
    /// The stream of an operation on device memory; null is the device's default stream, and the only one on the host.
    pub stream: Stream,
}

// SAFETY: the pointers are the caller's buffers, valid from any thread until the operation is over.
unsafe impl Send for Call {}
// SAFETY: as above; the value itself is never written through a shared reference.
unsafe impl Sync for Call {}

/// Counters of a device backend.
#[derive(Clone, Copy, Debug, Default)]
pub struct DeviceStats {
    /// Operations enqueued.
    pub operations: u64,
    /// Bytes of device memory held, where that is known.
    pub memory_bytes: u64,
}

/// Carries out operations on device memory.
pub trait Device: Send + Sync {
    /// Enqueues calls that have been checked, all or none, as one group when there are several. Returns when they are
    /// enqueued, by `deadline` at the latest.
    fn enqueue(&self, calls: &[Call], deadline: Instant) -> Result<()>;
    /// A mark behind everything enqueued on a stream so far; `None` where operations are done when they are enqueued.
    fn mark(&self, stream: Stream) -> Result<Option<Mark>>;
    /// The world has ended: nothing may be under way any more. Returns at once, may be called from any thread, and
    /// again.
    fn end(&self, error: &Error);
    /// Waits, within limits of its own, until what [`Device::end`] began is over. The error says what was leaked.
    fn wait_over(&self) -> Result<()>;
    /// Leaves in good order, together with the other members.
    fn finalize(&self, deadline: Instant) -> Result<()>;
    /// Which device.
    fn ordinal(&self) -> i32;
    /// Counters.
    fn stats(&self) -> DeviceStats;
}

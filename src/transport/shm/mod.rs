//! Shared memory between members of a world on one machine.
//!
//! The members share one [`segment::Segment`]: a line per member and a ring per ordered pair. Small messages are
//! copied into the ring and out of it. Large ones are announced in the ring and copied once, by the receiver,
//! straight from the sender's memory (`process_vm_readv`, or a plain copy between threads of one process). Where
//! the kernel does not allow that, large messages go through the ring in fragments.

pub mod endpoint;
pub mod ring;
pub mod segment;

#[cfg(test)]
mod tests;

pub use endpoint::ShmEndpoint;
pub use segment::Segment;

//! Shared memory between members of a world on one machine.
//!
//! The members share one [`segment::Segment`]: a line per member and a ring per ordered pair. Small messages are
//! copied into the ring and out of it. Large ones go the same way in fragments, or are announced in the ring and copied
//! once, by the receiver, straight from the sender's memory (`process_vm_readv`), whichever has turned out to be faster
//! (see `choice`). Where the kernel does not allow the latter, all go through the ring.
//!
//! A buffer in a [`region`], which is memory from `mwMemAlloc`, is mapped by the peer's process, too (see
//! [`neighbour`]): of a message that is more than short only the place is told, and the receiver takes it from there.

mod choice;
mod contest;
pub mod endpoint;
mod meter;
pub mod neighbour;
pub mod region;
pub mod ring;
pub mod segment;
mod shared;
mod stores;

#[cfg(test)]
pub(crate) mod tests;

pub use endpoint::ShmEndpoint;
pub use neighbour::Neighbour;
pub use segment::Segment;

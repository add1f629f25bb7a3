//! Operations as polled state machines.
//!
//! An [`engine::Engine`] belongs to one world and knows its endpoints. Whoever waits for an operation drives the
//! engine ([`wait::until`]): first by spinning, then by yielding, then by sleeping on the world's bell or in epoll.
//! No thread ever sits in a system call that a breaking world could not end.

pub mod channel;
pub mod engine;
pub mod operation;
pub mod ticket;
pub mod wait;

#[cfg(test)]
mod tests;

pub use channel::Attempt;
pub use engine::Engine;
pub use operation::{Message, Operation, Trouble};
pub use ticket::Ticket;

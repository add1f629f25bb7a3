//! Deciding who has failed and what follows: pure state machines, no clock, no I/O.
//!
//! [`liveness`] turns signs of life into suspicion, [`health`] turns news about members into the state of a world, and
//! [`membership`] says who belongs to its next epoch. The watchdog and the rendezvous carry out what they decide.

pub mod health;
pub mod liveness;
pub mod membership;

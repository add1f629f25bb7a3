//! What the application and the operator get to see: events, callbacks, log lines.

pub mod callbacks;
pub mod events;
pub mod log;

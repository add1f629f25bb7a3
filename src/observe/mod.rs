//! What the application and the operator get to see: events, log lines.

pub mod events;

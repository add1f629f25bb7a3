//! The engine under a simulated transport.

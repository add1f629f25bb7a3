//! Worlds within one process.

//! Shared memory between members on one machine.

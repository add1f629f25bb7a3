//! The process's event queue: one pollable descriptor, one ordered queue, bounded.

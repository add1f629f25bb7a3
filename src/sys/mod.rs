//! The one place that speaks libc.
//!
//! | module | provides |
//! |---|---|
//! | `clock` | monotonic time |
//! | `stream` | vectored non-blocking socket I/O, socket options |

pub mod stream;

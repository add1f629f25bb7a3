//! The one place that speaks libc.
//!
//! | module | provides |
//! |---|---|
//! | `clock` | monotonic time |

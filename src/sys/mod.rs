//! The one place that speaks libc.
//!
//! | module | provides |
//! |---|---|
//! | `clock` | monotonic time |
//! | `eventfd` | a counter that `poll` can wait for |

pub mod eventfd;

//! The one place that speaks libc.
//!
//! | module | provides |
//! |---|---|
//! | `bell` | waking a thread that waits for messages, from any process |
//! | `clock` | monotonic time in nanoseconds |
//! | `futex` | waiting on a word of shared memory, on one or on many |
//! | `memory` | shared memory without a name |
//! | `process` | identities, reading a peer's memory, fork detection |
//! | `robust` | words that the kernel marks when this process dies |

pub mod bell;
pub mod clock;
pub mod futex;
pub mod memory;
pub mod process;
pub mod robust;

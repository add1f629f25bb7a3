//! The one place that speaks libc.
//!
//! | module | provides |
//! |---|---|
//! | `bell` | waking a thread that waits for messages, from any process |
//! | `clock` | monotonic time in nanoseconds |
//! | `copy` | copying past the caches |
//! | `dylib` | shared libraries opened at run time |
//! | `eventfd` | a counter to poll |
//! | `fdpass` | sending descriptors along with bytes |
//! | `file` | private files, locks that end with their holder, news of changes |
//! | `futex` | waiting on a word of shared memory, on one or on many |
//! | `interfaces` | which address to listen on |
//! | `memory` | shared memory without a name |
//! | `poll` | epoll and eventfd |
//! | `process` | identities, reading a peer's memory, fork detection |
//! | `robust` | words that the kernel marks when this process dies |
//! | `signal` | waiting for the signals that ask a program to end |
//! | `sleeper` | sleeping on sockets and the doorbell at once |
//! | `socket` | listening, connecting, credentials |
//! | `stream` | vectored non-blocking socket I/O, socket options |

pub mod bell;
pub mod clock;
pub mod copy;
pub mod dylib;
pub mod eventfd;
pub mod fdpass;
pub mod file;
pub mod futex;
pub mod interfaces;
pub mod memory;
pub mod poll;
pub mod process;
pub mod robust;
pub mod signal;
pub mod sleeper;
pub mod socket;
pub mod stream;

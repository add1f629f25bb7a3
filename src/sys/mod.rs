//! The one place that speaks libc.
//!
//! | module | provides |
//! |---|---|
//! | `clock` | monotonic time |
//! | `poll` | epoll, poll of one descriptor, eventfd |
//! | `socket` | TCP and abstract Unix sockets, name resolution, peer credentials |

pub mod poll;
pub mod socket;

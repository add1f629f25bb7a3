//! The one door to atomics, locks and channels.

pub mod light;
pub mod slab;

pub use parking_lot::{Condvar, Mutex, MutexGuard, RwLock};
pub use std::sync::atomic;
pub use std::sync::{Arc, OnceLock, Weak};

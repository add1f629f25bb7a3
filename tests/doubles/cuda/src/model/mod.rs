//! What the runtime and the driver have in common. Both are faces of these objects.
//!
//! Locks are taken in this order: an event's or a capture's, a stream's queue, a record's. Completing a
//! record takes the queues of those that wait for it, so it happens with none of these held.

pub mod calls;
pub mod capture;
pub mod device;
pub mod error;
pub mod event;
pub mod graph;
pub mod handle;
pub mod memory;
pub mod order;
pub mod record;
pub mod settings;
pub mod stream;
pub mod thread;
pub mod transfer;
pub mod user_object;
pub mod work;

use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Every critical section leaves its data whole, so that a panic elsewhere in one is no reason to stop.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// As [`lock`].
pub fn read<T>(shared: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    shared.read().unwrap_or_else(PoisonError::into_inner)
}

/// As [`lock`].
pub fn write<T>(shared: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    shared.write().unwrap_or_else(PoisonError::into_inner)
}

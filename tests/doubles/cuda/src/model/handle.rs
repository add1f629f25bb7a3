//! Tables from the handles that C holds to the objects behind them.

use crate::model::error::{Error, Result};
use crate::model::{read, write};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};

/// One counter for handles of all kinds, so that none is ever valid twice or as something else. The values
/// look like pointers into a page that nobody maps.
static NEXT: AtomicUsize = AtomicUsize::new(0x00cd_a000_0000_1000);

/// A new handle, not yet in any table.
pub fn fresh() -> usize {
    NEXT.fetch_add(16, Ordering::Relaxed)
}

pub struct Table<T> {
    entries: RwLock<BTreeMap<usize, Arc<T>>>,
}

impl<T> Table<T> {
    pub const fn new() -> Table<T> {
        Table { entries: RwLock::new(BTreeMap::new()) }
    }

    pub fn insert(&self, handle: usize, object: Arc<T>) {
        write(&self.entries).insert(handle, object);
    }

    pub fn get(&self, handle: usize) -> Result<Arc<T>> {
        read(&self.entries).get(&handle).cloned().ok_or(Error::INVALID_HANDLE)
    }

    pub fn remove(&self, handle: usize) -> Result<Arc<T>> {
        write(&self.entries).remove(&handle).ok_or(Error::INVALID_HANDLE)
    }

    /// Removes all that satisfy a condition.
    pub fn take(&self, condition: impl Fn(&T) -> bool) -> Vec<Arc<T>> {
        let mut entries = write(&self.entries);
        let handles: Vec<usize> =
            entries.iter().filter(|(_, object)| condition(object)).map(|(&handle, _)| handle).collect();
        handles.iter().filter_map(|handle| entries.remove(handle)).collect()
    }
}

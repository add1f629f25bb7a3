//! Rendezvous and membership: a small key-value store with compare-and-set, waiting and leases.
//!
//! Not in the data path: worlds that exist never ask it anything.

use crate::error::Result;
use std::time::{Duration, Instant};

/// Revision of the whole store: grows with every change.
pub type Revision = u64;

/// Names a lease: keys written under it vanish when it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LeaseId(pub u64);

/// One key with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Vec<u8>,
    /// The value.
    pub value: Vec<u8>,
}

/// What lies under a prefix, sorted by key, and the store's revision at that moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Revision of the store.
    pub revision: Revision,
    /// Entries.
    pub entries: Vec<Entry>,
}

/// Answer of a compare-and-set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swap {
    /// Whether the value was what the caller expected and the new one is in place.
    pub swapped: bool,
    /// The value after the call.
    pub current: Option<Vec<u8>>,
}

/// A store. Every call answers by `deadline` at the latest, with `Code::Timeout` when it could not.
/// Implementations may be used from many threads at once.
pub trait Store: Send + Sync {
    /// The value of `key`.
    fn get(&self, key: &[u8], deadline: Instant) -> Result<Option<Vec<u8>>>;

    /// Sets `key`, under `lease` if one is given.
    fn set(&self, key: &[u8], value: &[u8], lease: Option<LeaseId>, deadline: Instant) -> Result<()>;

    /// Sets `key` to `new` (`None` deletes) if it holds `expected` (`None`: if it does not exist).
    fn compare_and_set(
        &self,
        key: &[u8],
        expected: Option<&[u8]>,
        new: Option<&[u8]>,
        lease: Option<LeaseId>,
        deadline: Instant,
    ) -> Result<Swap>;

    /// Deletes every key that starts with `prefix`; answers how many.
    fn delete_prefix(&self, prefix: &[u8], deadline: Instant) -> Result<u64>;

    /// Everything under `prefix`.
    fn list(&self, prefix: &[u8], deadline: Instant) -> Result<Snapshot>;

    /// Waits until something under `prefix` has changed (set or deleted) after revision `after`, then answers what
    /// lies there now. Returns at once when that is so already.
    fn watch(&self, prefix: &[u8], after: Revision, deadline: Instant) -> Result<Snapshot>;

    /// A new lease. It ends `ttl` after the last sign of life of this client (any request, or the keep-alive that
    /// the client sends by itself while a call waits), when the client's connection is lost, or when revoked.
    fn lease(&self, ttl: Duration, deadline: Instant) -> Result<LeaseId>;

    /// Ends a lease now.
    fn revoke(&self, lease: LeaseId, deadline: Instant) -> Result<()>;
}

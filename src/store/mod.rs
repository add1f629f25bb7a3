//! Rendezvous and membership: a small key-value store with compare-and-set, waiting and leases.
//!
//! Not in the data path: worlds that exist never ask it anything.
//!
//! | module | provides |
//! |---|---|
//! | `server`, `client` | the built-in store over TCP |
//! | `memory` | the same store inside one process |
//! | `file` | a store in a directory, without a server |
//! | `etcd` | an etcd cluster |
//! | `address` | which of them an address means |
//! | `prefix` | a part of another store, as a store |
//! | `state`, `deleted` | what a store knows and answers; no I/O, no clock |
//! | `wire` | the codec |
//! | `record`, `history` | what a store that outlives its process writes down, and reads again; no I/O |
//! | `journal` | the files that hold it |
//! | `calls` | the trait's calls as requests and answers of the codec |

mod address;
mod calls;
pub mod client;
#[cfg(test)]
mod conformance;
mod deleted;
#[cfg(feature = "etcd")]
pub mod etcd;
pub mod file;
pub mod history;
pub mod journal;
pub mod memory;
pub mod prefix;
pub mod record;
pub mod server;
pub mod state;
pub mod wire;

pub use address::{Address, Cluster, open, parse_address, shown};
pub use client::Client;
#[cfg(feature = "etcd")]
pub use etcd::Etcd;
pub use file::Directory;
pub use journal::Fsync;
pub use memory::Memory;
pub use prefix::Prefix;
pub use server::{Keys, Server};

use crate::error::Result;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::{Duration, Instant};

/// Revision of the whole store: grows with every change.
pub type Revision = u64;

/// Names a lease: keys written under it vanish when it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
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

    /// Waits until something under `prefix` has changed (set or deleted) after revision `after`, then answers
    /// what lies there now. Returns at once when that is so already, or when the store cannot tell; 0 is before
    /// every change.
    fn watch(&self, prefix: &[u8], after: Revision, deadline: Instant) -> Result<Snapshot>;

    /// A new lease. It ends `ttl` after the last sign of life of this client (any request, or the keep-alive
    /// that the client sends by itself while a call waits), when the client is gone (over TCP: when the store sees
    /// its connection end), or when revoked. Of a store that was away and has come back with what it knew, the time
    /// begins anew then, for the client to come back, too.
    fn lease(&self, ttl: Duration, deadline: Instant) -> Result<LeaseId>;

    /// Ends a lease now.
    fn revoke(&self, lease: LeaseId, deadline: Instant) -> Result<()>;
}

/// The part of a map whose keys start with `prefix`, in order.
fn under<'a, V>(
    map: &'a BTreeMap<Vec<u8>, V>,
    prefix: &'a [u8],
) -> impl Iterator<Item = (&'a Vec<u8>, &'a V)> {
    map.range::<[u8], _>((Bound::Included(prefix), Bound::Unbounded))
        .take_while(move |(key, _)| key.starts_with(prefix))
}

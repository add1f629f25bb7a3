//! A part of another store, as a store.

use super::{LeaseId, Revision, Snapshot, Store, Swap};
use crate::error::{Error, Result};
use crate::sync::Arc;
use std::time::{Duration, Instant};

/// Puts a prefix in front of every key and takes it off again: whoever holds it sees nothing else of the
/// store. Revisions and leases are the inner store's.
#[derive(Clone)]
pub struct Prefix {
    inner: Arc<dyn Store>,
    prefix: Vec<u8>,
}

impl Prefix {
    /// The part of `inner` under `prefix`.
    pub fn new(inner: Arc<dyn Store>, prefix: &[u8]) -> Prefix {
        Prefix { inner, prefix: prefix.to_vec() }
    }

    fn full(&self, key: &[u8]) -> Vec<u8> {
        [&self.prefix, key].concat()
    }

    fn strip(&self, mut snapshot: Snapshot) -> Result<Snapshot> {
        for e in &mut snapshot.entries {
            if !e.key.starts_with(&self.prefix) {
                return Err(Error::internal("store: answered a key outside of the prefix"));
            }
            e.key.drain(..self.prefix.len());
        }
        Ok(snapshot)
    }
}

impl Store for Prefix {
    fn get(&self, key: &[u8], deadline: Instant) -> Result<Option<Vec<u8>>> {
        self.inner.get(&self.full(key), deadline)
    }

    fn set(&self, key: &[u8], value: &[u8], lease: Option<LeaseId>, deadline: Instant) -> Result<()> {
        self.inner.set(&self.full(key), value, lease, deadline)
    }

    fn compare_and_set(
        &self,
        key: &[u8],
        expected: Option<&[u8]>,
        new: Option<&[u8]>,
        lease: Option<LeaseId>,
        deadline: Instant,
    ) -> Result<Swap> {
        self.inner.compare_and_set(&self.full(key), expected, new, lease, deadline)
    }

    fn delete_prefix(&self, prefix: &[u8], deadline: Instant) -> Result<u64> {
        self.inner.delete_prefix(&self.full(prefix), deadline)
    }

    fn list(&self, prefix: &[u8], deadline: Instant) -> Result<Snapshot> {
        self.strip(self.inner.list(&self.full(prefix), deadline)?)
    }

    fn watch(&self, prefix: &[u8], after: Revision, deadline: Instant) -> Result<Snapshot> {
        self.strip(self.inner.watch(&self.full(prefix), after, deadline)?)
    }

    fn lease(&self, ttl: Duration, deadline: Instant) -> Result<LeaseId> {
        self.inner.lease(ttl, deadline)
    }

    fn revoke(&self, lease: LeaseId, deadline: Instant) -> Result<()> {
        self.inner.revoke(lease, deadline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Memory;

    #[test]
    fn it_sees_its_part_and_nothing_else() {
        let deadline = Instant::now() + Duration::from_secs(5);
        let whole: Arc<dyn Store> = Arc::new(Memory::new());
        let part = Prefix::new(whole.clone(), b"w/");
        part.set(b"k", b"1", None, deadline).unwrap();
        whole.set(b"other", b"2", None, deadline).unwrap();
        assert_eq!(whole.get(b"w/k", deadline).unwrap().as_deref(), Some(&b"1"[..]));
        assert_eq!(part.get(b"other", deadline).unwrap(), None);
        assert_eq!(part.list(b"", deadline).unwrap().entries.len(), 1);
        assert_eq!(part.delete_prefix(b"", deadline).unwrap(), 1);
        assert_eq!(whole.list(b"", deadline).unwrap().entries.len(), 1);
    }
}

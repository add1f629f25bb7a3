//! Which keys were deleted when, so that a watch that begins later still learns of it. Bounded: the oldest
//! are forgotten.

use super::Revision;
use std::collections::BTreeMap;

const MAX_KEYS: usize = 16 * 1024;
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// The deleted keys that have not been set again.
#[derive(Debug, Default)]
pub struct Deleted {
    by_key: BTreeMap<Vec<u8>, Revision>,
    by_revision: BTreeMap<Revision, Vec<u8>>,
    bytes: usize,
    /// Deletions up to here may be missing above.
    forgotten: Revision,
}

impl Deleted {
    /// Knows nothing of deletions up to `revision`.
    pub fn new(revision: Revision) -> Deleted {
        Deleted { forgotten: revision, ..Deleted::default() }
    }

    /// Deletions up to this revision may be missing.
    pub fn forgotten(&self) -> Revision {
        self.forgotten
    }

    /// The keys in the order of their deletion.
    pub fn iter(&self) -> impl Iterator<Item = (&Vec<u8>, Revision)> {
        self.by_revision.iter().map(|(revision, key)| (key, *revision))
    }

    /// `key` was deleted at `revision`, which is later than all before.
    pub fn insert(&mut self, key: Vec<u8>, revision: Revision) {
        self.remove(&key);
        self.bytes += key.len();
        self.by_key.insert(key.clone(), revision);
        self.by_revision.insert(revision, key);
        while self.by_key.len() > MAX_KEYS || self.bytes > MAX_BYTES {
            let Some((revision, key)) = self.by_revision.pop_first() else { break };
            self.by_key.remove(&key);
            self.bytes -= key.len();
            self.forgotten = revision;
        }
    }

    /// `key` exists again.
    pub fn remove(&mut self, key: &[u8]) {
        if let Some(revision) = self.by_key.remove(key) {
            self.by_revision.remove(&revision);
            self.bytes -= key.len();
        }
    }

    /// Whether a key under `prefix` was, or may have been, deleted after revision `after`.
    pub fn any_after(&self, prefix: &[u8], after: Revision) -> bool {
        after < self.forgotten || super::under(&self.by_key, prefix).any(|(_, &revision)| revision > after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_are_forgotten_and_then_assumed() {
        let mut deleted = Deleted::default();
        let count = MAX_KEYS as u64 + 10;
        for n in 1..=count {
            deleted.insert(format!("a/{n}").into_bytes(), n);
        }
        assert_eq!(deleted.by_key.len(), MAX_KEYS);
        assert_eq!(deleted.by_revision.len(), MAX_KEYS);
        assert!(deleted.any_after(b"b", 9), "what was forgotten may have lain anywhere");
        assert!(!deleted.any_after(b"b", 10));
        assert!(deleted.any_after(b"a/", count - 1));
        assert!(!deleted.any_after(b"a/", count));
        deleted.remove(format!("a/{count}").as_bytes());
        assert!(!deleted.any_after(b"a/", count - 1));
    }

    #[test]
    fn a_key_is_remembered_once() {
        let mut deleted = Deleted::default();
        deleted.insert(b"k".to_vec(), 1);
        deleted.insert(b"k".to_vec(), 2);
        assert_eq!((deleted.by_key.len(), deleted.by_revision.len(), deleted.bytes), (1, 1, 1));
        deleted.remove(b"k");
        assert_eq!((deleted.by_key.len(), deleted.by_revision.len(), deleted.bytes), (0, 0, 0));
    }
}

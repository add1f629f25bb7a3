//! Rendezvous and membership: a small key-value store with compare-and-set, waiting and leases.
//!
//! Not in the data path: worlds that exist never ask it anything.
//!
//! | module | provides |
//! |---|---|
//! | `server`, `client` | the built-in store over TCP |
//! | `memory` | the same store inside one process |
//! | `prefix` | a part of another store, as a store |
//! | `state`, `deleted` | what a store knows and answers; no I/O, no clock |
//! | `wire` | the codec |
//! | `record`, `history` | what a store that outlives its process writes down, and reads again; no I/O |
//! | `journal` | the files that hold it |
//! | `calls` | the trait's calls as requests and answers of the codec |

mod calls;
pub mod client;
#[cfg(test)]
mod conformance;
mod deleted;
pub mod history;
pub mod journal;
pub mod memory;
pub mod prefix;
pub mod record;
pub mod server;
pub mod state;
pub mod wire;

pub use client::Client;
pub use journal::Fsync;
pub use memory::Memory;
pub use prefix::Prefix;
pub use server::{Keys, Server};

use crate::error::{Error, Result};
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

/// The host and the port of an address `tcp://host:port`; an IPv6 address stands in brackets.
pub fn parse_address(address: &str) -> Result<(String, u16)> {
    let wrong = |why: &str| Error::argument(format!("store: {address:?} {why}; expected tcp://host:port"));
    let rest = address.strip_prefix("tcp://").ok_or_else(|| wrong("does not begin with tcp://"))?;
    let (host, port) = rest.rsplit_once(':').ok_or_else(|| wrong("has no port"))?;
    let host = match host.strip_prefix('[') {
        Some(inner) => {
            let inner = inner.strip_suffix(']').ok_or_else(|| wrong("has a bracket without its pair"))?;
            if inner.parse::<std::net::Ipv6Addr>().is_err() {
                return Err(wrong("has no IPv6 address between its brackets"));
            }
            inner
        }
        None if host.contains(':') => return Err(wrong("has an IPv6 address without brackets")),
        None => host,
    };
    if host.is_empty() {
        return Err(wrong("has no host"));
    }
    if host.chars().any(|c| c.is_whitespace() || c.is_control() || "/[]@?#".contains(c)) {
        return Err(wrong("has a host with characters that no host name has"));
    }
    // u16::from_str would take a sign.
    let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    let port = port.parse::<u16>().ok().filter(|&p| digits && p != 0);
    let port = port.ok_or_else(|| wrong("has a port that is not between 1 and 65535"))?;
    Ok((host.to_owned(), port))
}

/// The part of a map whose keys start with `prefix`, in order.
fn under<'a, V>(
    map: &'a BTreeMap<Vec<u8>, V>,
    prefix: &'a [u8],
) -> impl Iterator<Item = (&'a Vec<u8>, &'a V)> {
    map.range::<[u8], _>((Bound::Included(prefix), Bound::Unbounded))
        .take_while(move |(key, _)| key.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_parse() {
        let ok = |s| parse_address(s).unwrap();
        assert_eq!(ok("tcp://node-1.example:29500"), ("node-1.example".into(), 29500));
        assert_eq!(ok("tcp://127.0.0.1:1"), ("127.0.0.1".into(), 1));
        assert_eq!(ok("tcp://[fe80::1]:65535"), ("fe80::1".into(), 65535));
    }

    #[test]
    fn wrong_addresses_say_why() {
        for (address, why) in [
            ("", "tcp://"),
            ("host:1", "tcp://"),
            ("etcd://host:1", "tcp://"),
            ("tcp://host", "no port"),
            ("tcp://:1", "no host"),
            ("tcp://host:", "port"),
            ("tcp://host:0", "port"),
            ("tcp://host:+1", "port"),
            ("tcp://host:65536", "port"),
            ("tcp://host:12x", "port"),
            ("tcp://::1:12", "brackets"),
            ("tcp://[::1:12", "bracket"),
            ("tcp://[host]:12", "IPv6"),
            ("tcp://a b:12", "characters"),
            ("tcp://user@host:12", "characters"),
            ("tcp://host/path:12", "characters"),
        ] {
            let e = parse_address(address).unwrap_err();
            assert_eq!(e.code, crate::error::Code::InvalidArgument);
            assert!(e.text.contains(why), "{address}: {e}");
        }
    }
}

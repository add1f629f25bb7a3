//! Addresses of stores.

use super::{Client, Directory, Store};
use crate::auth::KeyId;
use crate::error::{Error, Result};
use crate::sync::Arc;
use crate::types::Secret;
use std::path::PathBuf;
use std::time::Instant;

/// What an address means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `tcp://host:port`: the built-in store.
    Tcp {
        /// A name or a number.
        host: String,
        /// The port.
        port: u16,
    },
    /// `file:///dir`: a directory of this machine.
    File(PathBuf),
}

impl Address {
    /// Reads an address.
    pub fn parse(address: &str) -> Result<Address> {
        if let Some(path) = address.strip_prefix("file://") {
            return directory(address, path).map(Address::File);
        }
        if address.starts_with("tcp://") {
            let (host, port) = parse_address(address)?;
            return Ok(Address::Tcp { host, port });
        }
        let text = format!("store: {address:?} begins with none of tcp://, file://");
        Err(Error::argument(text))
    }
}

/// A connection to the store at `address`. The built-in store asks for proof of `secret`, of which `key` says
/// which it is; a directory is its owner's.
pub fn open(address: &str, key: KeyId, secret: &Secret, deadline: Instant) -> Result<Arc<dyn Store>> {
    Ok(match Address::parse(address)? {
        Address::Tcp { .. } => Arc::new(Client::connect(address, key, secret, deadline)?),
        Address::File(path) => Arc::new(Directory::open(&path)?),
    })
}

fn directory(address: &str, path: &str) -> Result<PathBuf> {
    let wrong = |why: &str| Error::argument(format!("store: {address:?} {why}; expected file:///directory"));
    if path.is_empty() {
        return Err(wrong("has no path"));
    }
    if !path.starts_with('/') {
        return Err(wrong("has a path that does not begin with /"));
    }
    if path.contains('\0') {
        return Err(wrong("has a NUL in its path"));
    }
    if path.trim_matches('/').is_empty() {
        return Err(wrong("is the root of all directories"));
    }
    Ok(PathBuf::from(path))
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
    fn directories_and_unknown_kinds() {
        let file = |s| Address::parse(s);
        assert_eq!(file("file:///a b/c").unwrap(), Address::File("/a b/c".into()));
        for (address, why) in [
            ("file://", "no path"),
            ("file://host/dir", "does not begin with /"),
            ("file:///", "root"),
            ("file:///a\0", "NUL"),
            ("/dir", "none of tcp://, file://"),
            ("tcp://h", "no port"),
        ] {
            let e = file(address).unwrap_err();
            assert!(e.code == crate::error::Code::InvalidArgument && e.text.contains(why), "{address}: {e}");
        }
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

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
    /// `etcd://[user:password@]host:port[,host:port...][/prefix]`, or with `etcds`: an etcd cluster.
    Etcd(Cluster),
}

/// An etcd cluster, and the part of it that is ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Whether its members are spoken to through TLS.
    pub tls: bool,
    /// User and password, where it asks for them.
    pub user: Option<(String, Secret)>,
    /// Hosts and ports of members, at least one.
    pub endpoints: Vec<(String, u16)>,
    /// In front of every key; ends with a slash.
    pub prefix: String,
}

/// Longest prefix of an etcd address.
const MAX_PREFIX: usize = 512;

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
        for (scheme, tls) in [("etcd://", false), ("etcds://", true)] {
            let Some(rest) = address.strip_prefix(scheme) else { continue };
            return cluster(rest, tls).map(Address::Etcd).map_err(|why| {
                let form = "[user:password@]host:port[,host:port...][/prefix]";
                Error::argument(format!("store: {:?} {why}; expected {scheme}{form}", shown(address)))
            });
        }
        let address = shown(address);
        let text = format!("store: {address:?} begins with none of tcp://, file://, etcd://, etcds://");
        Err(Error::argument(text))
    }
}

/// A connection to the store at `address`. The built-in store asks for proof of `secret`, of which `key` says
/// which it is; a directory is its owner's; an etcd cluster has users and certificates of its own.
pub fn open(address: &str, key: KeyId, secret: &Secret, deadline: Instant) -> Result<Arc<dyn Store>> {
    Ok(match Address::parse(address)? {
        Address::Tcp { .. } => Arc::new(Client::connect(address, key, secret, deadline)?),
        Address::File(path) => Arc::new(Directory::open(&path)?),
        #[cfg(feature = "etcd")]
        Address::Etcd(cluster) => Arc::new(super::Etcd::connect(cluster, deadline)?),
        #[cfg(not(feature = "etcd"))]
        Address::Etcd(_) => {
            return Err(Error::usage("store: this library was built without the feature etcd"));
        }
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
    host_and_port(rest).map_err(wrong)
}

/// Reads `host:port`; says what is wrong with it.
fn host_and_port(text: &str) -> std::result::Result<(String, u16), &'static str> {
    let (host, port) = text.rsplit_once(':').ok_or("has no port")?;
    let host = match host.strip_prefix('[') {
        Some(inner) => {
            let inner = inner.strip_suffix(']').ok_or("has a bracket without its pair")?;
            if inner.parse::<std::net::Ipv6Addr>().is_err() {
                return Err("has no IPv6 address between its brackets");
            }
            inner
        }
        None if host.contains(':') => return Err("has an IPv6 address without brackets"),
        None => host,
    };
    if host.is_empty() {
        return Err("has no host");
    }
    if host.chars().any(|c| c.is_whitespace() || c.is_control() || "/[]@?#".contains(c)) {
        return Err("has a host with characters that no host name has");
    }
    // u16::from_str would take a sign.
    let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    let port = port.parse::<u16>().ok().filter(|&p| digits && p != 0);
    Ok((host.to_owned(), port.ok_or("has a port that is not between 1 and 65535")?))
}

/// Reads `[user:password@]host:port[,host:port...][/prefix]`, what comes after `etcd://` or `etcds://`.
fn cluster(text: &str, tls: bool) -> std::result::Result<Cluster, &'static str> {
    let (authority, path) = text.split_once('/').unwrap_or((text, ""));
    let (user, hosts) = match authority.rsplit_once('@') {
        None => (None, authority),
        Some((user, hosts)) => {
            let (name, password) = user.split_once(':').ok_or("has a user without a password")?;
            let name = decoded(name).ok_or("has a user with a wrong %-sequence")?;
            let password = decoded(password).ok_or("has a password with a wrong %-sequence")?;
            if name.is_empty() || password.is_empty() {
                return Err("has an empty user or password");
            }
            (Some((name, Secret(password.into_bytes()))), hosts)
        }
    };
    let endpoints = hosts.split(',').map(host_and_port).collect::<std::result::Result<Vec<_>, _>>()?;
    let prefix = match path.trim_matches('/') {
        "" => "multiworld",
        path if path.chars().any(|c| c.is_control() || "?#".contains(c)) => {
            return Err("has a prefix with a control character, ? or #");
        }
        path if path.len() > MAX_PREFIX => return Err("has a prefix that is too long"),
        path => path,
    };
    Ok(Cluster { tls, user, endpoints, prefix: format!("{prefix}/") })
}

/// Without %-sequences.
fn decoded(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            out.push(*first);
            continue;
        }
        let (digits, after) = rest.split_first_chunk::<2>()?;
        rest = after;
        let digit = |b: u8| char::from(b).to_digit(16);
        out.push((digit(digits[0])? * 16 + digit(digits[1])?) as u8);
    }
    String::from_utf8(out).ok()
}

/// A cluster's address as it may be shown.
#[cfg(feature = "etcd")]
pub(super) fn shown_cluster(cluster: &Cluster) -> String {
    let scheme = if cluster.tls { "etcds" } else { "etcd" };
    let hosts: Vec<String> = cluster
        .endpoints
        .iter()
        .map(|(host, port)| match host.contains(':') {
            true => format!("[{host}]:{port}"),
            false => format!("{host}:{port}"),
        })
        .collect();
    format!("{scheme}://{}", hosts.join(","))
}

/// An address as it may be shown: without a password.
pub fn shown(address: &str) -> String {
    let Some((scheme, rest)) = address.split_once("://") else { return address.to_string() };
    let authority = rest.split('/').next().unwrap_or(rest);
    // A password may contain what it should not, a slash for one.
    match if authority.contains('@') { authority.rfind('@') } else { rest.rfind('@') } {
        Some(at) => format!("{scheme}://...{}", rest.get(at..).unwrap_or_default()),
        None => address.to_string(),
    }
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
            ("etcd:", "none of"),
            ("http://u:hidden@h:1", "none of"),
            ("etcd://", "no port"),
            ("etcd://h:1,", "no port"),
            ("etcd://h:1,:2", "no host"),
            ("etcds://h:1?x=y", "between 1 and"),
            ("etcd://hidden@h:1", "without a password"),
            ("etcd://u:hidden%2@h:1", "%-sequence"),
            ("etcd://u:hi/dden@h:1", "between 1 and"),
            ("etcd://:hidden@h:1", "empty user"),
            ("etcd://h:1/a?b", "prefix"),
            ("tcp://h", "no port"),
        ] {
            let e = file(address).unwrap_err();
            assert!(e.code == crate::error::Code::InvalidArgument && e.text.contains(why), "{address}: {e}");
            assert!(!e.text.contains("hidden") && !e.text.contains("dden"), "{e}");
        }
    }

    #[test]
    fn clusters_parse() {
        let ok = |s| match Address::parse(s).unwrap() {
            Address::Etcd(cluster) => cluster,
            other => panic!("{other:?}"),
        };
        let all = ok("etcds://me:p%40s%2fs@a:1,[::1]:2,c:3/jobs/7/");
        assert_eq!(all.endpoints, [("a".into(), 1), ("::1".into(), 2), ("c".into(), 3)]);
        assert_eq!(all.user, Some(("me".into(), Secret(b"p@s/s".to_vec()))));
        assert_eq!((all.tls, &*all.prefix), (true, "jobs/7/"));
        let least = ok("etcd://h:2379");
        assert_eq!((least.tls, &*least.prefix, least.user), (false, "multiworld/", None));
        assert!(!format!("{all:?}").contains("p@s"));
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

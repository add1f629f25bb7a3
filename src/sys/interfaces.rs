//! Which address to listen on: NCCL's syntax, and its rules where it has any; but what leads to the others comes first.

use crate::error::{Error, Result};
use std::ffi::CStr;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

struct Interface {
    name: String,
    ip: IpAddr,
    loopback: bool,
    /// A cable is plugged in, as far as the system knows.
    running: bool,
}

fn interfaces() -> io::Result<Vec<Interface>> {
    let mut out = Vec::new();
    let mut list = std::ptr::null_mut();
    // SAFETY: getifaddrs fills `list`, a linked list that stays valid until freeifaddrs; addresses are read as the
    // structures their family says.
    unsafe {
        if libc::getifaddrs(&mut list) != 0 {
            return Err(io::Error::last_os_error());
        }
        let mut p = list;
        while !p.is_null() {
            let i = &*p;
            p = i.ifa_next;
            if i.ifa_addr.is_null() || i.ifa_flags & libc::IFF_UP as u32 == 0 {
                continue;
            }
            let ip = match i32::from((*i.ifa_addr).sa_family) {
                libc::AF_INET => {
                    let a = i.ifa_addr.cast::<libc::sockaddr_in>().read_unaligned();
                    IpAddr::V4(Ipv4Addr::from(u32::from_be(a.sin_addr.s_addr)))
                }
                libc::AF_INET6 => {
                    let a = i.ifa_addr.cast::<libc::sockaddr_in6>().read_unaligned();
                    IpAddr::V6(Ipv6Addr::from(a.sin6_addr.s6_addr))
                }
                _ => continue,
            };
            let name = CStr::from_ptr(i.ifa_name).to_string_lossy().into_owned();
            let has = |flag: libc::c_int| i.ifa_flags & flag as u32 != 0;
            out.push(Interface {
                name,
                ip,
                loopback: has(libc::IFF_LOOPBACK),
                running: has(libc::IFF_RUNNING),
            });
        }
        libc::freeifaddrs(list);
    }
    Ok(out)
}

fn usable(i: &Interface) -> bool {
    match i.ip {
        IpAddr::V4(_) => true,
        // Link-local addresses need a scope that peers do not know.
        IpAddr::V6(a) => a.segments()[0] & 0xffc0 != 0xfe80,
    }
}

/// Whether `spec` chooses the interface `name`: a comma-separated list of prefixes; `=` in front asks for whole
/// names, `^` for all others.
fn chosen(spec: &str, name: &str) -> bool {
    let (not, rest) = spec.strip_prefix('^').map_or((false, spec), |r| (true, r));
    let (exact, rest) = rest.strip_prefix('=').map_or((false, rest), |r| (true, r));
    let hit = rest
        .split(',')
        .filter(|w| !w.is_empty())
        .any(|w| if exact { w == name } else { name.starts_with(w) });
    hit != not
}

/// The address from which this machine speaks to `peer`, if it has a way there. Sends nothing.
fn source_toward(peer: IpAddr) -> Option<IpAddr> {
    let any: IpAddr =
        if peer.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    // Any port will do.
    socket.connect((peer, 9)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// The address to listen on, of the interfaces that `spec` chooses if there is one: that from which this machine speaks
/// to `peer`, whom the others reach as well. If that is not known, or on this machine only: of the first interface that is
/// up and running and not loopback or docker, else loopback.
pub fn choose(spec: Option<&str>, peer: Option<IpAddr>) -> Result<IpAddr> {
    let all = interfaces().map_err(|e| Error::system("getifaddrs", &e))?;
    let source = peer.filter(|peer| !peer.is_loopback()).and_then(source_toward);
    pick(&all, spec, source).ok_or_else(|| {
        Error::argument(format!("ifname: no interface with an address matches '{}'", spec.unwrap_or("")))
    })
}

fn pick(all: &[Interface], spec: Option<&str>, source: Option<IpAddr>) -> Option<IpAddr> {
    let mut fit: Vec<&Interface> = all.iter().filter(|i| usable(i)).collect();
    if let Some(spec) = spec {
        fit.retain(|i| chosen(spec, &i.name));
    }
    if let Some(found) = fit.iter().find(|i| Some(i.ip) == source) {
        return Some(found.ip);
    }
    if spec.is_none() {
        fit.retain(|i| i.loopback || !i.name.starts_with("docker"));
        fit.sort_by_key(|i| (i.loopback, !i.running));
    }
    // IPv4 first, as NCCL does, unless there is none on the interface chosen.
    let first = fit.first()?;
    let mut on_first = fit.iter().filter(|i| i.name == first.name);
    on_first.find(|i| i.ip.is_ipv4()).or(Some(first)).map(|i| i.ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spec_is_read_as_nccl_reads_it() {
        assert!(chosen("eth", "eth0") && !chosen("=eth", "eth0") && chosen("=eth0", "eth0"));
        assert!(chosen("^docker,lo", "eth0") && !chosen("^docker,lo", "lo") && chosen("ib,eth", "eth1"));
        assert!(chosen("^=eth0", "eth00") && !chosen("^=eth0", "eth0"));
    }

    #[test]
    fn loopback_can_be_asked_for() {
        let here = Some(Ipv4Addr::LOCALHOST.into());
        assert!(choose(Some("lo"), None).unwrap().is_loopback());
        assert!(choose(Some("lo"), here).unwrap().is_loopback());
        assert_eq!(choose(None, here).unwrap(), choose(None, None).unwrap(), "loopback leads nowhere");
        assert!(choose(Some("no-such-interface"), None).is_err());
    }

    #[test]
    fn what_leads_to_the_others_comes_first() {
        let interface = |name: &str, ip: &str, running| Interface {
            name: name.into(),
            ip: ip.parse().unwrap(),
            loopback: name == "lo",
            running,
        };
        let all = [
            interface("lo", "127.0.0.1", true),
            interface("docker0", "172.17.0.1", true),
            interface("eth0", "10.0.0.1", false),
            interface("eth1", "10.0.1.1", true),
            interface("eth2", "10.0.2.1", true),
            interface("eth2", "fe80::1", true),
            interface("eth2", "fd00::2", true),
        ];
        let pick = |spec, source: Option<&str>| {
            super::pick(&all, spec, source.map(|s| s.parse().unwrap())).unwrap().to_string()
        };
        assert_eq!(pick(None, None), "10.0.1.1", "no cable in the first");
        assert_eq!(pick(None, Some("10.0.2.1")), "10.0.2.1");
        assert_eq!(pick(None, Some("fd00::2")), "fd00::2", "of the store's family");
        assert_eq!(pick(None, Some("172.17.0.1")), "172.17.0.1", "the others are in containers");
        assert_eq!(pick(Some("eth0"), Some("10.0.2.1")), "10.0.0.1", "what is asked for counts");
        assert_eq!(pick(Some("eth"), Some("10.0.2.1")), "10.0.2.1", "of what is asked for");
        assert_eq!(pick(Some("=eth2"), None), "10.0.2.1", "IPv4 first");
        assert_eq!(pick(None, Some("fe80::1")), "10.0.1.1", "peers do not know its scope");
    }
}

//! Which address to listen on: NCCL's rules and syntax.

use crate::error::{Error, Result};
use std::ffi::CStr;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

struct Interface {
    name: String,
    ip: IpAddr,
    loopback: bool,
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
            out.push(Interface { name, ip, loopback: i.ifa_flags & libc::IFF_LOOPBACK as u32 != 0 });
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

/// The address to listen on. Without `spec`: the first interface that is up and not loopback or docker, else
/// loopback.
pub fn choose(spec: Option<&str>) -> Result<IpAddr> {
    let all = interfaces().map_err(|e| Error::system("getifaddrs", &e))?;
    let mut fit: Vec<&Interface> = all.iter().filter(|i| usable(i)).collect();
    match spec {
        Some(spec) => fit.retain(|i| chosen(spec, &i.name)),
        None => {
            fit.retain(|i| i.loopback || !i.name.starts_with("docker"));
            fit.sort_by_key(|i| i.loopback);
        }
    }
    // IPv4 first, as NCCL does, unless there is none on the interface chosen.
    let first = fit.first().map(|i| i.name.clone());
    let on_first = || fit.iter().filter(|i| Some(&i.name) == first.as_ref());
    on_first().find(|i| i.ip.is_ipv4()).or_else(|| on_first().next()).map(|i| i.ip).ok_or_else(|| {
        Error::argument(format!("ifname: no interface with an address matches '{}'", spec.unwrap_or("")))
    })
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
        assert!(choose(Some("lo")).unwrap().is_loopback());
        assert!(choose(Some("no-such-interface")).is_err());
    }
}

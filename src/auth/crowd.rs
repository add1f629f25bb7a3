//! Who gives way when too many are in their handshake at once.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

/// Of those who wait, the oldest first, each with where it comes from: the one that has waited longest among those from
/// where most come from. So a flood from one place takes no place from anybody else.
pub fn gives_way<T>(waiting: impl Iterator<Item = (T, Option<IpAddr>)> + Clone) -> Option<T> {
    let mut count: HashMap<Option<IpAddr>, usize> = HashMap::new();
    for (_, from) in waiting.clone() {
        *count.entry(place(from)).or_default() += 1;
    }
    let most = count.values().copied().max()?;
    // Of several such places the one whose oldest is the oldest of all.
    waiting.into_iter().find(|(_, from)| count.get(&place(*from)) == Some(&most)).map(|(who, _)| who)
}

/// What counts as one place: one machine has all of an IPv6 network of 64 bits.
fn place(from: Option<IpAddr>) -> Option<IpAddr> {
    from.map(|ip| match ip.to_canonical() {
        IpAddr::V6(v6) => {
            let mut octets = v6.octets();
            octets[8..].fill(0);
            Ipv6Addr::from(octets).into()
        }
        v4 => v4,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn give(waiting: &[(u32, &str)]) -> Option<u32> {
        gives_way(waiting.iter().map(|(who, from)| (*who, from.parse().ok())))
    }

    #[test]
    fn a_flood_takes_no_place_from_others() {
        assert_eq!(give(&[]), None);
        assert_eq!(give(&[(1, "10.0.0.1"), (2, "10.0.0.2"), (3, "10.0.0.2")]), Some(2));
        assert_eq!(give(&[(1, "here"), (2, "10.0.0.2")]), Some(1));
        assert_eq!(give(&[(1, "here"), (2, "10.0.0.2"), (3, "::ffff:10.0.0.2")]), Some(2));
        assert_eq!(give(&[(1, "here"), (2, "fd00::1"), (3, "fd00::2")]), Some(2));
        assert_eq!(give(&[(1, "fd00:1::1"), (2, "fd00:2::1"), (3, "fd00:2::1")]), Some(2));
    }
}
